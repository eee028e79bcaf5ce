//! Every call but `Sign`, from a client with a good certificate.
use std::time::SystemTime;

use api::sign::{
    GetAccountRequest, GetAttestationRequest, GetStatusRequest, ListAccountsRequest, PingRequest,
};
use attestation::{TrustRoot, spki_sha256, verify};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::support::{NODE, Running, must_open, must_send, must_sign, try_handshake};

#[tokio::test]
async fn ping_names_the_party_and_the_epoch() {
    let running = Running::new().await;
    let answer = running.client().await.ping(PingRequest {}).await.unwrap().into_inner();
    assert_eq!((answer.party.as_str(), answer.epoch), (NODE, 7));
}

#[tokio::test]
async fn an_attestation_document_names_the_nonce_and_the_certificate_of_the_connection() {
    let running = Running::new().await;
    let nonce = b"sixteen bytes at least".to_vec();
    let request = GetAttestationRequest { nonce: nonce.clone() };
    let answer = running.client().await.get_attestation(request).await.unwrap().into_inner();

    let tls = try_handshake(&running.world.endpoint(), Some(running.world.ca.client())).await.unwrap();
    let certificate = tls.get_ref().1.peer_certificates().unwrap()[0].clone();
    let spki = spki_sha256(&certificate).unwrap();
    let root = TrustRoot::from_der(running.world.authority.root_der());
    let document = verify(&answer.document, &root, SystemTime::now()).unwrap();
    assert_eq!(document.user_data, Some(spki.to_vec()));
    assert_eq!(document.nonce, Some(nonce));
    assert_eq!(document.public_key, None);
    assert_eq!(running.ready.spki_sha256, hex::encode(spki));
    assert_eq!(answer.configuration, running.world.config.configuration);
    assert_eq!(answer.sealed_bundle_sha384, running.world.config.sealed_bundle_sha384);
}

#[tokio::test]
async fn a_nonce_of_a_bad_size_is_refused_with_the_limit() {
    let running = Running::new().await;
    let mut client = running.client().await;
    for length in [0, 15, 513] {
        let status =
            client.get_attestation(GetAttestationRequest { nonce: vec![1; length] }).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("16 to 512 bytes"), "{status}");
    }
}

#[tokio::test]
async fn an_account_is_described_by_its_public_part() {
    let running = Running::new().await;
    let mut client = running.client().await;
    let account =
        client.get_account(GetAccountRequest { account: "tr".to_owned() }).await.unwrap().into_inner();
    assert_eq!(
        (account.id.as_str(), account.scheme.as_str(), account.threshold),
        ("tr", "frost-secp256k1-tr", 2)
    );
    assert_eq!(account.parties, [NODE, "gateway", "spare"]);
    assert_eq!(account.public_key, running.world.group.public_key("tr"));

    let status = client.get_account(GetAccountRequest { account: "nobody".to_owned() }).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "account \"nobody\" is not in this node's bundle")
    );
    let status = client.get_account(GetAccountRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn accounts_come_in_pages_in_order_of_their_ids() {
    let running = Running::new().await;
    let mut client = running.client().await;
    let mut list = async |page_size, page_token: &str| {
        let request = ListAccountsRequest { page_size, page_token: page_token.to_owned() };
        client.list_accounts(request).await.map(tonic::Response::into_inner)
    };
    let ids = |accounts: Vec<api::sign::Account>| {
        accounts.into_iter().map(|account| account.id).collect::<Vec<_>>()
    };

    let all = list(0, "").await.unwrap();
    assert_eq!((all.total, all.next_page_token.as_str()), (2, ""));
    assert_eq!(ids(all.accounts), ["ed", "tr"]);

    let first = list(1, "").await.unwrap();
    assert_eq!(first.total, 2);
    assert_eq!(ids(first.accounts), ["ed"]);
    let second = list(1, &first.next_page_token).await.unwrap();
    assert_eq!((ids(second.accounts), second.next_page_token.as_str()), (vec!["tr".to_owned()], ""));

    assert_eq!(list(1001, "").await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(list(1, &"x".repeat(129)).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_status_counts_sessions() {
    let running = Running::new().await;
    let mut client = running.client().await;
    must_sign(&mut client, &running.world.group, must_open("ed")).await;
    let (failing, ..) = must_send(&mut client, &running.world.group, must_open("tr")).await;
    let _active = must_send(&mut client, &running.world.group, must_open("tr")).await;
    drop(failing);

    let status = loop {
        let status = client.get_status(GetStatusRequest {}).await.unwrap().into_inner();
        if status.failed_sessions == 1 {
            break status;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert_eq!((status.party.as_str(), status.epoch, status.accounts), (NODE, 7, 2));
    assert_eq!((status.active_sessions, status.max_sessions, status.completed_sessions), (1, 4, 1));
    assert_eq!(status.loaded_at_unix_ms, running.ready.loaded_at_unix_ms);
    assert!(status.uptime_ms < 60_000);
}

#[tokio::test]
async fn health_is_answered_for_the_server_and_for_the_service() {
    let running = Running::new().await;
    let mut health = HealthClient::new(running.channel().await);
    for service in ["", "nitrosign.v1.SignService"] {
        let answer = health.check(HealthCheckRequest { service: service.to_owned() }).await.unwrap();
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "{service:?}");
    }
}

#[tokio::test]
async fn reflection_lists_all_services() {
    let running = Running::new().await;
    let mut reflection = ServerReflectionClient::new(running.channel().await);
    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut answers =
        reflection.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(services)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("expected a list of services");
    };
    let names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
    for name in ["nitrosign.v1.SignService", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|listed| listed == name), "{name} is not in {names:?}");
    }
}

#[tokio::test]
async fn a_request_over_the_size_limit_is_refused() {
    let running = Running::new().await;
    let mut client = running.client().await;
    let nonce = vec![1; sign_service::MAX_REQUEST_BYTES];
    let status = client.get_attestation(GetAttestationRequest { nonce }).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(status.message().contains("the limit is: 262144 bytes"), "{status}");
}
