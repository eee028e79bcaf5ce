//! `/dev/nitro_enclaves`, through the crate `nitro-enclaves`.
//!
//! What the crate leaves to its user is done here: it closes no descriptor, so an enclave would outlive whoever dropped
//! it; and it loses the driver's own error numbers, which are read from errno instead. Huge pages that it mapped for an
//! enclave stay mapped until this process ends: a process launches one enclave.

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd},
};

use nitro_enclaves::{
    Device,
    launch::{ImageType, LaunchError, Launcher, MemInitError, MemoryInfo, StartFlags},
};

use super::DriverError;

/// The driver of enclaves.
pub(super) trait Driver: fmt::Debug + Send + Sync {
    /// Makes an enclave that has nothing yet.
    fn create(&self) -> Result<Box<dyn Slot>, DriverError>;
}

/// An enclave in the making, or running. Its descriptor hangs up when the enclave ends. Dropping it ends the enclave.
pub(super) trait Slot: AsFd + Send + Sync {
    /// Gives it one virtual processor of the CPU pool.
    fn add_cpu(&mut self) -> Result<(), DriverError>;

    /// Gives it memory, MiB, a multiple of 2, with the image in it.
    fn set_memory(&mut self, image: &[u8], memory_mib: usize) -> Result<(), DriverError>;

    /// Starts it, not in debug mode, and returns its context id.
    fn start(&mut self, cid: u32) -> Result<u64, DriverError>;
}

/// The kernel's driver.
#[derive(Debug)]
pub(super) struct Kernel;

impl Driver for Kernel {
    fn create(&self) -> Result<Box<dyn Slot>, DriverError> {
        let device = Device::open().map_err(DriverError::Device)?;
        let launcher = Launcher::new(&device).map_err(|error| refused("make an enclave", &error))?;
        Ok(Box::new(KernelSlot { descriptor: descriptor(&launcher), launcher }))
    }
}

struct KernelSlot {
    launcher: Launcher,
    descriptor: OwnedFd,
}

#[allow(unsafe_code, reason = "the crate hands out its descriptor as a number and never closes it")]
fn descriptor(launcher: &Launcher) -> OwnedFd {
    // SAFETY: the driver has just made the descriptor for this launcher, it is open, and nobody else closes it: the crate
    // has no Drop. The launcher uses the number only while it is in the same `KernelSlot`.
    unsafe { OwnedFd::from_raw_fd(launcher.vm_fd()) }
}

impl AsFd for KernelSlot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Slot for KernelSlot {
    fn add_cpu(&mut self) -> Result<(), DriverError> {
        self.launcher.add_vcpu(None).map_err(|error| refused("give the enclave a processor", &error))
    }

    fn set_memory(&mut self, image: &[u8], memory_mib: usize) -> Result<(), DriverError> {
        let memory = MemoryInfo::new(ImageType::Eif(image), memory_mib);
        self.launcher.set_memory(memory).map_err(|error| match error {
            LaunchError::MemInit(MemInitError::NoHugePageFound) => DriverError::HugePages { memory_mib },
            LaunchError::MemInit(error) => DriverError::Image(error.to_string()),
            error => refused("give the enclave its memory", &error),
        })
    }

    fn start(&mut self, cid: u32) -> Result<u64, DriverError> {
        // No flag: PCRs of an enclave in debug mode are zero, and whoever starts it may read its console.
        let flags = StartFlags::empty();
        self.launcher.start(flags, Some(cid)).map_err(|error| refused("start the enclave", &error))
    }
}

/// To be called right after the crate returned the error, as long as errno says why.
fn refused(step: &'static str, error: &LaunchError) -> DriverError {
    let code = io::Error::last_os_error().raw_os_error().unwrap_or_default();
    tracing::debug!(step, code, %error, "the driver refused");
    DriverError::Refused { step, code }
}
