//! Misbehaviour on request: what a client has to live through.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use serde::Deserialize;

use super::error::ServiceError;
use crate::aws::fault::FaultFile;

/// `{"mode": …, "times": …, "delay_ms": …, "operation": …}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    pub(crate) mode: Mode,
    /// How many requests it befalls; all without it.
    times: Option<u32>,
    /// How late the request is looked at, whatever the mode.
    #[serde(default)]
    delay_ms: u64,
    operation: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// Does as it should, if late.
    #[default]
    #[serde(alias = "delay")]
    None,
    /// Does nothing and never answers.
    Hang,
    /// Does as it should and never answers: the client cannot know.
    LoseAnswer,
    /// Refuses as if no policy allowed it.
    Deny,
    /// Refuses with `ThrottlingException`.
    Throttle,
    /// Fails with `ServiceUnavailableException`, status 500.
    Unavailable,
    /// Fails with `InternalFailure`, status 500.
    InternalError,
}

impl Fault {
    pub(crate) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    fn befalls(&self, operation: &str) -> bool {
        self.operation.as_deref().unwrap_or("PutLogEvents") == operation
    }
}

/// The file, and how often what it says was done.
pub(crate) struct Faults {
    file: FaultFile,
    done: Mutex<Done>,
}

#[derive(Default)]
struct Done {
    /// Of the file when the count began.
    modified: Option<SystemTime>,
    count: u32,
}

impl Faults {
    pub(crate) fn new(file: FaultFile) -> Self {
        Self { file, done: Mutex::default() }
    }

    /// What is to befall this request.
    pub(crate) fn next(&self, operation: &str) -> Result<Fault, ServiceError> {
        let modified = self.file.modified();
        let fault: Fault = self.file.read().map_err(ServiceError::failure)?;
        if !fault.befalls(operation) {
            return Ok(Fault::default());
        }
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if done.modified != modified {
            *done = Done { modified, count: 0 };
        }
        if fault.times.is_some_and(|times| done.count >= times) {
            return Ok(Fault::default());
        }
        done.count = done.count.saturating_add(1);
        Ok(fault)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn faults() -> (tempfile::TempDir, Faults) {
        let directory = tempfile::tempdir().unwrap();
        let faults = Faults::new(FaultFile(Some(directory.path().join("fault.json"))));
        (directory, faults)
    }

    fn write(directory: &tempfile::TempDir, text: &str) {
        fs::write(directory.path().join("fault.json"), text).unwrap();
    }

    #[test]
    fn every_documented_mode_is_read() {
        let (directory, faults) = faults();
        for (name, mode) in [
            ("none", Mode::None),
            ("delay", Mode::None),
            ("hang", Mode::Hang),
            ("lose-answer", Mode::LoseAnswer),
            ("deny", Mode::Deny),
            ("throttle", Mode::Throttle),
            ("unavailable", Mode::Unavailable),
            ("internal-error", Mode::InternalError),
        ] {
            write(&directory, &format!(r#"{{"mode":"{name}","delay_ms":7}}"#));
            let fault = faults.next("PutLogEvents").unwrap();
            assert_eq!((fault.mode, fault.delay()), (mode, Duration::from_millis(7)));
        }
    }

    #[test]
    fn a_fault_ends_after_its_times_and_begins_again_when_the_file_is_written() {
        let (directory, faults) = faults();
        let next = || faults.next("PutLogEvents").unwrap().mode;
        let text = r#"{"mode":"throttle","times":2}"#;
        write(&directory, text);
        assert_eq!([next(), next(), next()], [Mode::Throttle, Mode::Throttle, Mode::None]);
        let later = SystemTime::now() + Duration::from_secs(1);
        write(&directory, text);
        fs::File::options()
            .append(true)
            .open(directory.path().join("fault.json"))
            .unwrap()
            .set_modified(later)
            .unwrap();
        assert_eq!([next(), next(), next()], [Mode::Throttle, Mode::Throttle, Mode::None]);
    }

    #[test]
    fn other_operations_neither_fail_nor_count() {
        let (directory, faults) = faults();
        write(&directory, r#"{"mode":"deny","times":1,"operation":"CreateLogStream"}"#);
        assert_eq!(faults.next("PutLogEvents").unwrap(), Fault::default());
        assert_eq!(faults.next("CreateLogStream").unwrap().mode, Mode::Deny);
        assert_eq!(faults.next("CreateLogStream").unwrap(), Fault::default());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_and_no_file_is_none() {
        let (directory, faults) = faults();
        assert_eq!(faults.next("PutLogEvents").unwrap_err().code, "InternalFailure");
        write(&directory, r#"{"mode":"nonsense"}"#);
        assert_eq!(faults.next("PutLogEvents").unwrap_err().code, "InternalFailure");
        assert_eq!(Faults::new(FaultFile(None)).next("PutLogEvents"), Ok(Fault::default()));
    }
}
