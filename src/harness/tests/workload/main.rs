//! A program of the user's own in the place of the signing service, unmodified, over real processes. `tests/vm` has the same
//! with an image in QEMU.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

mod program;

use std::{fs, net::TcpListener};

use harness::{Options, World, Worlds};

const TERMINAL: i32 = 77;

/// A world whose enclave starts the program, pinned and released to as any other.
fn world() -> World {
    let world =
        Worlds::provision(Options { accounts_per_scheme: 1, ..Options::default() }, &mut |_, _| {}).unwrap();
    let echo = world.path("echo");
    program::compile(&[], &echo);
    let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [listen, relay] = ports.map(|port| port.local_addr().unwrap().to_string());
    let enclave = fs::read_to_string(world.path("enclave.toml")).unwrap();
    let keys = world.path("keys.json");
    let enclave =
        program::with_workload(&enclave, echo.to_str().unwrap(), keys.to_str().unwrap(), [&listen, &relay]);
    fs::write(world.path("enclave.toml"), enclave).unwrap();
    let pcr0 = world.measure().unwrap()["PCR0"].as_str().unwrap().to_owned();
    world.write_parent_toml(|parent| parent["enclave"]["pcr0"] = pcr0.as_str().into()).unwrap();
    world.apply_policy(&[&pcr0], &[]).unwrap();
    world
}

#[test]
fn an_unmodified_program_is_given_its_shares_and_reached_and_reaches_the_relay() {
    let world = world();
    program::expect(&world);
    let mut node = world.start_parent().unwrap();
    let status = node.wait_serving(|_| {}).unwrap();
    program::assert_serves(&status);
    assert!(!world.path("keys.json").exists(), "the plaintext is still there");
    let logs = world.all_logs().unwrap();
    assert!(logs.contains("bytes of key shares") && !logs.contains("read 0 bytes"), "{logs}");
}

#[test]
fn a_program_that_the_parent_does_not_expect_is_not_served() {
    let world = world();
    let mut node = world.start_parent().unwrap();
    let (status, code) = node.wait_failed().unwrap();
    assert_eq!((status.reason(), code), (Some("VerificationFailed"), TERMINAL), "{}", status.0);
    assert!(status.text("/message").unwrap().contains("`enclave.workload`"), "{}", status.0);
    assert!(!status.history().contains(&"Serving"), "{:?}", status.history());
}
