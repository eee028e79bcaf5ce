use std::{fs::File, io::Read as _, os::unix::fs::PermissionsExt as _, path::Path};

use zeroize::Zeroizing;

use crate::StartError;

/// Largest key or identity file that is read, bytes.
const MAX_SECRET_FILE_BYTES: u64 = 64 * 1024;

/// Reads a small file that holds a secret; refuses one that other users may open.
pub(crate) fn read_secret(what: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, StartError> {
    let fault = |source| StartError::Read { what, path: path.to_owned(), source };
    let mut file = File::open(path).map_err(fault)?;
    let metadata = file.metadata().map_err(fault)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StartError::TooOpen { what, path: path.to_owned(), mode });
    }
    if metadata.len() > MAX_SECRET_FILE_BYTES {
        let problem = format!("{} bytes is too large; at most {MAX_SECRET_FILE_BYTES}", metadata.len());
        return Err(StartError::File { what, path: path.to_owned(), problem });
    }
    // Room for everything at once: a buffer that grows leaves copies behind.
    let mut contents = Zeroizing::new(vec![0; usize::try_from(metadata.len()).unwrap_or_default()]);
    file.read_exact(&mut contents).map_err(fault)?;
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    fn file_with_mode(mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, b"content").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_file_of_the_owner_alone_is_read() {
        let (_dir, path) = file_with_mode(0o600);
        assert_eq!(*read_secret("identity_file", &path).unwrap(), b"content");
    }

    #[test]
    fn a_file_open_to_others_is_refused_with_the_remedy() {
        for mode in [0o640, 0o604, 0o644, 0o620] {
            let (_dir, path) = file_with_mode(mode);
            let message = read_secret("identity_file", &path).unwrap_err().to_string();
            assert!(message.contains("identity_file") && message.contains("chmod 600"), "{message}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = read_secret("tls_key", Path::new("/nowhere/key.pem")).unwrap_err().to_string();
        assert!(message.starts_with("tls_key /nowhere/key.pem"), "{message}");
    }
}
