//! X.509: what webpki leaves to its callers.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};

use crate::VerifyError;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// SHA-256 of the SubjectPublicKeyInfo (DER) of a certificate (DER, X.509 version 3): the `user_data` of documents that
/// vouch for a TLS key.
pub fn spki_sha256(certificate_der: &[u8]) -> Result<[u8; 32], VerifyError> {
    let certificate = CertificateDer::from(certificate_der);
    let certificate = EndEntityCert::try_from(&certificate).map_err(VerifyError::Chain)?;
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest(&SHA256, certificate.subject_public_key_info().as_ref()).as_ref());
    Ok(fingerprint)
}

/// A certificate of the document's chain and what to call it in errors.
pub(crate) struct Link {
    name: String,
    certificate: Certificate,
}

impl Link {
    pub(crate) fn parse(name: impl Into<String>, der: &[u8]) -> Result<Self, VerifyError> {
        let name = name.into();
        match Certificate::from_der(der) {
            Ok(certificate) => Ok(Self { name, certificate }),
            Err(error) => Err(VerifyError::certificate(name, error.to_string())),
        }
    }

    /// The AWS document checks the root's validity too, which webpki does not do for trust anchors.
    pub(crate) fn check_validity(&self, at: Duration) -> Result<(), VerifyError> {
        let validity = &self.certificate.tbs_certificate.validity;
        let (from, to) = (validity.not_before.to_unix_duration(), validity.not_after.to_unix_duration());
        if (from..=to).contains(&at) {
            return Ok(());
        }
        Err(self.refuse(format!(
            "valid from {} to {} s since 1970, not at {} s",
            from.as_secs(),
            to.as_secs(),
            at.as_secs()
        )))
    }

    /// "Key usage: keyCertSign bit is present", for all but the document's own certificate.
    pub(crate) fn check_signs_certificates(&self) -> Result<(), VerifyError> {
        self.check_key_usage(KeyUsages::KeyCertSign, "keyCertSign")
    }

    /// "Key usage: digitalSignature bit is present; pathLenConstraint must be undefined", and no CA: for the document's
    /// own certificate.
    pub(crate) fn check_signs_documents(&self) -> Result<(), VerifyError> {
        self.check_key_usage(KeyUsages::DigitalSignature, "digitalSignature")?;
        match self.certificate.tbs_certificate.get::<BasicConstraints>() {
            Ok(Some((_, constraints))) if constraints.ca => Err(self.refuse("a CA may not sign documents")),
            Ok(Some((_, constraints))) if constraints.path_len_constraint.is_some() => {
                Err(self.refuse("it has a path length, which is for CAs"))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(self.refuse(error.to_string())),
        }
    }

    fn check_key_usage(&self, usage: KeyUsages, name: &str) -> Result<(), VerifyError> {
        match self.certificate.tbs_certificate.get::<KeyUsage>() {
            Ok(Some((_, usages))) if usages.0.contains(usage) => Ok(()),
            Ok(_) => Err(self.refuse(format!("its key usage lacks {name}"))),
            Err(error) => Err(self.refuse(error.to_string())),
        }
    }

    /// The point of a P-384 key, uncompressed (97 bytes).
    pub(crate) fn p384_key(&self) -> Result<&[u8], VerifyError> {
        let key = &self.certificate.tbs_certificate.subject_public_key_info;
        let curve =
            key.algorithm.parameters.as_ref().and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
        if key.algorithm.oid != EC_PUBLIC_KEY || curve != Some(SECP384R1) {
            return Err(self.refuse("its key is not on the curve P-384"));
        }
        key.subject_public_key.as_bytes().ok_or_else(|| self.refuse("its key is not whole bytes"))
    }

    fn refuse(&self, reason: impl Into<String>) -> VerifyError {
        VerifyError::certificate(&self.name, reason)
    }
}
