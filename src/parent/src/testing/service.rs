//! A TLS 1.3 server that, like the signing service, asks for a client certificate that nobody here has.

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig, crypto::aws_lc_rs::default_provider, server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;
use vsock::{Endpoint, Listener};

pub(crate) struct FakeService {
    pub(crate) spki_sha256: [u8; 32],
    pub(crate) at: Endpoint,
    _task: AbortOnDropHandle<()>,
}

impl FakeService {
    pub(crate) async fn start(listen: &Endpoint) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(["sign".to_owned()]).unwrap().self_signed(&key).unwrap();
        let spki_sha256 = attestation::spki_sha256(certificate.der()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let provider = Arc::new(default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .unwrap();
        let listener = Listener::bind(listen).await.unwrap();
        let at = listener.local().clone();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let serve = async move {
            while let Ok(stream) = listener.accept().await {
                assert!(acceptor.accept(stream).await.is_err(), "somebody had a client certificate");
            }
        };
        Self { spki_sha256, at, _task: AbortOnDropHandle::new(tokio::spawn(serve)) }
    }
}
