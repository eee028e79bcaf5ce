//! What an enclave gets of the instance.

use std::{fs, path::Path};

use crate::backend::BackendError;

/// The smallest huge page, MiB: an enclave's memory is made of these.
const HUGE_PAGE_MIB: u32 = 2;

/// The processors that share the first core, for example `0-1` or `0,48`. The first core is never in the CPU pool, so
/// that it is there when the others are taken.
pub(super) const FIRST_CORE: &str = "/sys/devices/system/cpu/cpu0/topology/thread_siblings_list";

/// The configured memory in whole huge pages, MiB.
pub(super) fn whole_pages(memory_mib: u32) -> u32 {
    memory_mib.next_multiple_of(HUGE_PAGE_MIB)
}

/// An enclave gets whole cores. Where the system does not say how many processors a core has, the driver will.
pub(super) fn check_cores(cpu_count: u32, first_core: &Path) -> Result<(), BackendError> {
    let Some(threads) = fs::read_to_string(first_core).ok().and_then(|list| processors(list.trim())) else {
        return Ok(());
    };
    if cpu_count.is_multiple_of(threads) {
        return Ok(());
    }
    Err(BackendError::Cores { threads, configured: cpu_count })
}

/// How many processors are in a list as the kernel writes it; `None` if it is not one.
fn processors(list: &str) -> Option<u32> {
    let mut count = 0_u32;
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        count = last.checked_sub(first)?.checked_add(1)?.checked_add(count)?;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_rounded_up_to_whole_huge_pages() {
        for (configured, whole) in [(64, 64), (65, 66), (511, 512), (512, 512)] {
            assert_eq!(whole_pages(configured), whole);
        }
    }

    #[test]
    fn processors_are_counted_as_the_kernel_lists_them() {
        for (list, count) in [("0", 1), ("0-1", 2), ("0,48", 2), ("0-3,8-11", 8)] {
            assert_eq!(processors(list), Some(count), "{list}");
        }
        for list in ["", "0-", "3-1", "none", "0-4294967295"] {
            assert_eq!(processors(list), None, "{list}");
        }
    }

    #[test]
    fn half_a_core_is_refused_with_the_key_and_what_would_do() {
        let directory = tempfile::tempdir().unwrap();
        let first_core = directory.path().join("thread_siblings_list");
        fs::write(&first_core, "0,2\n").unwrap();
        check_cores(2, &first_core).unwrap();
        check_cores(4, &first_core).unwrap();
        let message = check_cores(3, &first_core).unwrap_err().to_string();
        assert!(message.contains("set `enclave.nitro.cpu_count` to a multiple of 2, it is 3"), "{message}");

        fs::write(&first_core, "0\n").unwrap();
        check_cores(3, &first_core).unwrap();
        fs::remove_file(&first_core).unwrap();
        check_cores(3, &first_core).unwrap();
    }
}
