use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use api::{MAX_BUNDLE_BYTES, MAX_IDENTITY_CIPHERTEXT_BYTES, control::FailureReason};

use crate::{Failed, Reason, config::Config};

/// What the enclave unseals, in memory. Nothing of it is secret without KMS.
#[derive(Debug)]
pub struct Ciphertexts {
    /// The age identity, encrypted by KMS.
    pub identity: Vec<u8>,
    /// The sealed bundle.
    pub bundle: Vec<u8>,
    /// SHA-384 of the sealed bundle: the second value in PCR16.
    pub bundle_sha384: [u8; 48],
}

/// Why the ciphertexts cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CiphertextError {
    /// A file cannot be read.
    #[error("`{key}` {}: {source}; check the path and its permissions", file.display())]
    Unavailable {
        /// The configuration's key.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is empty, or larger than an enclave accepts.
    #[error("`{key}` {} is empty or too large ({actual} bytes or more); expected 1 to {limit} bytes", file.display())]
    Size {
        /// The configuration's key.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// Largest size, bytes.
        limit: u64,
        /// Bytes read; one more than `limit` if there are more.
        actual: u64,
    },
    /// The sealed bundle is not the configured one.
    #[error("the sealed bundle {} has SHA-256 {actual}, but `bundle.sha256` is {expected}; give the digest of this \
             bundle, or fetch that one again", file.display())]
    Digest {
        /// The file.
        file: PathBuf,
        /// The configured digest, hex.
        expected: String,
        /// The file's digest, hex.
        actual: String,
    },
}

impl From<CiphertextError> for Failed {
    fn from(error: CiphertextError) -> Self {
        let reason = match &error {
            CiphertextError::Unavailable { .. } => Reason::CiphertextUnavailable,
            CiphertextError::Size { key: IDENTITY, .. } => Reason::Enclave(FailureReason::IdentityInvalid),
            CiphertextError::Size { .. } | CiphertextError::Digest { .. } => {
                Reason::Enclave(FailureReason::BundleCorrupt)
            }
        };
        Self::new(reason, error)
    }
}

const IDENTITY: &str = "ciphertexts.identity";
const BUNDLE: &str = "ciphertexts.bundle";

/// Reads both ciphertexts and compares the bundle with the pinned SHA-256. Blocks.
pub fn fetch(config: &Config) -> Result<Ciphertexts, CiphertextError> {
    let files = &config.ciphertexts;
    let identity = read(IDENTITY, &files.identity, MAX_IDENTITY_CIPHERTEXT_BYTES as u64)?;
    let bundle = read(BUNDLE, &files.bundle, MAX_BUNDLE_BYTES)?;
    let actual = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bundle);
    if actual.as_ref() != config.bundle.sha256 {
        return Err(CiphertextError::Digest {
            file: files.bundle.clone(),
            expected: hex::encode(config.bundle.sha256),
            actual: hex::encode(actual),
        });
    }
    let bundle_sha384 = attestation::sha384(&bundle);
    Ok(Ciphertexts { identity, bundle, bundle_sha384 })
}

fn read(key: &'static str, file: &Path, limit: u64) -> Result<Vec<u8>, CiphertextError> {
    let mut content = Vec::new();
    File::open(file)
        // One byte more than allowed tells a file that is too large, without reading all of it.
        .and_then(|open| open.take(limit + 1).read_to_end(&mut content))
        .map_err(|source| CiphertextError::Unavailable { key, file: file.to_owned(), source })?;
    let actual = content.len() as u64;
    if actual == 0 || actual > limit {
        return Err(CiphertextError::Size { key, file: file.to_owned(), limit, actual });
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::config_in;

    fn reason(error: CiphertextError) -> &'static str {
        Failed::from(error).reason.name()
    }

    fn setting() -> (tempfile::TempDir, Config) {
        let directory = tempfile::tempdir().unwrap();
        let config = config_in(directory.path());
        (directory, config)
    }

    #[test]
    fn both_files_are_read_when_the_digest_is_right() {
        let (_directory, config) = setting();
        let ciphertexts = fetch(&config).unwrap();
        assert_eq!(ciphertexts.identity, b"identity");
        assert_eq!(ciphertexts.bundle.len(), crate::testing::BUNDLE_BYTES);
    }

    #[test]
    fn a_changed_byte_of_the_bundle_is_corruption() {
        let (_directory, config) = setting();
        let mut bundle = fs::read(&config.ciphertexts.bundle).unwrap();
        bundle[100] ^= 1;
        fs::write(&config.ciphertexts.bundle, bundle).unwrap();
        let error = fetch(&config).unwrap_err();
        assert!(error.to_string().contains("bundle.sha256"), "{error}");
        assert_eq!(reason(error), "BundleCorrupt");
    }

    #[test]
    fn a_missing_file_is_unavailable_and_named() {
        let (_directory, config) = setting();
        fs::remove_file(&config.ciphertexts.identity).unwrap();
        let error = fetch(&config).unwrap_err();
        assert!(error.to_string().contains("ciphertexts.identity"), "{error}");
        assert_eq!(reason(error), "CiphertextUnavailable");
    }

    #[test]
    fn an_identity_larger_than_kms_takes_is_refused() {
        let (_directory, config) = setting();
        fs::write(&config.ciphertexts.identity, vec![0; MAX_IDENTITY_CIPHERTEXT_BYTES]).unwrap();
        assert!(fetch(&config).is_ok());
        fs::write(&config.ciphertexts.identity, vec![0; MAX_IDENTITY_CIPHERTEXT_BYTES + 1]).unwrap();
        let error = fetch(&config).unwrap_err();
        assert!(error.to_string().contains("6144"), "{error}");
        assert_eq!(reason(error), "IdentityInvalid");
    }

    #[test]
    fn an_empty_bundle_is_corruption() {
        let (_directory, config) = setting();
        fs::write(&config.ciphertexts.bundle, b"").unwrap();
        let error = fetch(&config).unwrap_err();
        assert!(error.to_string().contains("is empty"), "{error}");
        assert_eq!(reason(error), "BundleCorrupt");
    }
}
