use std::io;

use api::control::FailureReason;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::error::BootError;

/// Why the enclave is to stop although nothing inside it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The parent asked for it.
    Shutdown,
    /// The control channel ended.
    ControlEnded,
    /// SIGTERM.
    Terminated,
}

/// A wish to stop, made once by anybody, seen by everybody.
#[derive(Clone)]
pub(crate) struct Stop(watch::Sender<Option<Cause>>);

impl Stop {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// One that SIGTERM makes too.
    pub(crate) fn on_sigterm() -> io::Result<Self> {
        let stop = Self::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let on_signal = stop.clone();
        tokio::spawn(async move {
            if terminate.recv().await.is_some() {
                on_signal.request(Cause::Terminated);
            }
        });
        Ok(stop)
    }

    /// The first cause stands.
    pub(crate) fn request(&self, cause: Cause) {
        self.0.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(cause);
            first
        });
    }

    /// Waits until somebody asks to stop.
    pub(crate) async fn requested(&self) -> Cause {
        let mut changes = self.0.subscribe();
        let cause = match changes.wait_for(Option::is_some).await {
            Ok(cause) => *cause,
            // Cannot happen while `self` is there.
            Err(_) => None,
        };
        cause.unwrap_or(Cause::ControlEnded)
    }
}

impl Cause {
    /// What stopping means while the boot is not done: in order if it was asked for, else a failure.
    pub(crate) fn during_boot(self) -> Result<(), BootError> {
        match self {
            Self::Shutdown | Self::Terminated => Ok(()),
            Self::ControlEnded => Err(BootError::new(
                FailureReason::ParentUnreachable,
                "the control channel ended during the boot",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_cause_stands() {
        let stop = Stop::new();
        stop.request(Cause::Shutdown);
        stop.request(Cause::ControlEnded);
        assert_eq!(stop.requested().await, Cause::Shutdown);
    }

    #[tokio::test]
    async fn whoever_waits_already_is_told() {
        let stop = Stop::new();
        let waiting = tokio::spawn({
            let stop = stop.clone();
            async move { stop.requested().await }
        });
        tokio::task::yield_now().await;
        stop.request(Cause::Terminated);
        assert_eq!(waiting.await.unwrap(), Cause::Terminated);
    }

    #[test]
    fn only_a_lost_control_channel_fails_the_boot() {
        assert!(Cause::Shutdown.during_boot().is_ok());
        assert!(Cause::Terminated.during_boot().is_ok());
        assert_eq!(Cause::ControlEnded.during_boot().unwrap_err().reason, FailureReason::ParentUnreachable);
    }
}
