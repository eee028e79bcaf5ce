//! What clients may not do, through the parent's ingress.

use api::sign::{PingRequest, sign_request::Step};
use harness::Options;
use tonic::Code;

use crate::{
    Serving,
    client::{Call, Certificate, CoSigner, connect, message, open},
    runtime,
};

const ED25519: &str = "frost-ed25519-1";

#[test]
fn a_client_with_a_foreign_certificate_is_refused() {
    let serving = Serving::start(Options::default());
    runtime().block_on(async {
        let mut client = connect(&serving, &Certificate::gateway(&serving)).await.unwrap();
        client.ping(PingRequest {}).await.unwrap();
        // With TLS 1.3 the refusal may reach the client after its own handshake.
        let refused = match connect(&serving, &Certificate::foreign()).await {
            Err(_) => true,
            Ok(mut client) => client.ping(PingRequest {}).await.is_err(),
        };
        assert!(refused, "a foreign certificate was let in");
        client.ping(PingRequest {}).await.unwrap();
    });
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let serving = Serving::start(Options::default());
    runtime().block_on(async {
        let config = rustls::ClientConfig::builder()
            .dangerous()
            .with_custom_certificate_verifier(std::sync::Arc::new(AnyServer))
            .with_no_client_auth();
        let stream = tokio::net::TcpStream::connect(serving.ingress()).await.unwrap();
        let name = "enclave".try_into().unwrap();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let answer = match connector.connect(name, stream).await {
            Err(error) => error,
            Ok(mut stream) => {
                let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
                stream.read_u8().await.expect_err("a client without a certificate was let in")
            }
        };
        assert!(answer.to_string().contains("CertificateRequired"), "{answer}");
    });
}

#[test]
fn messages_that_break_the_protocol_end_their_session_with_the_right_status() {
    let serving = Serving::start(Options::default());
    let cosigner = CoSigner::new(&serving);
    runtime().block_on(async {
        let mut client = connect(&serving, &Certificate::gateway(&serving)).await.unwrap();

        let request = open("nobody");
        assert_eq!(Call::start(&mut client, request).await.refusal().await.code(), Code::NotFound);

        // Out of order: a message of round 2 while round 1 is open.
        let request = open(ED25519);
        let (_, mut first) = cosigner.session(&request);
        let call = Call::start(&mut client, request).await;
        first.round = 2;
        call.send(message(&first)).await;
        assert_eq!(call.refusal().await.code(), Code::FailedPrecondition);

        // Repeated: the same message of round 1 again.
        let request = open(ED25519);
        let (_, first) = cosigner.session(&request);
        let call = Call::start(&mut client, request).await;
        call.send(message(&first)).await;
        call.send(message(&first)).await;
        assert_eq!(call.refusal().await.code(), Code::FailedPrecondition);

        // From a party that is not in the session.
        let request = open(ED25519);
        let (_, mut first) = cosigner.session(&request);
        let call = Call::start(&mut client, request).await;
        first.sender = "stranger".to_owned();
        call.send(message(&first)).await;
        assert_eq!(call.refusal().await.code(), Code::PermissionDenied);

        // Not authentic: one bit of the ciphertext.
        let request = open(ED25519);
        let (_, mut first) = cosigner.session(&request);
        let call = Call::start(&mut client, request).await;
        first.ciphertext[0] ^= 1;
        call.send(message(&first)).await;
        assert_eq!(call.refusal().await.code(), Code::PermissionDenied);

        // Of another session.
        let request = open(ED25519);
        let (_, first) = cosigner.session(&open(ED25519));
        let call = Call::start(&mut client, request).await;
        call.send(message(&first)).await;
        assert_eq!(call.refusal().await.code(), Code::InvalidArgument);

        // Oversized.
        let request = open(ED25519);
        let (_, mut first) = cosigner.session(&request);
        let call = Call::start(&mut client, request).await;
        first.ciphertext = vec![0; 65_537];
        call.send(message(&first)).await;
        let status = call.refusal().await;
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().contains("65536"), "the message says the limit: {status}");

        // A second `open`.
        let request = open(ED25519);
        let call = Call::start(&mut client, request.clone()).await;
        call.send(Step::Open(request)).await;
        assert_eq!(call.refusal().await.code(), Code::FailedPrecondition);

        // After all this an honest session still signs.
        let request = open(ED25519);
        let (_, first) = cosigner.session(&request);
        let mut call = Call::start(&mut client, request).await;
        call.send(message(&first)).await;
        assert!(call.next().await.unwrap().is_some());
    });
}

#[test]
fn the_session_cap_is_kept_and_named() {
    let serving = Serving::start(Options { max_sessions: 2, ..Options::default() });
    runtime().block_on(async {
        let mut client = connect(&serving, &Certificate::gateway(&serving)).await.unwrap();
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut call = Call::start(&mut client, open(ED25519)).await;
            // Its first message: the session is open.
            assert!(call.next().await.unwrap().is_some());
            held.push(call);
        }
        let status = Call::start(&mut client, open(ED25519)).await.refusal().await;
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().contains('2'), "the message says the limit: {status}");
        drop(held);
        // The slots come back when the clients are gone.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while !matches!(Call::start(&mut client, open(ED25519)).await.next().await, Ok(Some(_))) {
            assert!(std::time::Instant::now() < deadline, "the slots did not come back");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn a_session_left_idle_ends_at_its_deadline() {
    let serving = Serving::start(Options { session_deadline_ms: 300, ..Options::default() });
    runtime().block_on(async {
        let mut client = connect(&serving, &Certificate::gateway(&serving)).await.unwrap();
        let status = Call::start(&mut client, open(ED25519)).await.refusal().await;
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(status.message().contains("300"), "the message says the limit: {status}");
    });
}

/// Trusts every server: what is tested is whom the server trusts.
#[derive(Debug)]
struct AnyServer;

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
