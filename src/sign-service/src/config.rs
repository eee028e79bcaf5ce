use std::{
    fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use api::control::Configuration;
use serde::Deserialize;
use vsock::Endpoint;

const MAX_SESSIONS: RangeInclusive<u32> = 1..=65_536;
const SESSION_DEADLINE_MS: RangeInclusive<u32> = 100..=600_000;

/// The service's configuration, a TOML file. PID 1 writes it; every key is required, unknown keys are refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `key_share_file`: the bundle in the clear (JSON), read once. PID 1 removes it once the service is ready.
    pub key_share_file: PathBuf,
    /// `listen`: where the API is served, for example `"vsock:any:50051"` or `"unix-guest:vm.vsock:50051"`.
    pub listen: Endpoint,
    /// `nsm`: where attestation documents come from: `"device"`, which is `/dev/nsm`. Builds for tests also take
    /// `"unix:PATH"`.
    pub nsm: String,
    /// `configuration`: the canonical boot configuration whose SHA-384 is in PCR16, in hex. Handed to clients with each
    /// attestation document.
    pub configuration: Vec<u8>,
    /// `sealed_bundle_sha384`: SHA-384 of the sealed bundle, the other value in PCR16, in hex.
    pub sealed_bundle_sha384: [u8; 48],
    /// `max_sessions`: signing sessions at the same time, 1 to 65536.
    pub max_sessions: u32,
    /// `session_deadline_ms`: how long a session may last from the opening of its stream, 100 to 600000.
    pub session_deadline: Duration,
}

/// Why a configuration file is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not TOML, a missing key, an unknown key or a value of another type.
    #[error("configuration {}, line {line}: {problem}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A value that is not allowed.
    #[error("configuration {}, key `{key}`: {problem}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key concerned.
        key: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// The file as TOML sees it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    key_share_file: PathBuf,
    listen: String,
    nsm: String,
    configuration: String,
    sealed_bundle_sha384: String,
    max_sessions: u32,
    session_deadline_ms: u32,
}

impl Config {
    /// Reads and checks the file at `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Checks `text`; `path` is for messages only.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let raw: Raw = toml::from_str(text).map_err(|error| ConfigError::Form {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count()),
            problem: error.message().to_owned(),
        })?;
        raw.check().map_err(|(key, problem)| ConfigError::Key { path: path.to_owned(), key, problem })
    }
}

impl Raw {
    fn check(self) -> Result<Config, (&'static str, String)> {
        if self.key_share_file.as_os_str().is_empty() {
            return Err(("key_share_file", "expected the path of the bundle".to_owned()));
        }
        let listen = self.listen.parse::<Endpoint>().map_err(|error| ("listen", error.to_string()))?;
        if self.nsm != "device" && !self.nsm.starts_with("unix:") {
            return Err(("nsm", format!("expected \"device\" or \"unix:PATH\", got \"{}\"", self.nsm)));
        }
        let configuration = hex::decode(&self.configuration)
            .map_err(|error| ("configuration", format!("expected hex: {error}")))?;
        Configuration::from_canonical_bytes(&configuration)
            .map_err(|error| ("configuration", error.to_string()))?;
        let mut sealed_bundle_sha384 = [0; 48];
        hex::decode_to_slice(&self.sealed_bundle_sha384, &mut sealed_bundle_sha384)
            .map_err(|error| ("sealed_bundle_sha384", format!("expected 96 hex digits: {error}")))?;
        in_range("max_sessions", self.max_sessions, MAX_SESSIONS)?;
        in_range("session_deadline_ms", self.session_deadline_ms, SESSION_DEADLINE_MS)?;
        Ok(Config {
            key_share_file: self.key_share_file,
            listen,
            nsm: self.nsm,
            configuration,
            sealed_bundle_sha384,
            max_sessions: self.max_sessions,
            session_deadline: Duration::from_millis(self.session_deadline_ms.into()),
        })
    }
}

fn in_range(key: &'static str, value: u32, range: RangeInclusive<u32>) -> Result<(), (&'static str, String)> {
    if range.contains(&value) {
        return Ok(());
    }
    Err((key, format!("expected {} to {}, got {value}", range.start(), range.end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> String {
        let configuration = Configuration {
            region: "eu-central-1".to_owned(),
            kms_key_id: "1234".to_owned(),
            epoch: 1,
            bundle_sha256: vec![7; 32],
            max_sessions: 64,
            session_deadline_ms: 30_000,
            kms_timeout_ms: 10_000,
        };
        format!(
            "key_share_file = \"shares.json\"\n\
             listen = \"unix-guest:vm.vsock:50051\"\n\
             nsm = \"device\"\n\
             configuration = \"{}\"\n\
             sealed_bundle_sha384 = \"{}\"\n\
             max_sessions = 64\n\
             session_deadline_ms = 30000\n",
            hex::encode(configuration.canonical_bytes()),
            "ab".repeat(48)
        )
    }

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("sign-service.toml"))
    }

    /// The file with the line of `key` replaced.
    fn with(key: &str, line: &str) -> String {
        let replaced = |old: &str| if old.starts_with(key) { line.to_owned() } else { old.to_owned() };
        valid().lines().map(replaced).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_complete_file_is_read() {
        let config = parse(&valid()).unwrap();
        assert_eq!(config.listen.to_string(), "unix-guest:vm.vsock:50051");
        assert_eq!(config.sealed_bundle_sha384, [0xab; 48]);
        assert_eq!((config.max_sessions, config.session_deadline), (64, Duration::from_secs(30)));
    }

    #[test]
    fn every_bad_value_is_refused_with_the_file_and_the_key() {
        for (key, line) in [
            ("key_share_file", "key_share_file = \"\""),
            ("listen", "listen = \"127.0.0.1:50051\""),
            ("nsm", "nsm = \"/dev/nsm\""),
            ("configuration", "configuration = \"zz\""),
            ("configuration", "configuration = \"f80101\""),
            ("configuration", "configuration = \"\""),
            ("sealed_bundle_sha384", "sealed_bundle_sha384 = \"abab\""),
            ("max_sessions", "max_sessions = 0"),
            ("max_sessions", "max_sessions = 65537"),
            ("session_deadline_ms", "session_deadline_ms = 99"),
            ("session_deadline_ms", "session_deadline_ms = 600001"),
        ] {
            let error = parse(&with(key, line)).unwrap_err();
            let expected = format!("configuration sign-service.toml, key `{key}`: ");
            assert!(error.to_string().starts_with(&expected), "{line}: {error}");
        }
    }

    #[test]
    fn missing_unknown_and_mistyped_keys_are_refused_with_their_line() {
        for (text, line, problem) in [
            (with("nsm", ""), 1, "missing field `nsm`"),
            (valid() + "debug = true\n", 8, "unknown field `debug`"),
            (with("max_sessions", "max_sessions = \"many\""), 6, "invalid type"),
            (with("nsm", "nsm = "), 3, ""),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(matches!(&error, ConfigError::Form { line: actual, .. } if *actual == line), "{error}");
            assert!(error.to_string().contains(problem), "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Config::load(Path::new("nowhere/sign-service.toml")).unwrap_err();
        assert!(error.to_string().contains("nowhere/sign-service.toml"), "{error}");
    }
}
