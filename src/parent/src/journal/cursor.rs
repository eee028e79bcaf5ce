//! The file that says how far the journal has been shipped.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::JournalError;

/// Far more than a cursor has, bytes: systemd's are about 130.
const MAX_LENGTH: u64 = 1024;

/// Where the cursor is written.
#[derive(Debug)]
pub(super) struct CursorFile {
    file: PathBuf,
    /// Becomes `file` when it is whole.
    new: PathBuf,
}

impl CursorFile {
    /// Also returns the cursor in it; `None` if there is no such file. Blocks.
    ///
    /// That another can be written is tried: a batch whose cursor cannot be kept would be sent at each start again.
    pub(super) fn open(file: &Path) -> Result<(Self, Option<String>), JournalError> {
        let mut new = file.to_owned().into_os_string();
        new.push(".new");
        let this = Self { file: file.to_owned(), new: new.into() };
        let cursor = this.read()?;
        let tried = this.write_new(cursor.as_deref().unwrap_or_default());
        tried.and_then(|()| fs::remove_file(&this.new)).map_err(|source| this.failed(source))?;
        Ok((this, cursor))
    }

    fn read(&self) -> Result<Option<String>, JournalError> {
        let mut content = Vec::new();
        let open = File::open(&self.file);
        match open.and_then(|open| open.take(MAX_LENGTH + 1).read_to_end(&mut content)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.failed(source)),
            Ok(_) => {}
        }
        let cursor = std::str::from_utf8(&content).unwrap_or_default().trim_end_matches('\n');
        if content.len() as u64 > MAX_LENGTH || !is_cursor(cursor) {
            return Err(JournalError::CursorInvalid { file: self.file.clone() });
        }
        Ok(Some(cursor.to_owned()))
    }

    /// Replaces the content: afterwards the file has the old cursor or the new one, whatever happens. Blocks.
    pub(super) fn write(&self, cursor: &str) -> Result<(), JournalError> {
        let written = self.write_new(cursor).and_then(|()| fs::rename(&self.new, &self.file));
        written.map_err(|source| self.failed(source))
    }

    fn write_new(&self, cursor: &str) -> io::Result<()> {
        // What a run before this one may have left has a mode of its own.
        match fs::remove_file(&self.new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.new)?;
        writeln!(file, "{cursor}")?;
        // Or a loss of power could leave an empty file of that name.
        file.sync_all()
    }

    fn failed(&self, source: io::Error) -> JournalError {
        JournalError::Cursor { file: self.file.clone(), source }
    }
}

/// `s=…;i=…;b=…`: single letters with values in hex. To systemd it is opaque; what else there is, was not written here,
/// and would become an argument of `journalctl`.
pub(super) fn is_cursor(text: &str) -> bool {
    let is_part = |part: &str| {
        part.split_once('=').is_some_and(|(name, value)| {
            name.len() == 1
                && name.bytes().all(|byte| byte.is_ascii_lowercase())
                && !value.is_empty()
                && value.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
    };
    text.len() as u64 <= MAX_LENGTH && text.split(';').all(is_part)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const FIRST: &str = "s=0639661;i=3b6c;b=8a2f0d;m=5a2;t=5f1;x=bf2d";
    const SECOND: &str = "s=0639661;i=3b6d;b=8a2f0d;m=5a3;t=5f2;x=bf2e";

    fn read(file: &Path) -> Result<Option<String>, JournalError> {
        CursorFile::open(file).map(|(_, cursor)| cursor)
    }

    #[test]
    fn what_was_written_is_read_and_nobody_else_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cursor");
        let (file, none) = CursorFile::open(&path).unwrap();
        assert_eq!(none, None);
        for cursor in [FIRST, SECOND] {
            file.write(cursor).unwrap();
            assert_eq!(read(&path).unwrap().as_deref(), Some(cursor));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no other file is left");
    }

    #[test]
    fn what_an_interrupted_write_left_does_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cursor");
        let left = directory.path().join("cursor.new");
        fs::write(&left, "s=06").unwrap();
        fs::set_permissions(&left, fs::Permissions::from_mode(0o444)).unwrap();
        let (file, cursor) = CursorFile::open(&path).unwrap();
        assert_eq!(cursor, None);
        file.write(FIRST).unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some(FIRST));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn nonsense_is_refused_and_the_file_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cursor");
        let long = format!("s={}", "a".repeat(2000));
        for content in
            ["", "\n", "hello", "--file=/etc/shadow", "s=", "s=1;", "s=1\ni=2", "s=1;i=g", "\u{fffd}", &long]
        {
            fs::write(&path, content).unwrap();
            let error = read(&path).unwrap_err();
            assert!(matches!(error, JournalError::CursorInvalid { .. }), "{content:?}");
            let message = error.to_string();
            assert!(message.contains(path.to_str().unwrap()) && message.contains("remove it"), "{message}");
        }
        fs::write(&path, b"s=\xff").unwrap();
        assert!(matches!(read(&path), Err(JournalError::CursorInvalid { .. })));
    }

    /// Or each start would send the first batch, and fail only then.
    #[test]
    fn a_directory_that_is_not_there_is_named_before_anything_is_sent() {
        let message = CursorFile::open(Path::new("/nonexistent/cursor")).unwrap_err().to_string();
        assert!(message.contains("/nonexistent/cursor") && message.contains("directory"), "{message}");
    }
}
