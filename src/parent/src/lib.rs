//! The daemon on the parent EC2 instance: launches the enclave, hands it what it unseals, verifies it, and only then
//! lets clients reach it.
//!
//! [`run`] is the whole story as a function of named steps. The parent is trusted with availability only: nothing that
//! passes through it is secret without KMS, and the checks it makes protect the operator, not the keys. Clients make
//! their own.

pub mod backend;
mod bridges;
mod ciphertexts;
pub mod config;
pub mod control;
mod credentials;
pub mod exit;
mod guest;
mod heartbeat;
mod host;
mod journal;
mod logs;
mod node;
mod reason;
mod run;
mod service_manager;
mod stage;
pub mod status;
pub mod verify;

#[cfg(test)]
mod testing;

pub use ciphertexts::{CiphertextError, Ciphertexts, fetch};
pub use credentials::Credentials;
pub use heartbeat::{HEARTBEAT, Heartbeat};
pub use journal::{JournalConfig, JournalError, ship_journal};
pub use reason::{Failed, Reason};
pub use run::{Outcome, run};
pub use stage::{check_image, stage};
