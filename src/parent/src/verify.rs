//! Is it the expected enclave, with the expected configuration and bundle, and does the signing service that answers
//! run in it.

mod certificate;
mod connection;

use std::time::{Duration, SystemTime};

use api::control::Configuration;
use attestation::{Document, Freshness, MismatchError, Pcr, TrustRoot, sha384};
use vsock::Endpoint;

use crate::{
    Failed, Reason,
    control::{AttestError, Requests},
};

pub use certificate::{CertificateError, presented_spki};
pub use connection::{ConnectionError, stays_open};

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 32;
/// Age of a document that was asked for a moment ago; clocks may differ on top of it ([`attestation::MAX_CLOCK_SKEW`]).
const MAX_AGE: Duration = Duration::from_secs(30);

/// What an enclave has to be.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The root of its documents.
    pub root: TrustRoot,
    /// PCR0: pinned by the operator, and measured to be the same before the launch.
    pub pcr0: Pcr,
    /// PCR16: configuration and sealed bundle, as the parent handed them over.
    pub pcr16: Pcr,
}

impl Expected {
    /// For an enclave that is given this configuration and a sealed bundle with this SHA-384.
    pub fn new(root: TrustRoot, pcr0: Pcr, configuration: &Configuration, bundle_sha384: [u8; 48]) -> Self {
        let configuration = sha384(&configuration.canonical_bytes());
        Self { root, pcr0, pcr16: Pcr::of_digests(&[configuration, bundle_sha384]) }
    }
}

/// A verified enclave.
#[derive(Debug, Clone)]
pub struct Verified {
    /// What its document says.
    pub document: Document,
    /// The document as the NSM made it (COSE_Sign1).
    pub cose: Vec<u8>,
}

/// Why an enclave is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// No document.
    #[error(transparent)]
    Attest(#[from] AttestError),
    /// The service could not be asked for its certificate.
    #[error("the signing service at {at}: {source}")]
    Certificate {
        /// Where it was dialled.
        at: Endpoint,
        /// What went wrong.
        source: CertificateError,
    },
    /// A workload does not accept connections.
    #[error("the program in the place of the signing service, at {at}: {source}")]
    Connection {
        /// Where it was dialled.
        at: Endpoint,
        /// What went wrong.
        source: ConnectionError,
    },
    /// The service presents another certificate than the enclave reported.
    #[error(
        "the signing service at {at} presents a certificate with SPKI SHA-256 {actual}, but the enclave reported \
         {expected}; something other than the enclave answers there"
    )]
    Spki {
        /// Where it was dialled.
        at: Endpoint,
        /// As the enclave reported it, hex.
        expected: String,
        /// As presented, hex.
        actual: String,
    },
    /// No randomness for the nonce.
    #[error("the system has no randomness for a nonce")]
    Nonce,
    /// The document is not authentic.
    #[error("the attestation document is refused: {0}; check `enclave.attestation_root` and the clock")]
    Document(#[from] attestation::VerifyError),
    /// The document is authentic, but not the expected enclave's.
    #[error("the attestation document is not the expected enclave's: {0}")]
    Mismatch(#[from] MismatchError),
}

impl VerifyError {
    fn reason(&self) -> Reason {
        match self {
            Self::Attest(_) | Self::Nonce | Self::Connection { .. } => Reason::VerificationUnavailable,
            Self::Certificate { source, .. } if source.is_transient() => Reason::VerificationUnavailable,
            Self::Certificate { .. } | Self::Spki { .. } | Self::Document(_) | Self::Mismatch(_) => {
                Reason::VerificationFailed
            }
        }
    }
}

impl From<VerifyError> for Failed {
    fn from(error: VerifyError) -> Self {
        Self::new(error.reason(), error)
    }
}

/// Asks the enclave for a document over a fresh nonce and the service at `service` for its certificate; both have to
/// be as expected and belong together. `spki_sha256` is what the enclave reported when it became ready.
///
/// Without it the service is a workload, which is asked for nothing: it has to accept connections, and the document, which
/// names no key then, says only that the expected image runs with the expected bundle.
pub async fn verify(
    requests: &Requests,
    service: &Endpoint,
    spki_sha256: Option<&[u8; 32]>,
    expected: &Expected,
) -> Result<Verified, VerifyError> {
    match spki_sha256 {
        Some(spki_sha256) => check_certificate(service, spki_sha256).await?,
        None => stays_open(service)
            .await
            .map_err(|source| VerifyError::Connection { at: service.clone(), source })?,
    }
    let mut nonce = [0; NONCE_BYTES];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| VerifyError::Nonce)?;
    let cose = requests.attest(&nonce).await?;
    let document = check_document(&cose, &nonce, spki_sha256, expected, SystemTime::now())?;
    Ok(Verified { document, cose })
}

async fn check_certificate(service: &Endpoint, spki_sha256: &[u8; 32]) -> Result<(), VerifyError> {
    let presented = presented_spki(service)
        .await
        .map_err(|source| VerifyError::Certificate { at: service.clone(), source })?;
    if presented == *spki_sha256 {
        return Ok(());
    }
    Err(VerifyError::Spki {
        at: service.clone(),
        expected: hex::encode(spki_sha256),
        actual: hex::encode(presented),
    })
}

/// The document's part of [`verify`], at a given time.
pub fn check_document(
    cose: &[u8],
    nonce: &[u8; NONCE_BYTES],
    spki_sha256: Option<&[u8; 32]>,
    expected: &Expected,
    now: SystemTime,
) -> Result<Document, VerifyError> {
    let document = attestation::verify(cose, &expected.root, now)?;
    document.check(&attestation::Expected {
        nonce: Some(nonce),
        user_data: spki_sha256.map(<[u8; 32]>::as_slice),
        public_key: None,
        pcr0: &[expected.pcr0],
        pcr16: Some(expected.pcr16),
        freshness: Some(Freshness { now, max_age: MAX_AGE }),
    })?;
    Ok(document)
}

#[cfg(test)]
mod tests;
