//! What a document says, and whether it is what was expected.

mod check;
mod parse;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

pub use check::{Expected, Freshness, MAX_CLOCK_SKEW};

use crate::Pcr;

/// The contents of an attestation document, field by field as the AWS document has them. [`crate::verify()`] makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Id of the security module, such as `i-0123456789abcdef0-enc0123456789abcdef`; not empty.
    pub module_id: String,
    /// When the document was made, in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// Digest of the PCRs: `SHA384`.
    pub digest: String,
    /// The PCRs that were locked when the document was made, by index (0..=31); at least one.
    pub pcrs: BTreeMap<u16, Pcr>,
    /// What the enclave wants to be encrypted to, 1..=1024 bytes.
    pub public_key: Option<Vec<u8>>,
    /// What the enclave says, 0..=512 bytes.
    pub user_data: Option<Vec<u8>>,
    /// What the verifier asked the enclave to repeat, 0..=512 bytes.
    pub nonce: Option<Vec<u8>>,
    /// The certificate of the key that signed the document, DER.
    pub certificate: Vec<u8>,
    /// Its issuers, DER, 1..=1024 bytes each, the root first.
    pub cabundle: Vec<Vec<u8>>,
}

impl Document {
    /// The value of a PCR, if it was locked when the document was made.
    pub fn pcr(&self, index: u16) -> Option<Pcr> {
        self.pcrs.get(&index).copied()
    }

    /// When the document was made: also the time to verify an archived one at.
    pub fn timestamp(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.timestamp_ms)
    }
}
