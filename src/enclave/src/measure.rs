use api::control::FailureReason;
use attestation::{Nsm, PCR_CONFIGURATION, Pcr};

use crate::{
    download::SealedBundle,
    error::{BootError, Facts, because},
};

/// The PCRs that the hypervisor fills from the image. In debug mode they are zero, and KMS could not tell images apart.
const IMAGE_PCRS: [u16; 3] = [0, 1, 2];

/// Opens the Nitro Security Module, or in builds for development its software stand-in.
pub(crate) fn open_nsm(location: &str) -> Result<Box<dyn Nsm>, BootError> {
    attestation::open(location)
        .map_err(because(FailureReason::NsmFailed, format!("cannot open the NSM `{location}`")))
}

/// Refuses an enclave whose image is not measured.
pub(crate) fn refuse_debug_mode(nsm: &dyn Nsm, facts: &mut Facts) -> Result<(), BootError> {
    for index in IMAGE_PCRS {
        let (_, value) = nsm.describe_pcr(index).map_err(nsm_failed("cannot read a PCR"))?;
        facts.insert(format!("pcr{index}"), value.to_string());
        if value.is_zero() {
            let problem =
                format!("PCR{index} is all zero: the enclave runs in debug mode; start it without it");
            return Err(BootError::new(FailureReason::DebugMode, problem));
        }
    }
    Ok(())
}

/// Extends the configuration and the sealed bundle into PCR16 and locks it, so that every attestation document of this
/// enclave, that for KMS included, names what the parent supplied.
pub(crate) fn extend_and_lock(
    nsm: &dyn Nsm,
    configuration: &[u8],
    sealed: &SealedBundle,
    facts: &mut Facts,
) -> Result<(), BootError> {
    let digests = [attestation::sha384(configuration), sealed.sha384];
    let value = lock_with(nsm, &digests)?;
    facts.insert("pcr16".to_owned(), value.to_string());
    Ok(())
}

fn lock_with(nsm: &dyn Nsm, digests: &[[u8; 48]]) -> Result<Pcr, BootError> {
    for digest in digests {
        nsm.extend_pcr(PCR_CONFIGURATION, digest).map_err(nsm_failed("cannot extend PCR16"))?;
    }
    nsm.lock_pcr(PCR_CONFIGURATION).map_err(nsm_failed("cannot lock PCR16"))?;
    let (locked, value) = nsm.describe_pcr(PCR_CONFIGURATION).map_err(nsm_failed("cannot read PCR16"))?;
    let expected = Pcr::of_digests(digests);
    if !locked || value != expected {
        let problem = format!("PCR16 is {value}, locked: {locked}; expected {expected}, locked: true");
        return Err(BootError::new(FailureReason::NsmFailed, problem));
    }
    Ok(value)
}

pub(crate) fn nsm_failed<E: std::fmt::Display>(doing: &'static str) -> impl FnOnce(E) -> BootError {
    because(FailureReason::NsmFailed, doing)
}

#[cfg(test)]
#[path = "measure_tests.rs"]
mod tests;
