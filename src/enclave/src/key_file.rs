use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use api::control::FailureReason;
use nix::fcntl::OFlag;
use zeroize::Zeroizing;

use crate::error::{BootError, because};

/// Name of the plaintext file in the work directory.
pub(crate) const NAME: &str = "service_key_shares.json";
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Makes the work directory, or checks that the one which is there is closed to everybody else. Returns its absolute
/// path.
pub(crate) fn prepare_work_dir(work_dir: &Path) -> Result<PathBuf, BootError> {
    make_private(work_dir)
        .and_then(|()| std::path::absolute(work_dir))
        .map_err(because(FailureReason::Internal, format!("`work_dir` {}", work_dir.display())))
}

fn make_private(work_dir: &Path) -> io::Result<()> {
    if !work_dir.exists() {
        return DirBuilder::new().recursive(true).mode(0o700).create(work_dir);
    }
    let mode = fs::metadata(work_dir)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(io::Error::other(format!("it has mode {:04o}; set it to 0700", mode & 0o7777)));
    }
    Ok(())
}

/// A new file in `work_dir` without a name: nobody else can open it, and it is gone when it is closed.
pub(crate) fn nameless_file(work_dir: &Path, name: &str) -> io::Result<File> {
    let path = work_dir.join(name);
    remove_leftover(&path)?;
    let file = create_new(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// The key shares in plain, for the short time until the signing service has read them.
///
/// However this value goes out of scope, the file's content is overwritten with zeros and its name removed.
pub(crate) struct KeyFile {
    path: PathBuf,
    /// `None` once it is destroyed.
    file: Option<File>,
}

impl KeyFile {
    /// Makes the empty file, mode 0600. What an enclave that was killed left there is destroyed first.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        remove_leftover(path)?;
        let file = create_new(path)?;
        Ok(Self { path: path.to_owned(), file: Some(file) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The whole content.
    pub(crate) fn read(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut file = self.open_file()?;
        let size = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        // One byte more than the content, so that reading to the end never moves what was read.
        let capacity = usize::try_from(size).map_err(io::Error::other)?.saturating_add(1);
        let mut content = Zeroizing::new(Vec::with_capacity(capacity));
        file.read_to_end(&mut content)?;
        Ok(content)
    }

    /// Overwrites the content with zeros and removes the file.
    pub(crate) fn destroy(mut self) -> Result<(), BootError> {
        self.destroy_once().map_err(because(FailureReason::Internal, "cannot destroy the key file"))
    }

    fn open_file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::Error::other("the key file is already destroyed"))
    }

    fn destroy_once(&mut self) -> io::Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        // The name goes even if overwriting failed.
        let overwritten = overwrite(&mut file);
        fs::remove_file(&self.path)?;
        overwritten
    }
}

impl Write for KeyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.open_file()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.open_file()?.flush()
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        if let Err(error) = self.destroy_once() {
            tracing::error!(path = %self.path.display(), %error, "the key file could not be destroyed");
        }
    }
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)
}

fn remove_leftover(path: &Path) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?.file_type(),
    };
    if !kind.is_file() {
        return Err(io::Error::other(format!("{} is not a regular file; remove it", path.display())));
    }
    let mut file = OpenOptions::new().write(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)?;
    overwrite(&mut file)?;
    fs::remove_file(path)
}

fn overwrite(file: &mut File) -> io::Result<()> {
    let mut left = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(ZEROS.len()).min(ZEROS.len());
        file.write_all(&ZEROS[..length])?;
        left -= length as u64;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn work_dir() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn destroying_overwrites_every_byte_and_removes_the_name() {
        let dir = work_dir();
        let mut key_file = KeyFile::create(&dir.path().join(NAME)).unwrap();
        let secret = vec![0x5a; ZEROS.len() * 2 + 17];
        key_file.write_all(&secret).unwrap();
        // A second name keeps the content readable after the first one is gone.
        let witness = dir.path().join("witness");
        fs::hard_link(key_file.path(), &witness).unwrap();
        let path = key_file.path().to_owned();

        key_file.destroy().unwrap();

        assert!(!path.exists());
        assert_eq!(fs::read(witness).unwrap(), vec![0; secret.len()]);
    }

    #[test]
    fn going_out_of_scope_destroys_it_too() {
        let dir = work_dir();
        let witness = dir.path().join("witness");
        {
            let mut key_file = KeyFile::create(&dir.path().join(NAME)).unwrap();
            key_file.write_all(b"secret").unwrap();
            fs::hard_link(key_file.path(), &witness).unwrap();
        }
        assert!(!dir.path().join(NAME).exists());
        assert_eq!(fs::read(witness).unwrap(), [0; 6]);
    }

    #[test]
    fn only_its_owner_may_read_it() {
        let dir = work_dir();
        let key_file = KeyFile::create(&dir.path().join(NAME)).unwrap();
        assert_eq!(fs::metadata(key_file.path()).unwrap().permissions().mode() & 0o7777, 0o600);
    }

    #[test]
    fn what_was_written_reads_back_whole() {
        let dir = work_dir();
        let mut key_file = KeyFile::create(&dir.path().join(NAME)).unwrap();
        key_file.write_all(b"{\"version\":").unwrap();
        key_file.write_all(b"1}").unwrap();
        assert_eq!(key_file.read().unwrap().as_slice(), b"{\"version\":1}");
    }

    #[test]
    fn a_leftover_of_a_killed_enclave_is_overwritten_before_a_new_file_is_made() {
        let dir = work_dir();
        let leftover = dir.path().join(NAME);
        fs::write(&leftover, b"old secret").unwrap();
        let witness = dir.path().join("witness");
        fs::hard_link(&leftover, &witness).unwrap();

        let key_file = KeyFile::create(&dir.path().join(NAME)).unwrap();

        assert_eq!(fs::read(witness).unwrap(), [0; 10]);
        assert_eq!(key_file.read().unwrap().len(), 0);
    }

    #[test]
    fn a_symbolic_link_in_its_place_is_refused_and_its_target_left_alone() {
        let dir = work_dir();
        let target = dir.path().join("target");
        fs::write(&target, b"somebody's").unwrap();
        symlink(&target, dir.path().join(NAME)).unwrap();
        assert!(KeyFile::create(&dir.path().join(NAME)).is_err());
        assert_eq!(fs::read(target).unwrap(), b"somebody's");
    }

    #[test]
    fn a_nameless_file_leaves_nothing_in_the_directory() {
        let dir = work_dir();
        let mut file = nameless_file(dir.path(), "sealed").unwrap();
        file.write_all(b"ciphertext").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_work_directory_is_made_for_its_owner_alone() {
        let dir = work_dir();
        let path = dir.path().join("run/nitro-sign");
        assert_eq!(prepare_work_dir(&path).unwrap(), path);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
        prepare_work_dir(&path).unwrap();
    }

    #[test]
    fn a_work_directory_open_to_others_is_refused_with_the_remedy() {
        let dir = work_dir();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let error = prepare_work_dir(dir.path()).unwrap_err();
        assert!(error.to_string().contains("0700"), "{error}");
    }
}
