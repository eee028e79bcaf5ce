//! A security module in software, for development and tests: real documents under a root of its own.
//!
//! It behaves as the Nitro security module does: registers 0 to 15 belong to the hypervisor and are locked from the
//! start, 16 to 31 can be extended and locked by the enclave, documents show the registers that are locked. Whoever
//! trusts its root can be told anything; hence a root that is made anew for each test, and no place in production
//! builds (feature `software-nsm`).

mod authority;
mod chain;
mod frames;
mod module;

use std::io;

pub use authority::TestAuthority;
pub use frames::serve;
pub(crate) use frames::{read_frame, write_frame};
pub use module::{SoftwareNsm, handle};

/// In every binary that makes such documents or takes them over the socket, and in no other: what to search a production
/// binary for. Also in the certificates of the documents.
pub const MARKER: &str = "nitro-sign software NSM (not for production)";

/// What goes wrong when documents are made.
#[derive(Debug, thiserror::Error)]
pub enum SoftwareError {
    /// A certificate cannot be made.
    #[error("test certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The library of cryptography failed; it does not say why.
    #[error("test signature or random bytes: the library of cryptography failed")]
    Cryptography,
    /// A file of the authority cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What happened.
        source: io::Error,
    },
    /// The files are not those of one authority.
    #[error("{0}: root.pem and root.key do not belong together; make a new authority in an empty directory")]
    Mismatch(String),
}
