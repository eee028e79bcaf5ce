use std::{
    fs::File,
    io::{self, BufReader, Read as _},
    path::Path,
};

use attestation::Measurements;
use eif::{Architecture, EifError, Summary};

use crate::{backend::BackendError, config::Qemu};

/// The copy of the image in the launch's directory.
pub(super) const COPY: &str = "image.eif";
/// Files of the copy that QEMU boots; see [`eif::extract`].
pub(super) const KERNEL: &str = "kernel";
pub(super) const INITRD: &str = "initrd";

/// An enclave has at least this many times the memory of its image: so it is on Nitro.
const MEMORY_PER_IMAGE: u64 = 4;
const MIB: u64 = 1 << 20;

/// Measures an image where it is.
pub(super) fn measure(image: &Path) -> Result<Measurements, BackendError> {
    let refused = |source| BackendError::Image { image: image.to_owned(), source };
    let file = File::open(image).map_err(|error| refused(error.into()))?;
    let summary = eif::scan(BufReader::new(file), |_, _, _| Ok(())).map_err(refused)?;
    Ok(summary.measurements)
}

/// Copies the image into the private directory, and takes the copy apart there. The result describes the very bytes
/// that were written for QEMU.
pub(super) fn stage(machine: &Qemu, directory: &Path) -> Result<Summary, BackendError> {
    let refused = |source| BackendError::Image { image: machine.image.clone(), source };
    let copy = directory.join(COPY);
    copy_image(machine, &copy)?;
    let summary = eif::extract(&copy, directory).map_err(|source| match source {
        // The copy has just been read whole: this is about writing its parts.
        EifError::Io(source) => BackendError::Directory { path: directory.to_owned(), source },
        other => refused(other),
    })?;
    match summary.architecture {
        Architecture::X86_64 => Ok(summary),
        Architecture::Aarch64 => Err(BackendError::Architecture { image: machine.image.clone() }),
    }
}

fn copy_image(machine: &Qemu, copy: &Path) -> Result<(), BackendError> {
    let unreadable =
        |error: io::Error| BackendError::Image { image: machine.image.clone(), source: error.into() };
    let image = File::open(&machine.image).map_err(unreadable)?;
    let metadata = image.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(unreadable(io::Error::other("it is not a regular file")));
    }
    check_memory(metadata.len(), machine.memory_mib)?;
    // A file that grows meanwhile is cut here, and refused when it is read.
    let mut image = image.take(metadata.len());
    File::create(copy)
        .and_then(|mut copy| io::copy(&mut image, &mut copy))
        .map_err(|source| BackendError::Directory { path: copy.to_owned(), source })?;
    Ok(())
}

fn check_memory(image_bytes: u64, configured: u32) -> Result<(), BackendError> {
    let needed = image_bytes.saturating_mul(MEMORY_PER_IMAGE).div_ceil(MIB);
    if u64::from(configured) < needed {
        return Err(BackendError::Memory { needed, configured });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_four_times_the_image_and_the_remedy_is_rounded_up() {
        check_memory(16 * MIB, 64).unwrap();
        let error = check_memory(16 * MIB + 1, 64).unwrap_err();
        assert!(matches!(error, BackendError::Memory { needed: 65, configured: 64 }), "{error}");
        assert!(error.to_string().contains("set `enclave.qemu.memory_mib` to 65 or more"), "{error}");
        assert!(check_memory(u64::MAX, u32::MAX).is_err());
    }
}
