use attestation::Pcr;

use crate::{
    Failed, Reason,
    backend::{Backend, BackendError, Staged},
};

/// Prepares a launch, measures what it would start, and compares that with the pinned PCR0. Blocks.
pub fn stage(backend: &dyn Backend, pinned: &Pcr) -> Result<Box<dyn Staged>, Failed> {
    let failed = |error: BackendError| Failed::new(error.reason(), error);
    let staged = backend.stage().map_err(failed)?;
    let measured = staged.measurements().pcr0;
    if measured == *pinned {
        return Ok(staged);
    }
    let message = format!(
        "the image has PCR0 {measured}, but `enclave.pcr0` pins {pinned}; launch the image that was reviewed, or pin \
         this one after a review"
    );
    Err(Failed::new(Reason::MeasurementMismatch, message))
}
