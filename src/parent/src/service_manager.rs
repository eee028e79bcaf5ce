//! What the service manager is told, in systemd's notification protocol (`sd_notify(3)`). Without `NOTIFY_SOCKET` in the
//! environment, nothing.
//!
//! - `READY=1` when the enclave is verified and ingress is open, not before: until then the unit is starting. A boot may
//!   take longer than the manager would wait, so its patience is extended to what the configuration allows.
//! - `STATUS=` at each state, `STOPPING=1` from the moment on that nobody is served any more.
//! - `WATCHDOG=1` from the loops in which the run waits for what comes next, see [`Watchdog`].

use std::{
    future::{Future, pending},
    pin::pin,
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::status::{State, Status};

/// What a run takes at most on top of its own limits, to end an enclave and to write what happened.
const MARGIN: Duration = Duration::from_secs(30);
/// Longest status line, characters: systemd drops messages of more than 4096 bytes.
const MAX_LINE: usize = 400;

/// Tells which state was entered.
pub(crate) fn entered(status: &Status) {
    let line = line(status);
    let mut message = vec![NotifyState::Status(&line)];
    match status.state {
        State::Serving => message.push(NotifyState::Ready),
        State::Draining | State::Stopped | State::Failed => message.push(NotifyState::Stopping),
        State::Fetching | State::Measuring | State::Launching | State::Unsealing | State::Verifying => {}
    }
    tell(&message);
}

/// Asks for patience: the boot, or the end, takes at most so long by itself.
pub(crate) fn takes(duration: Duration) {
    let micros = (duration + MARGIN).as_micros();
    tell(&[NotifyState::ExtendTimeoutUsec(u32::try_from(micros).unwrap_or(u32::MAX))]);
}

/// Sends a message, if there is a service manager.
pub(crate) fn tell(message: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(message) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// One line: what an enclave writes into a message is not to become a message of its own.
fn line(status: &Status) -> String {
    let text = match (status.state, status.reason) {
        (State::Serving, _) => {
            let ingress = status.ingress.as_deref().unwrap_or("nowhere");
            format!("Serving: verified, clients connect to {ingress}")
        }
        (State::Failed, Some(reason)) => {
            format!("Failed: {reason}: {}", status.message.as_deref().unwrap_or_default())
        }
        (state, _) => format!("{state:?}"),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_LINE).collect()
}

/// Pings the service manager's watchdog, if there is one: twice in the time after which it would give up.
///
/// There is no task for it. The loops of the run ping while they wait: one that hangs in its work, or a runtime that runs
/// no tasks, pings no more.
#[derive(Debug)]
pub(crate) struct Watchdog(Option<Interval>);

impl Watchdog {
    /// As the environment says: `WATCHDOG_USEC`, for `WATCHDOG_PID`.
    pub(crate) fn from_environment() -> Self {
        Self(sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|pause| !pause.is_zero()).map(
            |pause| {
                let mut interval = interval(pause);
                interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
                interval
            },
        ))
    }

    /// Waits until a ping is due, and pings. Without a watchdog it never returns. May be cancelled.
    pub(crate) async fn ping(&mut self) {
        match &mut self.0 {
            Some(interval) => drop(interval.tick().await),
            None => pending().await,
        }
        tell(&[NotifyState::Watchdog]);
    }

    /// Pings while some work is done whose time is limited.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = self.ping() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use api::control::FailureReason;

    use super::*;
    use crate::{Failed, Reason, status::StatusFile};

    fn file() -> (tempfile::TempDir, StatusFile) {
        let directory = tempfile::tempdir().unwrap();
        let file = StatusFile::create(directory.path(), "process").unwrap();
        (directory, file)
    }

    #[test]
    fn the_line_names_the_state_and_what_matters_in_it() {
        let (_directory, mut file) = file();
        assert_eq!(line(file.get()), "Fetching");
        file.enter(State::Serving, |status| status.ingress = Some("0.0.0.0:50051".to_owned()));
        assert_eq!(line(file.get()), "Serving: verified, clients connect to 0.0.0.0:50051");
        file.fail(&Failed::new(Reason::Enclave(FailureReason::KmsDenied), "the key policy says no"));
        assert_eq!(line(file.get()), "Failed: KmsDenied: the key policy says no");
    }

    #[test]
    fn what_an_enclave_says_stays_one_short_line() {
        let (_directory, mut file) = file();
        let message = format!("no\nREADY=1\r\nMAINPID=1\0{}", "é".repeat(1000));
        file.fail(&Failed::new(Reason::EnclaveExited, message));
        let line = line(file.get());
        assert!(line.starts_with("Failed: EnclaveExited: no READY=1  MAINPID=1 é"), "{line}");
        assert!(!line.contains(char::is_control), "{line}");
        assert_eq!(line.chars().count(), MAX_LINE);
    }

    #[tokio::test]
    async fn without_a_watchdog_nothing_is_ever_due_and_work_is_done() {
        let mut watchdog = Watchdog(None);
        assert_eq!(watchdog.during(async { 7 }).await, 7);
        let waited = tokio::time::timeout(Duration::from_millis(20), watchdog.ping()).await;
        assert!(waited.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn pings_are_due_while_work_goes_on_and_none_while_nobody_waits() {
        let mut watchdog = Watchdog(Some(interval(Duration::from_secs(10))));
        watchdog.ping().await;
        let started = tokio::time::Instant::now();
        watchdog.during(tokio::time::sleep(Duration::from_secs(35))).await;
        watchdog.ping().await;
        assert_eq!(started.elapsed(), Duration::from_secs(40));
    }
}
