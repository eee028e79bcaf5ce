//! Files that are written whole or not at all, and several files that change together.
//!
//! An [`Update`] changes files in three steps. (1) Each new file is written beside its target, as `.NAME.new`, and
//! synced. (2) A journal naming every target and the SHA-256 it is about to have is put into the deployment's
//! directory by one rename: this is the commit. (3) The new files are renamed onto their targets, in order, and the
//! journal is removed. Before (2) nothing has changed and the `.new` files are rubbish; after it [`recover`] can
//! finish step (3) at any time, and everything that reads a deployment calls it first.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Ciphertexts: for the owner only, although they are of no use without KMS.
pub(crate) const PRIVATE: u32 = 0o600;
/// Public facts.
pub(crate) const PUBLIC: u32 = 0o644;

const JOURNAL: &str = ".nitro-sign-update.json";

/// Lower-case hex of the SHA-256 of a file's content.
pub(crate) fn sha256_hex(content: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content))
}

/// Makes a directory for its owner only, if there is none.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make directory {}", path.display()))
}

/// Writes a file that must not exist yet; a failed write leaves no file.
pub(crate) fn create_new(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let open = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = match open {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!(
                "{} exists already; it is not overwritten: choose another place or move it away",
                path.display()
            )
        }
        other => other.with_context(|| format!("cannot make {}", path.display()))?,
    };
    if let Err(error) = file.write_all(content).and_then(|()| file.sync_all()) {
        let _ = fs::remove_file(path);
        return Err(error).with_context(|| format!("cannot write {}", path.display()));
    }
    sync_parent(path)
}

/// Reads a file of at most `limit` bytes into memory that is wiped.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    read_all(file, &path.display().to_string(), limit)
}

/// Reads all of `input`, called `name` in errors, of at most `limit` bytes, into memory that is wiped.
pub(crate) fn read_all(input: impl std::io::Read, name: &str, limit: u64) -> Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(Vec::new());
    input.take(limit + 1).read_to_end(&mut content).with_context(|| format!("cannot read {name}"))?;
    if content.len() as u64 > limit {
        bail!("{name} is larger than {limit} bytes; is it the right file?");
    }
    Ok(content)
}

/// Reads a text file of at most `limit` bytes.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String> {
    let content = read(path, limit)?;
    let text =
        std::str::from_utf8(&content).with_context(|| format!("{} is not UTF-8 text", path.display()))?;
    Ok(text.to_owned())
}

/// A lock on a directory: two commands must not change a deployment at the same time.
pub(crate) struct Lock(#[allow(dead_code, reason = "held open, not read")] File);

impl Lock {
    /// Locks `directory` until the value is dropped.
    pub(crate) fn take(directory: &Path) -> Result<Self> {
        let file = File::open(directory)
            .with_context(|| format!("cannot open directory {}", directory.display()))?;
        file.try_lock().with_context(|| {
            format!(
                "cannot lock {}: another nitro-sign is working in it; wait for it to end",
                directory.display()
            )
        })?;
        Ok(Self(file))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    target: PathBuf,
    sha256: String,
}

/// Several files that change together.
pub(crate) struct Update {
    journal: PathBuf,
    entries: Vec<Entry>,
}

impl Update {
    /// Starts a change whose journal is kept in `directory`.
    pub(crate) fn new(directory: &Path) -> Self {
        Self { journal: directory.join(JOURNAL), entries: Vec::new() }
    }

    /// Writes the new content of `target` beside it. The target itself does not change yet.
    pub(crate) fn stage(&mut self, target: &Path, content: &[u8], mode: u32) -> Result<()> {
        // Absolute, because recovery may run from another working directory.
        let target = std::path::absolute(target)
            .with_context(|| format!("cannot make {} an absolute path", target.display()))?;
        // Whatever would stop a rename has to be found before the commit.
        ensure!(!target.is_dir(), "{} is a directory; expected the path of a file", target.display());
        let is_taken = self.entries.iter().any(|entry| entry.target == target);
        ensure!(!is_taken, "two files would be written to {}; choose another path for one", target.display());
        let staged = staged(&target)?;
        remove_if_there(&staged)?;
        self.entries.push(Entry { target, sha256: sha256_hex(content) });
        create_new(&staged, content, mode)
    }

    /// Makes all staged files current, in the order they were staged.
    pub(crate) fn commit(mut self) -> Result<()> {
        let journal = serde_json::to_vec_pretty(&self.entries)?;
        let staged_journal = staged(&self.journal)?;
        remove_if_there(&staged_journal)?;
        create_new(&staged_journal, &journal, PRIVATE)?;
        rename(&staged_journal, &self.journal)?;
        // From here on the change is decided: dropping `self` must not remove the staged files.
        let entries = std::mem::take(&mut self.entries);
        finish(&self.journal, &entries)
    }
}

impl Drop for Update {
    /// A change that was not committed leaves nothing behind.
    fn drop(&mut self) {
        for entry in &self.entries {
            if let Ok(path) = staged(&entry.target) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Finishes a committed change that was interrupted. Says whether there was one.
pub(crate) fn recover(directory: &Path) -> Result<bool> {
    let journal = directory.join(JOURNAL);
    if !journal.try_exists().with_context(|| format!("cannot look for {}", journal.display()))? {
        return Ok(false);
    }
    let content = read(&journal, 1 << 20)?;
    let entries: Vec<Entry> = serde_json::from_slice(&content).with_context(|| {
        format!("{} is damaged; restore the directory from a backup of one key-gen run", journal.display())
    })?;
    finish(&journal, &entries)?;
    Ok(true)
}

fn finish(journal: &Path, entries: &[Entry]) -> Result<()> {
    for entry in entries {
        let staged = staged(&entry.target)?;
        if has_digest(&staged, &entry.sha256)? {
            rename(&staged, &entry.target)?;
        } else if !has_digest(&entry.target, &entry.sha256)? {
            bail!(
                "an interrupted change cannot be finished: neither {} nor {} has SHA-256 {}; restore both directories \
                 from a backup of one key-gen run, then remove {}",
                staged.display(),
                entry.target.display(),
                entry.sha256,
                journal.display()
            );
        }
    }
    fs::remove_file(journal).with_context(|| format!("cannot remove {}", journal.display()))?;
    sync_parent(journal)
}

fn has_digest(path: &Path, sha256: &str) -> Result<bool> {
    match fs::read(path) {
        Ok(content) => Ok(sha256_hex(&content) == sha256),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn staged(target: &Path) -> Result<PathBuf> {
    let name = target.file_name().with_context(|| format!("{} does not name a file", target.display()))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    Ok(target.with_file_name(hidden))
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))?;
    sync_parent(to)
}

fn sync_parent(path: &Path) -> Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("cannot sync directory {}", parent.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn content(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Two files `a` and `b` with content "old", and a change of both to "new" that is staged.
    fn staged_change(directory: &Path) -> Update {
        let mut update = Update::new(directory);
        for name in ["a", "b"] {
            fs::write(directory.join(name), "old").unwrap();
            update.stage(&directory.join(name), b"new", PRIVATE).unwrap();
        }
        update
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        create_new(&path, b"first", PRIVATE).unwrap();
        let error = create_new(&path, b"second", PRIVATE).unwrap_err().to_string();
        assert!(error.contains("exists already"), "{error}");
        assert_eq!(content(&path), "first");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_change_that_is_not_committed_leaves_the_old_files_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let update = staged_change(directory.path());
        assert_eq!(names(directory.path()), [".a.new", ".b.new", "a", "b"]);
        drop(update);
        assert_eq!(names(directory.path()), ["a", "b"]);
        assert_eq!(content(&directory.path().join("a")), "old");
    }

    #[test]
    fn a_committed_change_replaces_all_files_and_leaves_no_journal() {
        let directory = tempfile::tempdir().unwrap();
        staged_change(directory.path()).commit().unwrap();
        assert_eq!(names(directory.path()), ["a", "b"]);
        assert_eq!(content(&directory.path().join("a")), "new");
        assert_eq!(content(&directory.path().join("b")), "new");
        assert!(!recover(directory.path()).unwrap());
    }

    #[test]
    fn a_change_interrupted_between_its_renames_is_finished_by_recovery() {
        let directory = tempfile::tempdir().unwrap();
        let mut update = staged_change(directory.path());
        let entries = std::mem::take(&mut update.entries); // as if the process had died
        fs::write(directory.path().join(JOURNAL), serde_json::to_vec(&entries).unwrap()).unwrap();
        fs::rename(directory.path().join(".a.new"), directory.path().join("a")).unwrap();

        assert!(recover(directory.path()).unwrap());
        assert_eq!(names(directory.path()), ["a", "b"]);
        assert_eq!(content(&directory.path().join("b")), "new");
    }

    #[test]
    fn recovery_refuses_when_a_new_file_is_lost_or_altered() {
        let directory = tempfile::tempdir().unwrap();
        let mut update = staged_change(directory.path());
        let entries = std::mem::take(&mut update.entries);
        fs::write(directory.path().join(JOURNAL), serde_json::to_vec(&entries).unwrap()).unwrap();
        fs::write(directory.path().join(".b.new"), "altered").unwrap();

        let error = recover(directory.path()).unwrap_err().to_string();
        assert!(error.contains("cannot be finished") && error.contains(".b.new"), "{error}");
        assert_eq!(content(&directory.path().join("b")), "old");
    }

    #[test]
    fn a_failing_stage_leaves_the_targets_as_they_were() {
        let directory = tempfile::tempdir().unwrap();
        let mut update = staged_change(directory.path());
        update.stage(&directory.path().join("missing/c"), b"new", PRIVATE).unwrap_err();
        drop(update);
        assert_eq!(names(directory.path()), ["a", "b"]);
        assert_eq!(content(&directory.path().join("a")), "old");
    }

    #[test]
    fn a_directory_and_a_path_that_is_taken_cannot_be_targets() {
        let directory = tempfile::tempdir().unwrap();
        let mut update = staged_change(directory.path());
        fs::create_dir(directory.path().join("c")).unwrap();
        let error = update.stage(&directory.path().join("c"), b"new", PRIVATE).unwrap_err().to_string();
        assert!(error.contains("is a directory"), "{error}");
        let error = update.stage(&directory.path().join("a"), b"other", PRIVATE).unwrap_err().to_string();
        assert!(error.contains("two files"), "{error}");
        update.commit().unwrap();
        assert_eq!(content(&directory.path().join("a")), "new");
    }

    #[test]
    fn a_directory_is_locked_once() {
        let directory = tempfile::tempdir().unwrap();
        let lock = Lock::take(directory.path()).unwrap();
        let error = Lock::take(directory.path()).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("another nitro-sign"), "{error}");
        drop(lock);
        Lock::take(directory.path()).unwrap();
    }

    #[test]
    fn a_file_over_the_limit_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("big");
        fs::write(&path, [0; 11]).unwrap();
        assert_eq!(read(&path, 11).unwrap().len(), 11);
        assert!(read(&path, 10).unwrap_err().to_string().contains("big is larger than 10 bytes"));
    }
}
