//! `Sign`: whole sessions, and everything that must end one.
use std::time::Duration;

use api::sign::{GetAttestationRequest, GetStatusRequest, OpenSession, SignResponse, sign_request::Step};
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::support::{
    GATEWAY, NODE, Running, Stream, World, message, must_end, must_open, must_send, must_sign, open_stream,
};

/// The error of a stream whose first request is `step`.
async fn refusal_of_first(running: &Running, step: Step) -> tonic::Status {
    let mut stream = open_stream(&mut running.client().await).await;
    stream.send(step).await;
    must_end(&mut stream).await
}

async fn refusal_of(running: &Running, change: fn(&mut OpenSession)) -> tonic::Status {
    let mut open = must_open("ed");
    change(&mut open);
    refusal_of_first(running, Step::Open(open)).await
}

#[tokio::test]
async fn an_ed25519_signature_is_accepted_by_an_independent_library() {
    let running = Running::new().await;
    let open = must_open("ed");
    let signed = open.message.clone();
    let signature = must_sign(&mut running.client().await, &running.world.group, open).await;
    let key = running.world.group.public_key("ed").try_into().unwrap();
    let key = ed25519_dalek::VerifyingKey::from_bytes(&key).unwrap();
    let signature = ed25519_dalek::Signature::from_slice(&signature).unwrap();
    key.verify_strict(&signed, &signature).unwrap();
}

#[tokio::test]
async fn a_bip340_signature_is_accepted_by_an_independent_library() {
    let running = Running::new().await;
    let open = OpenSession { message: vec![0x5a; 32], ..must_open("tr") };
    let signature = must_sign(&mut running.client().await, &running.world.group, open).await;
    let key = running.world.group.public_key("tr").try_into().unwrap();
    let key = secp256k1::XOnlyPublicKey::from_byte_array(key).unwrap();
    let signature = secp256k1::schnorr::Signature::from_byte_array(signature.try_into().unwrap());
    secp256k1::Secp256k1::verification_only().verify_schnorr(&signature, &[0x5a; 32], &key).unwrap();
}

#[tokio::test]
async fn many_sessions_go_over_one_connection_one_after_another() {
    let running = Running::new().await;
    let mut client = running.client().await;
    for _ in 0..8 {
        must_sign(&mut client, &running.world.group, must_open("ed")).await;
    }
}

#[tokio::test]
async fn an_unknown_account_is_not_found() {
    let status = refusal_of(&Running::new().await, |open| open.account = "nobody".to_owned()).await;
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "account \"nobody\" is not in this node's bundle")
    );
}

#[tokio::test]
async fn signers_that_cannot_sign_are_refused() {
    let running = Running::new().await;
    for change in [
        (|open| open.signers = vec![]) as fn(&mut OpenSession),
        |open| open.signers = vec![NODE.to_owned()],
        |open| open.signers = vec![GATEWAY.to_owned(), "spare".to_owned()],
        |open| open.signers = vec![NODE.to_owned(), NODE.to_owned()],
        |open| open.signers = vec![NODE.to_owned(), "stranger".to_owned()],
    ] {
        assert_eq!(refusal_of(&running, change).await.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_message_to_sign_over_the_limit_is_refused_with_the_limit() {
    let status = refusal_of(&Running::new().await, |open| open.message = vec![1; 65_537]).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("65536 bytes"), "{status}");
}

#[tokio::test]
async fn a_request_over_the_limit_is_refused_with_the_limit() {
    let status = refusal_of(&Running::new().await, |open| open.message = vec![1; 300_000]).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("262144 bytes"), "{status}");
}

#[tokio::test]
async fn a_message_before_open_is_out_of_order() {
    let running = Running::new().await;
    let open = must_open("ed");
    let (.., own, _) = must_send(&mut running.client().await, &running.world.group, open).await;
    let status = refusal_of_first(&running, message(&own)).await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("`open`"), "{status}");
}

#[tokio::test]
async fn a_second_open_is_out_of_order() {
    let running = Running::new().await;
    let open = must_open("ed");
    let (mut stream, ..) = must_send(&mut running.client().await, &running.world.group, open.clone()).await;
    stream.send(Step::Open(open)).await;
    let status = must_end(&mut stream).await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("open already"), "{status}");
}

#[tokio::test]
async fn an_empty_request_is_refused() {
    let running = Running::new().await;
    let requests = tokio_stream::once(api::sign::SignRequest { step: None });
    let mut responses = running.client().await.sign(requests).await.unwrap().into_inner();
    assert_eq!(responses.message().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_request_that_does_not_decode_is_refused() {
    let running = Running::new().await;
    let mut grpc = tonic::client::Grpc::new(running.channel().await);
    grpc.ready().await.unwrap();
    // Field 1 is `open` to the service: a message, and these bytes are none.
    let requests = tokio_stream::once(GetAttestationRequest { nonce: vec![0xff; 20] });
    let codec = tonic_prost::ProstCodec::<GetAttestationRequest, SignResponse>::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/nitrosign.v1.SignService/Sign");
    let mut responses =
        grpc.streaming(tonic::Request::new(requests), path, codec).await.unwrap().into_inner();
    let status = responses.message().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("SignRequest"), "{status}");
}

/// An open session in which the gateway sends what `change` makes of its first message.
async fn refusal_of_message(change: impl FnOnce(&mut threshold::Envelope)) -> tonic::Status {
    let running = Running::new().await;
    let (mut stream, _, mut own, _) =
        must_send(&mut running.client().await, &running.world.group, must_open("ed")).await;
    change(&mut own);
    stream.send(message(&own)).await;
    must_end(&mut stream).await
}

#[tokio::test]
async fn a_message_of_a_later_round_is_out_of_order() {
    let status = refusal_of_message(|own| own.round = 2).await;
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
}

#[tokio::test]
async fn an_altered_message_is_not_authentic() {
    let status = refusal_of_message(|own| own.ciphertext[0] ^= 1).await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    let status = refusal_of_message(|own| own.encapsulated_key[0] ^= 1).await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
}

#[tokio::test]
async fn a_message_from_a_party_that_is_not_in_the_session_is_denied() {
    for sender in ["spare", "stranger", NODE] {
        let status = refusal_of_message(|own| own.sender = sender.to_owned()).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    }
}

#[tokio::test]
async fn a_message_of_another_session_account_or_receiver_is_refused() {
    for change in [
        (|own| own.session_id[0] ^= 1) as fn(&mut threshold::Envelope),
        |own| own.account = "tr".to_owned(),
        |own| own.receiver = GATEWAY.to_owned(),
    ] {
        assert_eq!(refusal_of_message(change).await.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_protocol_message_over_the_limit_is_refused_with_the_limit() {
    let status = refusal_of_message(|own| own.ciphertext = vec![0; 65_537]).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("65536 bytes"), "{status}");
}

#[tokio::test]
async fn a_repeated_message_is_refused() {
    let running = Running::new().await;
    let (mut stream, _, own, _) =
        must_send(&mut running.client().await, &running.world.group, must_open("ed")).await;
    stream.send(message(&own)).await;
    stream.send(message(&own)).await;
    let status = must_end(&mut stream).await;
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
}

#[tokio::test]
async fn signers_that_sign_different_messages_abort() {
    let running = Running::new().await;
    let open = must_open("ed");
    let mut stream = open_stream(&mut running.client().await).await;
    stream.send(Step::Open(OpenSession { message: b"another payment".to_vec(), ..open.clone() })).await;
    let other = threshold::Open {
        session_id: open.session_id.try_into().unwrap(),
        account: open.account,
        message: open.message,
        signers: open.signers,
    };
    let (_, own) = running.world.group.session(GATEWAY, other);
    stream.send(message(&own[0])).await;
    let status = must_end(&mut stream).await;
    assert_eq!(status.code(), Code::Aborted, "{status}");
}

#[tokio::test]
async fn a_session_id_is_taken_once() {
    let running = Running::new().await;
    let mut client = running.client().await;
    let open = must_open("ed");
    let active = must_send(&mut client, &running.world.group, open.clone()).await;
    let status = refusal_of_first(&running, Step::Open(open)).await;
    assert_eq!(status.code(), Code::AlreadyExists);
    assert!(status.message().contains("is active"), "{status}");
    drop(active);

    let open = must_open("ed");
    must_sign(&mut client, &running.world.group, open.clone()).await;
    let status = refusal_of_first(&running, Step::Open(open)).await;
    assert_eq!(status.code(), Code::AlreadyExists);
    assert!(status.message().contains("used before"), "{status}");
}

async fn must_become_idle(running: &Running) {
    let mut client = running.client().await;
    let idle = async {
        while client.get_status(GetStatusRequest {}).await.unwrap().into_inner().active_sessions > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), idle).await.unwrap();
}

#[tokio::test]
async fn the_session_cap_is_said_and_a_client_that_leaves_frees_its_place() {
    let running = Running::new().await;
    let mut client = running.client().await;
    let mut active = Vec::new();
    for _ in 0..4 {
        active.push(must_send(&mut client, &running.world.group, must_open("ed")).await);
    }
    let status = refusal_of(&running, |_| {}).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "session cap reached: 4 sessions at the same time");

    // Calls that are cancelled, then a connection that breaks.
    active.truncate(2);
    drop((client, active));
    must_become_idle(&running).await;
    must_sign(&mut running.client().await, &running.world.group, must_open("ed")).await;
}

#[tokio::test]
async fn requests_that_end_too_early_end_the_session() {
    let running = Running::new().await;
    let (stream, ..) = must_send(&mut running.client().await, &running.world.group, must_open("ed")).await;
    let status = stream.end_requests().message().await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("before the session was complete"), "{status}");
}

async fn running_with_deadline(milliseconds: u64) -> Running {
    let mut world = World::new();
    world.config.session_deadline = Duration::from_millis(milliseconds);
    world.start().await
}

async fn must_miss_deadline(stream: &mut Stream) {
    let status = must_end(stream).await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("its deadline of 1000 ms"), "{status}");
}

#[tokio::test]
async fn a_session_left_idle_is_ended_with_the_limit() {
    let running = running_with_deadline(1000).await;
    let mut client = running.client().await;
    let (mut idle, ..) = must_send(&mut client, &running.world.group, must_open("ed")).await;
    let mut never_opened = open_stream(&mut client).await;
    must_miss_deadline(&mut idle).await;
    must_miss_deadline(&mut never_opened).await;
    must_become_idle(&running).await;
}

#[tokio::test]
async fn draining_lets_the_active_session_end_and_begins_no_other() {
    let mut running = Running::new().await;
    let mut client = running.client().await;
    let open = must_open("ed");
    let (mut stream, mut session, own, first) = must_send(&mut client, &running.world.group, open).await;
    let mut other = open_stream(&mut client).await;
    running.terminate();
    let mut health = HealthClient::new(running.channel().await);
    let not_serving = async {
        while health.check(HealthCheckRequest::default()).await.unwrap().into_inner().status()
            != ServingStatus::NotServing
        {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), not_serving).await.unwrap();
    other.send(Step::Open(must_open("tr"))).await;
    assert_eq!(must_end(&mut other).await.code(), Code::Unavailable);
    let refused = client.sign(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");

    stream.send(message(&own)).await;
    let threshold::Progress::Send(second) = session.receive(&first).unwrap() else {
        panic!("expected round 2")
    };
    stream.send(message(&second[0])).await;
    let mut last = None;
    while let Some(step) = stream.next().await.unwrap() {
        last = Some(step);
    }
    assert!(matches!(last, Some(api::sign::sign_response::Step::Result(_))), "{last:?}");
    timeout(Duration::from_secs(5), running.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn draining_ends_even_if_a_session_does_not() {
    let mut running = running_with_deadline(1000).await;
    let mut client = running.client().await;
    let _idle = must_send(&mut client, &running.world.group, must_open("ed")).await;
    running.terminate();
    timeout(Duration::from_secs(5), running.task).await.unwrap().unwrap().unwrap();
}
