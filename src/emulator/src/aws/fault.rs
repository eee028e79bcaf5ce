//! Misbehaviour on request, so that it can be tested what clients make of it.

use std::{fs, path::PathBuf, time::SystemTime};

use serde::de::DeserializeOwned;

/// The file that says how to misbehave, if there is to be one. It is read anew each time.
#[derive(Debug, Clone, Default)]
pub(crate) struct FaultFile(pub(crate) Option<PathBuf>);

impl FaultFile {
    /// A file that cannot be read is an error, so that no test passes because of it.
    pub(crate) fn read<F: DeserializeOwned + Default>(&self) -> Result<F, String> {
        let Some(path) = &self.0 else { return Ok(F::default()) };
        let problem = |error: &dyn std::error::Error| format!("fault file {}: {error}", path.display());
        let text = fs::read(path).map_err(|error| problem(&error))?;
        serde_json::from_slice(&text).map_err(|error| problem(&error))
    }

    /// When it was last written, if there is one.
    pub(crate) fn modified(&self) -> Option<SystemTime> {
        fs::metadata(self.0.as_ref()?).and_then(|metadata| metadata.modified()).ok()
    }
}
