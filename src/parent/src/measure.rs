use attestation::{Measurements, Pcr};

use crate::{Failed, Reason, backend::Backend};

/// Measures the image and compares it with the pinned PCR0. Blocks.
pub fn measure(backend: &dyn Backend, pinned: &Pcr) -> Result<Measurements, Failed> {
    let measured = backend.measure().map_err(|error| Failed::new(Reason::MeasurementMismatch, error))?;
    if measured.pcr0 == *pinned {
        return Ok(measured);
    }
    let message = format!(
        "the image has PCR0 {}, but `enclave.pcr0` pins {pinned}; launch the image that was reviewed, or pin this one \
         after a review",
        measured.pcr0
    );
    Err(Failed::new(Reason::MeasurementMismatch, message))
}
