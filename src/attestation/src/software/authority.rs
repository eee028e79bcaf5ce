//! The root certificate, in place of AWS's.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::SoftwareError;
use super::chain::{generate_key, parameters};

const ROOT_NAME: &str = "nitro-sign test root";
const CERTIFICATE_FILE: &str = "root.pem";
const KEY_FILE: &str = "root.key";
const DAY: Duration = Duration::from_hours(24);
/// AWS's root is valid for thirty years; a test one need not be.
const VALID_FOR: Duration = DAY.saturating_mul(10 * 365);

/// A certificate authority shaped like AWS's: P-384, signs the chains of [`super::SoftwareNsm`].
#[derive(Clone)]
pub struct TestAuthority {
    key: Arc<KeyPair>,
    root: CertificateDer<'static>,
    pem: String,
}

impl TestAuthority {
    /// Makes a new root.
    pub fn generate() -> Result<Self, SoftwareError> {
        let key = generate_key()?;
        let now = SystemTime::now();
        let mut root = parameters(ROOT_NAME, now - DAY, now + VALID_FOR);
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = root.self_signed(&key)?;
        Ok(Self { key: Arc::new(key), pem: certificate.pem(), root: certificate.der().clone() })
    }

    /// The root certificate as PEM: what a verifier is given to trust.
    pub fn root_pem(&self) -> &str {
        &self.pem
    }

    /// The root certificate as DER.
    pub fn root_der(&self) -> &[u8] {
        &self.root
    }

    /// Writes `root.pem` and `root.key` (PKCS #8, mode 0600) into `directory`, which is made if it is missing. Existing
    /// files are not overwritten.
    pub fn save(&self, directory: &Path) -> Result<(), SoftwareError> {
        fs::create_dir_all(directory).map_err(|source| file_error(directory, source))?;
        write(&directory.join(KEY_FILE), 0o600, &self.key.serialize_pem())?;
        write(&directory.join(CERTIFICATE_FILE), 0o644, &self.pem)
    }

    /// Reads what [`Self::save`] wrote.
    pub fn load(directory: &Path) -> Result<Self, SoftwareError> {
        let key = KeyPair::from_pem(&read(&directory.join(KEY_FILE))?)?;
        let path = directory.join(CERTIFICATE_FILE);
        let pem = read(&path)?;
        let root = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| file_error(&path, io::Error::other(error)))?;
        let key_fingerprint =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &key.subject_public_key_info());
        if !crate::spki_sha256(&root).is_ok_and(|fingerprint| fingerprint == key_fingerprint.as_ref()) {
            return Err(SoftwareError::Mismatch(directory.display().to_string()));
        }
        Ok(Self { key: Arc::new(key), root, pem })
    }

    /// The root as the issuer of certificates.
    pub(super) fn issuer(&self) -> Result<Issuer<'static, KeyPair>, SoftwareError> {
        let mut root = parameters(ROOT_NAME, SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(Issuer::new(root, KeyPair::try_from(self.key.serialized_der())?))
    }
}

fn write(path: &Path, mode: u32, text: &str) -> Result<(), SoftwareError> {
    let mut options = File::options();
    options.write(true).create_new(true).mode(mode);
    options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| file_error(path, source))
}

fn read(path: &Path) -> Result<String, SoftwareError> {
    fs::read_to_string(path).map_err(|source| file_error(path, source))
}

fn file_error(path: &Path, source: io::Error) -> SoftwareError {
    SoftwareError::File { path: path.display().to_string(), source }
}
