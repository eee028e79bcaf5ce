//! Several files that change together, or not at all.
//!
//! An [`Update`] changes files in four steps. (1) Each target is claimed: an empty file `.NAME.new` is made beside it,
//! which shows what cannot be written before anything is done that cannot be undone. (2) The new content is written there
//! and synced. (3) A journal naming every target and the SHA-256 it is about to have is put into the deployment's
//! directory by one rename: this is the commit. (4) The new files are renamed onto their targets, in order, and the
//! journal is removed. Before (3) nothing has changed and the `.new` files are rubbish; after it [`recover`] can
//! finish step (4) at any time, and everything that reads a deployment calls it first.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::files::{self, PRIVATE, create_new, remove_if_there, resolve, sha256_hex, sync_parent};

const JOURNAL: &str = ".nitro-sign-update.json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    target: PathBuf,
    /// Empty as long as the target is only claimed; no file has this digest.
    sha256: String,
}

/// Several files that change together.
pub(crate) struct Update {
    journal: PathBuf,
    entries: Vec<Entry>,
}

impl Update {
    /// Starts a change whose journal is kept in `directory`.
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        Ok(Self { journal: resolve(&directory.join(JOURNAL))?, entries: Vec::new() })
    }

    /// Refuses a target that could not be written, or that is where another file of this change is written.
    pub(crate) fn claim(&mut self, target: &Path) -> Result<()> {
        let path = resolve(target)?;
        // Whatever would stop a rename has to be found before the commit.
        ensure!(!path.is_dir(), "{} is a directory; expected the path of a file", target.display());
        let staged = staged(&path)?;
        let mut taken = both(&self.journal)?;
        for entry in &self.entries {
            taken.extend(both(&entry.target)?);
        }
        ensure!(
            !taken.contains(&path) && !taken.contains(&staged),
            "two files would be written to {}; choose another path for one",
            target.display()
        );
        remove_if_there(&staged)?;
        create_new(&staged, b"", PRIVATE)?;
        self.entries.push(Entry { target: path, sha256: String::new() });
        Ok(())
    }

    /// Writes the new content of a claimed `target` beside it. The target itself does not change yet.
    pub(crate) fn stage(&mut self, target: &Path, content: &[u8], mode: u32) -> Result<()> {
        let path = resolve(target)?;
        let claimed = self.entries.iter_mut().find(|entry| entry.target == path && entry.sha256.is_empty());
        let entry = claimed.with_context(|| format!("{} was not claimed", target.display()))?;
        let staged = staged(&path)?;
        remove_if_there(&staged)?;
        create_new(&staged, content, mode)?;
        entry.sha256 = sha256_hex(content);
        Ok(())
    }

    /// Makes all staged files current, in the order they were claimed.
    pub(crate) fn commit(mut self) -> Result<()> {
        // What is committed has to be possible: a journal that cannot be finished stops every later command.
        for Entry { target, sha256 } in &self.entries {
            let staged = staged(target)?;
            ensure!(
                has_digest(&staged, sha256)?,
                "{} is not what was written there, so nothing has changed; run the command again",
                staged.display()
            );
        }
        let journal = serde_json::to_vec_pretty(&self.entries)?;
        let staged_journal = staged(&self.journal)?;
        remove_if_there(&staged_journal)?;
        create_new(&staged_journal, &journal, PRIVATE)?;
        rename(&staged_journal, &self.journal)?;
        // From here on the change is decided: dropping `self` must not remove the staged files.
        let entries = std::mem::take(&mut self.entries);
        sync_parent(&self.journal)?;
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
    let content = files::read(&journal, 1 << 20)?;
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
            sync_parent(&entry.target)?;
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

/// The names a file takes while it changes.
fn both(target: &Path) -> Result<Vec<PathBuf>> {
    Ok(vec![target.to_owned(), staged(target)?])
}

fn staged(target: &Path) -> Result<PathBuf> {
    let name = target.file_name().with_context(|| format!("{} does not name a file", target.display()))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    Ok(target.with_file_name(hidden))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
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
        let mut update = Update::new(directory).unwrap();
        for name in ["a", "b"] {
            fs::write(directory.join(name), "old").unwrap();
            update.claim(&directory.join(name)).unwrap();
            update.stage(&directory.join(name), b"new", PRIVATE).unwrap();
        }
        update
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
        update.claim(&directory.path().join("missing/c")).unwrap_err();
        update.stage(&directory.path().join("missing/c"), b"new", PRIVATE).unwrap_err();
        update.stage(&directory.path().join("not-claimed"), b"new", PRIVATE).unwrap_err();
        drop(update);
        assert_eq!(names(directory.path()), ["a", "b"]);
        assert_eq!(content(&directory.path().join("a")), "old");
    }

    #[test]
    fn a_directory_and_a_path_that_is_taken_cannot_be_targets() {
        let directory = tempfile::tempdir().unwrap();
        let mut update = staged_change(directory.path());
        fs::create_dir(directory.path().join("c")).unwrap();
        let error = update.claim(&directory.path().join("c")).unwrap_err().to_string();
        assert!(error.contains("is a directory"), "{error}");
        let error = update.claim(&directory.path().join("a")).unwrap_err().to_string();
        assert!(error.contains("two files"), "{error}");
        update.stage(&directory.path().join("a"), b"other", PRIVATE).unwrap_err();
        update.commit().unwrap();
        assert_eq!(content(&directory.path().join("a")), "new");
    }

    #[test]
    fn no_target_is_another_ones_place_by_any_name() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(directory.path(), directory.path().join("link")).unwrap();
        fs::create_dir(directory.path().join("sub")).unwrap();
        let mut update = staged_change(directory.path());
        for name in [
            "sub/../a",
            "link/a",
            ".a.new",
            "link/.b.new",
            JOURNAL,
            "link/.nitro-sign-update.json",
            "..nitro-sign-update.json.new",
        ] {
            let error = update.claim(&directory.path().join(name)).unwrap_err().to_string();
            assert!(error.contains("two files") && error.contains(name), "{name}: {error}");
        }
        update.commit().unwrap();
        assert_eq!(names(directory.path()), ["a", "b", "link", "sub"]);
        assert_eq!(content(&directory.path().join("b")), "new");
    }

    #[test]
    fn a_change_whose_new_files_are_altered_lost_or_not_written_is_not_committed() {
        let alter: [fn(&Path, &mut Update); 3] = [
            |directory, _| fs::write(directory.join(".a.new"), "altered").unwrap(),
            |directory, _| fs::remove_file(directory.join(".b.new")).unwrap(),
            |directory, update| update.claim(&directory.join("c")).unwrap(),
        ];
        for (case, alter) in alter.into_iter().enumerate() {
            let directory = tempfile::tempdir().unwrap();
            let mut update = staged_change(directory.path());
            alter(directory.path(), &mut update);
            let error = update.commit().unwrap_err().to_string();
            assert!(error.contains("nothing has changed"), "{case}: {error}");
            assert_eq!(names(directory.path()), ["a", "b"], "{case}");
            assert_eq!(content(&directory.path().join("a")), "old", "{case}");
            assert!(!recover(directory.path()).unwrap());
        }
    }
}
