//! Misbehaviour on request, so that it can be tested what clients make of it.

use std::time::Duration;

use serde::Deserialize;

use super::error::ServiceError;
use crate::aws::fault::FaultFile;

/// `{"mode": …, "delay_ms": …}`, read anew at each Decrypt with a recipient.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    pub(crate) mode: Mode,
    #[serde(default)]
    delay_ms: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// Answers as it should.
    #[default]
    None,
    /// Answers as it should, `delay_ms` late. Every other mode waits as long, too.
    Delay,
    /// Never answers.
    Hang,
    /// Refuses as if the policy did.
    Deny,
    /// Fails with status 500.
    InternalError,
    /// Answers with the plaintext, and with nothing for the recipient.
    Plaintext,
    /// Leaves out the last third of the envelope.
    TruncateCms,
    /// Alters the structure of the envelope.
    AlterCms,
    /// Alters the content of the envelope, so that its padding is wrong.
    AlterCmsContent,
    /// Alters the content of the envelope, so that it decrypts to something else.
    AlterCmsPlaintext,
}

impl Fault {
    pub(crate) fn read(file: &FaultFile) -> Result<Self, ServiceError> {
        file.read().map_err(ServiceError::internal)
    }

    pub(crate) fn delay(self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_documented_mode_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fault.json");
        let file = FaultFile(Some(path.clone()));
        for (name, mode) in [
            ("none", Mode::None),
            ("delay", Mode::Delay),
            ("hang", Mode::Hang),
            ("deny", Mode::Deny),
            ("internal-error", Mode::InternalError),
            ("plaintext", Mode::Plaintext),
            ("truncate-cms", Mode::TruncateCms),
            ("alter-cms", Mode::AlterCms),
            ("alter-cms-content", Mode::AlterCmsContent),
            ("alter-cms-plaintext", Mode::AlterCmsPlaintext),
        ] {
            fs::write(&path, format!(r#"{{"mode":"{name}","delay_ms":7}}"#)).unwrap();
            assert_eq!(Fault::read(&file), Ok(Fault { mode, delay_ms: 7 }));
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_and_no_file_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fault.json");
        let file = FaultFile(Some(path.clone()));
        assert_eq!(Fault::read(&file).unwrap_err().code, "KMSInternalException");
        fs::write(&path, r#"{"mode":"nonsense"}"#).unwrap();
        assert_eq!(Fault::read(&file).unwrap_err().code, "KMSInternalException");
        assert_eq!(Fault::read(&FaultFile::default()), Ok(Fault::default()));
    }
}
