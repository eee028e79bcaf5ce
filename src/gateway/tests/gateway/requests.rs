//! Requests that cannot be served, and what is said about them.

use std::time::Duration;

use api::sign::{OpenSession, SignRequest, sign_request::Step};
use gateway::node::State;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;

use crate::support::{
    Answer, GATEWAY, NODE, RunningGateway, RunningNode, World, get, post, post_with_header,
};

async fn one_node() -> (World, RunningNode, RunningGateway) {
    let world = World::new();
    let node = RunningNode::start(&world).await;
    let gateway = world.start_verified_gateway(&[node.address()]).await;
    (world, node, gateway)
}

#[tokio::test]
async fn unknown_accounts_and_nodes_are_not_found() {
    let (world, node, gateway) = one_node().await;
    let answer = gateway.sign(json!({"account": "nobody", "message": "00"})).await;
    assert_eq!(answer.error(), (404, "unknown_account"));
    assert!(answer.detail().contains("nobody"), "{answer:?}");

    let answer = gateway.sign(json!({"account": "unknown-to-node", "message": "00"})).await;
    assert_eq!(answer.error(), (404, "unknown_account"));

    let answer = gateway.sign(json!({"account": "ed", "message": "00", "node": "node-9"})).await;
    assert_eq!(answer.error(), (404, "unknown_node"));
    let status = node.status(&world).await;
    assert_eq!(status.completed_sessions + status.failed_sessions, 0);
}

#[tokio::test]
async fn malformed_requests_are_refused_and_say_what_is_wrong() {
    let (_world, _node, gateway) = one_node().await;
    let url = format!("{}/v1/sign", gateway.url);
    let long = hex::encode(vec![1; gateway::sign::MAX_MESSAGE_BYTES + 1]);
    let long = json!({"account": "ed", "message": long}).to_string();
    for (body, named) in [
        (r#"{"account":"ed","message":"0g"}"#, "`message`"),
        (r#"{"account":"ed","message":"000"}"#, "`message`"),
        (r#"{"account":"ed","message":""}"#, "`message`"),
        (&long, "`message`"),
        (r#"{"account":"ed","message":"00","masage":"00"}"#, "`masage`"),
        (r#"{"account":"ed"}"#, "`message`"),
        (r#"{"account":"ed","message":7}"#, "string"),
        (r#"{"account":"ed","account":"tr","message":"00"}"#, "`account`"),
        (&json!({"account": "a".repeat(129), "message": "00"}).to_string(), "`account`"),
        (&json!({"account": "ed", "message": "00", "node": "n".repeat(65)}).to_string(), "`node`"),
        ("not json", "body"),
        ("", "body"),
    ] {
        let answer = post(&url, body).await;
        assert_eq!(answer.error(), (400, "bad_request"), "{answer:?}");
        assert!(answer.detail().contains(named), "{named}: {answer:?}");
    }
}

#[tokio::test]
async fn a_body_over_256_kib_is_refused() {
    let (_world, _node, gateway) = one_node().await;
    let body = json!({"account": "ed", "message": "0".repeat(256 * 1024)}).to_string();
    let answer = post(&format!("{}/v1/sign", gateway.url), &body).await;
    assert_eq!(answer.error(), (413, "too_large"));
    assert!(answer.detail().contains("262144"), "{answer:?}");
}

#[tokio::test]
async fn web_pages_are_refused() {
    let (world, node, gateway) = one_node().await;
    let body = r#"{"account":"ed","message":"00"}"#;
    let origin = ("origin", "http://127.0.0.1:3000");
    let answer = post_with_header(&format!("{}/v1/sign", gateway.url), body, origin).await;
    assert_eq!(answer.error(), (403, "web_page"));
    assert_eq!(node.status(&world).await.completed_sessions, 0);
}

#[tokio::test]
async fn other_paths_and_methods_are_answered_in_json() {
    let (_world, _node, gateway) = one_node().await;
    assert_eq!(get(&format!("{}/", gateway.url)).await.error(), (404, "not_found"));
    assert_eq!(get(&format!("{}/v1/sign", gateway.url)).await.error(), (405, "method_not_allowed"));
}

#[tokio::test]
async fn an_account_that_needs_three_signers_is_beyond_this_gateway() {
    let (_world, _node, gateway) = one_node().await;
    let answer = gateway.sign(json!({"account": "three", "message": "00"})).await;
    assert_eq!(answer.error(), (501, "too_many_signers"));
    assert!(answer.detail().contains("needs 3 signers"), "{answer:?}");
}

#[tokio::test]
async fn a_node_without_a_share_of_the_account_is_not_asked() {
    let (_world, _node, gateway) = one_node().await;
    let answer = gateway.sign(json!({"account": "elsewhere", "message": "00"})).await;
    assert_eq!(answer.error(), (503, "no_verified_node"));
    let answer = gateway.sign(json!({"account": "elsewhere", "message": "00", "node": "node-0"})).await;
    assert_eq!(answer.error(), (422, "not_a_party"));
}

#[tokio::test]
async fn a_node_with_another_key_for_the_account_gets_no_session() {
    let (world, node, gateway) = one_node().await;
    for _ in 0..2 {
        let answer = gateway.sign(json!({"account": "disputed", "message": "00"})).await;
        assert_eq!(answer.error(), (502, "account_mismatch"));
        assert!(answer.detail().contains("`public_key`"), "{answer:?}");
    }
    let status = node.status(&world).await;
    assert_eq!(status.completed_sessions + status.failed_sessions, 0);
}

#[tokio::test]
async fn without_a_verified_node_there_is_no_service() {
    let world = World::new();
    let gateway = world.start_gateway(world.config(&["127.0.0.1:1"])).await;
    let reason = gateway.must_fail(0).await;
    assert!(reason.contains("cannot connect to 127.0.0.1:1"), "{reason}");
    let answer = gateway.sign(json!({"account": "ed", "message": "00"})).await;
    assert_eq!(answer.error(), (503, "no_verified_node"));
    let answer = gateway.sign(json!({"account": "ed", "message": "00", "node": "node-0"})).await;
    assert_eq!(answer.error(), (503, "node_not_verified"));
    assert!(answer.detail().contains("cannot connect"), "{answer:?}");
}

#[tokio::test]
async fn the_nodes_session_cap_is_answered_with_too_many_requests() {
    let (world, node, gateway) = one_node().await;
    let link = world.connect(node.address()).await.unwrap();
    let mut held = Vec::new();
    for number in 0..crate::support::configuration().max_sessions {
        let open = OpenSession {
            session_id: vec![u8::try_from(number).unwrap(); 32],
            account: "ed".to_owned(),
            message: vec![1],
            signers: vec![NODE.to_owned(), GATEWAY.to_owned()],
        };
        let open = SignRequest { step: Some(Step::Open(open)) };
        let requests = tokio_stream::once(open).chain(tokio_stream::pending());
        let mut responses = link.client().sign(requests).await.unwrap().into_inner();
        // Its first message: the session has its place.
        responses.message().await.unwrap().unwrap();
        held.push(responses);
    }
    let answer = gateway.sign(json!({"account": "ed", "message": "00"})).await;
    assert_eq!(answer.error(), (429, "too_many_sessions"));
    drop(held);
}

/// A gateway that only notices a silent node by waiting for it.
async fn patient_gateway(world: &World, node: &RunningNode, sign_timeout: Duration) -> RunningGateway {
    let mut config = world.config(&[node.address()]);
    config.sign_timeout = sign_timeout;
    config.probe_interval = Duration::from_mins(1);
    let gateway = world.start_gateway(config).await;
    gateway.must_reach(0, |state| matches!(state, State::Verified(_))).await;
    gateway
}

/// A request that the node cannot answer yet, on its way.
async fn begin_signing(gateway: &RunningGateway) -> JoinHandle<Answer> {
    let url = format!("{}/v1/sign", gateway.url);
    let request = tokio::spawn(async move { post(&url, r#"{"account":"ed","message":"00"}"#).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    request
}

#[tokio::test]
async fn a_node_that_does_not_answer_in_time_is_a_gateway_timeout() {
    let world = World::new();
    let node = RunningNode::start(&world).await;
    let gateway = patient_gateway(&world, &node, Duration::from_millis(300)).await;
    node.front.freeze();
    let answer = gateway.sign(json!({"account": "ed", "message": "00"})).await;
    assert_eq!(answer.error(), (504, "timed_out"));
    assert!(answer.detail().contains("300 ms"), "{answer:?}");
}

#[tokio::test]
async fn a_connection_that_breaks_in_a_session_makes_the_node_unavailable() {
    let world = World::new();
    let node = RunningNode::start(&world).await;
    let gateway = patient_gateway(&world, &node, Duration::from_secs(20)).await;
    node.front.freeze();
    let request = begin_signing(&gateway).await;
    node.front.thaw();
    assert_eq!(request.await.unwrap().error(), (503, "node_unavailable"));
}

#[tokio::test]
async fn a_request_in_progress_is_answered_before_the_gateway_ends() {
    let world = World::new();
    let node = RunningNode::start(&world).await;
    let gateway = patient_gateway(&world, &node, Duration::from_millis(600)).await;
    node.front.freeze();
    let request = begin_signing(&gateway).await;
    gateway.stop().await;
    assert_eq!(request.await.unwrap().error(), (504, "timed_out"));
}
