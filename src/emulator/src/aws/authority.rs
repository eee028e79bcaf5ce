//! The certificate authority that clients of a stand-in trust: for one run, or kept in a directory, for an image that was
//! built with it.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// Whose authority it is.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    /// In its certificate.
    pub(crate) name: &'static str,
    /// What clients trust.
    pub(crate) certificate_file: &'static str,
    /// Its private key, PKCS #8 in PEM, mode 0600.
    pub(crate) key_file: &'static str,
}

/// An authority and its key.
pub(crate) struct Authority {
    pub(crate) kind: Kind,
    pub(crate) certificate_pem: String,
    pub(crate) issuer: Issuer<'static, KeyPair>,
    /// Where it is kept.
    pub(crate) directory: Option<PathBuf>,
}

impl Authority {
    /// The one that is kept in a directory, or a new one put there; without a directory a new one for this run.
    pub(crate) fn open(kind: Kind, directory: Option<&Path>) -> anyhow::Result<Self> {
        let Some(directory) = directory else { return Self::generate(kind) };
        let (key, certificate) = (directory.join(kind.key_file), directory.join(kind.certificate_file));
        match (key.exists(), certificate.exists()) {
            (false, false) => Self::create(kind, directory),
            (true, true) => Self::load(kind, directory),
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

    /// A new one in a directory. One that is there is not overwritten.
    pub(crate) fn create(kind: Kind, directory: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let authority = Self { directory: Some(directory.to_owned()), ..Self::generate(kind)? };
        write_new(&directory.join(kind.key_file), 0o600, &authority.issuer.key().serialize_pem())?;
        write_new(&directory.join(kind.certificate_file), 0o644, &authority.certificate_pem)?;
        Ok(authority)
    }

    fn generate(kind: Kind) -> anyhow::Result<Self> {
        Self::of(kind, KeyPair::generate()?)
    }

    fn load(kind: Kind, directory: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let key = KeyPair::from_pem(&read(kind.key_file)?).with_context(|| {
            format!("{} is no private key in PEM (PKCS #8)", directory.join(kind.key_file).display())
        })?;
        let certificate_pem = read(kind.certificate_file)?;
        Ok(Self { certificate_pem, directory: Some(directory.to_owned()), ..Self::of(kind, key)? })
    }

    /// All authorities of a kind have the same name and differ in their keys.
    fn of(kind: Kind, key: KeyPair) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new([])?;
        params.distinguished_name.push(DnType::CommonName, kind.name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        let certificate_pem = params.self_signed(&key)?.pem();
        Ok(Self { kind, certificate_pem, issuer: Issuer::new(params, key), directory: None })
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
