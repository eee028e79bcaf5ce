//! What can go wrong, and what differed.

use aws_nitro_enclaves_nsm_api::api::ErrorCode;

use crate::{Pcr, TrustRoot};

/// A text that does not say what it should.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A PCR is written as 96 hexadecimal digits.
    #[error("a PCR is 96 hexadecimal digits, this is not: {0:?}")]
    Pcr(String),
    /// A fingerprint is written as 64 hexadecimal digits.
    #[error("a SHA-256 fingerprint is 64 hexadecimal digits, this is not: {0:?}")]
    Fingerprint(String),
    /// A trust root is given as a file with one PEM certificate.
    #[error("the trust root is not one PEM certificate (-----BEGIN CERTIFICATE-----): {0}")]
    Pem(String),
}

/// Why an attestation document is not believed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Larger than any document of the Nitro hypervisor.
    #[error("the attestation document has {actual} bytes, more than {limit}")]
    TooLarge {
        /// Most bytes that are read.
        limit: usize,
        /// Bytes that came.
        actual: usize,
    },
    /// Not one COSE_Sign1 object in CBOR.
    #[error("the attestation document is not a COSE_Sign1 object: {0}")]
    Cose(String),
    /// Headers other than algorithm ES384, protected.
    #[error("the COSE headers of the attestation document say more or less than ES384")]
    Header,
    /// A field that breaks the rules of the AWS document.
    #[error("field {field} of the attestation document: {reason}")]
    Field {
        /// Name of the field, with the index for members of lists and maps.
        field: String,
        /// What is wrong.
        reason: String,
    },
    /// The first certificate of the bundle is not the root that is trusted.
    #[error("the attestation document is signed under root {actual}, trusted is {expected}")]
    RootNotTrusted {
        /// The root that is trusted.
        expected: TrustRoot,
        /// The root of the document.
        actual: TrustRoot,
    },
    /// No valid path of certificates from the document's to the root.
    #[error("the certificates of the attestation document: {0}")]
    Chain(webpki::Error),
    /// A certificate may not be used the way it is used here, or cannot be read.
    #[error("the {which} certificate: {reason}")]
    Certificate {
        /// Which certificate.
        which: String,
        /// What is wrong.
        reason: String,
    },
    /// The signature is not by the key of the document's certificate.
    #[error("the signature of the attestation document is wrong")]
    Signature,
    /// The time to check at cannot be expressed.
    #[error("the time to verify the attestation document at lies before 1970: check the clock")]
    Clock,
}

impl VerifyError {
    pub(crate) fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Field { field: field.into(), reason: reason.into() }
    }

    pub(crate) fn certificate(which: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Certificate { which: which.into(), reason: reason.into() }
    }
}

/// How a believed document differs from the expected one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MismatchError {
    /// PCR0 is zero or missing: the parent can read the memory of an enclave in debug mode.
    #[error("PCR0 is all zero: the enclave runs in debug mode; start it without --debug-mode")]
    DebugMode,
    /// A PCR has a value that is not expected.
    #[error("PCR{index} is {}, expected is {}", show(actual.as_slice()), show(expected))]
    Pcr {
        /// Index of the PCR.
        index: u16,
        /// Values that are accepted; none if nothing is.
        expected: Vec<Pcr>,
        /// Value in the document, if the PCR is there.
        actual: Option<Pcr>,
    },
    /// A field has a value that is not expected.
    #[error("{field} is {actual}, expected is {expected}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Accepted value, in hexadecimal (long ones as their SHA-256).
        expected: String,
        /// Value in the document, likewise, or `absent`.
        actual: String,
    },
    /// Made too long ago, or in the future.
    #[error(
        "the document was made at {timestamp_ms} ms since 1970, at {now_ms} ms only {max_age_ms} ms of age are accepted"
    )]
    Stale {
        /// When the document was made.
        timestamp_ms: u64,
        /// When it was checked.
        now_ms: u64,
        /// Greatest accepted age.
        max_age_ms: u64,
    },
}

fn show(pcrs: &[Pcr]) -> String {
    if pcrs.is_empty() {
        return "absent".to_owned();
    }
    pcrs.iter().map(Pcr::to_string).collect::<Vec<_>>().join(" or ")
}

/// Why the security module did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum NsmError {
    /// The configuration names no security module.
    #[error("{0:?} names no security module: {remedy}", remedy = crate::nsm::LOCATIONS)]
    Location(String),
    /// The device cannot be opened.
    #[error("/dev/nsm: {0}; is this an enclave, and its kernel built with CONFIG_NSM?")]
    Device(std::io::Error),
    /// The socket of the software security module failed.
    #[cfg(feature = "software-nsm")]
    #[error("{marker} at {path}: {source}", marker = crate::software::MARKER)]
    Socket {
        /// Path of the socket.
        path: String,
        /// What happened.
        source: std::io::Error,
    },
    /// The module refused.
    #[error("the security module refuses {operation}: {code:?}")]
    Refused {
        /// Name of the request.
        operation: &'static str,
        /// The module's reason.
        code: ErrorCode,
    },
    /// The module answered something else.
    #[error("the security module's answer to {operation} cannot be used: {reason}")]
    Answer {
        /// Name of the request.
        operation: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}
