//! Members of requests, in AWS JSON 1.1: binary is base64, names are in Pascal case.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{blob::EncryptionContext, error::ServiceError, recipient::RecipientInfo};
use crate::aws::json;

/// Bytes, base64 in JSON.
#[derive(Clone, Default)]
pub(crate) struct Blob(pub(crate) Vec<u8>);

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(|_| D::Error::custom("a blob is not base64"))
    }
}

/// Binary for an answer.
pub(crate) fn blob(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Reads the members of a request.
pub(crate) fn read<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, ServiceError> {
    json::read(body, ServiceError::validation)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct CreateKey {
    pub(crate) policy: Option<String>,
    #[serde(default)]
    pub(crate) description: String,
    pub(crate) key_spec: Option<String>,
    pub(crate) key_usage: Option<String>,
    pub(crate) origin: Option<String>,
    #[serde(default)]
    pub(crate) bypass_policy_lockout_safety_check: bool,
}

/// For every operation that takes nothing but a key.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct KeyOnly {
    pub(crate) key_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct GetKeyPolicy {
    pub(crate) key_id: String,
    pub(crate) policy_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct PutKeyPolicy {
    pub(crate) key_id: String,
    pub(crate) policy_name: Option<String>,
    pub(crate) policy: String,
    #[serde(default)]
    pub(crate) bypass_policy_lockout_safety_check: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct EnableKeyRotation {
    pub(crate) key_id: String,
    pub(crate) rotation_period_in_days: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct Encrypt {
    pub(crate) key_id: String,
    pub(crate) plaintext: Blob,
    #[serde(default)]
    pub(crate) encryption_context: EncryptionContext,
    pub(crate) encryption_algorithm: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct Decrypt {
    pub(crate) ciphertext_blob: Blob,
    pub(crate) key_id: Option<String>,
    #[serde(default)]
    pub(crate) encryption_context: EncryptionContext,
    pub(crate) encryption_algorithm: Option<String>,
    pub(crate) recipient: Option<RecipientInfo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct ReEncrypt {
    pub(crate) ciphertext_blob: Blob,
    pub(crate) source_key_id: Option<String>,
    #[serde(default)]
    pub(crate) source_encryption_context: EncryptionContext,
    pub(crate) destination_key_id: String,
    #[serde(default)]
    pub(crate) destination_encryption_context: EncryptionContext,
    pub(crate) source_encryption_algorithm: Option<String>,
    pub(crate) destination_encryption_algorithm: Option<String>,
}
