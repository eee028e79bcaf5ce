//! The enclave image as a file: what has to hold before anything is launched from it.

use std::{
    fs::File,
    io::{self, BufReader},
    path::Path,
};

use attestation::Measurements;
use eif::{Architecture, Summary};

use super::BackendError;

/// An enclave has at least this many times the memory of its image.
const MEMORY_PER_IMAGE: u64 = 4;
pub(super) const MIB: u64 = 1 << 20;

/// Where the image is, and the keys of the configuration that say so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Configured<'a> {
    pub(super) image: &'a Path,
    pub(super) image_key: &'static str,
    pub(super) memory_mib: u32,
    pub(super) memory_key: &'static str,
}

impl Configured<'_> {
    /// The error for an image that cannot be read, or is not one.
    pub(super) fn refused(&self, source: impl Into<eif::EifError>) -> BackendError {
        BackendError::Image { image: self.image.to_owned(), key: self.image_key, source: source.into() }
    }

    /// Measures the image where it is.
    pub(super) fn measure(&self) -> Result<Measurements, BackendError> {
        let file = File::open(self.image).map_err(|error| self.refused(error))?;
        Ok(self.scan(file)?.measurements)
    }

    /// Measures the image where it is, and checks of it what a launch on `machine` would check.
    pub(super) fn check(&self, machine: Architecture) -> Result<Measurements, BackendError> {
        let (file, _) = self.open()?;
        let summary = self.scan(file)?;
        self.check_architecture(summary.architecture, machine)?;
        Ok(summary.measurements)
    }

    fn scan(&self, image: File) -> Result<Summary, BackendError> {
        eif::scan(BufReader::new(image), |_, _, _| Ok(())).map_err(|error| self.refused(error))
    }

    /// Opens the image for a launch, if the enclave has the memory for it, and tells its length, bytes.
    pub(super) fn open(&self) -> Result<(File, u64), BackendError> {
        let image = File::open(self.image).map_err(|error| self.refused(error))?;
        let metadata = image.metadata().map_err(|error| self.refused(error))?;
        if !metadata.is_file() {
            return Err(self.refused(io::Error::other("it is not a regular file")));
        }
        self.check_memory(metadata.len())?;
        Ok((image, metadata.len()))
    }

    fn check_memory(&self, image_bytes: u64) -> Result<(), BackendError> {
        let needed = image_bytes.saturating_mul(MEMORY_PER_IMAGE).div_ceil(MIB);
        if u64::from(self.memory_mib) < needed {
            return Err(BackendError::Memory { key: self.memory_key, needed, configured: self.memory_mib });
        }
        Ok(())
    }

    /// The image has to be for the processor it is to run on.
    pub(super) fn check_architecture(
        &self,
        image: Architecture,
        machine: Architecture,
    ) -> Result<(), BackendError> {
        if image == machine {
            return Ok(());
        }
        Err(BackendError::Architecture {
            image: self.image.to_owned(),
            key: self.image_key,
            actual: name(image),
            expected: name(machine),
        })
    }
}

fn name(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "x86_64",
        Architecture::Aarch64 => "aarch64",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_four_times_the_image_and_the_remedy_is_rounded_up() {
        let configured = |memory_mib| Configured {
            image: Path::new("image.eif"),
            image_key: "enclave.qemu.image",
            memory_mib,
            memory_key: "enclave.qemu.memory_mib",
        };
        configured(64).check_memory(16 * MIB).unwrap();
        let error = configured(64).check_memory(16 * MIB + 1).unwrap_err();
        assert!(matches!(error, BackendError::Memory { needed: 65, configured: 64, .. }), "{error}");
        assert!(error.to_string().contains("set `enclave.qemu.memory_mib` to 65 or more"), "{error}");
        assert!(configured(u32::MAX).check_memory(u64::MAX).is_err());
    }
}
