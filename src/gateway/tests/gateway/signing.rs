//! Signatures through the HTTP API.

use secp256k1::{Secp256k1, XOnlyPublicKey, schnorr};
use serde_json::{Value, json};

use crate::support::{Answer, RunningNode, World};

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

/// Verifies an answer's signature with a library that none of the signers use.
fn must_verify(answer: &Answer, message: &[u8]) {
    assert_eq!(answer.code, 200, "{answer:?}");
    let key: [u8; 32] = bytes(&answer.body["public_key"]).try_into().unwrap();
    let signature: [u8; 64] = bytes(&answer.body["signature"]).try_into().unwrap();
    match answer.body["scheme"].as_str().unwrap() {
        "frost-ed25519" => ed25519_dalek::VerifyingKey::from_bytes(&key)
            .unwrap()
            .verify_strict(message, &ed25519_dalek::Signature::from_bytes(&signature))
            .unwrap(),
        "frost-secp256k1-tr" => Secp256k1::verification_only()
            .verify_schnorr(
                &schnorr::Signature::from_byte_array(signature),
                message,
                &XOnlyPublicKey::from_byte_array(key).unwrap(),
            )
            .unwrap(),
        other => panic!("unknown scheme {other}"),
    }
}

#[tokio::test]
async fn both_schemes_sign_and_independent_libraries_accept_the_signatures() {
    let world = World::new();
    let node = RunningNode::start(&world).await;
    let gateway = world.start_verified_gateway(&[node.address()]).await;
    for (account, scheme) in [("ed", "frost-ed25519"), ("tr", "frost-secp256k1-tr")] {
        // The second session of an account takes the shorter way without GetAccount.
        for message in [[3_u8; 32], [4; 32]] {
            let answer = gateway.sign(json!({"account": account, "message": hex::encode(message)})).await;
            must_verify(&answer, &message);
            assert_eq!(answer.body["account"], account);
            assert_eq!(answer.body["scheme"], scheme);
            assert_eq!(answer.body["node"], "node-0");
            assert_eq!(bytes(&answer.body["public_key"]), world.group.public_key(account));
            assert_eq!(bytes(&answer.body["session_id"]).len(), 32);
            assert!(answer.body["duration_ms"].is_u64());
        }
    }
    assert_eq!(node.status(&world).await.completed_sessions, 4);
    gateway.stop().await;
}

#[tokio::test]
async fn the_longest_message_is_signed() {
    let world = World::new();
    let node = RunningNode::start(&world).await;
    let gateway = world.start_verified_gateway(&[node.address()]).await;
    let message = vec![0x5a; gateway::sign::MAX_MESSAGE_BYTES];
    let answer = gateway.sign(json!({"account": "ed", "message": hex::encode(&message)})).await;
    must_verify(&answer, &message);
}

#[tokio::test]
async fn nodes_take_turns_unless_one_is_named() {
    let world = World::new();
    let (one, two) = (RunningNode::start(&world).await, RunningNode::start_another(&world).await);
    let gateway = world.start_verified_gateway(&[one.address(), two.address()]).await;
    let mut chosen = Vec::new();
    for _ in 0..4 {
        let answer = gateway.sign(json!({"account": "ed", "message": "00"})).await;
        must_verify(&answer, &[0]);
        chosen.push(answer.body["node"].as_str().unwrap().to_owned());
    }
    assert_eq!(chosen[0], chosen[2]);
    assert_eq!(chosen[1], chosen[3]);
    assert_ne!(chosen[0], chosen[1]);

    for _ in 0..3 {
        let answer = gateway.sign(json!({"account": "ed", "message": "00", "node": "node-1"})).await;
        must_verify(&answer, &[0]);
        assert_eq!(answer.body["node"], "node-1");
    }
}

#[tokio::test]
async fn many_signatures_at_once_are_all_made() {
    let world = World::new();
    let (one, two) = (RunningNode::start(&world).await, RunningNode::start_another(&world).await);
    let gateway = std::sync::Arc::new(world.start_verified_gateway(&[one.address(), two.address()]).await);
    let mut signing = tokio::task::JoinSet::new();
    // No more than the two nodes' session caps together.
    for number in 0..8_u8 {
        let gateway = std::sync::Arc::clone(&gateway);
        let account = if number % 2 == 0 { "ed" } else { "tr" };
        let message = [number; 32];
        signing.spawn(async move {
            let answer = gateway.sign(json!({"account": account, "message": hex::encode(message)})).await;
            (answer, message)
        });
    }
    let mut sessions = std::collections::BTreeSet::new();
    while let Some(done) = signing.join_next().await {
        let (answer, message) = done.unwrap();
        must_verify(&answer, &message);
        sessions.insert(answer.body["session_id"].to_string());
    }
    assert_eq!(sessions.len(), 8, "each signature has a session of its own");
}
