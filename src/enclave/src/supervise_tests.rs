use std::{fs, path::Path};

use api::control::{AttestationRequest, Failure, FailureReason, parent_message};

use super::*;
use crate::{fake_nsm::FakeNsm, fake_parent::FakeParent, outbox::outbox, stop::Cause};

const READY: &str = r#"{"ready":true,"spki_sha256":"0707070707070707070707070707070707070707070707070707070707070707","accounts":1,"loaded_at_unix_ms":5}"#;

/// A service that runs `script`, in which `ready` prints the ready line.
async fn serving(script: &str, outbox: &Outbox, directory: &Path) -> Serving {
    let path = directory.join("service.sh");
    fs::write(&path, format!("ready() {{ echo '{READY}'; }}\n{script}\n")).unwrap();
    let (service, ready) = Service::start(Path::new("/bin/sh"), &path, outbox.clone()).await.unwrap();
    Serving {
        service,
        nsm: Box::new(FakeNsm::measured()),
        spki_sha256: ready.spki_sha256.to_vec(),
        _key_file: None,
    }
}

#[tokio::test]
async fn a_request_is_answered_with_a_document_over_the_nonce_and_the_services_key() {
    let directory = tempfile::tempdir().unwrap();
    let fake = FakeParent::default().serve();
    let stop = Stop::new();
    let (outbox, queue) = outbox();
    let mut parent = Parent::attach(&fake.peer(), queue, stop.clone()).await.unwrap();
    let serving = serving("ready; exec sleep 60", &outbox, directory.path()).await;
    let watching = tokio::spawn({
        let (outbox, stop) = (outbox.clone(), stop.clone());
        async move { (supervise(serving, &mut parent, &outbox, &stop).await, parent) }
    });
    fake.send(parent_message::Message::Attestation(AttestationRequest { nonce: vec![9; 16] })).await;
    fake.send(parent_message::Message::Attestation(AttestationRequest { nonce: vec![9; 15] })).await;
    let replies = fake.wait_for(2).await;
    stop.request(Cause::Shutdown);
    watching.await.unwrap().0.unwrap();

    let [Message::Attestation(good), Message::Attestation(bad)] = &replies[..] else {
        panic!("expected two replies, got {replies:?}")
    };
    assert_eq!(good.document, [&[7; 32][..], b"|", &[9; 16], b"|"].concat());
    assert_eq!((good.nonce.as_slice(), good.error.as_str()), (&[9; 16][..], ""));
    assert!(bad.document.is_empty() && bad.error.contains("16 to 512"), "{bad:?}");
}

#[tokio::test]
async fn a_service_that_ends_by_itself_is_a_failure_after_its_last_words() {
    let directory = tempfile::tempdir().unwrap();
    let fake = FakeParent::default().serve();
    let stop = Stop::new();
    let (outbox, queue) = outbox();
    let mut parent = Parent::attach(&fake.peer(), queue, stop.clone()).await.unwrap();
    let serving = serving("ready; echo last words >&2; exit 7", &outbox, directory.path()).await;

    let error = supervise(serving, &mut parent, &outbox, &stop).await.unwrap_err();
    outbox.send(Message::Failure(error.to_failure())).unwrap();
    outbox.close();
    parent.flushed().await;

    let received = fake.received();
    let [Message::Log(log), Message::Failure(Failure { reason, step, message, .. })] = &received[..] else {
        panic!("expected a log line and a failure, got {received:?}")
    };
    assert_eq!(log.line, "last words");
    assert_eq!(*reason, i32::from(FailureReason::ServiceExited));
    assert_eq!(step, "serve");
    assert!(message.contains("exit status: 7"), "{message}");
}

#[tokio::test]
async fn the_end_of_the_control_channel_stops_the_service_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let farewell = directory.path().join("farewell");
    let fake = FakeParent::default().serve();
    let stop = Stop::new();
    let (outbox, queue) = outbox();
    let mut parent = Parent::attach(&fake.peer(), queue, stop.clone()).await.unwrap();
    let script =
        format!("trap 'echo bye > {}; exit 0' TERM; ready; while :; do sleep 0.05; done", farewell.display());
    let serving = serving(&script, &outbox, directory.path()).await;
    fake.hang_up();
    supervise(serving, &mut parent, &outbox, &stop).await.unwrap();
    assert_eq!(fs::read_to_string(farewell).unwrap(), "bye\n");
}
