//! `events.jsonl`: every event that was accepted, for whoever tests what arrived.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::json;

use super::{error::ServiceError, request::InputLogEvent};

const FILE: &str = "events.jsonl";

/// The file, open for appending.
pub(crate) struct Record {
    path: PathBuf,
    file: File,
}

impl Record {
    /// What earlier runs wrote stays.
    pub(crate) fn open(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join(FILE);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path, file })
    }

    /// All events or, if that fails, an error: the batch is not accepted then.
    pub(crate) fn append(
        &mut self,
        group: &str,
        stream: &str,
        events: &[InputLogEvent],
    ) -> Result<(), ServiceError> {
        let mut lines = String::new();
        for event in events {
            let line = json!({
                "group": group,
                "stream": stream,
                "timestamp": event.timestamp,
                "message": event.message,
            });
            lines.push_str(&line.to_string());
            lines.push('\n');
        }
        let written = self.file.write_all(lines.as_bytes()).and_then(|()| self.file.flush());
        written
            .map_err(|error| ServiceError::failure(format!("cannot write {}: {error}", self.path.display())))
    }
}
