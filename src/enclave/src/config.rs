use std::path::{Path, PathBuf};

use api::control::FailureReason;
use rustls::RootCertStore;
use serde::Deserialize;
use vsock::Peer;

use crate::error::BootError;

/// Where the image has its configuration file.
pub(crate) const DEFAULT_PATH: &str = "/etc/nitro-sign/enclave.toml";

/// `enclave.toml`: what belongs to the image. The file is part of the application ramdisk, so PCR0 and PCR2 name it.
/// What belongs to a deployment (region, key, caps) comes from the parent and is measured into PCR16 instead.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The parent, for all connections to it.
    #[serde(default = "default_parent")]
    pub(crate) parent: Peer,
    /// Where the Nitro Security Module is: "device", or "unix:PATH" in builds for development.
    #[serde(default = "default_nsm")]
    pub(crate) nsm: String,
    /// The program that signs.
    #[serde(default = "default_sign_service")]
    pub(crate) sign_service: PathBuf,
    /// A directory in memory, for this program alone (mode 0700). Made if it is not there.
    #[serde(default = "default_work_dir")]
    pub(crate) work_dir: PathBuf,
    /// PEM certificates that KMS's TLS certificate must lead to. Left out: the public roots compiled into the program.
    pub(crate) kms_roots_pem: Option<String>,
}

fn default_parent() -> Peer {
    // CID 3 is the parent instance, seen from a Nitro Enclave.
    Peer::Vsock { cid: 3 }
}

fn default_nsm() -> String {
    "device".to_owned()
}

fn default_sign_service() -> PathBuf {
    "/bin/sign-service".into()
}

fn default_work_dir() -> PathBuf {
    "/run/nitro-sign".into()
}

impl Config {
    pub(crate) fn load(path: &Path) -> Result<Self, BootError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| invalid(format!("cannot read the configuration {}: {error}", path.display())))?;
        Self::parse(&text).map_err(|error| invalid(format!("{}: {error}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// The roots that KMS's TLS certificate has to lead to.
    pub(crate) fn kms_roots(&self) -> Result<RootCertStore, BootError> {
        match &self.kms_roots_pem {
            None => Ok(kms::default_roots()),
            Some(pem) => {
                kms::roots_from_pem(pem).map_err(|error| invalid(format!("`kms_roots_pem`: {error}")))
            }
        }
    }
}

fn invalid(message: String) -> BootError {
    BootError::new(FailureReason::ConfigurationInvalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_means_a_nitro_enclave() {
        let config = Config::parse("").unwrap();
        assert_eq!(config.parent, Peer::Vsock { cid: 3 });
        assert_eq!(config.nsm, "device");
        assert_eq!(config.sign_service, Path::new("/bin/sign-service"));
        assert_eq!(config.work_dir, Path::new("/run/nitro-sign"));
        assert_eq!(config.kms_roots_pem, None);
    }

    #[test]
    fn every_key_is_read() {
        let config = Config::parse(
            r#"
            parent = "unix-guest:vm.vsock"
            nsm = "unix:nsm.sock"
            sign_service = "bin/sign-service"
            work_dir = "work"
            kms_roots_pem = """
            -----BEGIN CERTIFICATE-----
            """
            "#,
        )
        .unwrap();
        assert_eq!(config.parent, Peer::UnixGuest { path: "vm.vsock".into() });
        assert_eq!(config.nsm, "unix:nsm.sock");
        assert_eq!(config.sign_service, Path::new("bin/sign-service"));
        assert_eq!(config.work_dir, Path::new("work"));
        assert!(config.kms_roots_pem.is_some_and(|pem| pem.contains("BEGIN CERTIFICATE")));
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = Config::parse("skip_verification = true").unwrap_err();
        assert!(error.to_string().contains("skip_verification"), "{error}");
    }

    #[test]
    fn a_peer_that_is_not_one_is_refused() {
        assert!(Config::parse(r#"parent = "carrier-pigeon:3""#).is_err());
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::load(Path::new("/nonexistent/enclave.toml")).unwrap_err();
        assert_eq!(error.reason, FailureReason::ConfigurationInvalid);
        assert!(error.message.contains("/nonexistent/enclave.toml"), "{}", error.message);
    }

    #[test]
    fn roots_that_are_not_certificates_are_refused() {
        let config = Config::parse(r#"kms_roots_pem = "no certificate""#).unwrap();
        let error = config.kms_roots().unwrap_err();
        assert_eq!(error.reason, FailureReason::ConfigurationInvalid);
        assert!(error.message.contains("kms_roots_pem"), "{}", error.message);
    }

    #[test]
    fn without_roots_of_its_own_the_public_ones_hold() {
        assert!(Config::parse("").unwrap().kms_roots().unwrap().len() > 50);
    }
}
