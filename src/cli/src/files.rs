//! Files that are read with a limit, and written whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use zeroize::Zeroizing;

/// Ciphertexts: for the owner only, although they are of no use without KMS.
pub(crate) const PRIVATE: u32 = 0o600;
/// Public facts.
pub(crate) const PUBLIC: u32 = 0o644;

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
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
    // What says its size is not read to find that it is too large.
    let size = file.metadata().with_context(|| format!("cannot look at {name}"))?.len();
    must_fit(size, &name, limit)?;
    read_all(file, &name, limit)
}

/// Reads all of `input`, called `name` in errors, of at most `limit` bytes, into memory that is wiped.
pub(crate) fn read_all(input: impl std::io::Read, name: &str, limit: u64) -> Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(Vec::new());
    input.take(limit + 1).read_to_end(&mut content).with_context(|| format!("cannot read {name}"))?;
    must_fit(content.len() as u64, name, limit)?;
    Ok(content)
}

fn must_fit(size: u64, name: &str, limit: u64) -> Result<()> {
    ensure!(size <= limit, "{name} is larger than {limit} bytes; is it the right file?");
    Ok(())
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

/// The path of a file that may be missing, with a directory that has no `..` and no symbolic link in it: two names of one
/// place become equal, and it is the same place from every working directory.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().with_context(|| format!("{} does not name a file", path.display()))?;
    let directory = fs::canonicalize(parent(path))
        .with_context(|| format!("cannot find the directory of {}", path.display()))?;
    Ok(directory.join(name))
}

/// Removes a file, if there is one.
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Makes what happened to the name of a file last.
pub(crate) fn sync_parent(path: &Path) -> Result<()> {
    let parent = parent(path);
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("cannot sync directory {}", parent.display()))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        create_new(&path, b"first", PRIVATE).unwrap();
        let error = create_new(&path, b"second", PRIVATE).unwrap_err().to_string();
        assert!(error.contains("exists already"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
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

    #[test]
    fn two_names_of_one_place_are_resolved_to_one_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("a")).unwrap();
        std::os::unix::fs::symlink(path("a"), path("link")).unwrap();
        let plain = resolve(&path("a/file")).unwrap();
        for name in ["a/../a/file", "link/file", "link/../a/./file"] {
            assert_eq!(resolve(&path(name)).unwrap(), plain, "{name}");
        }
        assert_ne!(resolve(&path("a/other")).unwrap(), plain);
        let error = resolve(&path("missing/file")).unwrap_err().to_string();
        assert!(error.contains("missing/file"), "{error}");
        resolve(&path("a/..")).unwrap_err();
    }
}
