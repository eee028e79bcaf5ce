//! Nodes that do not prove what they should: they fail with the reason, and no session is ever opened.

use std::fs;

use attestation::{
    Measurements, Nsm as _, Pcr, sha384,
    software::{SoftwareNsm, TestAuthority},
};
use gateway::config::Config;
use serde_json::json;
use tokio::{io::copy_bidirectional, net::TcpListener};

use crate::support::{
    Impostor, RunningGateway, RunningNode, SEALED_BUNDLE_SHA384, World, configuration, with_pcr16,
};

/// The gateway refuses its only node for `reason`, and nothing is signed.
async fn must_refuse(gateway: &RunningGateway, reason: &str) {
    let actual = gateway.must_fail(0).await;
    assert!(actual.contains(reason), "expected {reason:?} in {actual:?}");
    let nodes = gateway.nodes().await;
    assert_eq!(nodes.body[0]["state"], "failed", "{nodes:?}");
    assert!(nodes.body[0].get("party").is_none(), "nothing is known of a node that is not verified");
    for node in [json!(null), json!("node-0")] {
        let answer = gateway.sign(json!({"account": "ed", "message": "00", "node": node})).await;
        assert_eq!(answer.code, 503, "{answer:?}");
    }
}

async fn must_have_no_session(node: &RunningNode, world: &World) {
    let status = node.status(world).await;
    assert_eq!((status.active_sessions, status.completed_sessions, status.failed_sessions), (0, 0, 0));
}

/// An honest node, and a gateway that expects something else.
async fn must_refuse_honest_node(edit: impl FnOnce(&World, &mut Config), reason: &str) {
    let world = World::new();
    let node = RunningNode::start(&world).await;
    let mut config = world.config(&[node.address()]);
    edit(&world, &mut config);
    let gateway = world.start_gateway(config).await;
    must_refuse(&gateway, reason).await;
    must_have_no_session(&node, &world).await;
}

/// A node with a security module of its own, and a gateway that expects an honest one.
async fn must_refuse_node(nsm: impl FnOnce(&World) -> SoftwareNsm, reason: &str) {
    let world = World::new();
    let node = RunningNode::start_with(&world, "one", nsm(&world)).await;
    let gateway = world.start_gateway(world.config(&[node.address()])).await;
    must_refuse(&gateway, reason).await;
}

fn must_make_nsm(authority: &TestAuthority) -> SoftwareNsm {
    SoftwareNsm::new(authority, World::measurements()).unwrap()
}

fn configuration_digest() -> [u8; 48] {
    sha384(&configuration().canonical_bytes())
}

#[tokio::test]
async fn an_image_that_is_not_listed_is_refused() {
    let edit = |_: &World, config: &mut Config| config.trust.pcr0 = vec![Pcr::from_bytes([1; 48])];
    must_refuse_honest_node(edit, "PCR0").await;
}

#[tokio::test]
async fn a_bundle_that_is_not_listed_is_refused() {
    let edit = |_: &World, config: &mut Config| config.trust.bundles = vec![[8; 32]];
    must_refuse_honest_node(edit, "trust.bundle_sha256").await;
}

#[tokio::test]
async fn another_root_is_refused() {
    let edit = |world: &World, config: &mut Config| {
        let path = world.path("other-root.pem");
        fs::write(&path, TestAuthority::generate().unwrap().root_pem()).unwrap();
        config.trust.root = attestation::TrustRoot::from_pem(&fs::read_to_string(&path).unwrap()).unwrap();
    };
    must_refuse_honest_node(edit, "root").await;
}

#[tokio::test]
async fn the_aws_root_does_not_accept_a_test_node() {
    let edit = |_: &World, config: &mut Config| config.trust.root = attestation::TrustRoot::AWS_NITRO_G1;
    must_refuse_honest_node(edit, "root").await;
}

#[tokio::test]
async fn a_node_under_another_root_is_refused() {
    let nsm = |_: &World| {
        let nsm = must_make_nsm(&TestAuthority::generate().unwrap());
        with_pcr16(nsm, &[&configuration_digest(), &SEALED_BUNDLE_SHA384])
    };
    must_refuse_node(nsm, "root").await;
}

#[tokio::test]
async fn another_configuration_than_measured_is_refused() {
    let nsm = |world: &World| {
        with_pcr16(must_make_nsm(&world.authority), &[&sha384(b"something else"), &SEALED_BUNDLE_SHA384])
    };
    must_refuse_node(nsm, "PCR16").await;
}

#[tokio::test]
async fn another_sealed_bundle_than_measured_is_refused() {
    let nsm =
        |world: &World| with_pcr16(must_make_nsm(&world.authority), &[&configuration_digest(), &[8; 48]]);
    must_refuse_node(nsm, "PCR16").await;
}

#[tokio::test]
async fn a_node_that_measured_nothing_is_refused() {
    must_refuse_node(|world| must_make_nsm(&world.authority), "PCR16").await;
}

#[tokio::test]
async fn a_pcr16_that_is_not_locked_is_refused() {
    let nsm = |world: &World| {
        let nsm = must_make_nsm(&world.authority);
        nsm.extend_pcr(16, &configuration_digest()).unwrap();
        nsm.extend_pcr(16, &SEALED_BUNDLE_SHA384).unwrap();
        nsm
    };
    must_refuse_node(nsm, "PCR16").await;
}

#[tokio::test]
async fn debug_mode_is_refused() {
    let nsm = |world: &World| {
        let nsm = SoftwareNsm::debug(&world.authority).unwrap();
        with_pcr16(nsm, &[&configuration_digest(), &SEALED_BUNDLE_SHA384])
    };
    must_refuse_node(nsm, "debug mode").await;
}

#[tokio::test]
async fn another_image_of_the_same_root_is_refused() {
    let nsm = |world: &World| {
        let other = Measurements::of_parts(&[b"kernel"], &[b"altered runtime"], &[b"application"]);
        let nsm = SoftwareNsm::new(&world.authority, other).unwrap();
        with_pcr16(nsm, &[&configuration_digest(), &SEALED_BUNDLE_SHA384])
    };
    must_refuse_node(nsm, "PCR0").await;
}

/// Even with the gateway's own client certificate, whoever ends TLS in between has another server key than the
/// enclave's document says.
#[tokio::test]
async fn a_man_in_the_middle_is_refused() {
    let world = World::new();
    let node = RunningNode::start(&world).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let impostor = Impostor::generate();
    let (client, target) = (world.client(), node.address().to_owned());
    tokio::spawn(async move {
        while let Ok(mut victim) = impostor.accept(&listener).await {
            let enclave = tokio::net::TcpStream::connect(&target).await.unwrap();
            let mut enclave = client.handshake(enclave).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut victim, &mut enclave).await });
        }
    });
    let gateway = world.start_gateway(world.config(&[&address])).await;
    must_refuse(&gateway, "user_data").await;
    must_have_no_session(&node, &world).await;
}

#[tokio::test]
async fn a_server_that_does_not_hold_its_certificates_key_is_refused() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let impostor = Impostor::without_the_key();
    tokio::spawn(async move {
        loop {
            // The client ends the handshake.
            let _ = impostor.accept(&listener).await;
        }
    });
    let gateway = world.start_gateway(world.config(&[&address])).await;
    must_refuse(&gateway, "TLS handshake").await;
}

#[tokio::test]
async fn a_client_certificate_the_node_does_not_know_is_refused_by_the_node() {
    let world = World::new();
    let node = RunningNode::start(&world).await;
    let stranger = World::new();
    let mut config = stranger.config(&[node.address()]);
    config.trust = world.config(&[node.address()]).trust;
    let gateway = stranger.start_gateway(config).await;
    let reason = gateway.must_fail(0).await;
    assert!(reason.contains("received fatal alert"), "{reason}");
    must_have_no_session(&node, &world).await;
}

#[tokio::test]
async fn a_node_that_serves_another_epoch_than_attested_is_refused() {
    let world = World::new();
    let node = RunningNode::start_at_other_epoch(&world).await;
    let gateway = world.start_gateway(world.config(&[node.address()])).await;
    must_refuse(&gateway, "epoch 8").await;
}

#[tokio::test]
async fn a_cosigner_that_does_not_list_the_nodes_party_refuses_it() {
    let world = World::new();
    let node = RunningNode::start(&world).await;
    // The node's own bundle in place of the gateway's.
    let identity = keyshares::Identity::generate();
    let bundle = world.group.bundle(crate::support::NODE, &world.client_ca, 1).to_json();
    fs::write(world.path("gateway.json.age"), keyshares::seal(&bundle, &identity.recipient()).unwrap())
        .unwrap();
    let text = identity.to_text();
    fs::write(world.path("identity.txt"), secrecy::ExposeSecret::expose_secret(&text)).unwrap();
    let gateway = world.start_gateway(world.config(&[node.address()])).await;
    must_refuse(&gateway, "the co-signer's own party").await;
}
