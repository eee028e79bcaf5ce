//! The certificate authority that clients of the KMS stand-in trust: for one run, or kept in a directory, for an image that
//! was built with it.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// What clients trust.
pub(crate) const CERTIFICATE_FILE: &str = "kms-ca.pem";
/// Its private key, PKCS #8 in PEM, mode 0600.
const KEY_FILE: &str = "kms-ca.key";

/// Options of `emulator kms-authority`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory to make; `kms-ca.pem` (to trust) and `kms-ca.key` (to sign with, mode 0600) are written into it.
    #[arg(long)]
    dir: PathBuf,
}

/// `emulator kms-authority`: makes an authority. One that is there is not overwritten.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    Authority::create(&args.dir).map(drop)
}

/// An authority and its key.
pub(crate) struct Authority {
    pub(crate) certificate_pem: String,
    pub(crate) issuer: Issuer<'static, KeyPair>,
    /// Where it is kept.
    pub(crate) directory: Option<PathBuf>,
}

impl Authority {
    /// A new one.
    pub(crate) fn generate() -> anyhow::Result<Self> {
        Self::of(KeyPair::generate()?)
    }

    /// The one that is kept in a directory, or a new one put there.
    pub(crate) fn load_or_create(directory: &Path) -> anyhow::Result<Self> {
        let (key, certificate) = (directory.join(KEY_FILE), directory.join(CERTIFICATE_FILE));
        match (key.exists(), certificate.exists()) {
            (false, false) => Self::create(directory),
            (true, true) => Self::load(directory),
            (there, _) => {
                let (there, missing) = if there { (key, certificate) } else { (certificate, key) };
                bail!(
                    "there is {}, but no {}; bring back the missing file, or remove the other one for a new authority",
                    there.display(),
                    missing.display()
                )
            }
        }
    }

    fn create(directory: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let authority = Self { directory: Some(directory.to_owned()), ..Self::generate()? };
        write_new(&directory.join(KEY_FILE), 0o600, &authority.issuer.key().serialize_pem())?;
        write_new(&directory.join(CERTIFICATE_FILE), 0o644, &authority.certificate_pem)?;
        Ok(authority)
    }

    fn load(directory: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let key = KeyPair::from_pem(&read(KEY_FILE)?).with_context(|| {
            format!("{} is no private key in PEM (PKCS #8)", directory.join(KEY_FILE).display())
        })?;
        let certificate_pem = read(CERTIFICATE_FILE)?;
        Ok(Self { certificate_pem, directory: Some(directory.to_owned()), ..Self::of(key)? })
    }

    /// All authorities have the same name and differ in their keys.
    fn of(key: KeyPair) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new([])?;
        params.distinguished_name.push(DnType::CommonName, "KMS stand-in (not for production)");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        let certificate_pem = params.self_signed(&key)?.pem();
        Ok(Self { certificate_pem, issuer: Issuer::new(params, key), directory: None })
    }
}

fn write_new(path: &Path, mode: u32, contents: &str) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    match file {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!(
                "{} exists already and is not overwritten; remove it or name another directory",
                path.display()
            )
        }
        file => file.and_then(|mut file| file.write_all(contents.as_bytes())),
    }
    .with_context(|| format!("cannot write {}", path.display()))
}
