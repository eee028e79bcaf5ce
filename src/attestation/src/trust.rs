//! The root of all trust in documents.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::TextError;

/// The root certificate under which documents are believed, by the SHA-256 of its DER encoding.
///
/// A document carries its root; a fingerprint is enough to know it again.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TrustRoot([u8; 32]);

impl TrustRoot {
    /// AWS Nitro Enclaves root G1, valid until 2049. AWS publishes the fingerprint in "Verifying the root of trust" of
    /// the Nitro Enclaves user guide.
    pub const AWS_NITRO_G1: Self = Self([
        0x64, 0x1a, 0x03, 0x21, 0xa3, 0xe2, 0x44, 0xef, 0xe4, 0x56, 0x46, 0x31, 0x95, 0xd6, 0x06, 0x31, 0x7e,
        0xd7, 0xcd, 0xcc, 0x3c, 0x17, 0x56, 0xe0, 0x98, 0x93, 0xf3, 0xc6, 0x8f, 0x79, 0xbb, 0x5b,
    ]);

    /// The root with this certificate.
    pub fn from_der(certificate: &[u8]) -> Self {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Self(fingerprint)
    }

    /// The root in a PEM file, which has to hold one certificate and no other.
    pub fn from_pem(pem: &str) -> Result<Self, TextError> {
        let certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| TextError::Pem(error.to_string()))?;
        match certificates.as_slice() {
            [certificate] => Ok(Self::from_der(certificate)),
            other => Err(TextError::Pem(format!("{} certificates found", other.len()))),
        }
    }

    /// The root with this fingerprint, 64 hexadecimal digits.
    pub fn from_fingerprint_hex(fingerprint: &str) -> Result<Self, TextError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(fingerprint, &mut bytes)
            .map_err(|_| TextError::Fingerprint(fingerprint.to_owned()))?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for TrustRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for TrustRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustRoot({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_64_hexadecimal_digits() {
        let aws = "641A0321A3E244EFE456463195D606317ED7CDCC3C1756E09893F3C68F79BB5B";
        assert_eq!(TrustRoot::from_fingerprint_hex(aws), Ok(TrustRoot::AWS_NITRO_G1));
        for bad in ["", "64", &aws[1..], &format!("{aws}00")] {
            assert_eq!(TrustRoot::from_fingerprint_hex(bad), Err(TextError::Fingerprint(bad.to_owned())));
        }
    }

    #[test]
    fn a_pem_file_has_exactly_one_certificate() {
        let certificate = "-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n";
        assert_eq!(TrustRoot::from_pem(certificate), Ok(TrustRoot::from_der(&[0, 1, 2])));
        for bad in ["", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", &certificate.repeat(2)]
        {
            assert!(matches!(TrustRoot::from_pem(bad), Err(TextError::Pem(_))), "{bad:?}");
        }
    }
}
