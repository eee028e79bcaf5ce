//! Nodes that come, go and come back.

use gateway::node::State;
use serde_json::json;

use crate::support::{RunningNode, World, configuration};

fn is_verified(state: &State) -> bool {
    matches!(state, State::Verified(_))
}

fn spki_of(state: &State) -> [u8; 32] {
    match state {
        State::Verified(link) => link.attested.spki_sha256,
        _ => panic!("not verified"),
    }
}

#[tokio::test]
async fn a_verified_node_shows_what_it_has_proven() {
    let world = World::new();
    let node = RunningNode::start(&world).await;
    let gateway = world.start_verified_gateway(&[node.address()]).await;
    let answer = gateway.nodes().await;
    assert_eq!(answer.code, 200);
    let shown = &answer.body[0];
    assert_eq!(shown["name"], "node-0");
    assert_eq!(shown["address"], node.address());
    assert_eq!(shown["state"], "verified");
    assert!(shown.get("reason").is_none());
    assert_eq!(shown["party"], "node-a");
    assert_eq!(shown["epoch"], 7);
    assert_eq!(shown["accounts"], 4);
    assert_eq!(shown["pcrs"]["0"], World::measurements().pcr0.to_string());
    assert!(shown["pcrs"]["16"].is_string());
    assert_eq!(shown["bundle_sha256"], hex::encode(configuration().bundle_sha256));
    assert_eq!(shown["spki_sha256"].as_str().unwrap().len(), 64);
    assert!(shown["last_ping_ms"].as_f64().unwrap() > 0.0);
    assert!(shown["last_ping_unix_ms"].as_u64() >= shown["verified_at_unix_ms"].as_u64().map(|ms| ms - 1000));
}

#[tokio::test]
async fn pings_go_on_while_a_node_is_verified() {
    let world = World::new();
    let node = RunningNode::start(&world).await;
    let gateway = world.start_verified_gateway(&[node.address()]).await;
    let link = gateway.node(0).link().unwrap();
    let first = link.last_ping().at;
    tokio::time::timeout(std::time::Duration::from_secs(30), async {
        while link.last_ping().at == first {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("no second ping");
}

#[tokio::test]
async fn a_node_that_restarts_is_attested_again_before_it_signs() {
    let world = World::new();
    let mut node = RunningNode::start(&world).await;
    let gateway = world.start_verified_gateway(&[node.address()]).await;
    let before = gateway.node(0).state();

    node.stop().await;
    gateway.must_reach(0, |state| !is_verified(state)).await;
    let answer = gateway.sign(json!({"account": "ed", "message": "00"})).await;
    assert_eq!(answer.error(), (503, "no_verified_node"));

    node.restart(&world).await;
    let after = gateway.must_reach(0, is_verified).await;
    assert_ne!(spki_of(&before), spki_of(&after), "the restarted service has a key of its own");
    assert_eq!(gateway.sign(json!({"account": "ed", "message": "00"})).await.code, 200);
}

#[tokio::test]
async fn a_lost_connection_cannot_be_used_again() {
    let world = World::new();
    let mut node = RunningNode::start(&world).await;
    let link = world.connect(node.address()).await.unwrap();
    let timeout = std::time::Duration::from_secs(10);
    link.ping(timeout).await.unwrap();

    node.stop().await;
    node.restart(&world).await;
    // The service is there again, but this connection was to the one before.
    for _ in 0..3 {
        link.ping(timeout).await.unwrap_err();
    }
    world.connect(node.address()).await.unwrap().ping(timeout).await.unwrap();
}

#[tokio::test]
async fn two_pings_without_an_answer_end_the_connection() {
    let world = World::new();
    let node = RunningNode::start(&world).await;
    let gateway = world.start_verified_gateway(&[node.address()]).await;
    node.front.freeze();
    let state = gateway.must_reach(0, |state| !is_verified(state)).await;
    match state {
        State::Unverified { reason } => assert!(reason.contains("2 pings in a row"), "{reason}"),
        _ => panic!("expected that the connection was given up"),
    }
    node.front.thaw();
    gateway.must_reach(0, is_verified).await;
}

#[tokio::test]
async fn one_node_down_leaves_the_other_in_service() {
    let world = World::new();
    let (mut one, two) = (RunningNode::start(&world).await, RunningNode::start_another(&world).await);
    let gateway = world.start_verified_gateway(&[one.address(), two.address()]).await;
    one.stop().await;
    gateway.must_reach(0, |state| !is_verified(state)).await;
    for _ in 0..3 {
        let answer = gateway.sign(json!({"account": "tr", "message": "00"})).await;
        assert_eq!((answer.code, answer.body["node"].as_str()), (200, Some("node-1")), "{answer:?}");
    }
}
