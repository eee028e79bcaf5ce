use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// What shows one certificate and signs with a key: another's, if a test wants that.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A server with a certificate and key of its own, in place of a node's.
pub(crate) struct Impostor {
    certificate: CertificateDer<'static>,
    acceptor: TlsAcceptor,
}

impl Impostor {
    pub(crate) fn generate() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        Self::showing(certificate.der().clone(), &key)
    }

    /// Signs handshakes with a key that is not the certificate's.
    pub(crate) fn without_the_key() -> Self {
        let certificate = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
        Self::showing(certificate.der().clone(), &KeyPair::generate().unwrap())
    }

    fn showing(certificate: CertificateDer<'static>, key: &KeyPair) -> Self {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let shown = Shown(Arc::new(CertifiedKey::new(vec![certificate.clone()], key)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(shown));
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self { certificate, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    pub(crate) fn spki_sha256(&self) -> [u8; 32] {
        attestation::spki_sha256(&self.certificate).unwrap()
    }

    /// Accepts one TLS connection, whatever certificate the client has.
    pub(crate) async fn accept(&self, listener: &TcpListener) -> std::io::Result<TlsStream<TcpStream>> {
        let (stream, _) = listener.accept().await?;
        self.acceptor.accept(stream).await
    }
}
