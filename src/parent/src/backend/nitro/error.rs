use std::io;

/// The driver's device.
pub(super) const DEVICE: &str = "/dev/nitro_enclaves";

/// What the driver of enclaves does not do.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// There is no device, or not for this user.
    #[error(
        "cannot open {DEVICE}: {0}; enable enclaves for this instance, load the kernel module nitro_enclaves, reserve \
         processors (its parameter ne_cpus) and huge pages (vm.nr_hugepages) as AWS's allocator does, and put this \
         user into the device's group"
    )]
    Device(io::Error),
    /// Too few huge pages are free.
    #[error(
        "no {memory_mib} MiB of huge pages are free for the enclave: reserve more (vm.nr_hugepages, pages of 2 MiB, on \
         the NUMA node of the CPU pool), or lower `enclave.nitro.memory_mib`"
    )]
    HugePages {
        /// What was asked for, MiB.
        memory_mib: usize,
    },
    /// The image does not fit into the enclave's memory as the driver wants it.
    #[error("the image cannot be put into the enclave's memory: {0}; raise `enclave.nitro.memory_mib`")]
    Image(String),
    /// The driver refuses.
    #[error("{DEVICE} refuses to {step}: {}", explain(*code))]
    Refused {
        /// What it was asked for.
        step: &'static str,
        /// The error number: one of the system's, or one above 255 of the driver's own.
        code: i32,
    },
    /// The enclave was started under another context id than it was to have.
    #[error(
        "{DEVICE} gave the enclave the context id {actual} instead of {expected}; choose another `enclave.nitro.cid`"
    )]
    ContextId {
        /// What was asked for.
        expected: u32,
        /// What it got.
        actual: u64,
    },
    /// The launch did not come to its end.
    #[error("the launch was given up: {0}")]
    Cancelled(String),
}

impl DriverError {
    /// Whether it stays until the configuration is changed.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Refused { code: 258 | 268 | 269 | 271 | 275, .. })
    }
}

/// What an error number of the driver means, and what to do.
///
/// Source: `include/uapi/linux/nitro_enclaves.h`, NE_ERR_VCPU_ALREADY_USED (256) to NE_ERR_INVALID_ENCLAVE_CID (275).
fn explain(code: i32) -> String {
    let known = match code {
        256 | 257 | 272 => {
            "no processor of the CPU pool is free; give the pool more whole cores (the module's parameter ne_cpus, never \
             the first core), lower `enclave.nitro.cpu_count`, or end other enclaves"
        }
        258 | 269 | 271 => {
            "an enclave gets whole cores; set `enclave.nitro.cpu_count` to a multiple of a core's processors"
        }
        259..=263 | 273 => {
            "its memory is not made of free huge pages of 2 MiB or more; reserve them with vm.nr_hugepages"
        }
        264 => {
            "its memory is on another NUMA node than the CPU pool; reserve huge pages on the node of the processors in \
             ne_cpus"
        }
        265 => "its memory has too many pieces; reserve larger huge pages (hugepagesz=1G)",
        266..=268 => "it has too little memory; raise `enclave.nitro.memory_mib`",
        270 => "it is running already",
        274 => "a flag is unknown to this kernel's driver",
        275 => "its context id is not allowed; choose another `enclave.nitro.cid`",
        _ => return io::Error::from_raw_os_error(code).to_string(),
    };
    format!("{known} (error {code})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_the_driver_is_explained_with_a_remedy_or_at_least_in_words() {
        for code in 256..=275 {
            let error = DriverError::Refused { step: "start the enclave", code };
            let message = error.to_string();
            assert!(message.starts_with("/dev/nitro_enclaves refuses to start the enclave: "), "{message}");
            assert!(message.contains(&format!("(error {code})")), "{message}");
            let names_a_key = message.contains("`enclave.nitro.");
            assert!(!error.is_configuration() || names_a_key, "{message}");
        }
        let error = DriverError::Refused { step: "start the enclave", code: 12 };
        assert!(error.to_string().contains("Cannot allocate memory"), "{error}");
        assert!(!error.is_configuration());
    }

    #[test]
    fn a_missing_device_is_named_with_everything_that_it_takes() {
        let message = DriverError::Device(io::Error::from(io::ErrorKind::NotFound)).to_string();
        for part in ["/dev/nitro_enclaves", "module nitro_enclaves", "ne_cpus", "vm.nr_hugepages", "group"] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}
