use std::{collections::BTreeSet, fs, io, os::unix::fs::PermissionsExt as _, time::Duration};

use api::ports;
use tokio::time::sleep;

use super::*;
use crate::{
    config::Invocation,
    testing::programs::{FOR_EVER, READY, content, ends, runs},
};

struct Setting {
    directory: tempfile::TempDir,
    backend: ProcessBackend,
}

/// Shell scripts for the hypervisor and the enclave.
fn setting(hypervisor: &str, enclave: &str) -> Setting {
    let directory = tempfile::tempdir().unwrap();
    let path = |name| directory.path().join(name);
    for name in ["sign-service", "enclave.toml"] {
        fs::write(path(name), name).unwrap();
    }
    for (name, text) in [("hypervisor", hypervisor), ("enclave", enclave)] {
        fs::write(path(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(0o700)).unwrap();
    }
    let hypervisor = Invocation { program: path("hypervisor"), arguments: vec!["nsm".to_owned()] };
    let (sign_service, config) = (path("sign-service"), path("enclave.toml"));
    let programs = Process { enclave: path("enclave"), sign_service, config, hypervisor, vsock: false };
    let backend = ProcessBackend::new(programs, &path("run"));
    fs::create_dir(path("run")).unwrap();
    Setting { directory, backend }
}

impl Setting {
    async fn launch(&self) -> Result<Box<dyn Launched>, BackendError> {
        // A file written a moment ago may be held open by a child that another test is forking ("text file busy").
        for _ in 0..100 {
            match self.backend.stage()?.launch().await {
                Err(BackendError::Start { source, .. })
                    if source.kind() == io::ErrorKind::ExecutableFileBusy =>
                {
                    sleep(Duration::from_millis(20)).await;
                }
                launched => return launched,
            }
        }
        panic!("the script stays busy")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("run/vm").join(name)
    }

    async fn content(&self, name: &str) -> String {
        content(&self.path(name)).await
    }
}

#[tokio::test]
async fn the_programs_run_in_a_fresh_private_directory_with_the_arguments_of_the_interface() {
    let setting = setting(
        &format!(r#"echo "$@" > arguments; {READY} {FOR_EVER}"#),
        &format!(r#"echo "$PWD $1" > where; {FOR_EVER}"#),
    );
    fs::create_dir(setting.path("")).unwrap();
    fs::write(setting.path("left-over"), "").unwrap();
    let _launched = setting.launch().await.unwrap();
    assert!(!setting.path("left-over").exists());
    assert_eq!(fs::metadata(setting.path("")).unwrap().permissions().mode() & 0o777, 0o700);
    let base = setting.directory.path().display();
    let arguments = format!(
        "nsm --socket nsm.sock --enclave {base}/enclave --sign-service {base}/sign-service --config {base}/enclave.toml\n"
    );
    assert_eq!(setting.content("arguments").await, arguments);
    assert_eq!(setting.content("where").await, format!("{base}/run/vm {base}/enclave.toml\n"));
}

#[tokio::test]
async fn the_environment_is_empty_but_for_two_variables() {
    let setting = setting(&format!("{READY} {FOR_EVER}"), &format!("/usr/bin/env > environment; {FOR_EVER}"));
    let _launched = setting.launch().await.unwrap();
    let environment = setting.content("environment").await;
    // The shell itself adds these.
    let allowed = ["PWD=", "_=", "SHLVL=", "OLDPWD=", "NITRO_SIGN_LOG=", "RUST_BACKTRACE="];
    for line in environment.lines() {
        assert!(allowed.iter().any(|name| line.starts_with(name)), "{line}");
    }
}

#[tokio::test]
async fn killing_an_enclave_ends_its_children_and_the_hypervisor_and_removes_the_directory() {
    let start_child = "sleep 1000 & echo $! > child; wait";
    let setting = setting(&format!("echo $$ > hypervisor-pid; {READY} {FOR_EVER}"), start_child);
    let mut launched = setting.launch().await.unwrap();
    let pids = [
        launched.pid().unwrap().to_string(),
        setting.content("child").await,
        setting.content("hypervisor-pid").await,
    ];
    assert!(pids.iter().all(|pid| runs(pid)));
    launched.kill().await;
    for pid in &pids {
        ends(pid).await;
    }
    drop(launched);
    assert!(!setting.path("").exists());
}

#[tokio::test]
async fn a_dropped_enclave_is_a_dead_enclave() {
    let setting = setting(&format!("{READY} {FOR_EVER}"), &format!("echo $$ > pid; {FOR_EVER}"));
    let launched = setting.launch().await.unwrap();
    let pid = setting.content("pid").await;
    drop(launched);
    ends(&pid).await;
    assert!(!setting.path("").exists());
}

#[tokio::test]
async fn an_end_is_told_with_its_status_and_last_words() {
    let setting = setting(&format!("{READY} {FOR_EVER}"), "echo first >&2; echo last words >&2; exit 7");
    let mut launched = setting.launch().await.unwrap();
    let exit = launched.exited().await;
    assert_eq!(exit, "the enclave ended (exit status: 7): last words");
    assert_eq!(launched.exited().await, exit);
}

#[tokio::test]
async fn without_its_hypervisor_an_enclave_counts_as_ended() {
    let setting = setting(&format!("{READY} sleep 0.2"), FOR_EVER);
    let mut launched = setting.launch().await.unwrap();
    assert!(launched.exited().await.starts_with("the hypervisor ended"));
}

#[tokio::test]
async fn a_hypervisor_that_does_not_become_ready_is_a_failed_launch() {
    for (script, problem) in [
        ("echo no authority >&2; exit 1", "exit status: 1): no authority"),
        ("echo hello; sleep 1000", "hello"),
        (r#"echo '{"ready":false}'; sleep 1000"#, "ready"),
    ] {
        let error = setting(script, FOR_EVER).launch().await.err().unwrap();
        assert!(matches!(error, BackendError::NotReady { .. }), "{error}");
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let setting = setting(&format!("{READY} {FOR_EVER}"), "");
    let staged = setting.backend.stage().unwrap();
    fs::remove_file(setting.directory.path().join("hypervisor")).unwrap();
    let error = staged.launch().await.err().unwrap();
    assert!(matches!(error, BackendError::Start { .. }));
    assert!(error.to_string().contains("`enclave.process.hypervisor`"), "{error}");
    assert!(!setting.path("").exists());

    fs::remove_file(setting.directory.path().join("enclave")).unwrap();
    let error = setting.backend.stage().err().unwrap();
    assert!(matches!(error, BackendError::Measure(_)));
    assert!(error.to_string().contains("enclave"), "{error}");
    assert!(setting.backend.measure().is_err());
}

#[tokio::test]
async fn the_enclave_is_met_in_its_directory_or_on_the_machines_own_context_id() {
    let mut setting = setting(&format!("{READY} {FOR_EVER}"), FOR_EVER);
    let launched = setting.launch().await.unwrap();
    assert_eq!(launched.peer(), Peer::Unix { path: setting.path("vm.vsock") });
    drop(launched);
    assert_eq!(setting.backend.stage().unwrap().caller(), None);

    setting.backend.programs.vsock = true;
    let staged = setting.backend.stage().unwrap();
    assert_eq!((staged.peer(), staged.caller()), (Peer::Vsock { cid: 1 }, Some(1)));
    drop(staged);
    assert_eq!(setting.launch().await.unwrap().peer(), Peer::Vsock { cid: 1 });
}

#[test]
fn both_sides_listen_at_different_ports_since_on_one_context_id_they_would_meet() {
    let ports = [ports::HEARTBEAT, ports::CONTROL, ports::KMS, ports::RELAY, ports::SIGN];
    assert_eq!(ports.into_iter().collect::<BTreeSet<_>>().len(), ports.len());
}
