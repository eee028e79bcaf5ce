//! The program itself: its lines, its exit codes, its signals.
use std::{
    io::{BufRead as _, BufReader, Read as _},
    os::unix::net::UnixListener,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    thread,
};

use api::sign::{GetAttestationRequest, sign_service_client::SignServiceClient};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{GATEWAY, NODE, World, must_connect, must_open, must_sign};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sign-service"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Writes the configuration of `world` with a software NSM behind a socket.
fn must_configure(world: &World) -> std::path::PathBuf {
    let socket = world.directory.path().join("nsm.sock");
    let (listener, nsm) = (UnixListener::bind(&socket).unwrap(), Arc::new(world.nsm()));
    thread::spawn(move || attestation::software::serve(listener, nsm));
    let config = &world.config;
    let text = format!(
        "key_share_file = \"{}\"\nlisten = \"{}\"\nnsm = \"unix:{}\"\nconfiguration = \"{}\"\n\
         sealed_bundle_sha384 = \"{}\"\nmax_sessions = {}\nsession_deadline_ms = {}\n",
        config.key_share_file.display(),
        config.listen,
        socket.display(),
        hex::encode(&config.configuration),
        hex::encode(config.sealed_bundle_sha384),
        config.max_sessions,
        config.session_deadline.as_millis(),
    );
    let path = world.directory.path().join("sign-service.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// Kills the program when a test fails before it has ended.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn must_read_line(child: &mut Child) -> serde_json::Value {
    let mut line = String::new();
    // One byte at a time is enough; a larger buffer would swallow what follows.
    let stdout = child.stdout.as_mut().unwrap();
    BufReader::with_capacity(1, stdout).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_one_line_serves_and_ends_well_on_sigterm() {
    let world = World::new();
    let mut guard = Guard(program().arg(must_configure(&world)).spawn().unwrap());
    let child = &mut guard.0;
    let ready = must_read_line(child);
    assert_eq!((&ready["ready"], &ready["accounts"]), (&true.into(), &2.into()));
    assert_eq!(ready["spki_sha256"].as_str().unwrap().len(), 64);
    assert!(ready["loaded_at_unix_ms"].as_u64().unwrap() > 1_700_000_000_000);
    assert_eq!(ready.as_object().unwrap().len(), 4);

    std::fs::remove_file(&world.config.key_share_file).unwrap();
    let mut client = SignServiceClient::new(must_connect(&world.endpoint(), world.ca.client()).await);
    must_sign(&mut client, &world.group, must_open("ed")).await;
    must_sign(&mut client, &world.group, must_open("tr")).await;
    client.get_attestation(GetAttestationRequest { nonce: vec![1; 32] }).await.unwrap();

    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let (mut rest, mut logs) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut logs).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{logs}");
    assert_eq!(rest, "", "nothing follows the ready line");
    for line in logs.lines() {
        serde_json::from_str::<serde_json::Value>(line).expect(line);
    }
    must_hold_no_secret(&world, &logs);
}

fn must_hold_no_secret(world: &World, logs: &str) {
    for party in [NODE, GATEWAY] {
        let bundle = world.group.bundle(party, &world.ca.pem());
        assert!(!logs.contains(&hex::encode(bundle.party_secret_key.expose())));
        for account in bundle.accounts.values() {
            assert!(!logs.contains(&hex::encode(account.share.expose())));
        }
    }
}

fn must_fail(world: &World) -> String {
    let Output { status, stdout, stderr } = program().arg(must_configure(world)).output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stdout.is_empty(), "no ready line");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    must_hold_no_secret(world, &stderr);
    stderr
}

#[test]
fn a_bundle_that_is_not_there_is_one_line_and_exit_code_1() {
    let world = World::new();
    std::fs::remove_file(&world.config.key_share_file).unwrap();
    assert!(must_fail(&world).contains("shares.json"));
}

#[test]
fn a_bundle_that_is_altered_is_one_line_and_exit_code_1_without_its_secrets() {
    let world = World::new();
    let text = std::fs::read_to_string(&world.config.key_share_file).unwrap();
    for altered in [text.replace("\"epoch\":7", "\"epoch\":\"seven\""), text[..text.len() - 9].to_owned()] {
        assert_ne!(altered, text);
        std::fs::write(&world.config.key_share_file, altered).unwrap();
        let _ = std::fs::remove_file(world.directory.path().join("nsm.sock"));
        assert!(must_fail(&world).contains("shares.json"));
    }
}

#[test]
fn an_endpoint_in_use_is_one_line_and_exit_code_1() {
    let world = World::new();
    let _taken = UnixListener::bind(world.directory.path().join("vm.vsock")).unwrap();
    assert!(must_fail(&world).contains("in use"));
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let output = program().arg("nowhere.toml").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("nowhere.toml"));
}

#[test]
fn help_version_and_bad_arguments() {
    let help = program().arg("--help").output().unwrap();
    assert!(
        help.status.success()
            && String::from_utf8(help.stdout).unwrap().contains("Usage: sign-service CONFIG")
    );
    let version = program().arg("--version").output().unwrap();
    assert!(version.status.success() && version.stdout.starts_with(b"sign-service 0."));
    for arguments in [&[][..], &["--debug"], &["a", "b"]] {
        let output = program().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("--help"));
    }
}
