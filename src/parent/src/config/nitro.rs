//! `[enclave.nitro]`: a real enclave, on an EC2 instance that may have them.

use std::path::PathBuf;

use serde::Deserialize;

use super::{
    Refused,
    enclave::{MAX_MEMORY_MIB, MIN_MEMORY_MIB},
};

/// Far more than any instance has; a typing error is noticed.
const CPU_COUNTS: std::ops::RangeInclusive<u32> = 1..=1024;
/// Context ids below are the hypervisor's, the loopback's, the host's and the parent instance's own; the last one means
/// "any".
const CIDS: std::ops::Range<u32> = 4..u32::MAX;

/// `[enclave.nitro]`: the image, and what the enclave gets of the instance.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nitro {
    /// The enclave image (EIF), for this instance's processor.
    pub image: PathBuf,
    /// Virtual processors, 1 or more: whole cores, so an even number where a core has two threads. They have to be in
    /// the pool that the driver was given, which never has the first core.
    pub cpu_count: u32,
    /// Memory, MiB: 64 or more, at least four times the size of the image, rounded up to whole huge pages of 2 MiB. So
    /// much has to be reserved as huge pages.
    pub memory_mib: u32,
    /// The enclave's vsock context id, 4 or more. Default 16.
    #[serde(default = "default_cid")]
    pub cid: u32,
}

fn default_cid() -> u32 {
    16
}

impl Nitro {
    pub(super) fn validate(&self) -> Result<(), Refused> {
        if !CPU_COUNTS.contains(&self.cpu_count) {
            let problem =
                format!("expected {} to {}, got {}", CPU_COUNTS.start(), CPU_COUNTS.end(), self.cpu_count);
            return Err(Refused::new("enclave.nitro.cpu_count", problem));
        }
        if !(MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&self.memory_mib) {
            let problem = format!("expected {MIN_MEMORY_MIB} to {MAX_MEMORY_MIB}, got {}", self.memory_mib);
            return Err(Refused::new("enclave.nitro.memory_mib", problem));
        }
        if !CIDS.contains(&self.cid) {
            let problem = format!("expected {} or more, got {}", CIDS.start, self.cid);
            return Err(Refused::new("enclave.nitro.cid", problem));
        }
        Ok(())
    }
}
