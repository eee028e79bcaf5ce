//! Misbehaviour on request, so that it can be tested what clients make of it.

use std::{fs, path::PathBuf, time::Duration};

use serde::Deserialize;

use super::error::ServiceError;

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

/// The file that says how to misbehave, if there is to be one.
#[derive(Debug, Clone, Default)]
pub(crate) struct FaultFile(pub(crate) Option<PathBuf>);

impl FaultFile {
    /// A file that cannot be read is an error of its own, so that no test passes because of it.
    pub(crate) fn read(&self) -> Result<Fault, ServiceError> {
        let Some(path) = &self.0 else { return Ok(Fault::default()) };
        let problem = |error: &dyn std::error::Error| {
            ServiceError::internal(format!("fault file {}: {error}", path.display()))
        };
        let text = fs::read(path).map_err(|error| problem(&error))?;
        serde_json::from_slice(&text).map_err(|error| problem(&error))
    }
}

impl Fault {
    pub(crate) fn delay(self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }
}

#[cfg(test)]
mod tests {
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
            assert_eq!(file.read(), Ok(Fault { mode, delay_ms: 7 }));
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_and_no_file_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fault.json");
        let file = FaultFile(Some(path.clone()));
        assert_eq!(file.read().unwrap_err().code, "KMSInternalException");
        fs::write(&path, r#"{"mode":"nonsense"}"#).unwrap();
        assert_eq!(file.read().unwrap_err().code, "KMSInternalException");
        assert_eq!(FaultFile::default().read(), Ok(Fault::default()));
    }
}
