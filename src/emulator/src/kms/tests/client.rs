use std::time::Instant;

use vsock::{Bridge, Endpoint, Limits};

use super::*;

async fn describe(client: &Client) -> Result<(), KmsError> {
    let request = client.sdk().describe_key().key_id("00000000-0000-4000-8000-000000000000");
    request.send().await.map(|_| ()).map_err(KmsError::from)
}

/// What a client that is set up otherwise than it should be gets for an answer.
async fn refusal(change: impl FnOnce(&mut Access)) -> KmsError {
    let world = World::start().await;
    let mut access = world.access();
    change(&mut access);
    describe(&Client::new(access)).await.unwrap_err()
}

fn unreachable(error: &KmsError) -> &str {
    match error {
        KmsError::Unreachable(text) => text,
        other => panic!("{other}"),
    }
}

/// A bridge to this KMS, which counts connections.
async fn bridge(world: &World, from: Endpoint) -> Bridge {
    let to = format!("tcp:{}", world.address).parse().unwrap();
    Bridge::start("kms", from, to, Limits::default()).await.unwrap()
}

#[tokio::test]
async fn a_key_that_does_not_exist_is_found_missing() {
    assert_eq!(code(&refusal(|_| ()).await), "NotFoundException");
}

#[tokio::test]
async fn wrong_credentials_are_denials() {
    let error = refusal(|access| access.credentials.secret_access_key = "wrong".to_owned().into()).await;
    assert!(
        matches!(&error, KmsError::Denied { code, .. } if code == "InvalidSignatureException"),
        "{error}"
    );
    let error = refusal(|access| access.credentials.access_key_id = "AKIANOBODY".to_owned()).await;
    assert!(
        matches!(&error, KmsError::Denied { code, .. } if code == "UnrecognizedClientException"),
        "{error}"
    );
    let error = refusal(|access| access.credentials.session_token = Some("token".to_owned().into())).await;
    assert!(
        matches!(&error, KmsError::Denied { code, .. } if code == "UnrecognizedClientException"),
        "{error}"
    );
}

#[tokio::test]
async fn another_region_is_another_scope() {
    let error = refusal(|access| {
        access.region = "us-east-1".to_owned();
        access.host = Some(format!("kms.{REGION}.amazonaws.com"));
    })
    .await;
    assert!(
        matches!(&error, KmsError::Denied { code, .. } if code == "InvalidSignatureException"),
        "{error}"
    );
}

#[tokio::test]
async fn the_certificate_has_to_be_for_the_host_of_the_region() {
    let error = refusal(|access| access.region = "us-east-1".to_owned()).await;
    assert!(unreachable(&error).contains("certificate not valid for name"), "{error}");
    let error = refusal(|access| access.host = Some("kms.example.org".to_owned())).await;
    assert!(unreachable(&error).contains("certificate not valid for name"), "{error}");
}

#[tokio::test]
async fn a_server_under_another_root_is_refused_at_the_first_attempt() {
    let (world, other) = (World::start().await, World::start().await);
    let bridge = bridge(&world, "tcp:127.0.0.1:0".parse().unwrap()).await;
    for roots in [::kms::default_roots(), ::kms::roots_from_pem(&other.ca).unwrap()] {
        let before = bridge.stats().connections;
        let access = Access { roots, dial: bridge.local().clone(), ..world.access() };
        let error = describe(&Client::new(access)).await.unwrap_err();
        assert!(unreachable(&error).contains("invalid peer certificate"), "{error}");
        assert_eq!(bridge.stats().connections - before, 1);
    }
}

#[tokio::test]
async fn nothing_there_is_unreachable_and_says_where() {
    let error = refusal(|access| access.dial = "unix-guest:missing.vsock:5000".parse().unwrap()).await;
    assert!(unreachable(&error).contains("cannot connect to unix-guest:missing.vsock:5000"), "{error}");
}

#[tokio::test]
async fn a_connection_that_breaks_is_tried_three_times() {
    let world = World::start().await;
    // Nothing listens behind the bridge: it accepts and hangs up.
    let (from, to) = ("tcp:127.0.0.1:0".parse().unwrap(), "unix-guest:missing.vsock:5000".parse().unwrap());
    let bridge = Bridge::start("broken", from, to, Limits::default()).await.unwrap();
    let client = Client::new(Access { dial: bridge.local().clone(), ..world.access() });
    unreachable(&describe(&client).await.unwrap_err());
    assert_eq!(bridge.stats().connections, 3);
}

#[tokio::test]
async fn a_server_that_never_speaks_tls_is_given_up_in_time() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let timeout = Duration::from_secs(1);
    let start = Instant::now();
    let error = refusal(|access| {
        access.dial = format!("tcp:{address}").parse().unwrap();
        access.timeout = timeout;
    })
    .await;
    assert!(unreachable(&error).contains("timeout"), "{error}");
    assert!(start.elapsed() < timeout * 3);
}

#[tokio::test]
async fn any_endpoint_leads_to_kms() {
    let world = World::start().await;
    let path = world.directory.path().join("vm.vsock");
    let parent_side = Endpoint::Unix { path: path.clone(), port: 5000 };
    let bridge = bridge(&world, parent_side).await;
    let client = Client::new(Access { dial: Endpoint::UnixGuest { path, port: 5000 }, ..world.access() });
    assert_eq!(code(&describe(&client).await.unwrap_err()), "NotFoundException");
    assert_eq!(bridge.stats().connections, 1);
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let world = World::start().await;
    let bridge = bridge(&world, "tcp:127.0.0.1:0".parse().unwrap()).await;
    let client = Client::new(Access { dial: bridge.local().clone(), ..world.access() });
    for _ in 0..3 {
        describe(&client).await.unwrap_err();
    }
    assert_eq!(bridge.stats().connections, 1);
}
