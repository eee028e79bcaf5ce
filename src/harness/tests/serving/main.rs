//! A node that serves, over real processes: what it keeps in memory, whom it talks to, and what it refuses.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

mod client;
mod memory;
mod misuse;

use std::sync::OnceLock;

use harness::{Node, Options, Status, World, Worlds};

/// A world whose parent serves.
struct Serving {
    world: World,
    node: Node,
    status: Status,
}

impl Serving {
    fn start(options: Options) -> Self {
        let options = Options { accounts_per_scheme: 1, ..options };
        let world = Worlds::provision(options, &mut |_, _| {}).unwrap();
        let mut node = world.start_parent().unwrap();
        let status = node.wait_serving(|_| {}).unwrap();
        Self { world, node, status }
    }

    fn ingress(&self) -> &str {
        self.status.ingress().unwrap()
    }
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Runtime::new().unwrap())
}

#[test]
fn two_boots_differ_in_everything_but_the_accounts() {
    let options = Options { seed: Some(7), ..Options::default() };
    let (one, other) = (Serving::start(options.clone()), Serving::start(options));
    for pointer in ["/spki_sha256", "/attestation_document", "/pcrs/16", "/bundle_sha256/ciphertext"] {
        assert_ne!(one.status.text(pointer).unwrap(), other.status.text(pointer).unwrap(), "{pointer}");
    }
    let keys = |serving: &Serving| -> Vec<_> {
        serving
            .world
            .accounts
            .iter()
            .map(|account| (account.id.clone(), account.public_key.clone()))
            .collect()
    };
    assert_eq!(keys(&one), keys(&other));
}

#[test]
fn the_gateway_signs_with_every_account() {
    let serving = Serving::start(Options::default());
    let gateway =
        serving.world.start_gateway(serving.ingress(), serving.status.text("/pcrs/0").unwrap()).unwrap();
    gateway.wait_verified().unwrap();
    for account in &serving.world.accounts {
        let message = harness::sha256(account.id.as_bytes());
        let answer = gateway.sign(&account.id, &message).unwrap();
        assert_eq!(answer.code, 200, "{}", answer.body);
        let signature = hex::decode(answer.body["signature"].as_str().unwrap()).unwrap();
        harness::verify_signature(&account.scheme, &account.public_key, &message, &signature).unwrap();
        let other = harness::sha256(b"another message");
        assert!(harness::verify_signature(&account.scheme, &account.public_key, &other, &signature).is_err());
    }
    assert_eq!(gateway.sign("nobody", b"message").unwrap().code, 404);
}

#[test]
fn a_gateway_that_expects_another_image_opens_no_session() {
    let serving = Serving::start(Options::default());
    let gateway = serving.world.start_gateway(serving.ingress(), &"ab".repeat(48)).unwrap();
    let account = &serving.world.accounts[0].id;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let nodes = gateway.nodes().unwrap();
        if nodes[0]["state"] == "failed" {
            assert!(nodes[0]["reason"].as_str().unwrap().contains("PCR0"), "{nodes}");
            break;
        }
        assert_ne!(nodes[0]["state"], "verified");
        assert!(std::time::Instant::now() < deadline, "{nodes}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(gateway.sign(account, b"message").unwrap().code, 503);
}

#[test]
fn an_enclave_that_dies_closes_ingress_and_fails_the_parent() {
    let mut serving = Serving::start(Options::default());
    let enclave = serving.status.enclave_pid().unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(enclave).unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    let (status, code) = serving.node.wait_failed().unwrap();
    assert_eq!((status.state(), status.ingress()), ("Failed", None));
    assert_eq!(status.reason(), Some("EnclaveExited"), "{}", status.0);
    assert_eq!(code, 75);
}

#[test]
fn a_stopped_parent_leaves_nothing_behind() {
    let mut serving = Serving::start(Options::default());
    let enclave = serving.status.enclave_pid().unwrap();
    let service = memory::children(enclave);
    assert_eq!(service.len(), 1, "the enclave has one child, the signing service");
    assert!(serving.node.program.stop().unwrap().success());
    assert_eq!(serving.node.status().unwrap().state(), "Stopped");
    for pid in [enclave, service[0]] {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is still there");
    }
}
