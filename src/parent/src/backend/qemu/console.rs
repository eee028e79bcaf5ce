use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use api::control::LogLine;

use crate::{backend::BackendError, logs};

/// The most that is kept of a console, bytes. A boot prints a few KiB; an enclave gone wild is not to fill the disk.
const MAX_LOG: usize = 16 << 20;

/// Where the lines of a machine's console go: into this process's own log, and into a file for whoever looks for the
/// cause of a boot that failed.
pub(super) struct Log {
    /// None when it is full, or broken.
    file: Option<File>,
    left: usize,
}

impl Log {
    /// Empties the file, or makes it, for this user only.
    pub(super) fn create(path: &Path) -> Result<Self, BackendError> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        match options.open(path) {
            Ok(file) => Ok(Self { file: Some(file), left: MAX_LOG }),
            Err(source) => Err(BackendError::Directory { path: path.to_owned(), source }),
        }
    }

    pub(super) fn write(&mut self, line: &str) {
        logs::forward(&LogLine { source: "console".to_owned(), line: line.to_owned() });
        let Some(file) = &mut self.file else { return };
        let text = format!("{line}\n");
        let written = match self.left.checked_sub(text.len()) {
            Some(left) => {
                self.left = left;
                file.write_all(text.as_bytes())
            }
            None => Err(std::io::Error::other(format!("it has {} MiB, which is the limit", MAX_LOG >> 20))),
        };
        if let Err(error) = written {
            tracing::warn!(%error, "console.log is not continued");
            self.file = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn the_log_of_an_earlier_launch_is_replaced_by_a_private_file_with_every_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        Log::create(&path).unwrap().write("earlier");
        let mut log = Log::create(&path).unwrap();
        log.write("one");
        log.write("two");
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_endless_console_does_not_fill_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        let mut log = Log::create(&path).unwrap();
        log.left = 10;
        for line in ["12345", "12345", "1"] {
            log.write(line);
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "12345\n");
    }
}
