use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs::default_provider, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{io::AsyncWriteExt as _, time::timeout};
use tokio_rustls::TlsConnector;
use vsock::Endpoint;

const PATIENCE: Duration = Duration::from_secs(10);
const ALPN_HTTP2: &[u8] = b"h2";

/// A service's certificate could not be had.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Nothing answers.
    #[error("{0}")]
    Connect(io::Error),
    /// The handshake did not come to its end.
    #[error("the TLS handshake failed: {0}")]
    Handshake(io::Error),
    /// The handshake took too long.
    #[error("no TLS handshake within {} s", PATIENCE.as_secs())]
    Timeout,
    /// TLS allows a server without a certificate; here it is refused.
    #[error("it presents no certificate")]
    None,
    /// The certificate is malformed.
    #[error("its certificate is malformed: {0}")]
    Malformed(attestation::VerifyError),
}

impl CertificateError {
    /// Whether the service may answer better the next time.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Timeout => true,
            // What rustls refuses is `InvalidData`; the rest is a connection that broke.
            Self::Handshake(error) => error.kind() != io::ErrorKind::InvalidData,
            Self::None | Self::Malformed(_) => false,
        }
    }
}

/// SHA-256 of the SubjectPublicKeyInfo of the certificate that the TLS 1.3 server at `service` presents, and has the
/// private key of. No client certificate is needed: the server's comes before its refusal.
pub async fn presented_spki(service: &Endpoint) -> Result<[u8; 32], CertificateError> {
    let certificate =
        timeout(PATIENCE, presented_certificate(service)).await.map_err(|_| CertificateError::Timeout)??;
    attestation::spki_sha256(&certificate).map_err(CertificateError::Malformed)
}

async fn presented_certificate(service: &Endpoint) -> Result<CertificateDer<'static>, CertificateError> {
    let stream = vsock::connect(service).await.map_err(CertificateError::Connect)?;
    let config = client_config().map_err(|error| CertificateError::Handshake(io::Error::other(error)))?;
    // The certificate is self-signed and for no name in particular; for an address no name is sent.
    let name = ServerName::from(Ipv4Addr::LOCALHOST);
    let mut tls = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(CertificateError::Handshake)?;
    let certificates = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let leaf = certificates.first().cloned().ok_or(CertificateError::None)?;
    // Politeness; the answer is known.
    let _ = tls.shutdown().await;
    Ok(leaf)
}

fn client_config() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    Ok(config)
}

/// Accepts every certificate whose private key the server has: it is self-signed, and what proves it is the attestation
/// document, which the caller compares it with.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
