//! The deployment directory: which KMS key, which party, which bundle, and whether its files belong together.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    files::{self, Lock},
    update,
};

/// The facts of a deployment.
pub(crate) const DEPLOYMENT: &str = "deployment.toml";
/// The age identity, encrypted by KMS.
pub(crate) const IDENTITY: &str = "age-identity.kms";
/// The bundle of key shares, sealed to the identity.
pub(crate) const BUNDLE: &str = "service_key_shares.json.age";
/// The accounts' public facts.
pub(crate) const ACCOUNTS: &str = "accounts.json";

/// The longest label of a host name: RFC 1035, section 2.3.4.
const MAX_REGION_BYTES: usize = 63;

/// What the encryption context names as bundle before there is one.
const NO_BUNDLE: &str = "none";

/// `deployment.toml`. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deployment {
    /// AWS region of the KMS key.
    pub(crate) region: String,
    /// ARN (or id) of the KMS key.
    pub(crate) kms_key_id: String,
    /// The enclave's name in the signing protocol.
    pub(crate) party: String,
    /// The age recipient the enclave's bundle is sealed to.
    pub(crate) recipient: String,
    /// Epoch of the bundle; 0 before the first.
    pub(crate) epoch: u64,
    /// SHA-256 of `age-identity.kms`, lower-case hex.
    pub(crate) identity_sha256: String,
    /// SHA-256 of `service_key_shares.json.age`, lower-case hex; absent before the first bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bundle_sha256: Option<String>,
}

impl Deployment {
    /// Parses and validates the text of a `deployment.toml`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let deployment: Self = toml::from_str(text)?;
        deployment.validate()?;
        Ok(deployment)
    }

    fn validate(&self) -> Result<()> {
        check_region("field `region`", &self.region)?;
        ensure!(!self.kms_key_id.is_empty(), "field `kms_key_id` is empty; expected a key id or ARN");
        check_party("field `party`", &self.party)?;
        ensure!(self.recipient.starts_with("age1"), "field `recipient`: expected an age recipient, age1…");
        check_digest("identity_sha256", &self.identity_sha256)?;
        match (&self.bundle_sha256, self.epoch) {
            (None, 0) => Ok(()),
            (Some(digest), 1..) => check_digest("bundle_sha256", digest),
            (None, epoch) => bail!("field `bundle_sha256` is missing although `epoch` is {epoch}"),
            (Some(_), 0) => {
                bail!("field `bundle_sha256` is given although `epoch` is 0, which means: no bundle yet")
            }
        }
    }

    /// The file's text.
    pub(crate) fn to_text(&self) -> Result<String> {
        self.validate()?;
        Ok(toml::to_string(self)?)
    }

    /// The KMS encryption context the identity's ciphertext is bound to now.
    pub(crate) fn encryption_context(&self) -> [(String, String); 2] {
        api::encryption_context(self.bundle_sha256.as_deref().unwrap_or(NO_BUNDLE), self.epoch)
    }
}

/// A deployment's directory, locked, with files that belong together.
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    pub(crate) deployment: Deployment,
    _lock: Lock,
}

impl Directory {
    /// Opens the deployment in `path`, and finishes a change of it that was interrupted.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let lock = Lock::take(path)?;
        recover(path)?;
        let file = path.join(DEPLOYMENT);
        let text =
            files::read_text(&file, 64 << 10).context("no deployment here? `nitro-sign init` starts one")?;
        let deployment = Deployment::parse(&text).with_context(|| file.display().to_string())?;
        Ok(Self { path: path.to_owned(), deployment, _lock: lock })
    }

    /// The identity's ciphertext. Refuses files that are not of the run that wrote deployment.toml.
    pub(crate) fn read_identity(&self) -> Result<Vec<u8>> {
        let Deployment { identity_sha256, bundle_sha256, .. } = &self.deployment;
        if let Some(digest) = bundle_sha256 {
            read_matching(&self.file(BUNDLE), api::MAX_BUNDLE_BYTES, "bundle_sha256", digest)?;
        }
        let limit = api::MAX_IDENTITY_CIPHERTEXT_BYTES as u64;
        let identity = read_matching(&self.file(IDENTITY), limit, "identity_sha256", identity_sha256)?;
        Ok(identity.to_vec())
    }

    /// The path of one of the deployment's files.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Finishes a change of a deployment that was interrupted, and says so.
pub(crate) fn recover(path: &Path) -> Result<()> {
    if update::recover(path)? {
        crate::say(format_args!("finished an interrupted change of {}", path.display()));
    }
    Ok(())
}

fn read_matching(path: &Path, limit: u64, field: &str, expected: &str) -> Result<Zeroizing<Vec<u8>>> {
    let content = files::read(path, limit)?;
    let actual = files::sha256_hex(&content);
    ensure!(
        actual == expected,
        "{} has SHA-256 {actual}, but {DEPLOYMENT} says {field} = {expected}: the files are not of one run; restore \
         the directory from a backup",
        path.display()
    );
    Ok(content)
}

/// What a party's name may be, in words.
pub(crate) const PARTY_RULE: &str = "expected a party name of 1 to 64 characters a-z 0-9 . _ -";

/// Whether a bundle can carry this party name.
pub(crate) fn is_party(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

/// Refuses a party name that no bundle could carry.
pub(crate) fn check_party(what: &str, name: &str) -> Result<()> {
    ensure!(is_party(name), "{what}: {PARTY_RULE}, got {name:?}");
    Ok(())
}

/// Refuses what cannot be a part of KMS's host name.
pub(crate) fn check_region(what: &str, region: &str) -> Result<()> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    ensure!(
        (1..=MAX_REGION_BYTES).contains(&region.len()) && region.bytes().all(allowed),
        "{what}: expected an AWS region such as \"eu-central-1\""
    );
    Ok(())
}

fn check_digest(field: &str, value: &str) -> Result<()> {
    let is_digest = value.len() == 64 && value.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    ensure!(is_digest, "field `{field}`: expected a SHA-256, 64 lower-case hex digits");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_epoch(epoch: u64, bundle_sha256: Option<String>) -> Deployment {
        Deployment {
            region: "eu-central-1".to_owned(),
            kms_key_id: "arn:aws:kms:eu-central-1:111122223333:key/1".to_owned(),
            party: "enclave-a".to_owned(),
            recipient: "age1example".to_owned(),
            epoch,
            identity_sha256: files::sha256_hex(b"identity"),
            bundle_sha256,
        }
    }

    fn error_of(text: &str) -> String {
        format!("{:#}", Deployment::parse(text).unwrap_err())
    }

    /// A directory with a deployment of epoch 1.
    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let deployment = at_epoch(1, Some(files::sha256_hex(b"bundle")));
        std::fs::write(directory.path().join(IDENTITY), "identity").unwrap();
        std::fs::write(directory.path().join(BUNDLE), "bundle").unwrap();
        std::fs::write(directory.path().join(DEPLOYMENT), deployment.to_text().unwrap()).unwrap();
        directory
    }

    #[test]
    fn a_deployment_reads_back_as_it_was_written() {
        for deployment in [at_epoch(0, None), at_epoch(7, Some("ab".repeat(32)))] {
            assert_eq!(Deployment::parse(&deployment.to_text().unwrap()).unwrap(), deployment);
        }
    }

    #[test]
    fn the_context_names_no_bundle_before_the_first_and_the_bundle_afterwards() {
        assert_eq!(at_epoch(0, None).encryption_context(), api::encryption_context("none", 0));
        let digest = "ab".repeat(32);
        assert_eq!(
            at_epoch(7, Some(digest.clone())).encryption_context(),
            api::encryption_context(&digest, 7)
        );
    }

    #[test]
    fn wrong_fields_are_refused_by_name() {
        let good = at_epoch(1, Some("ab".repeat(32))).to_text().unwrap();
        assert!(error_of(&format!("{good}colour = \"red\"\n")).contains("colour"));
        assert!(error_of(&good.replace("party = \"enclave-a\"\n", "")).contains("party"));
        assert!(error_of(&good.replace("enclave-a", "Enclave A")).contains("field `party`"));
        assert!(error_of(&good.replace("eu-central-1\"", "Frankfurt\"")).contains("field `region`"));
        assert!(error_of(&good.replace("age1example", "ssh-rsa")).contains("field `recipient`"));
        assert!(error_of(&good.replace("abab", "ABAB")).contains("field `bundle_sha256`"));
        assert!(error_of(&good.replace("epoch = 1", "epoch = 0")).contains("no bundle yet"));
        assert!(error_of(&good.replace("epoch = 1", "epoch = -1")).contains("epoch"));
        assert!(
            error_of(&at_epoch(0, None).to_text().unwrap().replace("epoch = 0", "epoch = 1"))
                .contains("missing")
        );
    }

    #[test]
    fn a_directory_whose_files_belong_together_opens() {
        let directory = directory();
        let opened = Directory::open(directory.path()).unwrap();
        assert_eq!(opened.deployment.epoch, 1);
        assert_eq!(opened.read_identity().unwrap(), b"identity");
    }

    #[test]
    fn a_file_of_another_run_is_refused_with_both_digests() {
        for name in [IDENTITY, BUNDLE] {
            let directory = directory();
            std::fs::write(directory.path().join(name), "of another run").unwrap();
            let error = Directory::open(directory.path()).unwrap().read_identity().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            assert!(error.contains(&files::sha256_hex(b"of another run")), "{error}");
        }
    }

    #[test]
    fn a_directory_without_deployment_names_the_file_and_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let error = format!("{:#}", Directory::open(directory.path()).err().unwrap());
        assert!(error.contains("nitro-sign init") && error.contains(DEPLOYMENT), "{error}");
    }

    #[test]
    fn opening_finishes_a_change_that_was_interrupted_before_its_last_rename() {
        let directory = directory();
        let path = |name: &str| directory.path().join(name);
        let next = at_epoch(2, Some(files::sha256_hex(b"next bundle"))).to_text().unwrap();
        std::fs::write(path(BUNDLE), "next bundle").unwrap();
        std::fs::write(path(".deployment.toml.new"), &next).unwrap();
        let journal = serde_json::json!([
            {"target": path(BUNDLE), "sha256": files::sha256_hex(b"next bundle")},
            {"target": path(DEPLOYMENT), "sha256": files::sha256_hex(next.as_bytes())},
        ]);
        std::fs::write(path(".nitro-sign-update.json"), journal.to_string()).unwrap();

        let opened = Directory::open(directory.path()).unwrap();
        assert_eq!(opened.deployment.epoch, 2);
        assert_eq!(opened.read_identity().unwrap(), b"identity");
        assert!(!path(".nitro-sign-update.json").exists() && !path(".deployment.toml.new").exists());
    }
}
