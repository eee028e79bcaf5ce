//! The end of the machine.

use std::{
    io::stderr,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        reboot::{RebootMode, reboot},
        signal::{Signal, kill},
        termios::tcdrain,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, sync},
};

/// How long processes may take after SIGTERM. The signing service has had its own, longer time before.
const TERM_PATIENCE: Duration = Duration::from_secs(1);
const KILL_PATIENCE: Duration = Duration::from_secs(1);
const EVERYBODY: Pid = Pid::from_raw(-1);

/// Ends every other process, then the machine.
///
/// The machine is restarted, not powered off: an enclave has no ACPI, a kernel without it cannot power off and would halt,
/// and the parent's instance would keep a dead enclave's memory. A restart ends the enclave, on Nitro (`reboot=k`: through
/// the keyboard controller) as in QEMU (`-no-reboot`, with `reboot=t`: by a triple fault). Nothing is started again.
pub(crate) fn end_machine() {
    for (signal, patience) in [(Signal::SIGTERM, TERM_PATIENCE), (Signal::SIGKILL, KILL_PATIENCE)] {
        // Everybody but PID 1 itself; fails if there is nobody.
        if kill(EVERYBODY, signal).is_ok() {
            wait_for_all(patience);
        }
    }
    sync();
    // The last words are still in the console's buffer.
    let _ = tcdrain(stderr());
    let refused = reboot(RebootMode::RB_AUTOBOOT);
    // The kernel panics when this program returns, which ends the machine too.
    tracing::error!(?refused, "the kernel does not restart");
}

fn wait_for_all(patience: Duration) {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => return,
            Ok(WaitStatus::StillAlive) => sleep(Duration::from_millis(5)),
            Ok(_) | Err(_) => {}
        }
    }
}
