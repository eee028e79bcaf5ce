//! Who a Decrypt is for: the key in an attestation document, if the document can be believed.

use std::time::{Duration, SystemTime};

use attestation::{Document, TrustRoot};
use aws_lc_rs::rsa::PublicEncryptingKey;
use serde::Deserialize;

use super::{error::ServiceError, request::Blob};

/// KMS API reference, RecipientInfo.
const MAX_DOCUMENT_LENGTH: usize = 262_144;
/// KMS takes documents of the last five minutes. Clocks may differ by as much.
const MAX_AGE: Duration = Duration::from_mins(5);
const OAEP: &str = "RSAES_OAEP_SHA_256";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct RecipientInfo {
    key_encryption_algorithm: String,
    attestation_document: Blob,
}

impl RecipientInfo {
    pub(crate) fn document(&self) -> &[u8] {
        &self.attestation_document.0
    }
}

/// A recipient that was believed.
pub(crate) struct Recipient {
    pub(crate) document: Document,
    /// DER of a SubjectPublicKeyInfo with an RSA key.
    pub(crate) public_key: Vec<u8>,
}

impl Recipient {
    pub(crate) fn new(info: &RecipientInfo, root: &TrustRoot, now: SystemTime) -> Result<Self, ServiceError> {
        if info.key_encryption_algorithm != OAEP {
            return Err(ServiceError::constraint(
                "recipient.keyEncryptionAlgorithm",
                "satisfy enum value set: [RSAES_OAEP_SHA_256]",
            ));
        }
        let document = info.document();
        if document.is_empty() || document.len() > MAX_DOCUMENT_LENGTH {
            let constraint = "have length between 1 and 262144";
            return Err(ServiceError::constraint("recipient.attestationDocument", constraint));
        }
        let document =
            attestation::verify(document, root, now).map_err(|error| invalid(&error.to_string()))?;
        check_age(document.timestamp(), now)?;
        let public_key = document.public_key.clone().ok_or_else(|| invalid("it has no public key"))?;
        check_public_key(&public_key)?;
        Ok(Self { document, public_key })
    }
}

fn check_age(made: SystemTime, now: SystemTime) -> Result<(), ServiceError> {
    let distance = now.duration_since(made).unwrap_or_else(|ahead| ahead.duration());
    if distance > MAX_AGE {
        return Err(invalid("it is older than five minutes, or from the future"));
    }
    Ok(())
}

/// The length has been checked with the document: at most 1024 bytes. AWS-LC takes RSA keys of 2048 to 8192 bits.
fn check_public_key(der: &[u8]) -> Result<(), ServiceError> {
    let problem = |_| invalid("its public key is not an RSA key of 2048 bits or more in SPKI DER");
    PublicEncryptingKey::from_der(der).map(|_| ()).map_err(problem)
}

/// AWS does not publish its words for this.
fn invalid(reason: &str) -> ServiceError {
    ServiceError::validation(format!("Attestation document is invalid: {reason}"))
}
