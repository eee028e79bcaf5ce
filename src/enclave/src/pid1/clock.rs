//! The machine's clock, which TLS and certificates are judged by.
//!
//! Two sources are trusted, both of the hypervisor: KVM's clock, where the machine has it, and the time in a document of
//! the security module. The clock that the machine started with is kept if they agree.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use api::control::FailureReason;
use attestation::Nsm;
use ciborium::Value;
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime, clock_settime},
};

use crate::{
    error::{BootError, Facts, because},
    measure::nsm_failed,
};

/// Where the kernel lists PTP clocks, and how it calls KVM's.
const PTP_CLOCKS: &str = "/sys/class/ptp";
const KVM_CLOCK: &str = "KVM virtual PTP";
/// The clock is set if KVM's differs by more than this, milliseconds.
const KVM_TOLERANCE_MS: i64 = 500;
/// What the time of a document may differ by, milliseconds: the module has a clock of its own.
const DOCUMENT_TOLERANCE_MS: i64 = 60_000;

/// Sets the clock by KVM's, and checks it against the security module's, which decides where there is no other.
pub(crate) fn set(nsm: &dyn Nsm, facts: &mut Facts) -> Result<(), BootError> {
    let failed = || because(FailureReason::Internal, "cannot read KVM's clock");
    // First, since it takes longest: the two clocks are read one right after the other.
    let document = document_time(nsm)?;
    let device = kvm_clock(Path::new(PTP_CLOCKS)).map_err(failed())?;
    let kvm = device.map(|device| read(&device)).transpose().map_err(failed())?;
    let times = Times { kvm, document, system: unix_ms(SystemTime::now()) };
    let setting = times.judge()?;
    if setting.offset_ms != 0 {
        step_by(setting.offset_ms)
            .map_err(because(FailureReason::Internal, "the kernel does not take a new time"))?;
    }
    facts.insert("source".to_owned(), setting.source.to_owned());
    facts.insert("offset_ms".to_owned(), setting.offset_ms.to_string());
    Ok(())
}

/// Unix times of about the same moment, milliseconds.
struct Times {
    kvm: Option<i64>,
    document: i64,
    system: i64,
}

/// Whose time it is, and how far the clock is moved to it.
#[derive(Debug, PartialEq)]
struct Setting {
    source: &'static str,
    offset_ms: i64,
}

impl Times {
    fn judge(&self) -> Result<Setting, BootError> {
        let Self { kvm, document, system } = *self;
        if let Some(kvm) = kvm {
            let apart = document - kvm;
            if apart.abs() > DOCUMENT_TOLERANCE_MS {
                let problem = format!(
                    "KVM's clock says {kvm} and a document of the NSM {document} (Unix time, milliseconds): they are \
                     {apart} ms apart, and the enclave cannot tell which is right"
                );
                return Err(BootError::new(FailureReason::NsmFailed, problem));
            }
            return Ok(Setting::new("kvm", kvm - system, KVM_TOLERANCE_MS));
        }
        match Setting::new("document", document - system, DOCUMENT_TOLERANCE_MS) {
            Setting { offset_ms: 0, .. } => Ok(Setting { source: "kernel", offset_ms: 0 }),
            setting => Ok(setting),
        }
    }
}

impl Setting {
    fn new(source: &'static str, offset_ms: i64, tolerance_ms: i64) -> Self {
        Self { source, offset_ms: if offset_ms.abs() > tolerance_ms { offset_ms } else { 0 } }
    }
}

/// The device of KVM's clock, if there is one: none in an emulated machine.
fn kvm_clock(clocks: &Path) -> io::Result<Option<PathBuf>> {
    let entries = match fs::read_dir(clocks) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if fs::read_to_string(entry.path().join("clock_name"))?.trim_end() == KVM_CLOCK {
            return Ok(Some(Path::new("/dev").join(entry.file_name())));
        }
    }
    Ok(None)
}

/// Asks a clock device. Its clock id is made of its descriptor: FD_TO_CLOCKID of clock_gettime(2).
fn read(device: &Path) -> io::Result<i64> {
    const CLOCKFD: i32 = 3;
    let file = File::open(device)?;
    let clock = ClockId::from_raw((!file.as_raw_fd() << 3) | CLOCKFD);
    Ok(milliseconds(clock_gettime(clock)?.into()))
}

/// Moves the clock, so that the time which passed since it was judged is not lost.
fn step_by(offset_ms: i64) -> nix::Result<()> {
    let moved = unix_ms(SystemTime::now()).saturating_add(offset_ms);
    let since = Duration::from_millis(u64::try_from(moved).unwrap_or_default());
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(since))
}

/// When the security module says it is. The document is the module's own, straight from it, and is not verified.
fn document_time(nsm: &dyn Nsm) -> Result<i64, BootError> {
    let document = nsm
        .attest(None, None, None)
        .map_err(nsm_failed("cannot get an attestation document to set the clock by"))?;
    timestamp(&document).ok_or_else(|| {
        BootError::new(FailureReason::NsmFailed, "an attestation document without a timestamp")
    })
}

/// `timestamp` of the payload, which is the third part of a COSE_Sign1; milliseconds.
fn timestamp(document: &[u8]) -> Option<i64> {
    let cose: Value = ciborium::from_reader(document).ok()?;
    let cose = match cose {
        Value::Tag(_, inner) => *inner,
        untagged => untagged,
    };
    let payload: Value = ciborium::from_reader(&cose.as_array()?.get(2)?.as_bytes()?[..]).ok()?;
    let (_, time) = payload.as_map()?.iter().find(|(name, _)| name.as_text() == Some("timestamp"))?;
    i64::try_from(time.as_integer()?).ok()
}

fn unix_ms(time: SystemTime) -> i64 {
    milliseconds(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn milliseconds(since: Duration) -> i64 {
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_000_000_000;

    fn judge(kvm: Option<i64>, document: i64, system: i64) -> Result<Setting, BootError> {
        Times { kvm, document, system }.judge()
    }

    #[test]
    fn a_clock_that_agrees_is_kept() {
        assert_eq!(
            judge(Some(NOW), NOW + 60_000, NOW - 500).unwrap(),
            Setting { source: "kvm", offset_ms: 0 }
        );
        assert_eq!(judge(None, NOW, NOW + 60_000).unwrap(), Setting { source: "kernel", offset_ms: 0 });
    }

    #[test]
    fn kvms_clock_is_taken_where_it_differs() {
        assert_eq!(judge(Some(NOW), NOW, NOW - 501).unwrap(), Setting { source: "kvm", offset_ms: 501 });
        assert_eq!(judge(Some(NOW), NOW, NOW + 9_000).unwrap(), Setting { source: "kvm", offset_ms: -9_000 });
    }

    #[test]
    fn without_kvms_clock_the_documents_time_is_taken_where_it_differs() {
        assert_eq!(judge(None, NOW, 1_000).unwrap(), Setting { source: "document", offset_ms: NOW - 1_000 });
        assert_eq!(
            judge(None, NOW, NOW + 60_001).unwrap(),
            Setting { source: "document", offset_ms: -60_001 }
        );
    }

    #[test]
    fn two_trusted_sources_that_disagree_fail_the_boot_and_both_are_named() {
        for document in [NOW + 60_001, NOW - 60_001] {
            let error = judge(Some(NOW), document, NOW).unwrap_err();
            assert_eq!(error.reason, FailureReason::NsmFailed);
            for time in [NOW, document] {
                assert!(error.message.contains(&time.to_string()), "{}", error.message);
            }
        }
    }

    #[test]
    fn kvms_clock_is_found_by_its_name_among_others() {
        let clocks = tempfile::tempdir().unwrap();
        assert_eq!(kvm_clock(clocks.path()).unwrap(), None);
        for (device, name) in [("ptp0", "network card\n"), ("ptp1", "KVM virtual PTP\n")] {
            fs::create_dir(clocks.path().join(device)).unwrap();
            fs::write(clocks.path().join(device).join("clock_name"), name).unwrap();
        }
        assert_eq!(kvm_clock(clocks.path()).unwrap(), Some("/dev/ptp1".into()));
        assert_eq!(kvm_clock(Path::new("/nonexistent")).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_no_clock_is_an_error() {
        assert!(read(Path::new("/dev/null")).is_err());
    }

    fn cose(payload: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        ciborium::into_writer(payload, &mut bytes).unwrap();
        let parts =
            vec![Value::Bytes(vec![]), Value::Map(vec![]), Value::Bytes(bytes), Value::Bytes(vec![0; 96])];
        let mut document = Vec::new();
        ciborium::into_writer(&Value::Array(parts), &mut document).unwrap();
        document
    }

    #[test]
    fn the_time_is_read_out_of_a_document() {
        let fields =
            |time: Value| Value::Map(vec![("digest".into(), "SHA384".into()), ("timestamp".into(), time)]);
        assert_eq!(timestamp(&cose(&fields(NOW.into()))), Some(NOW));
        assert_eq!(timestamp(&cose(&fields(u64::MAX.into()))), None);
        assert_eq!(timestamp(&cose(&fields("soon".into()))), None);
        assert_eq!(timestamp(&cose(&Value::Map(vec![]))), None);
        assert_eq!(timestamp(b"no document"), None);
    }

    #[cfg(feature = "software-nsm")]
    #[test]
    fn the_time_of_a_modules_document_is_the_time() {
        use attestation::software::{SoftwareNsm, TestAuthority};

        let authority = TestAuthority::generate().unwrap();
        let measurements = attestation::Measurements::of_parts(&[b"boot"], &[b"runtime"], &[b"application"]);
        let nsm = SoftwareNsm::new(&authority, measurements).unwrap();
        let apart = document_time(&nsm).unwrap() - unix_ms(SystemTime::now());
        assert!(apart.abs() < 10_000, "{apart} ms");
    }
}
