use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use vsock::Peer;

use super::BackendError;

/// The enclave's vsock, below the launch's directory.
pub(super) const VSOCK: &str = "vm.vsock";

/// A launch's own directory, where its programs run and meet. Dropping this removes it: whatever an enclave that was
/// killed could not wipe goes with it.
#[derive(Debug)]
pub(super) struct RunDirectory(PathBuf);

impl RunDirectory {
    /// Makes it anew, for this user only; what an earlier launch left is removed.
    pub(super) fn create(path: PathBuf) -> Result<Self, BackendError> {
        match fresh(&path) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(BackendError::Directory { path, source }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Where the host listens for the enclave, and dials it.
    pub(super) fn peer(&self) -> Peer {
        Peer::Unix { path: self.0.join(VSOCK) }
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        // If it fails, the next launch tries again.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn fresh(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::DirBuilder::new().mode(0o700).create(path)
}
