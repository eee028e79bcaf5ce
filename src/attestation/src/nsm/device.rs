//! The real module, behind the kernel's driver.

use std::fs::File;
use std::io;

use aws_nitro_enclaves_nsm_api::api::{Request, Response};
use aws_nitro_enclaves_nsm_api::driver::{nsm_exit, nsm_init, nsm_process_request};

use super::Nsm;
use crate::NsmError;

/// The security module of this enclave, `/dev/nsm`. Closed when dropped.
#[derive(Debug)]
pub struct DeviceNsm {
    descriptor: i32,
}

impl DeviceNsm {
    /// Opens the device.
    pub fn open() -> Result<Self, NsmError> {
        let descriptor = nsm_init();
        if descriptor >= 0 {
            return Ok(Self { descriptor });
        }
        // AWS's driver does not tell why: ask once more.
        let reason = File::options().read(true).write(true).open("/dev/nsm").err();
        Err(NsmError::Device(reason.unwrap_or_else(|| io::Error::other("it could not be opened at first"))))
    }
}

impl Nsm for DeviceNsm {
    fn request(&self, request: Request) -> Result<Response, NsmError> {
        Ok(nsm_process_request(self.descriptor, request))
    }
}

impl Drop for DeviceNsm {
    fn drop(&mut self) {
        nsm_exit(self.descriptor);
    }
}
