//! Who collects the status of which ended process.
//!
//! PID 1 inherits every process whose parent ends, and has to collect its status, or the table of processes fills up. The
//! status of the signing service is not to be touched here: whoever started it waits for it, and reports its end.

use std::{
    collections::BTreeSet,
    io,
    sync::{Mutex, PoisonError},
};

use nix::{
    sys::wait::{Id, WaitPidFlag, waitid, waitpid},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

/// Children that this program started and waits for itself.
static OWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Starts a program whose status the caller waits for.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    // Held until its id is known: nobody reaps before.
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn()?;
    own.extend(child.id().and_then(|id| i32::try_from(id).ok()));
    Ok(child)
}

/// Collects all other children, from now on, as they end.
pub(super) fn reap_orphans_from_now_on() -> io::Result<()> {
    let mut ended = signal(SignalKind::child())?;
    tokio::spawn(async move {
        while ended.recv().await.is_some() {
            reap_orphans();
        }
    });
    Ok(())
}

fn reap_orphans() {
    let own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    // Looks without collecting.
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Some(ended) = waitid(Id::All, look).ok().and_then(|status| status.pid()) {
        // Those that ended after this one wait for another look. There will be none: without its service the enclave ends.
        if own.contains(&ended.as_raw()) {
            return;
        }
        collect(ended);
    }
}

fn collect(ended: Pid) {
    if let Ok(status) = waitpid(ended, Some(WaitPidFlag::WNOHANG)) {
        tracing::debug!(?status, "an orphan has ended");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        process::Stdio,
        time::{Duration, Instant},
    };

    use nix::sys::prctl::set_child_subreaper;
    use tokio::io::{AsyncBufReadExt as _, BufReader};

    use super::*;

    fn is_gone(id: &str) -> bool {
        !fs::exists(format!("/proc/{id}")).unwrap()
    }

    #[tokio::test]
    async fn orphans_are_collected_and_the_status_of_an_own_child_is_left_to_its_starter() {
        // What PID 1 is anyway.
        set_child_subreaper(true).unwrap();
        reap_orphans_from_now_on().unwrap();
        // The shell starts a process, tells its id, and leaves it behind.
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "sleep 0.2 & echo $!; exit 7"]).stdout(Stdio::piped());
        let mut shell = spawn(&mut shell).unwrap();
        let mut orphan = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut orphan).await.unwrap();

        assert_eq!(shell.wait().await.unwrap().code(), Some(7));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_gone(orphan.trim()) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(is_gone(orphan.trim()), "the orphan is still there");
        set_child_subreaper(false).unwrap();
    }

    #[tokio::test]
    async fn an_own_child_that_has_ended_keeps_its_status_while_orphans_are_reaped() {
        let mut child = spawn(Command::new("/bin/sh").args(["-c", "exit 3"])).unwrap();
        let id = child.id().unwrap();
        while !fs::read_to_string(format!("/proc/{id}/stat")).unwrap().contains(") Z ") {
            std::thread::sleep(Duration::from_millis(5));
        }
        reap_orphans();
        assert_eq!(child.wait().await.unwrap().code(), Some(3));
    }
}
