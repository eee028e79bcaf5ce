use std::{io, sync::Arc};

use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio::io::AsyncReadExt as _;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint as TonicEndpoint};
use vsock::Endpoint;

/// A CA for client certificates.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A client's certificate and key.
pub(crate) type Client = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Ca {
    /// Its own key every time, even under the same name.
    pub(crate) fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new([]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(parameters, key), pem }
    }

    pub(crate) fn pem(&self) -> String {
        self.pem.clone()
    }

    pub(crate) fn client(&self) -> Client {
        self.issue(ExtendedKeyUsagePurpose::ClientAuth)
    }

    pub(crate) fn issue(&self, usage: ExtendedKeyUsagePurpose) -> Client {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(["gateway".to_owned()]).unwrap();
        parameters.extended_key_usages = vec![usage];
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }
}

/// A gRPC channel to the service.
pub(crate) async fn must_connect(endpoint: &Endpoint, client: Client) -> Channel {
    let (tls, name) = (connector(Some(client)), server_name());
    let stream = tls.connect(name, vsock::connect(endpoint).await.unwrap()).await.unwrap();
    let mut once = Some(TokioIo::new(stream));
    let connect = tower::service_fn(move |_| {
        let next = once.take().ok_or_else(|| io::Error::other("the connection ended"));
        async { next }
    });
    TonicEndpoint::from_static("http://nitro-sign").connect_with_connector(connect).await.unwrap()
}

/// Shakes hands and reads until the server has said something: with TLS 1.3 a server that refuses the client's
/// certificate says so only after the client's last message. Without `client`, no certificate is shown.
pub(crate) async fn try_handshake(
    endpoint: &Endpoint,
    client: Option<Client>,
) -> io::Result<TlsStream<vsock::Stream>> {
    let mut stream = connector(client).connect(server_name(), vsock::connect(endpoint).await?).await?;
    // An HTTP/2 server speaks first.
    stream.read_u8().await?;
    Ok(stream)
}

fn server_name() -> ServerName<'static> {
    ServerName::try_from("nitro-sign.enclave").unwrap()
}

fn connector(client: Option<Client>) -> TlsConnector {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
    let mut config = match client {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// Believes any server: what is tested here is whom the server believes.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 was not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
