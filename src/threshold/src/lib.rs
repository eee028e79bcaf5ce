//! Threshold signature schemes and the session state machine; no I/O.
//!
//! A dealer makes keys ([`deal`]), a loader checks them ([`check`]), and a signer opens a [`Session`] for
//! each signature, hands the envelopes it returns to the other signers and feeds it theirs. Schemes are RFC
//! 9591 FROST with two rounds: `frost-ed25519` and `frost-secp256k1-tr` (BIP340).

mod envelope;
mod error;
mod frost;
mod material;
mod scheme;
mod session;
#[cfg(test)]
mod tests;

pub use envelope::{
    ENCAPSULATED_KEY_BYTES, Envelope, MAX_CIPHERTEXT_BYTES, PartyKeys, generate_party_key, party_public_key,
};
pub use error::{ErrorKind, SessionError};
pub use material::{DealError, Dealt, KeyMaterial, ShareError, check, deal};
pub use scheme::{SchemeId, UnknownScheme};
pub use session::{MAX_MESSAGE_BYTES, Open, Progress, SESSION_ID_BYTES, Session};
