//! Who may connect.
use std::{io, time::Duration};

use api::sign::PingRequest;
use rcgen::ExtendedKeyUsagePurpose;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};

use crate::support::{Ca, Client, Running, try_handshake};

async fn must_be_refused(running: &Running, client: Option<Client>, alert: &str) {
    let error: io::Error = try_handshake(&running.world.endpoint(), client).await.unwrap_err();
    assert!(error.to_string().contains(alert), "{error}");
}

#[tokio::test]
async fn a_client_of_the_bundles_ca_is_let_in() {
    let running = Running::new().await;
    let tls = try_handshake(&running.world.endpoint(), Some(running.world.ca.client())).await.unwrap();
    let (_, session) = tls.get_ref();
    assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    must_be_refused(&Running::new().await, None, "CertificateRequired").await;
}

#[tokio::test]
async fn a_client_of_another_ca_is_refused() {
    must_be_refused(&Running::new().await, Some(Ca::named("other CA").client()), "UnknownCA").await;
    // Another key under the right name: the signature does not fit.
    must_be_refused(&Running::new().await, Some(Ca::named("client CA").client()), "DecryptError").await;
}

#[tokio::test]
async fn a_certificate_that_is_not_for_clients_is_refused() {
    let running = Running::new().await;
    let server = running.world.ca.issue(ExtendedKeyUsagePurpose::ServerAuth);
    must_be_refused(&running, Some(server), "UnsupportedCertificate").await;
}

#[tokio::test]
async fn clients_that_do_not_speak_tls_or_are_slow_hold_up_nobody() {
    let running = Running::new().await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(vsock::connect(&running.world.endpoint()).await.unwrap());
    }
    let mut plain = vsock::connect(&running.world.endpoint()).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(5), plain.read_to_end(&mut answer)).await.unwrap().ok();
    assert!(!answer.starts_with(b"HTTP"), "plain HTTP is not answered");

    let mut client = timeout(Duration::from_secs(5), running.client()).await.unwrap();
    client.ping(PingRequest {}).await.unwrap();
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_until_others_end() {
    let running = Running::new().await;
    let endpoint = running.world.endpoint();
    let mut held = Vec::new();
    for _ in 0..sign_service::MAX_CONNECTIONS {
        held.push(vsock::connect(&endpoint).await.unwrap());
    }
    let mut refused = vsock::connect(&endpoint).await.unwrap();
    let read = timeout(Duration::from_secs(2), refused.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");

    drop(held);
    let connected = async {
        while try_handshake(&endpoint, Some(running.world.ca.client())).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), connected).await.unwrap();
}
