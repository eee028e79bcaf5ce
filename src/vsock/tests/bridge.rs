//! The bridge between real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{io, time::Duration};

use nitro_sign_vsock::{Bridge, BridgeStats, Endpoint, Limits, Listener, Stream, connect};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};

fn any_tcp() -> Endpoint {
    "tcp:127.0.0.1:0".parse().unwrap()
}

/// An upstream and a bridge to it.
async fn must_bridge(limits: Limits) -> (Listener, Bridge) {
    let upstream = Listener::bind(&any_tcp()).await.unwrap();
    let bridge = Bridge::start("test", any_tcp(), upstream.local().clone(), limits).await.unwrap();
    (upstream, bridge)
}

/// A client of the bridge and the upstream's end of the same connection.
async fn must_connect(upstream: &Listener, bridge: &Bridge) -> (Stream, Stream) {
    let (client, server) = tokio::join!(connect(bridge.local()), upstream.accept());
    (client.unwrap(), server.unwrap())
}

async fn must_become(bridge: &Bridge, what: &str, reached: impl Fn(&BridgeStats) -> bool) {
    for _ in 0..200 {
        if reached(&bridge.stats()) {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("never {what}: {:?}", bridge.stats());
}

async fn must_be_closed(stream: &mut Stream) {
    let read = timeout(Duration::from_secs(5), stream.read(&mut [0; 1])).await.expect("still open");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn bytes_go_both_ways_and_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vm.vsock");
    let guest = Listener::bind(&Endpoint::UnixGuest { path: path.clone(), port: 7 }).await.unwrap();
    let bridge = Bridge::start("ingress", any_tcp(), Endpoint::Unix { path, port: 7 }, Limits::default())
        .await
        .unwrap();
    let (mut client, mut server) = must_connect(&guest, &bridge).await;

    let sent = vec![0xa5; 300_000];
    let mut received = vec![0; sent.len()];
    let (wrote, read) = tokio::join!(client.write_all(&sent), server.read_exact(&mut received));
    wrote.unwrap();
    read.unwrap();
    assert_eq!(received, sent);
    server.write_all(b"answer").await.unwrap();
    client.read_exact(&mut received[..6]).await.unwrap();
    assert_eq!(&received[..6], b"answer");

    must_become(&bridge, "counted", |stats| stats.bytes_out == 6).await;
    let expected = BridgeStats { connections: 1, active: 1, bytes_in: 300_000, bytes_out: 6, failures: 0 };
    assert_eq!(bridge.stats(), expected);
}

#[tokio::test]
async fn one_side_may_end_while_the_other_goes_on() {
    let (upstream, bridge) = must_bridge(Limits::default()).await;
    let (mut client, mut server) = must_connect(&upstream, &bridge).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = String::new();
    server.read_to_string(&mut question).await.unwrap();
    assert_eq!(question, "question");

    server.write_all(b"late answer").await.unwrap();
    server.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "late answer");
    must_become(&bridge, "idle again", |stats| stats.active == 0).await;
    assert_eq!(bridge.stats().failures, 0);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_a_freed_place_is_given_again() {
    let (upstream, bridge) = must_bridge(Limits { max_connections: 1, ..Limits::default() }).await;
    let (client, server) = must_connect(&upstream, &bridge).await;
    let mut refused = connect(bridge.local()).await.unwrap();
    must_be_closed(&mut refused).await;
    assert_eq!((bridge.stats().connections, bridge.stats().failures), (1, 1));

    drop((client, server));
    must_become(&bridge, "free again", |stats| stats.active == 0).await;
    must_connect(&upstream, &bridge).await;
}

#[tokio::test]
async fn an_upstream_that_refuses_closes_that_connection_only() {
    let (upstream, bridge) = must_bridge(Limits::default()).await;
    let address = upstream.local().clone();
    drop(upstream);
    let mut client = connect(bridge.local()).await.unwrap();
    must_be_closed(&mut client).await;
    must_become(&bridge, "counted as a failure", |stats| stats.failures == 1 && stats.active == 0).await;

    let upstream = Listener::bind(&address).await.unwrap();
    let (mut client, mut server) = must_connect(&upstream, &bridge).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn a_silent_connection_is_closed_when_there_is_an_idle_timeout() {
    let idle_timeout = Some(Duration::from_millis(400));
    let (upstream, bridge) = must_bridge(Limits { idle_timeout, ..Limits::default() }).await;
    let (mut client, mut server) = must_connect(&upstream, &bridge).await;
    for _ in 0..6 {
        sleep(Duration::from_millis(100)).await;
        client.write_all(b"x").await.unwrap();
        server.read_u8().await.expect("busy connections stay open");
    }
    must_be_closed(&mut client).await;
    must_be_closed(&mut server).await;
    assert_eq!(bridge.stats().failures, 1);
}

#[tokio::test]
async fn a_connection_that_one_side_has_ended_is_closed_when_the_other_is_silent() {
    let linger = Duration::from_millis(400);
    let (upstream, bridge) = must_bridge(Limits { linger, ..Limits::default() }).await;
    let (mut client, mut server) = must_connect(&upstream, &bridge).await;
    server.shutdown().await.unwrap();
    must_be_closed(&mut client).await;
    // What it says goes on.
    for _ in 0..6 {
        sleep(Duration::from_millis(100)).await;
        client.write_all(b"x").await.unwrap();
        server.read_u8().await.expect("a side that still talks is heard");
    }
    must_become(&bridge, "without the client's end", |stats| stats.active == 0).await;
    assert_eq!(bridge.stats().failures, 1);
    must_be_closed(&mut server).await;
}

#[tokio::test]
async fn stopping_closes_the_listener_and_every_connection() {
    let (upstream, bridge) = must_bridge(Limits::default()).await;
    let local = bridge.local().clone();
    let (mut client, mut server) = must_connect(&upstream, &bridge).await;
    bridge.stop().await;
    must_be_closed(&mut client).await;
    must_be_closed(&mut server).await;
    assert_eq!(connect(&local).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn dropping_a_bridge_stops_it() {
    let (upstream, bridge) = must_bridge(Limits::default()).await;
    let (mut client, _server) = must_connect(&upstream, &bridge).await;
    drop(bridge);
    must_be_closed(&mut client).await;
}

#[tokio::test]
async fn waiting_for_a_bridge_that_works_never_returns() {
    let (_upstream, mut bridge) = must_bridge(Limits::default()).await;
    assert!(timeout(Duration::from_millis(100), bridge.wait()).await.is_err());
}

#[tokio::test]
async fn a_bridge_that_cannot_listen_says_which_and_where() {
    let (_upstream, bridge) = must_bridge(Limits::default()).await;
    let error =
        Bridge::start("second", bridge.local().clone(), any_tcp(), Limits::default()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("bridge second"), "{error}");
}
