//! Entropy from the security module for the kernel's random numbers, before any key is made.

use std::{
    ffi::c_int,
    fs::File,
    os::fd::{AsRawFd as _, RawFd},
};

use api::control::FailureReason;
use attestation::Nsm;
use nix::errno::Errno;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    error::{BootError, Facts, because},
    measure::nsm_failed,
};

/// How often the module is asked.
const ANSWERS: usize = 2;
/// What each answer must have at least, bytes, and is credited with: the strength of the kernel's generator. The module
/// gives 256.
const CREDITED_BYTES: usize = 32;
/// The most of an answer that is used, bytes.
const MAX_BYTES: usize = 256;

/// Gives the kernel random bytes of the module, credited as entropy, and has it use them from now on.
pub(crate) fn seed(nsm: &dyn Nsm, facts: &mut Facts) -> Result<(), BootError> {
    let answers = ask(nsm)?;
    let device = File::open("/dev/urandom")
        .map_err(because(FailureReason::NsmFailed, "cannot open /dev/urandom to seed it"))?;
    for answer in &answers {
        add(device.as_raw_fd(), answer)
            .map_err(because(FailureReason::NsmFailed, "the kernel does not take entropy of the NSM"))?;
    }
    // A generator that is ready already, by the processor's own random numbers, would use these only at the next turn of
    // its own, up to a minute later.
    reseed(device.as_raw_fd())
        .map_err(because(FailureReason::NsmFailed, "the kernel's random numbers are not ready"))?;
    facts.insert("entropy_bits".to_owned(), (answers.len() * CREDITED_BYTES * 8).to_string());
    Ok(())
}

/// Answers that may be credited: a module that is broken, or replaced by something that answers anything, is not.
fn ask(nsm: &dyn Nsm) -> Result<Vec<Zeroizing<Vec<u8>>>, BootError> {
    let refused = |problem: &str| {
        BootError::new(FailureReason::NsmFailed, format!("the NSM's random bytes: {problem}"))
    };
    let mut answers: Vec<Zeroizing<Vec<u8>>> = Vec::with_capacity(ANSWERS);
    for _ in 0..ANSWERS {
        let answer = Zeroizing::new(nsm.random().map_err(nsm_failed("cannot get random bytes of the NSM"))?);
        if answer.len() < CREDITED_BYTES {
            return Err(refused(&format!(
                "{} in one answer, expected {CREDITED_BYTES} or more",
                answer.len()
            )));
        }
        if answer.iter().all(|byte| *byte == answer[0]) {
            return Err(refused("all bytes of an answer are the same"));
        }
        if answers.iter().any(|other| other[..CREDITED_BYTES] == answer[..CREDITED_BYTES]) {
            return Err(refused("two answers are the same"));
        }
        answers.push(answer);
    }
    Ok(answers)
}

/// `struct rand_pool_info` of linux/random.h, with room for one answer.
#[derive(Zeroize)]
#[repr(C)]
struct PoolInfo {
    entropy_bits: c_int,
    size: c_int,
    bytes: [u8; MAX_BYTES],
}

mod ioctls {
    use std::ffi::c_int;

    // Of linux/random.h. The number of RNDADDENTROPY has the size of the two integers that lead `struct rand_pool_info`.
    nix::ioctl_write_ptr!(rnd_add_entropy, b'R', 0x03, [c_int; 2]);
    nix::ioctl_none!(rnd_reseed_crng, b'R', 0x07);
}

/// Mixes `answer` into the kernel's pool and credits it. Writing it to the device would credit nothing.
#[allow(unsafe_code, reason = "nix has no safe wrapper for this request")]
fn add(device: RawFd, answer: &[u8]) -> nix::Result<()> {
    let used = answer.len().min(MAX_BYTES);
    let int = |size: usize| c_int::try_from(size).map_err(|_| Errno::E2BIG);
    let mut info = Zeroizing::new(PoolInfo {
        entropy_bits: int(CREDITED_BYTES * 8)?,
        size: int(used)?,
        bytes: [0; MAX_BYTES],
    });
    info.bytes[..used].copy_from_slice(&answer[..used]);
    // SAFETY: `device` is an open descriptor. The kernel reads the two integers and the `size` bytes behind them, all
    // inside of `info`, which has C's layout, and writes nothing.
    unsafe { ioctls::rnd_add_entropy(device, std::ptr::from_ref(&*info).cast()) }.map(drop)
}

/// Makes the pool the generator's new seed. Fails if the generator has never had one.
#[allow(unsafe_code, reason = "nix has no safe wrapper for this request")]
fn reseed(device: RawFd) -> nix::Result<()> {
    // SAFETY: `device` is an open descriptor, and the request has no argument.
    unsafe { ioctls::rnd_reseed_crng(device) }.map(drop)
}

#[cfg(test)]
mod tests {
    use attestation::{NsmError, Request, Response};

    use super::*;

    /// Gives the answers in turn.
    struct Scripted(std::sync::Mutex<Vec<Vec<u8>>>);

    impl Nsm for Scripted {
        fn request(&self, _: Request) -> Result<Response, NsmError> {
            Ok(Response::GetRandom { random: self.0.lock().unwrap().remove(0) })
        }
    }

    fn ask_for(answers: [Vec<u8>; 2]) -> Result<Vec<Zeroizing<Vec<u8>>>, BootError> {
        ask(&Scripted(std::sync::Mutex::new(answers.into())))
    }

    fn bytes(first: u8, length: u8) -> Vec<u8> {
        (first..first + length).collect()
    }

    #[test]
    fn two_different_answers_are_used_whole() {
        let answers = ask_for([bytes(0, 64), bytes(1, 64)]).unwrap();
        assert_eq!(
            answers.iter().map(|answer| answer.to_vec()).collect::<Vec<_>>(),
            [bytes(0, 64), bytes(1, 64)]
        );
        const { assert!(ANSWERS >= 2 && ANSWERS * CREDITED_BYTES * 8 >= 256) }
    }

    #[test]
    fn answers_that_are_not_random_fail_the_boot() {
        for (answers, problem) in [
            ([vec![0; 256], bytes(0, 64)], "all bytes"),
            ([bytes(0, 64), vec![0xff; 256]], "all bytes"),
            ([bytes(0, 64), bytes(0, 64)], "two answers"),
            ([bytes(0, 64), bytes(0, 48)], "two answers"),
            ([bytes(0, 31), bytes(1, 64)], "31 in one answer"),
            ([bytes(0, 64), vec![]], "GetRandom"),
        ] {
            let error = ask_for(answers).unwrap_err();
            assert_eq!(error.reason, FailureReason::NsmFailed);
            assert!(error.message.contains(problem), "{}", error.message);
        }
    }

    #[test]
    fn a_module_without_random_bytes_fails_the_boot() {
        let error = seed(&crate::fake_nsm::FakeNsm::measured(), &mut Facts::new()).unwrap_err();
        assert_eq!(error.reason, FailureReason::NsmFailed);
    }

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!(std::mem::offset_of!(PoolInfo, size), 4);
        assert_eq!(std::mem::offset_of!(PoolInfo, bytes), 8);
    }
}
