//! The bundle of key shares: its JSON format, its age sealing, and its streaming open with digests of both
//! sides.
//!
//! No I/O of its own: callers bring bytes, readers and writers. Formats: `service_key_shares.json` as
//! documented at [`Bundle`], sealed as an ordinary age file (<https://c2sp.org/age>) to one X25519 recipient.

mod bundle;
mod identity;
mod parse;
mod rules;
mod seal;
mod secret;
#[cfg(test)]
mod tests;
mod write;

pub use bundle::{Account, Bundle, BundleError, Scheme, UnknownScheme};
pub use identity::{Identity, IdentityError};
pub use seal::{Digests, OpenError, SealError, open, seal};
pub use secret::{PartySecretKey, Secret32, SecretShare};
