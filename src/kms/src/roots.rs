use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use thiserror::Error;

/// PEM text that holds no usable trust roots.
#[derive(Debug, Error)]
pub enum RootsError {
    /// Not PEM.
    #[error("the trust roots are not PEM certificates: {0}")]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// A certificate that cannot be a trust anchor.
    #[error("certificate {position} of the trust roots cannot be used: {reason}")]
    Certificate {
        /// 1 is the first one.
        position: usize,
        /// What rustls says.
        reason: rustls::Error,
    },
    /// No `CERTIFICATE` section at all.
    #[error("the trust roots hold no certificate")]
    Empty,
}

/// The public web's certificate authorities, compiled in: AWS's endpoints are under Amazon Root CA 1 to 4.
pub fn default_roots() -> RootCertStore {
    webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()
}

/// Trust roots from PEM text with one certificate or more. They replace the public ones.
pub fn roots_from_pem(pem: &str) -> Result<RootCertStore, RootsError> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
        roots.add(certificate?).map_err(|reason| RootsError::Certificate { position: index + 1, reason })?;
    }
    if roots.is_empty() { Err(RootsError::Empty) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiled_in_roots_hold_the_four_amazon_roots() {
        let name = |common_name: &str| {
            default_roots().roots.iter().any(|root| {
                root.subject.as_ref().windows(common_name.len()).any(|part| part == common_name.as_bytes())
            })
        };
        for number in 1..=4 {
            assert!(name(&format!("Amazon Root CA {number}")), "Amazon Root CA {number}");
        }
        assert!(!name("Amazon Root CA 5"));
    }

    #[test]
    fn text_without_a_certificate_is_refused() {
        assert!(matches!(roots_from_pem(""), Err(RootsError::Empty)));
        assert!(matches!(roots_from_pem("no certificate here\n"), Err(RootsError::Empty)));
    }

    #[test]
    fn damaged_text_and_damaged_certificates_are_refused() {
        let cut = "-----BEGIN CERTIFICATE-----\nMIIB\n";
        assert!(matches!(roots_from_pem(cut), Err(RootsError::Pem(_))));
        let wrong = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        assert!(matches!(roots_from_pem(wrong), Err(RootsError::Certificate { position: 1, .. })));
    }
}
