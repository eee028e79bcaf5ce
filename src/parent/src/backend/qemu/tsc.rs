//! The rate of the host's time stamp counter, which QEMU without KVM hands to its guest as it is.
//!
//! Measured, because nothing tells it: `/proc/cpuinfo` has the processor's clock of the moment, which is another number
//! on every machine that saves power.

/// Counts in a millisecond; `None` where the processor has no such counter.
#[cfg(target_arch = "x86_64")]
pub fn host_khz() -> Option<u64> {
    let (counter, at) = read();
    std::thread::sleep(std::time::Duration::from_millis(50));
    let (later_counter, later) = read();
    let counts = u128::from(later_counter.checked_sub(counter)?);
    let khz = counts * 1_000_000 / later.duration_since(at).as_nanos().max(1);
    u64::try_from(khz).ok().filter(|khz| *khz > 0)
}

/// Counts in a millisecond; `None` where the processor has no such counter.
#[cfg(not(target_arch = "x86_64"))]
pub fn host_khz() -> Option<u64> {
    None
}

/// The counter and the time. On a busy machine much may pass between the two: of several attempts the closest counts.
#[cfg(target_arch = "x86_64")]
fn read() -> (u64, std::time::Instant) {
    let attempt = || {
        let at = std::time::Instant::now();
        let counter = counter();
        (at.elapsed(), counter, at)
    };
    let closest = |best: (std::time::Duration, _, _), next| if next < best { next } else { best };
    let (_, counter, at) = (1..16).map(|_| attempt()).fold(attempt(), closest);
    (counter, at)
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the standard library has no safe way to read the counter")]
fn counter() -> u64 {
    // SAFETY: every processor of this architecture has the instruction, and it touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_a_processor_and_the_same_each_time() {
        let (first, second) = (host_khz().unwrap(), host_khz().unwrap());
        assert!((500_000..10_000_000).contains(&first), "{first} kHz");
        assert!(first.abs_diff(second) < first / 100, "{first} and {second} kHz");
    }
}
