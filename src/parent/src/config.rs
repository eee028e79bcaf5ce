//! `parent.toml`: what the operator configures. `docs/parent.example.toml` shows every key.
//!
//! Unknown keys are refused, every value is checked, and relative paths are relative to the directory of the file. None
//! of it is secret, and none of it is trusted by the enclave: what matters there is measured into PCR16
//! ([`Config::configuration`]) or, like `pcr0`, protects the operator from starting the wrong image.

mod enclave;
mod file;
mod nitro;
mod values;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use api::{ConfigurationError, control::Configuration};
use attestation::TrustRoot;
use serde::Deserialize;
use vsock::Endpoint;

pub use enclave::{Backend, Enclave, Invocation, Process, Qemu};
pub use file::ConfigError;
pub use nitro::Nitro;
pub use values::{HostPort, Root};

pub(crate) use file::{Refused, parse, read};

/// Shows every key.
const EXAMPLE: &str = "docs/parent.example.toml";
/// The longest path of a Unix socket, bytes (`sun_path` holds 108 with its end).
const MAX_SOCKET_PATH: usize = 107;
/// The longest name of a socket below `runtime_dir`.
const LONGEST_SOCKET: &str = "vm/vm.vsock_50051";
const BOOT_TIMEOUT_MS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Directory for sockets, `status.json` and archived attestation documents; made with mode 0700 if missing. At most
    /// 89 bytes long, because paths of Unix sockets are limited.
    pub runtime_dir: PathBuf,
    /// What is launched.
    pub enclave: Enclave,
    /// Where the ciphertexts are.
    pub ciphertexts: Ciphertexts,
    /// Which bundle it has to be.
    pub bundle: Bundle,
    /// The KMS that releases the age identity.
    pub kms: Kms,
    /// The relay that the enclave may dial. Without it there is none.
    pub relay: Option<Relay>,
    /// Where clients connect.
    pub ingress: Ingress,
    /// Caps and times.
    #[serde(default)]
    pub limits: Limits,
}

/// `[ciphertexts]`: files, read at each launch.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ciphertexts {
    /// The age identity, encrypted by KMS (the CiphertextBlob, binary), at most 6144 bytes.
    pub identity: PathBuf,
    /// The sealed bundle (`service_key_shares.json.age`), at most 2 GiB.
    pub bundle: PathBuf,
}

/// `[bundle]`: which bundle it has to be.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Its epoch, 1 or more. Also in the KMS encryption context, and inside the bundle.
    pub epoch: u64,
    /// SHA-256 of the sealed bundle, 64 hex digits. Also in the KMS encryption context.
    #[serde(deserialize_with = "values::sha256")]
    pub sha256: [u8; 32],
}

/// `[kms]`: the KMS that releases the age identity.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kms {
    /// AWS region of the key, for example `"eu-central-1"`.
    pub region: String,
    /// Key id or ARN.
    pub key_id: String,
    /// `"host:port"` that the enclave's vsock port 5000 is bridged to. Default: `kms.<region>.amazonaws.com:443`. TLS
    /// ends at KMS and in the enclave, whatever is between.
    pub upstream: Option<HostPort>,
    /// Milliseconds for the enclave's KMS call, retries included: 100 to 120000. Default 10000.
    #[serde(default = "default_kms_timeout_ms")]
    pub timeout_ms: u32,
    /// JSON file `{"access_key_id", "secret_access_key", "session_token"?}`, read at each launch. Use short-lived
    /// credentials that allow `kms:Decrypt` on the one key and nothing else: the enclave gets them.
    pub credentials_file: PathBuf,
}

/// `[relay]`: the relay that the enclave may dial.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// `"host:port"` that the enclave's vsock port 8080 is bridged to. TLS, if any, ends there and in the enclave.
    pub upstream: HostPort,
}

/// `[ingress]`: where clients connect.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingress {
    /// TCP address and port that is bridged to the signing service once the enclave is verified, for example
    /// `"0.0.0.0:50051"`. With port 0 the system chooses one, which `status.json` names.
    #[serde(deserialize_with = "values::listen")]
    pub listen: SocketAddr,
}

/// `[limits]`: caps and times. The first two are measured into PCR16.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Signing sessions at the same time, 1 to 65536. Default 64.
    pub max_sessions: u32,
    /// Milliseconds a session may last, 100 to 600000. Default 30000.
    pub session_deadline_ms: u32,
    /// Milliseconds from the start until the enclave has to be verified and serving, 1000 to 3600000. Default 120000.
    pub boot_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_sessions: 64, session_deadline_ms: 30_000, boot_timeout_ms: 120_000 }
    }
}

fn default_kms_timeout_ms() -> u32 {
    10_000
}

impl Config {
    /// Reads and checks a file. The files that it names are not looked at: they may be on another machine.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read(file)?, file)
    }

    /// As [`Config::load`], of a text that is the content of `file`.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = parse(text, file, EXAMPLE)?;
        let directory = match file.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        // Children get another working directory: every path has to be absolute.
        let directory = std::path::absolute(directory)
            .map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
        config.validate().map_err(|refused| refused.in_file(file))?;
        config.resolve(&directory);
        config.validate_socket_paths().map_err(|refused| refused.in_file(file))?;
        Ok(config)
    }

    /// What the enclave gets and measures into PCR16.
    pub fn configuration(&self) -> Configuration {
        Configuration {
            region: self.kms.region.clone(),
            kms_key_id: self.kms.key_id.clone(),
            epoch: self.bundle.epoch,
            bundle_sha256: self.bundle.sha256.to_vec(),
            max_sessions: self.limits.max_sessions,
            session_deadline_ms: self.limits.session_deadline_ms,
            kms_timeout_ms: self.kms.timeout_ms,
        }
    }

    /// The root under which attestation documents have to be; reads the PEM file that `attestation_root` names.
    pub fn trust_root(&self) -> Result<TrustRoot, RootError> {
        let file = match &self.enclave.attestation_root {
            Root::Aws => return Ok(TrustRoot::AWS_NITRO_G1),
            Root::Pem(file) => file,
        };
        let refused = |problem: String| RootError { file: file.clone(), problem };
        let pem = fs::read_to_string(file).map_err(|error| refused(error.to_string()))?;
        TrustRoot::from_pem(&pem).map_err(|error| refused(error.to_string()))
    }

    /// Where the enclave's KMS port is bridged to.
    pub fn kms_upstream(&self) -> Endpoint {
        match &self.kms.upstream {
            Some(upstream) => upstream.endpoint(),
            None => Endpoint::Tcp { host: format!("kms.{}.amazonaws.com", self.kms.region), port: 443 },
        }
    }

    /// Where clients connect.
    pub fn ingress(&self) -> Endpoint {
        Endpoint::Tcp { host: self.ingress.listen.ip().to_string(), port: self.ingress.listen.port() }
    }

    /// How long a boot may take.
    pub fn boot_timeout(&self) -> Duration {
        Duration::from_millis(self.limits.boot_timeout_ms)
    }

    /// The files that a launch reads, each with the key that names it.
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        let mut files = self.enclave.files();
        files.extend([
            ("ciphertexts.identity", self.ciphertexts.identity.as_path()),
            ("ciphertexts.bundle", &self.ciphertexts.bundle),
            ("kms.credentials_file", &self.kms.credentials_file),
        ]);
        files
    }

    /// Checks that the files are there which a launch reads.
    pub fn check_files(&self) -> Result<(), FileError> {
        for (key, path) in self.files() {
            fs::File::open(path).map_err(|source| FileError { key, path: path.to_owned(), source })?;
        }
        Ok(())
    }

    fn validate(&self) -> Result<(), Refused> {
        for (key, path) in self.files().into_iter().chain([("runtime_dir", self.runtime_dir.as_path())]) {
            if path.as_os_str().is_empty() {
                return Err(Refused::new(key, "expected a path, got an empty string"));
            }
        }
        self.enclave.validate()?;
        if self.bundle.epoch == 0 {
            return Err(Refused::new(
                "bundle.epoch",
                "expected 1 or more; `nitro-sign key-gen` numbers bundles",
            ));
        }
        if !BOOT_TIMEOUT_MS.contains(&self.limits.boot_timeout_ms) {
            let (least, most) = (BOOT_TIMEOUT_MS.start(), BOOT_TIMEOUT_MS.end());
            let problem = format!("expected {least} to {most}, got {}", self.limits.boot_timeout_ms);
            return Err(Refused::new("limits.boot_timeout_ms", problem));
        }
        self.configuration().validate().map_err(Refused::from)
    }

    fn resolve(&mut self, directory: &Path) {
        self.enclave.resolve(directory);
        for path in [
            &mut self.runtime_dir,
            &mut self.ciphertexts.identity,
            &mut self.ciphertexts.bundle,
            &mut self.kms.credentials_file,
        ] {
            *path = directory.join(&path);
        }
    }

    fn validate_socket_paths(&self) -> Result<(), Refused> {
        let length = self.runtime_dir.join(LONGEST_SOCKET).as_os_str().len();
        if length <= MAX_SOCKET_PATH {
            return Ok(());
        }
        let problem = format!(
            "{} is {} bytes too long for the sockets in it; choose a shorter path",
            self.runtime_dir.display(),
            length - MAX_SOCKET_PATH
        );
        Err(Refused::new("runtime_dir", problem))
    }
}

impl From<ConfigurationError> for Refused {
    fn from(error: ConfigurationError) -> Self {
        match error {
            ConfigurationError::Field { field, problem } => Self::new(key_of(field), problem),
            other => Self::new("(whole file)", other.to_string()),
        }
    }
}

/// The key of this file from which a field of [`Configuration`] is made.
fn key_of(field: &str) -> &'static str {
    match field {
        "region" => "kms.region",
        "kms_key_id" => "kms.key_id",
        "kms_timeout_ms" => "kms.timeout_ms",
        "epoch" => "bundle.epoch",
        "bundle_sha256" => "bundle.sha256",
        "max_sessions" => "limits.max_sessions",
        "session_deadline_ms" => "limits.session_deadline_ms",
        _ => "(whole file)",
    }
}

/// A file that the configuration names cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("`{key}`: cannot open {}: {source}; put it there, or correct its path", path.display())]
pub struct FileError {
    /// The key that names it.
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// The root certificate of attestation documents cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "`enclave.attestation_root`: {}: {problem}; give \"aws\" or the PEM file of a root certificate",
    file.display()
)]
pub struct RootError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

#[cfg(test)]
mod tests;
