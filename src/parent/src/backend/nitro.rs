//! Backend `nitro`: the enclave image in a Nitro enclave of this EC2 instance.
//!
//! The image is read once: what was read is what is measured, compared with the pin, and launched. The enclave lives as
//! long as its descriptor is open, so it never outlives this process. It never runs in debug mode: there is no key for
//! it, and a PCR0 of zeros cannot be pinned.
//!
//! The enclave dials the parent instance at context id 3, whatever the instance's own is; the listeners are at every id,
//! and accept from the enclave's own only.

mod driver;
mod error;
mod resources;

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use async_trait::async_trait;
use attestation::Measurements;
use eif::Architecture;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::{task::spawn_blocking, time::sleep};
use vsock::Peer;

use self::driver::{Driver, Kernel, Slot};
use super::{Backend, BackendError, Launched, Staged, image::Configured};
use crate::config::Nitro;

pub use error::DriverError;

/// How often a step is tried that fails: right after another enclave's end the driver may not have everything back.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);
/// How often a running enclave's descriptor is looked at. What the enclave itself has to say comes sooner.
const WATCH: Duration = Duration::from_millis(100);

/// The processor of this machine.
#[cfg(target_arch = "aarch64")]
const MACHINE: Architecture = Architecture::Aarch64;
/// The processor of this machine.
#[cfg(not(target_arch = "aarch64"))]
const MACHINE: Architecture = Architecture::X86_64;

/// The backend.
#[derive(Debug)]
pub struct NitroBackend {
    enclave: Nitro,
    driver: Arc<dyn Driver>,
    first_core: PathBuf,
    pause: Duration,
}

impl NitroBackend {
    /// A backend that launches this enclave.
    pub fn new(enclave: Nitro) -> Self {
        Self { enclave, driver: Arc::new(Kernel), first_core: resources::FIRST_CORE.into(), pause: PAUSE }
    }

    fn image(&self) -> Configured<'_> {
        Configured {
            image: &self.enclave.image,
            image_key: "enclave.nitro.image",
            memory_mib: self.enclave.memory_mib,
            memory_key: "enclave.nitro.memory_mib",
        }
    }
}

impl Backend for NitroBackend {
    fn name(&self) -> &'static str {
        "nitro"
    }

    fn measure(&self) -> Result<Measurements, BackendError> {
        self.image().measure()
    }

    fn check(&self) -> Result<Measurements, BackendError> {
        self.image().check(MACHINE)
    }

    fn stage(&self) -> Result<Box<dyn Staged>, BackendError> {
        resources::check_cores(self.enclave.cpu_count, Path::new(&self.first_core))?;
        let (file, length) = self.image().open()?;
        let mut image = Vec::new();
        // A file that grows meanwhile is cut here, and refused when it is measured.
        file.take(length).read_to_end(&mut image).map_err(|error| self.image().refused(error))?;
        let summary =
            eif::scan(image.as_slice(), |_, _, _| Ok(())).map_err(|error| self.image().refused(error))?;
        self.image().check_architecture(summary.architecture, MACHINE)?;
        Ok(Box::new(StagedEnclave {
            measurements: summary.measurements,
            plan: Plan {
                image,
                cpu_count: self.enclave.cpu_count,
                memory_mib: resources::whole_pages(self.enclave.memory_mib),
                cid: self.enclave.cid,
                driver: Arc::clone(&self.driver),
                pause: self.pause,
            },
        }))
    }
}

struct StagedEnclave {
    measurements: Measurements,
    plan: Plan,
}

/// A launch, step by step. Each of them blocks.
struct Plan {
    image: Vec<u8>,
    cpu_count: u32,
    memory_mib: u32,
    cid: u32,
    driver: Arc<dyn Driver>,
    pause: Duration,
}

impl Plan {
    /// Returns the running enclave. If a step fails, nothing is left of the enclave.
    ///
    /// Processors come before memory: when they are not free yet, nothing has to be given back.
    fn carry_out(&self) -> Result<Box<dyn Slot>, DriverError> {
        let mut slot = self.tried(|| self.driver.create())?;
        for _ in 0..self.cpu_count {
            self.tried(|| slot.add_cpu())?;
        }
        // Once only: what a failed attempt has mapped stays mapped.
        slot.set_memory(&self.image, self.memory_mib as usize)?;
        let actual = self.tried(|| slot.start(self.cid))?;
        // Nobody would listen to it then.
        if actual != u64::from(self.cid) {
            return Err(DriverError::ContextId { expected: self.cid, actual });
        }
        Ok(slot)
    }

    fn tried<T>(&self, mut step: impl FnMut() -> Result<T, DriverError>) -> Result<T, DriverError> {
        for _ in 1..ATTEMPTS {
            match step() {
                Err(error @ DriverError::Refused { .. }) if !error.is_configuration() => {
                    tracing::warn!(%error, "trying again");
                    thread::sleep(self.pause);
                }
                done => return done,
            }
        }
        step()
    }
}

#[async_trait]
impl Staged for StagedEnclave {
    fn measurements(&self) -> Measurements {
        self.measurements
    }

    fn peer(&self) -> Peer {
        Peer::Vsock { cid: self.plan.cid }.any()
    }

    fn caller(&self) -> Option<u32> {
        Some(self.plan.cid)
    }

    /// If this is cancelled, the enclave ends as soon as the step is done that the driver is at.
    async fn launch(self: Box<Self>) -> Result<Box<dyn Launched>, BackendError> {
        let Plan { cid, cpu_count, memory_mib, .. } = self.plan;
        let launched = spawn_blocking(move || self.plan.carry_out()).await;
        let slot = launched.map_err(|error| DriverError::Cancelled(error.to_string()))??;
        tracing::info!(cid, cpu_count, memory_mib, "the driver has started the enclave");
        Ok(Box::new(RunningEnclave { cid, slot: Some(slot) }))
    }
}

/// Whether the enclave has ended: then the driver hangs up.
fn has_hung_up(slot: &dyn Slot) -> bool {
    let mut polled = [PollFd::new(slot.as_fd(), PollFlags::empty())];
    // A call that was interrupted will be made again.
    poll(&mut polled, PollTimeout::ZERO).is_ok() && polled[0].any() != Some(false)
}

/// An enclave that runs, until its descriptor is closed.
struct RunningEnclave {
    cid: u32,
    slot: Option<Box<dyn Slot>>,
}

#[async_trait]
impl Launched for RunningEnclave {
    fn peer(&self) -> Peer {
        Peer::Vsock { cid: self.cid }
    }

    fn pid(&self) -> Option<u32> {
        None
    }

    async fn exited(&mut self) -> String {
        let Some(slot) = &self.slot else { return "the enclave was terminated".to_owned() };
        while !has_hung_up(&**slot) {
            sleep(WATCH).await;
        }
        "the enclave ended, as the driver noticed; it has no console outside debug mode".to_owned()
    }

    async fn kill(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        // Closing waits until the hypervisor has ended the enclave. An error means that the runtime ends, which closes as
        // well.
        let _ = spawn_blocking(move || drop(slot)).await;
    }
}

#[cfg(test)]
mod tests;
