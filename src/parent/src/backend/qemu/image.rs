use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use eif::{Architecture, EifError, Summary};

use crate::backend::{BackendError, image::Configured};

/// The processor that the machine emulates.
pub(super) const MACHINE: Architecture = Architecture::X86_64;
/// The copy of the image in the launch's directory.
pub(super) const COPY: &str = "image.eif";
/// Files of the copy that QEMU boots; see [`eif::extract`].
pub(super) const KERNEL: &str = "kernel";
pub(super) const INITRD: &str = "initrd";

/// Copies the image into the private directory, and takes the copy apart there. The result describes the very bytes
/// that were written for QEMU.
pub(super) fn stage(configured: Configured<'_>, directory: &Path) -> Result<Summary, BackendError> {
    let copy = directory.join(COPY);
    copy_image(configured, &copy)?;
    let summary = eif::extract(&copy, directory).map_err(|source| match source {
        // The copy has just been read whole: this is about writing its parts.
        EifError::Io(source) => BackendError::Directory { path: directory.to_owned(), source },
        other => configured.refused(other),
    })?;
    configured.check_architecture(summary.architecture, MACHINE)?;
    Ok(summary)
}

fn copy_image(configured: Configured<'_>, copy: &Path) -> Result<(), BackendError> {
    let (image, length) = configured.open()?;
    // A file that grows meanwhile is cut here, and refused when it is read.
    let mut image = image.take(length);
    File::create(copy)
        .and_then(|mut copy| io::copy(&mut image, &mut copy))
        .map_err(|source| BackendError::Directory { path: copy.to_owned(), source })?;
    Ok(())
}
