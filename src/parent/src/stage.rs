use attestation::{Measurements, Pcr};

use crate::{
    Failed, Reason,
    backend::{Backend, BackendError, Staged},
};

/// Prepares a launch, measures what it would start, and compares that with the pinned PCR0. Blocks.
pub fn stage(backend: &dyn Backend, pinned: &Pcr) -> Result<Box<dyn Staged>, Failed> {
    let staged = backend.stage().map_err(failed)?;
    is_pinned(&staged.measurements(), pinned)?;
    Ok(staged)
}

/// Makes the checks of a launch that the image and the configuration decide, on any machine: [`Backend::check`], and
/// that PCR0 is the pinned one. Blocks.
pub fn check_image(backend: &dyn Backend, pinned: &Pcr) -> Result<Measurements, Failed> {
    let measured = backend.check().map_err(failed)?;
    is_pinned(&measured, pinned)?;
    Ok(measured)
}

fn failed(error: BackendError) -> Failed {
    Failed::new(error.reason(), error)
}

fn is_pinned(measured: &Measurements, pinned: &Pcr) -> Result<(), Failed> {
    let measured = measured.pcr0;
    if measured == *pinned {
        return Ok(());
    }
    let message = format!(
        "the image has PCR0 {measured}, but `enclave.pcr0` pins {pinned}; launch the image that was reviewed, or pin \
         this one after a review"
    );
    Err(Failed::new(Reason::MeasurementMismatch, message))
}
