//! `measure` and `pcr16`: what the registers of an enclave will hold, before it is started.

use anyhow::{Context as _, Result, ensure};
use attestation::{Pcr, sha384};
use parent::config::Config;
use serde_json::json;

use crate::{args::ParentFile, files, print_json};

pub(crate) fn run_measure(args: &ParentFile) -> Result<()> {
    let config = Config::load(&args.parent)?;
    let measurements =
        parent::backend::of(&config).measure().with_context(|| args.parent.display().to_string())?;
    print_json(&measurements)
}

pub(crate) fn run_pcr16(args: &ParentFile) -> Result<()> {
    print_json(&json!({ "PCR16": pcr16(args)? }))
}

/// The enclave extends the configuration's SHA-384, then the sealed bundle's, and locks the register.
fn pcr16(args: &ParentFile) -> Result<Pcr> {
    let config = Config::load(&args.parent)?;
    let configuration = config.configuration();
    let path = &config.ciphertexts.bundle;
    let bundle = files::read(path, api::MAX_BUNDLE_BYTES).context("field `ciphertexts.bundle`")?;
    let (actual, expected) = (files::sha256_hex(&bundle), hex::encode(&configuration.bundle_sha256));
    ensure!(
        actual == expected,
        "{}: field `bundle.sha256` is {expected}, but {} has SHA-256 {actual}: copy both from one run of key-gen",
        args.parent.display(),
        path.display()
    );
    Ok(Pcr::of_digests(&[sha384(&configuration.canonical_bytes()), sha384(&bundle)]))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    /// A parent.toml for a bundle file with the content "sealed"; `sha256` is what it says about it.
    fn parent_file(directory: &Path, sha256: &str) -> ParentFile {
        std::fs::write(directory.join("bundle.age"), "sealed").unwrap();
        let text = format!(
            r#"
            runtime_dir = "run"
            [enclave]
            backend = "process"
            pcr0 = "{}"
            attestation_root = "aws"
            [enclave.process]
            enclave = "enclave"
            sign_service = "sign-service"
            config = "enclave.toml"
            hypervisor = ["emulator"]
            [ciphertexts]
            identity = "age-identity.kms"
            bundle = "bundle.age"
            [bundle]
            epoch = 3
            sha256 = "{sha256}"
            [kms]
            region = "eu-central-1"
            key_id = "key"
            credentials_file = "credentials.json"
            [ingress]
            listen = "127.0.0.1:0"
            "#,
            "ab".repeat(48)
        );
        let parent: PathBuf = directory.join("parent.toml");
        std::fs::write(&parent, text).unwrap();
        ParentFile { parent }
    }

    #[test]
    fn pcr16_is_the_configuration_and_the_bundle_extended_in_this_order() {
        let directory = tempfile::tempdir().unwrap();
        let args = parent_file(directory.path(), &files::sha256_hex(b"sealed"));
        let configuration = Config::load(&args.parent).unwrap().configuration();
        assert_eq!((configuration.epoch, configuration.kms_key_id.as_str()), (3, "key"));
        let expected = Pcr::ZERO.extend(&sha384(&configuration.canonical_bytes())).extend(&sha384(b"sealed"));
        assert_eq!(pcr16(&args).unwrap(), expected);
    }

    #[test]
    fn a_bundle_that_is_not_the_configured_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let error = pcr16(&parent_file(directory.path(), &"cd".repeat(32))).unwrap_err().to_string();
        assert!(error.contains("bundle.sha256") && error.contains(&files::sha256_hex(b"sealed")), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let args = parent_file(directory.path(), &files::sha256_hex(b"sealed"));
        assert!(format!("{:#}", run_measure(&args).unwrap_err()).contains("enclave.process"));
    }
}
