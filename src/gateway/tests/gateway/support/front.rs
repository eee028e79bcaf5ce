use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use vsock::Endpoint;

/// The TCP port in front of a node, as its parent would open it. It can be frozen: connections stay open and nothing
/// passes. When it thaws, connections that were frozen are cut.
pub(crate) struct Front {
    address: String,
    frozen: watch::Sender<bool>,
}

impl Front {
    pub(crate) async fn start(to: Endpoint) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let frozen = watch::Sender::new(false);
        tokio::spawn(accept(listener, to, frozen.subscribe()));
        Self { address, frozen }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    pub(crate) fn thaw(&self) {
        self.frozen.send_replace(false);
    }
}

async fn accept(listener: TcpListener, to: Endpoint, frozen: watch::Receiver<bool>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(pass(stream, to.clone(), frozen.clone()));
    }
}

async fn pass(mut client: TcpStream, to: Endpoint, mut frozen: watch::Receiver<bool>) {
    let Ok(mut node) = vsock::connect(&to).await else { return };
    let mut freezes = frozen.clone();
    let freeze = async {
        let _ = freezes.wait_for(|frozen| *frozen).await;
    };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut node) => return,
        () = freeze => {}
    }
    let _ = frozen.wait_for(|frozen| !*frozen).await;
}

/// What shows one certificate and signs with a key: another's, if a test wants that.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Accepts one TLS connection from a client that shows any certificate or none. With `key_of_another` the handshake is
/// signed by a key that is not the certificate's.
pub(crate) async fn must_accept_tls(
    listener: &TcpListener,
    key_of_another: bool,
) -> std::io::Result<TlsStream<TcpStream>> {
    let own = KeyPair::generate().unwrap();
    let signs = if key_of_another { KeyPair::generate().unwrap() } else { own };
    let certificate = CertificateParams::default();
    let certificate = if key_of_another {
        certificate.self_signed(&KeyPair::generate().unwrap())
    } else {
        certificate.self_signed(&signs)
    };
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signs.serialize_der()));
    let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let shown = Shown(Arc::new(CertifiedKey::new(vec![certificate.unwrap().der().clone()], key)));
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (stream, _) = listener.accept().await.unwrap();
    TlsAcceptor::from(Arc::new(config)).accept(stream).await
}
