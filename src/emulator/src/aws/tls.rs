//! The server's certificate, made for one run.

use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::{
    RootCertStore, ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::aws_lc_rs,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime, pem::PemObject as _,
};

use super::authority::Authority;

/// What TLS is served with, and what clients have to trust.
pub(crate) struct Tls {
    pub(crate) server: Arc<ServerConfig>,
    /// Certificate of the authority.
    pub(crate) ca_pem: String,
    /// Name of a file for it.
    pub(crate) ca_file: &'static str,
}

impl Tls {
    /// For a server with these host names or IP addresses.
    pub(crate) fn generate(hosts: &[String], authority: Authority) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(hosts)
            .with_context(|| format!("{hosts:?} cannot be host names; give another --host"))?;
        if let Some(host) = hosts.first() {
            params.distinguished_name.push(DnType::CommonName, host);
        }
        params.key_usages.push(KeyUsagePurpose::DigitalSignature);
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &authority.issuer)?;
        if let Some(directory) = &authority.directory {
            accepts(&authority.certificate_pem, certificate.der(), hosts).with_context(|| {
                format!(
                    "clients that trust {} do not accept what its key signs; the two files do not belong together. \
                     Remove both for a new authority",
                    directory.join(authority.kind.certificate_file).display()
                )
            })?;
        }

        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        Ok(Self {
            server: Arc::new(server),
            ca_pem: authority.certificate_pem,
            ca_file: authority.kind.certificate_file,
        })
    }
}

/// What a client does that trusts this authority.
fn accepts(ca_pem: &str, certificate: &CertificateDer<'_>, hosts: &[String]) -> anyhow::Result<()> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes())?)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let client = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build()?;
    for host in hosts {
        let host = ServerName::try_from(host.as_str())?;
        client.verify_server_cert(certificate, &[], &host, &[], UnixTime::now())?;
    }
    Ok(())
}
