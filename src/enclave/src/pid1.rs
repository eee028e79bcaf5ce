//! What `enclave` does beyond its work when it is PID 1, the only program of a machine: the machine's set-up, its clock and
//! its entropy, other people's children, and its end. As an ordinary process (development) nothing of this happens.
//!
//! Signals: the kernel delivers none to PID 1 that it has no handler for. It has one for SIGTERM: an orderly stop.
//!
//! Memory: the kernel never chooses PID 1 when memory runs out; the signing service is the only other process, so its
//! end is what PID 1 reports. An `oom_score_adj` would change nothing, but for the worse: children inherit it.
//!
//! A panic aborts the program (see `[profile.release]`), the kernel cannot go on without PID 1 and panics too, and
//! `panic=1` on its command line ends the machine one second later.

pub(crate) mod children;
pub(crate) mod clock;
mod command_line;
mod end;
pub(crate) mod entropy;
pub(crate) mod loopback;
pub(crate) mod memory;

use std::{fs::File, time::Duration};

use api::control::FailureReason;
use nix::{
    mount::{MsFlags, mount},
    sys::{
        resource::{Resource, setrlimit},
        stat::{Mode, umask},
    },
    time::{ClockId, clock_gettime},
    unistd::{dup2_stdin, getpid, sethostname},
};
use vsock::Peer;

pub(crate) use end::end_machine;

use crate::{
    error::{BootError, Facts, because},
    outbox::Outbox,
};

const HOSTNAME: &str = "enclave";
/// Twice as many as the most sessions that can be configured; the service inherits it.
const MAX_OPEN_FILES: u64 = 131_072;

/// A file system of the machine.
struct Mount {
    at: &'static str,
    kind: &'static str,
    flags: MsFlags,
    options: &'static str,
}

const NOTHING_SPECIAL: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// In order. `/run` holds the sealed bundle and for a short time the plaintext, and may take half of the memory: what needs
/// more could not be opened anyway, and fails with a named reason instead of by want of memory.
const MOUNTS: [Mount; 6] = [
    Mount { at: "/proc", kind: "proc", flags: NOTHING_SPECIAL, options: "" },
    Mount { at: "/sys", kind: "sysfs", flags: NOTHING_SPECIAL.union(MsFlags::MS_RDONLY), options: "" },
    Mount {
        at: "/dev",
        kind: "devtmpfs",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        options: "mode=0755",
    },
    Mount { at: "/run", kind: "tmpfs", flags: NOTHING_SPECIAL, options: "mode=0700,size=50%" },
    Mount { at: "/tmp", kind: "tmpfs", flags: NOTHING_SPECIAL, options: "mode=1777,size=16m" },
    // The image's own files: programs are started from here and nothing is written any more.
    Mount {
        at: "/",
        kind: "",
        flags: MsFlags::MS_REMOUNT
            .union(MsFlags::MS_RDONLY)
            .union(MsFlags::MS_NOSUID)
            .union(MsFlags::MS_NODEV),
        options: "",
    },
];

/// Is this process PID 1?
pub(crate) fn is_this_process() -> bool {
    getpid().as_raw() == 1
}

/// Makes the machine one that the boot can run on. `began` is the uptime at this program's first line.
pub(crate) fn set_up(began: Duration, facts: &mut Facts) -> Result<(), BootError> {
    note(began, facts);
    umask(Mode::from_bits_truncate(0o077));
    mount_all()?;
    read_nothing_from_the_console()?;
    sethostname(HOSTNAME).map_err(because(FailureReason::Internal, "cannot set the host name"))?;
    setrlimit(Resource::RLIMIT_NOFILE, MAX_OPEN_FILES, MAX_OPEN_FILES)
        .map_err(because(FailureReason::Internal, "cannot raise the limit of open files"))
}

/// The parent: the configured one, unless the kernel's command line names another context id.
pub(crate) fn parent(configured: &Peer) -> Result<Peer, BootError> {
    command_line::read()?.parent(configured)
}

/// What goes on until the end: collecting the children that others left, and watching the memory.
pub(crate) fn keep_house(outbox: &Outbox) -> Result<(), BootError> {
    tokio::spawn(memory::watch(outbox.clone()));
    children::reap_orphans_from_now_on()
        .map_err(because(FailureReason::Internal, "cannot listen for SIGCHLD"))
}

/// Adds what only the kernel knows: that it ended the service for want of memory.
pub(crate) fn explain(error: &mut BootError) {
    if error.reason == FailureReason::ServiceExited
        && let Some(words) = memory::last_kill()
    {
        error.message = format!("{}; the kernel says: {words}", error.message);
    }
}

/// How long the kernel has been running.
pub(crate) fn uptime() -> Duration {
    // Fails for unknown clocks only.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// Notes an [`uptime`], microseconds.
pub(crate) fn note(uptime: Duration, facts: &mut Facts) {
    facts.insert("uptime_us".to_owned(), uptime.as_micros().to_string());
}

fn mount_all() -> Result<(), BootError> {
    MOUNTS.iter().try_for_each(|Mount { at, kind, flags, options }| {
        mount(Some(*kind), *at, Some(*kind), *flags, (!options.is_empty()).then_some(*options))
            .map_err(because(FailureReason::Internal, format!("cannot mount {at}")))
    })
}

/// The kernel has opened the console for all three standard streams. Output stays there, and so do the kernel's own
/// words if it panics; in a production enclave nobody sees either.
fn read_nothing_from_the_console() -> Result<(), BootError> {
    File::open("/dev/null")
        .and_then(|null| Ok(dup2_stdin(null)?))
        .map_err(because(FailureReason::Internal, "cannot take /dev/null as standard input"))
}
