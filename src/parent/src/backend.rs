//! How an enclave is launched, watched and ended.

mod console;
pub mod process;

use async_trait::async_trait;
use attestation::Measurements;
use vsock::Peer;

/// A way to launch enclaves.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Measures the image that would be launched, from its files. Blocks.
    fn measure(&self) -> Result<Measurements, BackendError>;

    /// Makes what has to be there before a launch, and returns where the host listens for this enclave.
    async fn prepare(&self) -> Result<Peer, BackendError>;

    /// Starts the enclave; the listeners are bound by then.
    async fn launch(&self) -> Result<Box<dyn Launched>, BackendError>;
}

/// An enclave that was started. Dropping it kills the enclave.
#[async_trait]
pub trait Launched: Send {
    /// Where the host dials this enclave.
    fn peer(&self) -> Peer;

    /// Process id of the enclave's first program, if it has one on this machine.
    fn pid(&self) -> Option<u32>;

    /// Returns when the enclave has ended, however, with how it ended. May be cancelled and called again.
    async fn exited(&mut self) -> String;

    /// Ends the enclave, and returns when it is gone.
    async fn kill(&mut self);
}

/// A launch that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// A file of the image cannot be read.
    #[error("cannot measure the enclave: {0}; check the paths in `enclave.process`")]
    Measure(std::io::Error),
    /// The launch's own directory cannot be made.
    #[error("cannot make {}: {source}; make `runtime_dir` writable for this user", directory.display())]
    Directory {
        /// The directory.
        directory: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program cannot be started.
    #[error("cannot start {program}: {source}; check its path in `enclave.process`")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The hypervisor did not say that it is ready.
    #[error("the hypervisor {program} did not become ready: {problem}")]
    Hypervisor {
        /// The program.
        program: String,
        /// What it did instead.
        problem: String,
    },
}
