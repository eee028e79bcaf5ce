//! TLS to a node: mutual, version 1.3, with the server's certificate recorded instead of trusted.
//!
//! A node makes its key and a self-signed certificate at each start, so there is no CA to check it against. The
//! handshake proves possession of the key; the attestation document, fetched over the same connection, then proves
//! whose key it is. Until that proof nothing but the attestation call may be sent: [`crate::connection`] sees to it.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{StartError, files};

/// The server name in the handshake. Nodes have no names; the attestation document identifies them.
const SERVER_NAME: &str = "sign-service.invalid";
const ALPN_HTTP2: &[u8] = b"h2";

/// The gateway's side of TLS: its client certificate and the rules above.
#[derive(Clone)]
pub struct Client {
    connector: TlsConnector,
    server_name: ServerName<'static>,
}

impl Client {
    /// Loads the client certificate chain and its key, both PEM.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, StartError> {
        let chain = read_chain(certificate)?;
        let pem = files::read_secret("tls_key", key)?;
        let refused = |problem: String| StartError::File { what: "tls_key", path: key.to_owned(), problem };
        let private_key = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|error| refused(format!("{error}; expected a PEM private key")))?;
        Self::new(chain, private_key).map_err(|error| {
            refused(format!("{error}; expected the key of `tls_certificate` {}", certificate.display()))
        })
    }

    /// A client that shows `chain` (leaf first) and holds its key.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustDeferred { provider }))
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        // Every connection shall show its certificate and be attested for itself.
        config.resumption = Resumption::disabled();
        let server_name =
            ServerName::try_from(SERVER_NAME).map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), server_name })
    }

    /// Shakes hands over `stream`. Whose certificate the server has shown is not known yet.
    pub async fn handshake(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.server_name.clone(), stream).await
    }
}

/// Whether the peer agreed to speak HTTP/2.
pub(crate) fn speaks_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(ALPN_HTTP2)
}

/// The certificate whose key the peer has proven to hold.
pub(crate) fn peer_certificate(stream: &TlsStream<TcpStream>) -> Option<&CertificateDer<'static>> {
    stream.get_ref().1.peer_certificates()?.first()
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let what = "tls_certificate";
    let pem = fs::read(path).map_err(|source| StartError::Read { what, path: path.to_owned(), source })?;
    let refused = |problem: String| StartError::File { what, path: path.to_owned(), problem };
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| refused(format!("{error}; expected PEM certificates")))?;
    if chain.is_empty() {
        return Err(refused("holds no PEM certificate".to_owned()));
    }
    Ok(chain)
}

/// Checks that the server holds the key of its certificate, and leaves the question whose certificate it is to
/// attestation.
#[derive(Debug)]
struct TrustDeferred {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for TrustDeferred {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    /// TLS 1.2 is not offered, so nobody may answer with it.
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 was not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
