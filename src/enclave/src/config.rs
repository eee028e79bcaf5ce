use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use api::control::FailureReason;
use rustls::RootCertStore;
use serde::Deserialize;
use vsock::Peer;

use crate::{error::BootError, key_file};

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
    /// The program that signs; `/bin/sign-service` if left out.
    sign_service: Option<PathBuf>,
    /// Another program in its place, which knows nothing of vsock.
    pub(crate) workload: Option<Workload>,
    /// A directory in memory, for this program alone (mode 0700). Made if it is not there.
    #[serde(default = "default_work_dir")]
    pub(crate) work_dir: PathBuf,
    /// PEM certificates that KMS's TLS certificate must lead to. Left out: the public roots compiled into the program.
    pub(crate) kms_roots_pem: Option<String>,
}

/// Any program that has the interface of a signing service: it reads the key shares from a file, serves on a TCP port, and
/// dials the relay on another one. It cannot prove to its clients in which enclave it runs: no attestation document names
/// its TLS key.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Workload {
    /// The program, and its arguments. Its own configuration is a file of the image.
    pub(crate) program: PathBuf,
    #[serde(default)]
    pub(crate) args: Vec<String>,
    /// Where it looks for the key shares: a file in memory, in a directory that exists. Left out:
    /// `service_key_shares.json` in `work_dir`.
    pub(crate) key_share_file: Option<PathBuf>,
    /// How it shows that it has read the file and serves.
    #[serde(default)]
    pub(crate) health: Health,
    /// Leave the plaintext file until the end, for a program that reads it again.
    #[serde(default)]
    pub(crate) keep_key_file: bool,
    /// Where it serves.
    #[serde(default = "default_listen")]
    pub(crate) listen: SocketAddr,
    /// Where it finds the relay.
    #[serde(default = "default_relay")]
    pub(crate) relay: SocketAddr,
}

/// See [`Workload::health`].
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Health {
    /// It accepts connections.
    #[default]
    Tcp,
}

/// CID 3 is the parent instance, seen from a Nitro Enclave.
pub(crate) fn default_parent() -> Peer {
    Peer::Vsock { cid: 3 }
}

fn default_nsm() -> String {
    "device".to_owned()
}

fn default_listen() -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 50051)
}

fn default_relay() -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8080)
}

fn default_work_dir() -> PathBuf {
    "/run/nitro-sign".into()
}

impl Config {
    pub(crate) fn load(path: &Path) -> Result<Self, BootError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| invalid(format!("cannot read the configuration {}: {error}", path.display())))?;
        Self::parse(&text).map_err(|problem| invalid(format!("{}: {problem}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let Some(workload) = &self.workload else { return Ok(()) };
        if self.sign_service.is_some() {
            return Err("`sign_service` and `[workload]` both name a program that signs; keep one".to_owned());
        }
        for (key, address) in [("listen", workload.listen), ("relay", workload.relay)] {
            if !address.ip().is_loopback() {
                return Err(format!("`workload.{key}` is {address}; an enclave has loopback addresses only"));
            }
        }
        match &workload.key_share_file {
            Some(path) if !path.is_absolute() => {
                Err(format!("`workload.key_share_file` is {}; it has to be absolute", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// The program that signs, unless there is a [`Workload`].
    pub(crate) fn sign_service(&self) -> &Path {
        self.sign_service.as_deref().unwrap_or(Path::new("/bin/sign-service"))
    }

    /// Where the plaintext of the bundle is, for the time that it is anywhere.
    pub(crate) fn plaintext(&self, work_dir: &Path) -> PathBuf {
        let configured = self.workload.as_ref().and_then(|workload| workload.key_share_file.clone());
        configured.unwrap_or_else(|| work_dir.join(key_file::NAME))
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

#[cfg(test)]
impl Config {
    /// One for a boot that ends before the rest of it matters.
    pub(crate) fn of_process(parent: Peer) -> Self {
        Self {
            parent,
            nsm: default_nsm(),
            sign_service: None,
            workload: None,
            work_dir: "/nonexistent".into(),
            kms_roots_pem: None,
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
        assert_eq!(config.sign_service(), Path::new("/bin/sign-service"));
        assert_eq!(config.workload, None);
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
        assert_eq!(config.sign_service(), Path::new("bin/sign-service"));
        assert_eq!(config.work_dir, Path::new("work"));
        assert!(config.kms_roots_pem.is_some_and(|pem| pem.contains("BEGIN CERTIFICATE")));
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        for text in ["skip_verification = true", "[workload]\nprogram = \"/x\"\nskip_verification = true"] {
            let problem = Config::parse(text).unwrap_err();
            assert!(problem.contains("skip_verification"), "{problem}");
        }
    }

    #[test]
    fn the_production_images_file_means_the_same_as_an_empty_one() {
        let production = Config::parse(include_str!("../../../nix/enclave.toml")).unwrap();
        let default = Config::parse("").unwrap();
        assert_eq!(production.sign_service(), default.sign_service());
        assert_eq!(Config { sign_service: None, ..production }, default);
    }

    #[test]
    fn the_workload_that_the_production_images_file_shows_is_the_default_of_one() {
        let comments: String = include_str!("../../../nix/enclave.toml")
            .lines()
            .filter_map(|line| line.strip_prefix("#   ").map(|line| format!("{line}\n")))
            .collect();
        let shown = Config::parse(&comments).unwrap().workload.unwrap();
        let default = Config::parse("[workload]\nprogram = \"/bin/other\"").unwrap().workload.unwrap();
        assert_eq!(Workload { args: vec![], key_share_file: None, ..shown }, default);
    }

    #[test]
    fn a_workload_needs_its_program_only() {
        let config = Config::parse("[workload]\nprogram = \"/bin/other\"").unwrap();
        let workload = config.workload.unwrap();
        assert_eq!(workload.program, Path::new("/bin/other"));
        assert_eq!(workload.listen.to_string(), "127.0.0.1:50051");
        assert_eq!(workload.relay.to_string(), "127.0.0.1:8080");
        assert_eq!((workload.args, workload.key_share_file), (vec![], None));
        assert_eq!((workload.health, workload.keep_key_file), (Health::Tcp, false));
        assert!(Config::parse("[workload]").unwrap_err().contains("program"));
    }

    #[test]
    fn every_key_of_a_workload_is_read() {
        let config = Config::parse(
            r#"
            [workload]
            program = "/bin/other"
            args = ["--config", "/etc/other.yaml"]
            key_share_file = "/tmp/shares.json"
            health = "tcp"
            keep_key_file = true
            listen = "127.0.0.1:1"
            relay = "127.0.0.2:2"
            "#,
        )
        .unwrap();
        let expected = Workload {
            program: "/bin/other".into(),
            args: vec!["--config".to_owned(), "/etc/other.yaml".to_owned()],
            key_share_file: Some("/tmp/shares.json".into()),
            health: Health::Tcp,
            keep_key_file: true,
            listen: "127.0.0.1:1".parse().unwrap(),
            relay: "127.0.0.2:2".parse().unwrap(),
        };
        assert_eq!(config.workload, Some(expected));
    }

    #[test]
    fn a_workload_that_could_not_work_is_refused_by_key() {
        for (text, key) in [
            ("listen = \"0.0.0.0:50051\"", "workload.listen"),
            ("relay = \"10.0.0.1:8080\"", "workload.relay"),
            ("key_share_file = \"shares.json\"", "workload.key_share_file"),
            ("health = \"hope\"", "health"),
        ] {
            let problem =
                Config::parse(&format!("[workload]\nprogram = \"/bin/other\"\n{text}")).unwrap_err();
            assert!(problem.contains(key), "{problem}");
        }
        let both = "sign_service = \"/bin/sign-service\"\n[workload]\nprogram = \"/bin/other\"";
        assert!(Config::parse(both).unwrap_err().contains("sign_service"));
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
