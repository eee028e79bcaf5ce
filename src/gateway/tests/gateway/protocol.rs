//! Nodes that are attested and still break the protocol: no signature comes out.

use serde_json::json;

use crate::support::{Lie, RunningNode, World, start_liar};

async fn must_refuse(lie: Lie, error: &str, detail: &str) {
    let world = World::new();
    let node = RunningNode::start(&world).await;
    let address = start_liar(&world, &node, lie).await;
    let gateway = world.start_verified_gateway(&[&address]).await;
    for account in ["ed", "tr"] {
        let answer = gateway.sign(json!({"account": account, "message": "00"})).await;
        assert_eq!(answer.error(), (502, error), "{answer:?}");
        assert!(answer.detail().contains(detail), "{answer:?}");
    }
}

#[tokio::test]
async fn a_result_with_another_signature_is_refused() {
    must_refuse(Lie::AlteredResult, "node_broke_protocol", "differs from the co-signer's").await;
}

#[tokio::test]
async fn a_result_of_another_session_is_refused() {
    must_refuse(Lie::ResultOfAnotherSession, "node_broke_protocol", "differs from the co-signer's").await;
}

#[tokio::test]
async fn a_result_before_the_protocol_is_complete_is_refused() {
    must_refuse(Lie::EarlyResult, "node_broke_protocol", "before its last message").await;
}

#[tokio::test]
async fn a_stream_that_ends_without_a_result_is_refused() {
    must_refuse(Lie::NoResult, "node_broke_protocol", "ended without a result").await;
}

#[tokio::test]
async fn an_empty_response_is_refused() {
    must_refuse(Lie::EmptyResponse, "node_broke_protocol", "an empty response").await;
}

#[tokio::test]
async fn an_envelope_that_was_altered_on_its_way_is_refused() {
    must_refuse(Lie::AlteredEnvelope, "session_failed", "not authentic").await;
}

#[tokio::test]
async fn a_malformed_envelope_is_refused() {
    must_refuse(Lie::ShortSessionId, "node_broke_protocol", "malformed envelope").await;
}
