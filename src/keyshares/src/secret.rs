use zeroize::{Zeroize as _, ZeroizeOnDrop};

/// 32 secret bytes on the heap, wiped when dropped.
///
/// Boxed, so that moving the owner (into a map, out of a parser) copies a pointer and never the secret. There
/// is no `Debug`, `Clone` or `Serialize`.
pub struct Secret32(Box<[u8; 32]>);

/// The own share of an account's key: 32 bytes, the scheme's scalar encoding (Ed25519 little-endian,
/// secp256k1 big-endian).
pub type SecretShare = Secret32;

/// The X25519 secret key (RFC 7748, 32 bytes) with which this party seals and opens protocol messages.
pub type PartySecretKey = Secret32;

impl Secret32 {
    /// Copies `bytes`; the caller wipes its own copy.
    pub fn new(bytes: &[u8; 32]) -> Self {
        let mut secret = Self::zero();
        secret.0.copy_from_slice(bytes);
        secret
    }

    /// Copies `bytes`, or nothing if they are not 32.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::new)
    }

    /// Reads 64 lower-case hex digits straight into their place.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut secret = Self::zero();
        decode_lower_hex(text, secret.0.as_mut_slice())?;
        Some(secret)
    }

    /// The bytes. Do not copy them without wiping the copy.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    fn zero() -> Self {
        Self(Box::new([0; 32]))
    }
}

impl Drop for Secret32 {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Secret32 {}

/// Fills `out` from exactly `2 * out.len()` lower-case hex digits. Upper case is refused so that a value has
/// one spelling.
pub(crate) fn decode_lower_hex(text: &str, out: &mut [u8]) -> Option<()> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    hex::decode_to_slice(text, out).ok()
}
