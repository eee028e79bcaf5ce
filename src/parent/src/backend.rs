//! How an enclave is launched, watched and ended.

mod console;
mod directory;
mod error;
mod image;
pub mod nitro;
pub mod process;
mod program;
pub mod qemu;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use attestation::Measurements;
use vsock::Peer;

pub use error::BackendError;

pub(crate) use console::Console;
pub(crate) use program::die_with_this_process;

use crate::config::{self, Config};

/// A way to launch enclaves.
pub trait Backend: Send + Sync {
    /// Its name in the configuration.
    fn name(&self) -> &'static str;

    /// Where a launch keeps what the enclave's kernel and first program print, if it does.
    fn console_log(&self) -> Option<&Path> {
        None
    }

    /// Measures the image that is configured, from its files, and touches nothing else. Blocks.
    fn measure(&self) -> Result<Measurements, BackendError>;

    /// As [`Backend::measure`], and checks what a launch would refuse and the image alone decides. Blocks.
    ///
    /// Another machine than the one of the launch may ask: the processors, the driver and the other files of the
    /// configuration are not looked at.
    fn check(&self) -> Result<Measurements, BackendError> {
        self.measure()
    }

    /// Makes the launch's private directory and puts there what is launched, measured. Blocks.
    fn stage(&self) -> Result<Box<dyn Staged>, BackendError>;
}

/// An enclave that could be launched. Dropping it removes what was made for it.
#[async_trait]
pub trait Staged: Send {
    /// What the image measures that [`Staged::launch`] starts.
    fn measurements(&self) -> Measurements;

    /// Where the host listens for this enclave.
    fn peer(&self) -> Peer;

    /// The context id that the enclave dials from, and nobody else should. `None`: the host listens at Unix sockets, in a
    /// private directory.
    fn caller(&self) -> Option<u32>;

    /// Starts the enclave; the listeners are bound by then. Cancelling it ends what was started.
    ///
    /// Call it on the runtime's main task: the enclave dies with the thread that started it.
    async fn launch(self: Box<Self>) -> Result<Box<dyn Launched>, BackendError>;
}

/// An enclave that was started. Dropping it kills the enclave.
#[async_trait]
pub trait Launched: Send {
    /// Where the host dials this enclave.
    fn peer(&self) -> Peer;

    /// Process id of the enclave's first program, or of the machine it is in, if it has one on this machine.
    fn pid(&self) -> Option<u32>;

    /// Socket of the machine's monitor (QMP), if it has one.
    fn qmp(&self) -> Option<PathBuf> {
        None
    }

    /// Returns when the enclave has ended, however, with how it ended. May be cancelled and called again.
    async fn exited(&mut self) -> String;

    /// Ends the enclave, and returns when it is gone.
    async fn kill(&mut self);
}

/// The backend that is configured.
pub fn of(config: &Config) -> Arc<dyn Backend> {
    match &config.enclave.backend {
        config::Backend::Process(programs) => {
            Arc::new(process::ProcessBackend::new(programs.clone(), &config.runtime_dir))
        }
        config::Backend::Qemu(machine) => {
            Arc::new(qemu::QemuBackend::new(machine.clone(), &config.runtime_dir))
        }
        config::Backend::Nitro(enclave) => Arc::new(nitro::NitroBackend::new(enclave.clone())),
    }
}
