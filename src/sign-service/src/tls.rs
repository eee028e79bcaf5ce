use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier},
    version::TLS13,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer,
    pem::{self, PemObject as _},
};

const COMMON_NAME: &str = "nitro-sign enclave";
/// Not a real host: clients pin the key through the attestation document, whatever name they dial.
const SERVER_NAME: &str = "nitro-sign.enclave";
const ALPN_HTTP2: &[u8] = b"h2";

/// Why the service's side of TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The bundle's client CA is not what it should be.
    #[error("the bundle's client_ca is not a list of PEM certificates: {0}")]
    ClientCaPem(pem::Error),
    /// The bundle names no client CA, so that no client could ever connect.
    #[error("the bundle's client_ca holds no certificate; seal a bundle with the CA of the Sign Gateways")]
    ClientCaEmpty,
    /// A certificate of the client CA cannot be a trust anchor.
    #[error("the bundle's client_ca: {0}")]
    ClientCa(rustls::Error),
    /// The verifier for client certificates refuses the CA.
    #[error("the bundle's client_ca: {0}")]
    Verifier(#[from] VerifierBuilderError),
    /// The service's own key or certificate cannot be made.
    #[error("cannot make the service's certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// rustls refuses the parameters.
    #[error("cannot set up TLS: {0}")]
    Tls(rustls::Error),
}

/// The service's TLS identity, made at each start. The key is in memory only.
pub(crate) struct Identity {
    key: PrivateKeyDer<'static>,
    certificate: CertificateDer<'static>,
}

impl Identity {
    /// A new P-256 key with a self-signed certificate.
    pub(crate) fn generate() -> Result<Self, TlsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut parameters = CertificateParams::new([SERVER_NAME.to_owned()])?;
        parameters.distinguished_name.push(DnType::CommonName, COMMON_NAME);
        // The enclave's clock drifts, and the key dies with the process: validity in time says nothing here.
        parameters.not_before = date_time_ymd(2000, 1, 1);
        parameters.not_after = date_time_ymd(2100, 1, 1);
        let certificate = parameters.self_signed(&key)?.der().clone();
        Ok(Self { key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(), certificate })
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// TLS 1.3 only, HTTP/2, and a client certificate from `client_ca` (PEM) on every connection.
    pub(crate) fn server_config(self, client_ca: &str) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = Arc::new(roots(client_ca)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(TlsError::Tls)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.certificate], self.key)
            .map_err(TlsError::Tls)?;
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        // No resumption: every connection shows its certificate, so that no ticket outlives it.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

fn roots(client_ca: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(client_ca.as_bytes()) {
        roots.add(certificate.map_err(TlsError::ClientCaPem)?).map_err(TlsError::ClientCa)?;
    }
    if roots.is_empty() { Err(TlsError::ClientCaEmpty) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_has_another_key() {
        let spki = || {
            let identity = Identity::generate().unwrap();
            attestation::spki_sha256(identity.certificate()).unwrap()
        };
        assert_ne!(spki(), spki());
    }

    #[test]
    fn a_client_ca_without_a_usable_certificate_is_refused() {
        for client_ca in [
            "",
            "not a certificate",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n",
        ] {
            let error = Identity::generate().unwrap().server_config(client_ca).unwrap_err();
            assert!(error.to_string().contains("client_ca"), "{error}");
        }
    }
}
