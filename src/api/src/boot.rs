use std::ops::RangeInclusive;

use prost::Message as _;

use crate::control::{Configuration, FailureReason};

/// Largest sealed bundle an enclave accepts, bytes.
pub const MAX_BUNDLE_BYTES: u64 = 2 << 30;
/// Largest KMS ciphertext of an age identity an enclave accepts, bytes (KMS's own limit for `Decrypt`).
pub const MAX_IDENTITY_CIPHERTEXT_BYTES: usize = 6144;

const SESSIONS: RangeInclusive<u32> = 1..=65_536;
const SESSION_DEADLINE_MS: RangeInclusive<u32> = 100..=600_000;
const KMS_TIMEOUT_MS: RangeInclusive<u32> = 100..=120_000;

/// Why a boot configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    /// The bytes are not a protobuf `Configuration`.
    #[error("the configuration is not a nitrosign.parent.v1.Configuration: {0}")]
    Malformed(String),
    /// Decoding and encoding again gives other bytes: unknown fields, another order, or explicit defaults.
    #[error(
        "the configuration is not canonically encoded; encode it with fields in order and nothing unknown"
    )]
    NotCanonical,
    /// A field's value is not allowed.
    #[error("configuration field `{field}`: {problem}")]
    Field {
        /// The field's name in `proto/parent.proto`.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl Configuration {
    /// The one encoding whose SHA-384 is extended into PCR16.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// Decodes a configuration, refusing any encoding but the canonical one and any value out of range.
    pub fn from_canonical_bytes(bytes: &[u8]) -> Result<Self, ConfigurationError> {
        let configuration =
            Self::decode(bytes).map_err(|error| ConfigurationError::Malformed(error.to_string()))?;
        if configuration.canonical_bytes() != bytes {
            return Err(ConfigurationError::NotCanonical);
        }
        configuration.validate()?;
        Ok(configuration)
    }

    /// Checks every field's range.
    pub fn validate(&self) -> Result<(), ConfigurationError> {
        let region_is_well_formed = !self.region.is_empty()
            && self.region.len() <= 32
            && self.region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !region_is_well_formed {
            return Err(field("region", "expected an AWS region such as \"eu-central-1\"".to_owned()));
        }
        if self.kms_key_id.is_empty() || self.kms_key_id.len() > 2048 {
            return Err(field("kms_key_id", "expected a KMS key id or ARN of at most 2048 bytes".to_owned()));
        }
        if self.bundle_sha256.len() != 32 {
            return Err(field(
                "bundle_sha256",
                format!("expected 32 bytes, got {}", self.bundle_sha256.len()),
            ));
        }
        in_range("max_sessions", self.max_sessions, SESSIONS)?;
        in_range("session_deadline_ms", self.session_deadline_ms, SESSION_DEADLINE_MS)?;
        in_range("kms_timeout_ms", self.kms_timeout_ms, KMS_TIMEOUT_MS)
    }
}

fn field(field: &'static str, problem: String) -> ConfigurationError {
    ConfigurationError::Field { field, problem }
}

fn in_range(name: &'static str, value: u32, range: RangeInclusive<u32>) -> Result<(), ConfigurationError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(field(name, format!("expected {} to {}, got {value}", range.start(), range.end())))
}

/// The KMS encryption context an age identity is bound to: the bundle it opens and that bundle's epoch.
///
/// `bundle_sha256` is lower-case hex of the sealed bundle's SHA-256.
pub fn encryption_context(bundle_sha256_hex: &str, epoch: u64) -> [(String, String); 2] {
    [("bundle_sha256".to_owned(), bundle_sha256_hex.to_owned()), ("epoch".to_owned(), epoch.to_string())]
}

impl FailureReason {
    /// The reason's name as logs, alarms and documents write it, for example `KmsDenied`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "Unspecified",
            Self::KmsDenied => "KmsDenied",
            Self::KmsUnreachable => "KmsUnreachable",
            Self::KmsAnswerInvalid => "KmsAnswerInvalid",
            Self::IdentityInvalid => "IdentityInvalid",
            Self::BundleCorrupt => "BundleCorrupt",
            Self::EpochMismatch => "EpochMismatch",
            Self::SharesInvalid => "SharesInvalid",
            Self::DebugMode => "DebugMode",
            Self::ServiceExited => "ServiceExited",
            Self::ConfigurationInvalid => "ConfigurationInvalid",
            Self::NsmFailed => "NsmFailed",
            Self::ParentUnreachable => "ParentUnreachable",
            Self::Internal => "Internal",
            Self::MemoryTooSmall => "MemoryTooSmall",
        }
    }

    /// Whether trying again without changing anything may help.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::KmsUnreachable | Self::ParentUnreachable | Self::ServiceExited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> Configuration {
        Configuration {
            region: "eu-central-1".to_owned(),
            kms_key_id: "1234".to_owned(),
            epoch: 1,
            bundle_sha256: vec![7; 32],
            max_sessions: 64,
            session_deadline_ms: 30_000,
            kms_timeout_ms: 10_000,
        }
    }

    #[test]
    fn canonical_bytes_read_back_as_the_same_configuration() {
        assert_eq!(Configuration::from_canonical_bytes(&valid().canonical_bytes()), Ok(valid()));
    }

    #[test]
    fn an_unknown_field_is_not_canonical() {
        let mut bytes = valid().canonical_bytes();
        bytes.extend([0xf8, 0x01, 0x01]); // field 31, varint 1
        assert_eq!(Configuration::from_canonical_bytes(&bytes), Err(ConfigurationError::NotCanonical));
    }

    #[test]
    fn a_field_given_twice_is_not_canonical() {
        let mut bytes = valid().canonical_bytes();
        bytes.extend([0x18, 0x02]); // epoch, again
        assert_eq!(Configuration::from_canonical_bytes(&bytes), Err(ConfigurationError::NotCanonical));
    }

    #[test]
    fn values_out_of_range_name_their_field() {
        let field_of = |configuration: Configuration| match configuration.validate() {
            Err(ConfigurationError::Field { field, .. }) => field,
            other => panic!("expected a field error, got {other:?}"),
        };
        assert_eq!(field_of(Configuration { region: "EU!".to_owned(), ..valid() }), "region");
        assert_eq!(field_of(Configuration { kms_key_id: String::new(), ..valid() }), "kms_key_id");
        assert_eq!(field_of(Configuration { bundle_sha256: vec![1; 31], ..valid() }), "bundle_sha256");
        assert_eq!(field_of(Configuration { max_sessions: 0, ..valid() }), "max_sessions");
        assert_eq!(field_of(Configuration { session_deadline_ms: 99, ..valid() }), "session_deadline_ms");
        assert_eq!(field_of(Configuration { kms_timeout_ms: 120_001, ..valid() }), "kms_timeout_ms");
    }
}
