//! AWS KMS as the enclave uses it: it sends an attestation document along and takes the answer only if it is encrypted
//! to the key that the document names.
//!
//! - [`RecipientKey`] is that key: made at each start, named by the document, wiped after use.
//! - [`Kms`] is the AWS SDK over any [`vsock::Endpoint`]. TLS ends here, in this process; whatever carries the bytes to
//!   AWS only carries them.
//! - [`cms`] reads the envelope KMS answers with, which is BER with indefinite lengths.

mod ber;
mod client;
pub mod cms;
mod connector;
mod error;
mod recipient;
mod roots;
#[cfg(test)]
mod test_envelope;

pub use ber::BerError;
pub use client::{Access, Credentials, Kms, Released};
pub use cms::CmsError;
pub use error::KmsError;
pub use recipient::{RecipientKey, RecipientKeyError};
pub use roots::{RootsError, default_roots, roots_from_pem};
