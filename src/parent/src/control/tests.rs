use std::time::Duration;

use api::control::{
    AttestationReply, GetBootRequest, ParentMessage, enclave_message::Message, parent_message,
};
use attestation::sha384;
use tokio::time::timeout;
use tonic::Code;
use vsock::Peer;

use super::*;
use crate::testing::{
    config_in,
    enclave::{Attached, attach, dial, sealed_bundle},
};

const PATIENCE: Duration = Duration::from_secs(20);

struct Setting {
    _directory: tempfile::TempDir,
    config: crate::config::Config,
    control: Control,
    guest: Peer,
}

async fn setting() -> Setting {
    let directory = tempfile::tempdir().unwrap();
    let config = config_in(directory.path());
    let offer = Offer {
        configuration: config.configuration(),
        ciphertexts: crate::fetch(&config).unwrap(),
        credentials: Credentials::load(&config.kms.credentials_file).unwrap(),
    };
    let path = directory.path().join("vm.vsock");
    let listener =
        Listener::bind(&Peer::Unix { path: path.clone() }.port(api::ports::CONTROL)).await.unwrap();
    let control = Control::start(listener, offer);
    Setting { _directory: directory, config, control, guest: Peer::UnixGuest { path } }
}

impl Setting {
    async fn event(&mut self) -> Event {
        timeout(PATIENCE, self.control.next()).await.unwrap().unwrap()
    }
}

async fn request(attached: &mut Attached) -> parent_message::Message {
    let ParentMessage { message } =
        timeout(PATIENCE, attached.down.message()).await.unwrap().unwrap().unwrap();
    message.unwrap()
}

fn refused<T>(result: Result<T, tonic::Status>) -> String {
    let status = result.err().unwrap();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    status.message().to_owned()
}

#[tokio::test]
async fn an_enclave_gets_configuration_credentials_and_the_whole_bundle() {
    let setting = setting().await;
    let mut client = dial(&setting.guest).await;
    let _attached = attach(&mut client).await.unwrap();
    let boot = client.get_boot(GetBootRequest {}).await.unwrap().into_inner();
    assert_eq!(boot.configuration, setting.config.configuration().canonical_bytes());
    assert_eq!(boot.identity_ciphertext, b"identity");
    assert_eq!(boot.credentials.unwrap().secret_access_key, "s3cr3t");
    let bundle = sealed_bundle(&mut client).await.unwrap();
    assert_eq!(boot.bundle_size, bundle.len() as u64);
    assert_eq!(sha384(&bundle), crate::fetch(&setting.config).unwrap().bundle_sha384);
}

#[tokio::test]
async fn each_call_is_served_once() {
    let setting = setting().await;
    let mut client = dial(&setting.guest).await;
    let _attached = attach(&mut client).await.unwrap();
    assert!(refused(attach(&mut client).await).contains("expected GetBoot"));
    client.get_boot(GetBootRequest {}).await.unwrap();
    assert!(refused(client.get_boot(GetBootRequest {}).await).contains("expected GetSealedBundle"));
    sealed_bundle(&mut client).await.unwrap();
    refused(sealed_bundle(&mut client).await);
    refused(client.get_boot(GetBootRequest {}).await);
    refused(attach(&mut client).await);
}

#[tokio::test]
async fn a_second_connection_gets_nothing_that_the_first_has_got() {
    let setting = setting().await;
    let mut first = dial(&setting.guest).await;
    let _attached = attach(&mut first).await.unwrap();
    first.get_boot(GetBootRequest {}).await.unwrap();
    let mut second = dial(&setting.guest).await;
    refused(attach(&mut second).await);
    refused(second.get_boot(GetBootRequest {}).await);
}

#[tokio::test]
async fn calls_out_of_order_are_refused_and_do_no_harm() {
    let setting = setting().await;
    let mut client = dial(&setting.guest).await;
    assert!(refused(client.get_boot(GetBootRequest {}).await).contains("expected Attach"));
    refused(sealed_bundle(&mut client).await);
    let _attached = attach(&mut client).await.unwrap();
    refused(sealed_bundle(&mut client).await);
    client.get_boot(GetBootRequest {}).await.unwrap();
    assert!(sealed_bundle(&mut client).await.is_ok());
}

#[tokio::test]
async fn messages_arrive_in_order_and_the_end_is_told_to_both_sides() {
    let mut setting = setting().await;
    let mut client = dial(&setting.guest).await;
    let mut attached = attach(&mut client).await.unwrap();
    attached.send(Message::Event(BootEvent { step: "one".to_owned(), ..BootEvent::default() })).await;
    attached.send(Message::Ready(Ready { accounts: 3, ..Ready::default() })).await;
    attached.send(Message::Failure(Failure::default())).await;
    drop(attached.up);
    assert!(matches!(setting.event().await, Event::Attached));
    assert!(matches!(setting.event().await, Event::Step(step) if step.step == "one"));
    assert!(matches!(setting.event().await, Event::Ready(ready) if ready.accounts == 3));
    assert!(matches!(setting.event().await, Event::Failure(_)));
    assert!(matches!(setting.event().await, Event::Detached(how) if how == "closed in order"));
    let end = timeout(PATIENCE, attached.down.message()).await.unwrap();
    assert!(matches!(end, Ok(None)), "{end:?}");
}

#[tokio::test]
async fn a_document_is_matched_to_its_nonce() {
    let setting = setting().await;
    let mut client = dial(&setting.guest).await;
    let mut attached = attach(&mut client).await.unwrap();
    let requests = setting.control.requests();
    let asked = tokio::spawn(async move { requests.attest(&[7; 32]).await });
    let parent_message::Message::Attestation(request) = request(&mut attached).await else {
        panic!("expected a request for a document");
    };
    assert_eq!(request.nonce, [7; 32]);
    for (nonce, document) in [(vec![8; 32], b"another".to_vec()), (request.nonce, b"document".to_vec())] {
        attached.send(Message::Attestation(AttestationReply { nonce, document, error: String::new() })).await;
    }
    assert_eq!(timeout(PATIENCE, asked).await.unwrap().unwrap().unwrap(), b"document");
}

#[tokio::test]
async fn an_enclave_that_cannot_attest_says_why() {
    let setting = setting().await;
    let mut client = dial(&setting.guest).await;
    let attached = attach(&mut client).await.unwrap();
    let requests = setting.control.requests();
    let asked = tokio::spawn(async move { requests.attest(&[7; 32]).await });
    let reply = AttestationReply { nonce: vec![7; 32], document: vec![], error: "NSM broke".to_owned() };
    // Only a reply that was asked for counts, so it is sent until it was.
    let refusal = async {
        loop {
            attached.send(Message::Attestation(reply.clone())).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let answer = tokio::select! {
        answer = timeout(PATIENCE, asked) => answer.unwrap().unwrap(),
        () = refusal => unreachable!(),
    };
    assert!(matches!(answer, Err(AttestError::Refused(why)) if why == "NSM broke"));
}

#[tokio::test]
async fn nobody_waits_for_an_enclave_that_is_gone() {
    let setting = setting().await;
    let requests = setting.control.requests();
    assert!(matches!(requests.attest(&[7; 32]).await, Err(AttestError::NotAttached)));
    let mut client = dial(&setting.guest).await;
    let mut attached = attach(&mut client).await.unwrap();
    let asked = tokio::spawn(async move { requests.attest(&[7; 32]).await });
    request(&mut attached).await;
    drop(attached);
    let answer = timeout(Duration::from_secs(5), asked).await.unwrap().unwrap();
    assert!(matches!(answer, Err(AttestError::NotAttached)), "{answer:?}");
}

#[tokio::test]
async fn a_shutdown_reaches_the_enclave() {
    let setting = setting().await;
    let mut client = dial(&setting.guest).await;
    let mut attached = attach(&mut client).await.unwrap();
    setting.control.requests().shut_down().await;
    assert!(matches!(request(&mut attached).await, parent_message::Message::Shutdown(_)));
}
