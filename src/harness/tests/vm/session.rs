//! An enclave that is killed while sessions are open.

use std::{
    net::TcpStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use harness::{Gateway, Status, qmp::Qmp};
use nix::sys::signal::Signal;
use serde_json::json;
use tonic::Code;

use crate::{
    Serving, TRANSIENT,
    client::{Call, Certificate, connect, open},
    leaves_nothing, runtime, send, serve, signs, small, until, world,
};

/// A fraction of what a session may last.
const SOON: Duration = Duration::from_secs(10);

/// The gateway's only node, once it is not verified any more.
fn unverified(gateway: &Gateway) -> serde_json::Value {
    let node = || gateway.nodes().unwrap()[0].clone();
    until("the gateway notices", || node()["state"] != "verified");
    node()
}

fn document(status: &Status) -> &str {
    status.text("/attestation_document").unwrap()
}

#[test]
fn sessions_end_with_the_enclave_that_is_killed_and_the_next_enclave_signs_again() {
    let world = world(small());
    let (node, status) = serve(&world);
    let mut serving = Serving { world, node, status };
    let account = serving.world.accounts[0].id.clone();
    let gateway = serving.gateway();
    gateway.wait_verified().unwrap();

    // A client that has the enclave's message of round 1, and owes it its own.
    let mut client = runtime().block_on(connect(&serving, &Certificate::gateway(&serving))).unwrap();
    let mut call = runtime().block_on(Call::start(&mut client, open(&account)));
    assert!(runtime().block_on(call.next()).unwrap().is_some());
    // And the gateway, with a session that the enclave, frozen, does not answer.
    let mut qmp = Qmp::connect(Path::new(serving.status.text("/qmp").unwrap())).unwrap();
    qmp.execute("stop", &json!({})).unwrap();
    let (answer, killed) = thread::scope(|scope| {
        let asked = scope.spawn(|| gateway.sign(&account, b"a message").unwrap());
        thread::sleep(Duration::from_millis(500));
        assert!(!asked.is_finished(), "a frozen enclave answered");
        let killed = Instant::now();
        send(serving.status.enclave_pid().unwrap(), Signal::SIGKILL);
        (asked.join().unwrap(), killed)
    });
    assert_eq!((answer.code, &answer.body["error"]), (503, &"node_unavailable".into()), "{}", answer.body);
    let refusal = runtime().block_on(call.refusal());
    assert!(matches!(refusal.code(), Code::Unavailable | Code::Unknown), "{refusal:?}");
    assert!(killed.elapsed() < SOON, "the clients waited {:?}", killed.elapsed());

    let (failed, code) = serving.node.wait_failed().unwrap();
    assert_eq!((failed.reason(), code), (Some("EnclaveExited"), TRANSIENT), "{}", failed.0);
    assert_eq!(failed.ingress(), None);
    TcpStream::connect(serving.ingress()).expect_err("ingress is still open");
    let lost = unverified(&gateway);
    assert!(!lost["reason"].as_str().unwrap().is_empty(), "{lost}");
    let answer = gateway.sign(&account, b"a message").unwrap();
    assert_eq!((answer.code, &answer.body["error"]), (503, &"no_verified_node".into()), "{}", answer.body);
    leaves_nothing(&serving.world);

    // At the same address, so that the same gateway finds it.
    let ingress = serving.ingress().to_owned();
    serving.world.write_parent_toml(|parent| parent["ingress"]["listen"] = ingress.into()).unwrap();
    let (_node, again) = serve(&serving.world);
    assert_eq!(again.text("/pcrs/0").unwrap(), serving.status.text("/pcrs/0").unwrap());
    assert_ne!(again.text("/spki_sha256").unwrap(), serving.status.text("/spki_sha256").unwrap());
    assert_ne!(document(&again), document(&serving.status));
    gateway.wait_verified().unwrap();
    for account in &serving.world.accounts {
        signs(&gateway, account);
    }
}
