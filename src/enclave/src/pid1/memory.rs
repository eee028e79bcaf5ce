//! The machine's memory: figures, and a warning before the kernel has to end a process for want of it.

use std::{fs, io, io::Read as _, os::unix::fs::OpenOptionsExt as _, time::Duration};

use api::control::{BootEvent, FailureReason, enclave_message::Message};
use nix::{errno::Errno, fcntl::OFlag};

use crate::{
    error::{BootError, Facts, because},
    journal::unix_milliseconds,
    outbox::Outbox,
};

/// Memory can be gone in less than a second; a look takes some ten microseconds.
const INTERVAL: Duration = Duration::from_millis(250);
/// In use, of a hundred: the warning comes above `HIGH`, and once only until it was below `LOW` again.
const HIGH: u64 = 90;
const LOW: u64 = 85;
/// Memory for a bundle, in bytes for each of its bytes: once as the plaintext's file, once as what is read from it, and up
/// to three times as the accounts in it. Measured with 8,000 accounts of 410 bytes: between 3.6 and 4.7.
const PER_BUNDLE_BYTE: u64 = 5;
/// Memory that the signing service takes beside the shares, KiB.
const SERVICE_KIB: u64 = 8 << 10;
/// Largest record of the kernel's log, bytes.
const MAX_RECORD: usize = 8 << 10;

/// Notes how much memory is in use.
pub(crate) fn note(facts: &mut Facts) -> Result<(), BootError> {
    Memory::now().map_err(because(FailureReason::Internal, "cannot read the memory's figures"))?.note(facts);
    Ok(())
}

/// Refuses a bundle that the memory is not enough for. Later the kernel would find nobody to end but this process, and
/// that is the end of the machine without a reason.
pub(crate) fn suffices_for(bundle_bytes: u64, facts: &mut Facts) -> Result<(), BootError> {
    let memory =
        Memory::now().map_err(because(FailureReason::Internal, "cannot read the memory's figures"))?;
    memory.note(facts);
    memory.suffices_for(bundle_bytes)
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Memory {
    total_kib: u64,
    /// What is neither free nor can be freed at once.
    used_kib: u64,
}

impl Memory {
    fn now() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/meminfo")?;
        Self::parse(&text).ok_or_else(|| io::Error::other("no MemTotal and MemAvailable in /proc/meminfo"))
    }

    fn parse(meminfo: &str) -> Option<Self> {
        let figure = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        };
        let total_kib = figure("MemTotal")?;
        Some(Self { total_kib, used_kib: total_kib.checked_sub(figure("MemAvailable")?)? })
    }

    fn note(self, facts: &mut Facts) {
        facts.insert("memory_used_kib".to_owned(), self.used_kib.to_string());
        facts.insert("memory_total_kib".to_owned(), self.total_kib.to_string());
    }

    fn suffices_for(self, bundle_bytes: u64) -> Result<(), BootError> {
        let needed_kib = bundle_bytes.saturating_mul(PER_BUNDLE_BYTE) / 1024 + SERVICE_KIB;
        let free_kib = self.total_kib - self.used_kib;
        if free_kib >= needed_kib {
            return Ok(());
        }
        let missing_mib = (needed_kib - free_kib).div_ceil(1024);
        let problem = format!(
            "a bundle of {bundle_bytes} bytes takes {needed_kib} KiB of memory and there are {free_kib}: give the \
             enclave {missing_mib} MiB more, or fewer accounts"
        );
        Err(BootError::new(FailureReason::MemoryTooSmall, problem))
    }

    fn percent(self) -> u64 {
        self.used_kib.saturating_mul(100) / self.total_kib.max(1)
    }
}

/// Tells the parent whenever little memory is left, as an event `memory_low`.
pub(super) async fn watch(outbox: Outbox) {
    let mut watermark = Watermark::default();
    loop {
        tokio::time::sleep(INTERVAL).await;
        match Memory::now() {
            Ok(memory) if watermark.is_crossed_by(memory) => warn(memory, &outbox),
            Ok(_) => {}
            Err(error) => return tracing::error!(%error, "the memory cannot be watched"),
        }
    }
}

fn warn(memory: Memory, outbox: &Outbox) {
    let Memory { total_kib, used_kib } = memory;
    tracing::warn!(
        used_kib,
        total_kib,
        "memory is low; give the enclave more, or fewer accounts and sessions"
    );
    let mut details = Facts::new();
    memory.note(&mut details);
    let event =
        BootEvent { step: "memory_low".to_owned(), unix_ms: unix_milliseconds(), duration_us: 0, details };
    // A parent that cannot be told is one that the supervision will miss.
    let _ = outbox.send(Message::Event(event));
}

#[derive(Debug, Default)]
struct Watermark {
    is_high: bool,
}

impl Watermark {
    fn is_crossed_by(&mut self, memory: Memory) -> bool {
        let was_high = self.is_high;
        self.is_high = memory.percent() >= if was_high { LOW } else { HIGH };
        self.is_high && !was_high
    }
}

/// What the kernel's log says of the last process that it ended for want of memory, if it has.
pub(super) fn last_kill() -> Option<String> {
    let mut log =
        fs::OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open("/dev/kmsg").ok()?;
    let mut record = vec![0; MAX_RECORD];
    let mut last = None;
    // A record a read.
    loop {
        match log.read(&mut record) {
            Ok(0) => return last,
            Ok(length) => last = kill(&String::from_utf8_lossy(&record[..length])).or(last),
            // The next record has been overwritten; the one after it is there.
            Err(error) if error.raw_os_error() == Some(Errno::EPIPE as i32) => {}
            // Most of all: no more records.
            Err(_) => return last,
        }
    }
}

/// The text of a record such as `3,512,8125000,-;Out of memory: Killed process 57 (sign-service) …`.
fn kill(record: &str) -> Option<String> {
    let (_, text) = record.split_once(';')?;
    let text = text.lines().next()?;
    text.starts_with("Out of memory: Killed process ").then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::outbox;

    const MEMINFO: &str =
        "MemTotal:         500000 kB\nMemFree:           10000 kB\nMemAvailable:     100000 kB\n";

    #[test]
    fn what_is_used_is_what_cannot_be_had() {
        assert_eq!(Memory::parse(MEMINFO), Some(Memory { total_kib: 500_000, used_kib: 400_000 }));
        assert_eq!(Memory::parse("MemTotal: 1 kB\n"), None);
        assert_eq!(Memory::parse(&MEMINFO.replace("kB", "MB")), None);
        let now = Memory::now().unwrap();
        assert!(now.used_kib > 0 && now.used_kib < now.total_kib, "{now:?}");
    }

    #[test]
    fn a_bundle_that_the_memory_is_not_enough_for_is_refused_with_the_figures() {
        let memory = Memory { total_kib: 50 << 10, used_kib: 22 << 10 };
        // 28 MiB are free, and 8 are for the service.
        memory.suffices_for(4 << 20).unwrap();
        let error = memory.suffices_for((4 << 20) + 1024).unwrap_err();
        assert_eq!(error.reason, FailureReason::MemoryTooSmall);
        let words = "a bundle of 4195328 bytes takes 28677 KiB of memory and there are 28672: give the enclave 1 MiB more";
        assert!(error.message.starts_with(words), "{}", error.message);
        memory.suffices_for(u64::MAX).unwrap_err();
        suffices_for(1, &mut Facts::new()).unwrap();
    }

    #[test]
    fn a_crossing_is_told_once_and_again_only_after_the_memory_was_there_again() {
        let mut watermark = Watermark::default();
        let told = [80, 89, 90, 99, 86, 91, 84, 89, 95]
            .map(|used_kib| watermark.is_crossed_by(Memory { total_kib: 100, used_kib }));
        assert_eq!(told, [false, false, true, false, false, false, false, false, true]);
    }

    #[test]
    fn the_warning_has_the_figures() {
        let (outbox, mut queue) = outbox();
        warn(Memory { total_kib: 1000, used_kib: 950 }, &outbox);
        match queue.next_now() {
            Some(Message::Event(event)) => {
                assert_eq!(event.step, "memory_low");
                assert_eq!(event.details["memory_used_kib"], "950");
                assert_eq!(event.details["memory_total_kib"], "1000");
            }
            other => panic!("expected an event, got {other:?}"),
        }
    }

    #[test]
    fn the_kernels_words_on_a_killed_process_are_found() {
        let record =
            "3,512,8125000,-;Out of memory: Killed process 57 (sign-service) total-vm:4kB\n SUBSYSTEM=x\n";
        let text = kill(record).unwrap();
        assert_eq!(text, "Out of memory: Killed process 57 (sign-service) total-vm:4kB");
        assert_eq!(kill("6,1,0,-;Linux version 6.12"), None);
        assert_eq!(kill("garbage"), None);
    }
}
