//! `parent ship-journal`: this machine's journal to CloudWatch Logs.
//!
//! A process of its own, so that the last words of a daemon that failed for good still leave the machine. It reads the
//! journal through `journalctl`, sends batches, and writes the journal's cursor after CloudWatch has acknowledged a batch:
//! each entry arrives at least once, and none is lost by a restart. There is no loop of attempts around the one of the AWS
//! SDK: when that gives up, the process ends with a code after which the service manager starts it again.
//!
//! Its own log lines are in the journal as well. Nothing that happens for each batch is logged above debug level, or each
//! batch would be the reason for the next one.

mod batch;
mod cloudwatch;
mod config;
mod cursor;
mod entry;
mod event;
mod reader;
mod ship;

#[cfg(test)]
mod testing;

use std::{io, path::PathBuf};

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    exit,
    journal::cloudwatch::CloudWatch,
    service_manager::{self, Watchdog},
};

pub use config::JournalConfig;

/// Why the journal is not shipped any more.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// `ca_file` cannot be used.
    #[error("`ca_file` {}: {problem}; expected PEM certificates", file.display())]
    Roots {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The cursor file holds something that is no cursor.
    #[error(
        "`cursor_file` {} holds no journal cursor; remove it, and the whole journal is shipped once more",
        file.display()
    )]
    CursorInvalid {
        /// The file.
        file: PathBuf,
    },
    /// The cursor file cannot be read or written.
    #[error("`cursor_file` {}: {source}; its directory has to be there, and writable for this user", file.display())]
    Cursor {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The instance metadata service does not tell the instance id.
    #[error(
        "cannot ask the instance metadata service for the instance id: {problem}; give a name as `stream`"
    )]
    InstanceId {
        /// What the SDK says.
        problem: String,
    },
    /// CloudWatch Logs does not do what it is asked.
    #[error("{action} to {destination}: {problem}; {remedy}")]
    CloudWatch {
        /// The operation, as policies name it: `logs:PutLogEvents`.
        action: &'static str,
        /// Group, stream and region.
        destination: String,
        /// What the service, or the SDK, says.
        problem: String,
        /// What to change.
        remedy: String,
    },
    /// `journalctl` cannot be started.
    #[error("cannot start {program}: {source}; correct `journalctl`")]
    Start {
        /// As configured.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// `journalctl` has ended by itself, or cannot be read from.
    #[error("{program} {problem}")]
    Ended {
        /// As configured.
        program: String,
        /// How, and its last words on standard error.
        problem: String,
    },
    /// The signals that end the process cannot be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
}

impl JournalError {
    /// The exit code: what only a person can change is not to be restarted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Roots { .. } | Self::CursorInvalid { .. } => exit::CONFIGURATION,
            Self::Cursor { .. }
            | Self::InstanceId { .. }
            | Self::CloudWatch { .. }
            | Self::Start { .. }
            | Self::Ended { .. }
            | Self::Signals(_) => exit::TRANSIENT,
        }
    }
}

/// Ships the journal until SIGTERM or SIGINT; then what was read is sent before it returns.
///
/// Call it from the runtime's main task: `journalctl` ends with the thread that started it.
pub async fn ship_journal(config: JournalConfig) -> Result<(), JournalError> {
    // Before anything is awaited: a signal from here on is not missed.
    let mut terminate = signal(SignalKind::terminate()).map_err(JournalError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(JournalError::Signals)?;
    let mut stop = std::pin::pin!(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    let (cursor_file, cursor) = cursor::CursorFile::open(&config.cursor_file)?;
    // What is stopped before this process at a shutdown is started after it, and not to wait for CloudWatch.
    service_manager::tell(&[NotifyState::Ready, NotifyState::Status("Connecting to CloudWatch Logs")]);
    let mut watchdog = Watchdog::from_environment();
    let cloudwatch = tokio::select! {
        connected = watchdog.during(CloudWatch::connect(&config)) => connected?,
        () = &mut stop => return Ok(()),
    };
    let reader = reader::Reader::start(&config, cursor.as_deref()).await?;
    let destination = cloudwatch.destination();
    tracing::info!(destination, "shipping the journal");
    service_manager::tell(&[NotifyState::Status(&format!("Shipping the journal to {destination}"))]);
    ship::Shipper::new(cloudwatch, reader, cursor_file, config.flush, watchdog).run(stop).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_has_to_change_is_not_restarted_and_the_rest_is() {
        let file = || PathBuf::from("/etc/x");
        let source = || io::Error::from(io::ErrorKind::PermissionDenied);
        let text = || "x".to_owned();
        for error in [
            JournalError::CursorInvalid { file: file() },
            JournalError::Roots { file: file(), problem: text() },
        ] {
            assert_eq!(error.exit_code(), 78, "{error}");
        }
        for error in [
            JournalError::Cursor { file: file(), source: source() },
            JournalError::InstanceId { problem: text() },
            JournalError::Start { program: text(), source: source() },
            JournalError::Ended { program: text(), problem: text() },
            JournalError::Signals(source()),
            JournalError::CloudWatch {
                action: "logs:PutLogEvents",
                destination: text(),
                problem: text(),
                remedy: text(),
            },
        ] {
            assert_eq!(error.exit_code(), 75, "{error}");
        }
    }
}
