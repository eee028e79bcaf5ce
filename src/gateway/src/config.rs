//! The gateway's configuration: one TOML file, described key by key in `docs/gateway.example.toml`.
//!
//! Unknown keys are refused. Relative paths are relative to the configuration file's folder.

use std::{
    collections::BTreeSet,
    fmt::Display,
    fs,
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use attestation::{Pcr, TrustRoot};
use serde::Deserialize;

use crate::{StartError, trust::Trust};

const PCR0_EXPECTED: &str = "96 hex digits (a SHA-384), not all zero as in debug mode";
const TIMEOUT_MS: RangeInclusive<u64> = 100..=600_000;

/// A configuration whose every value has been checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the HTTP API listens. A loopback address, unless `allow_remote` was set.
    pub listen: SocketAddr,
    /// The co-signer's sealed bundle.
    pub shares: PathBuf,
    /// The age identity that opens it.
    pub identity_file: PathBuf,
    /// The client certificate (PEM chain) shown to nodes.
    pub tls_certificate: PathBuf,
    /// Its private key (PEM).
    pub tls_key: PathBuf,
    /// Time between two pings of a verified node.
    pub probe_interval: Duration,
    /// Time a ping may take.
    pub probe_timeout: Duration,
    /// Time a signature may take.
    pub sign_timeout: Duration,
    /// What a node has to prove.
    pub trust: Trust,
    /// The pool, at least one node.
    pub nodes: Vec<NodeConfig>,
}

/// One node of the pool.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Name in the HTTP API and in logs: `[a-z0-9._-]{1,64}`, unique.
    pub name: String,
    /// `host:port` of the node's signing API.
    pub address: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    listen: SocketAddr,
    #[serde(default)]
    allow_remote: bool,
    shares: PathBuf,
    identity_file: PathBuf,
    tls_certificate: PathBuf,
    tls_key: PathBuf,
    #[serde(default = "default_probe_interval_ms")]
    probe_interval_ms: u64,
    #[serde(default = "default_probe_timeout_ms")]
    probe_timeout_ms: u64,
    #[serde(default = "default_sign_timeout_ms")]
    sign_timeout_ms: u64,
    trust: TrustKeys,
    nodes: Vec<NodeConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrustKeys {
    attestation_root: String,
    pcr0: Vec<String>,
    bundle_sha256: Vec<String>,
}

fn default_probe_interval_ms() -> u64 {
    5_000
}

fn default_probe_timeout_ms() -> u64 {
    2_000
}

fn default_sign_timeout_ms() -> u64 {
    10_000
}

impl Config {
    /// Reads and checks a configuration file, and the trust root it names.
    pub fn load(path: &Path) -> Result<Self, StartError> {
        let text = fs::read_to_string(path).map_err(|source| StartError::Read {
            what: "configuration",
            path: path.to_owned(),
            source,
        })?;
        let keys: Keys = toml::from_str(&text).map_err(|error| StartError::Toml {
            path: path.to_owned(),
            problem: error.to_string().trim_end().to_owned(),
        })?;
        Checker { path }.check(keys)
    }
}

/// The rules that TOML's types do not say.
struct Checker<'a> {
    path: &'a Path,
}

impl Checker<'_> {
    fn check(&self, keys: Keys) -> Result<Config, StartError> {
        if !keys.listen.ip().is_loopback() && !keys.allow_remote {
            return Err(self.key(
                "listen",
                format!(
                    "{} is reachable from other machines and the HTTP API does not authenticate its callers; \
                     use a loopback address, or set `allow_remote = true` if something in front authenticates them",
                    keys.listen
                ),
            ));
        }
        Ok(Config {
            listen: keys.listen,
            shares: self.beside(&keys.shares),
            identity_file: self.beside(&keys.identity_file),
            tls_certificate: self.beside(&keys.tls_certificate),
            tls_key: self.beside(&keys.tls_key),
            probe_interval: self.milliseconds("probe_interval_ms", keys.probe_interval_ms)?,
            probe_timeout: self.milliseconds("probe_timeout_ms", keys.probe_timeout_ms)?,
            sign_timeout: self.milliseconds("sign_timeout_ms", keys.sign_timeout_ms)?,
            trust: self.trust(&keys.trust)?,
            nodes: self.nodes(keys.nodes)?,
        })
    }

    fn trust(&self, keys: &TrustKeys) -> Result<Trust, StartError> {
        let root = match keys.attestation_root.as_str() {
            "aws" => TrustRoot::AWS_NITRO_G1,
            pem => {
                let pem = self.beside(Path::new(pem));
                let text = fs::read_to_string(&pem).map_err(|error| {
                    let problem =
                        format!("{}: {error}; expected \"aws\" or the path of a PEM file", pem.display());
                    self.key("trust.attestation_root", problem)
                })?;
                TrustRoot::from_pem(&text).map_err(|error| {
                    self.key("trust.attestation_root", format!("{}: {error}", pem.display()))
                })?
            }
        };
        let pcr0 = self.list("trust.pcr0", &keys.pcr0, PCR0_EXPECTED, |text| {
            text.parse::<Pcr>().ok().filter(|pcr| !pcr.is_zero())
        })?;
        let bundles = self.list("trust.bundle_sha256", &keys.bundle_sha256, "64 hex digits", |text| {
            hex::decode(text).ok()?.try_into().ok()
        })?;
        Ok(Trust { root, pcr0, bundles })
    }

    /// A list that is not empty; its items are numbered from 0 in messages.
    fn list<T>(
        &self,
        key: &str,
        texts: &[String],
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, StartError> {
        if texts.is_empty() {
            return Err(self.key(key, format!("expected at least one value of {expected}")));
        }
        let item = |(index, text): (usize, &String)| {
            let refused = || self.key(&format!("{key}[{index}]"), format!("expected {expected}"));
            parse(text).ok_or_else(refused)
        };
        texts.iter().enumerate().map(item).collect()
    }

    fn nodes(&self, nodes: Vec<NodeConfig>) -> Result<Vec<NodeConfig>, StartError> {
        if nodes.is_empty() {
            return Err(self.key("nodes", "expected at least one [[nodes]] table"));
        }
        let mut names = BTreeSet::new();
        for (index, node) in nodes.iter().enumerate() {
            if !is_name(&node.name) {
                let problem = format!("`{}` is not a name; expected [a-z0-9._-]{{1,64}}", node.name);
                return Err(self.key(&format!("nodes[{index}].name"), problem));
            }
            if !names.insert(&node.name) {
                let problem = format!("`{}` is used twice; give each node its own name", node.name);
                return Err(self.key(&format!("nodes[{index}].name"), problem));
            }
            if !is_host_and_port(&node.address) {
                let problem = format!("`{}` is not an address; expected host:port", node.address);
                return Err(self.key(&format!("nodes[{index}].address"), problem));
            }
        }
        Ok(nodes)
    }

    fn milliseconds(&self, key: &str, value: u64) -> Result<Duration, StartError> {
        if !TIMEOUT_MS.contains(&value) {
            let problem = format!("expected {} to {}, got {value}", TIMEOUT_MS.start(), TIMEOUT_MS.end());
            return Err(self.key(key, problem));
        }
        Ok(Duration::from_millis(value))
    }

    fn beside(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    fn key(&self, key: &str, problem: impl Display) -> StartError {
        StartError::Key { path: self.path.to_owned(), key: key.to_owned(), problem: problem.to_string() }
    }
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
}

fn is_host_and_port(address: &str) -> bool {
    address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
