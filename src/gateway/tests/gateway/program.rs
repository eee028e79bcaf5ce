//! The program: its ready line, its end, and how it refuses to start.

use std::{
    fs::{self, Permissions},
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::support::{World, get};

fn start(world: &World) -> Child {
    Command::new(env!("CARGO_BIN_EXE_gateway"))
        .arg("--config")
        .arg(world.path("gateway.toml"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Starts the program, which has to refuse; gives what it said.
fn must_refuse(world: &World) -> String {
    let output = start(world).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "it did not announce itself");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn it_says_where_it_listens_and_ends_on_sigterm() {
    let world = World::new();
    world.config(&["127.0.0.1:1"]);
    let mut child = start(&world);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    let answer = get(&format!("http://{}/v1/nodes", ready["address"].as_str().unwrap())).await;
    assert_eq!(answer.body[0]["name"], "node-0");

    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "one line and no more");
}

#[test]
fn an_identity_that_others_can_read_is_refused_with_the_remedy() {
    let world = World::new();
    world.config(&["127.0.0.1:1"]);
    fs::set_permissions(world.path("identity.txt"), Permissions::from_mode(0o644)).unwrap();
    let said = must_refuse(&world);
    assert!(said.contains("identity_file") && said.contains("chmod 600"), "{said}");
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_remedy() {
    let world = World::new();
    world.config(&["127.0.0.1:1"]);
    fs::set_permissions(world.path("client.key"), Permissions::from_mode(0o640)).unwrap();
    let said = must_refuse(&world);
    assert!(said.contains("tls_key") && said.contains("chmod 600"), "{said}");
}

#[test]
fn a_bundle_for_another_identity_is_refused() {
    let world = World::new();
    world.config(&["127.0.0.1:1"]);
    let other = keyshares::Identity::generate().to_text();
    fs::write(world.path("identity.txt"), secrecy::ExposeSecret::expose_secret(&other)).unwrap();
    let said = must_refuse(&world);
    assert!(said.contains("shares") && said.contains("gateway.json.age"), "{said}");
}

#[test]
fn a_truncated_bundle_is_refused() {
    let world = World::new();
    world.config(&["127.0.0.1:1"]);
    let path = world.path("gateway.json.age");
    let sealed = fs::read(&path).unwrap();
    fs::write(&path, &sealed[..sealed.len() - 1]).unwrap();
    let said = must_refuse(&world);
    assert!(said.contains("gateway.json.age"), "{said}");
}

#[test]
fn a_share_that_does_not_match_its_public_key_is_refused() {
    let world = World::new();
    world.config(&["127.0.0.1:1"]);
    let identity = keyshares::Identity::generate();
    let mut bundle = world.group.bundle(crate::support::GATEWAY, &world.client_ca, 1);
    let mut share = *bundle.accounts["ed"].share.expose();
    share[0] ^= 1;
    bundle.accounts.get_mut("ed").unwrap().share = keyshares::SecretShare::new(&share);
    let sealed = keyshares::seal(&bundle.to_json(), &identity.recipient()).unwrap();
    fs::write(world.path("gateway.json.age"), sealed).unwrap();
    fs::write(world.path("identity.txt"), secrecy::ExposeSecret::expose_secret(&identity.to_text())).unwrap();
    let said = must_refuse(&world);
    assert!(said.contains("account `ed`"), "{said}");
    assert!(!said.contains(&hex::encode(share)));
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    let world = World::new();
    world.config(&["127.0.0.1:1"]);
    fs::copy(World::new().path("client.key"), world.path("client.key")).unwrap();
    let said = must_refuse(&world);
    assert!(said.contains("tls_key") && said.contains("client.pem"), "{said}");
}

#[test]
fn a_configuration_error_names_file_and_key() {
    let world = World::new();
    let text = World::config_text(&["127.0.0.1:1"]).replace("127.0.0.1:0", "0.0.0.0:0");
    fs::write(world.path("gateway.toml"), text).unwrap();
    let said = must_refuse(&world);
    assert!(said.contains("gateway.toml") && said.contains("`listen`"), "{said}");
}
