//! `journal.toml`: what the operator configures. `docs/journal.example.toml` shows every key.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::config::{self, ConfigError, Refused};

/// Shows every key.
const EXAMPLE: &str = "docs/journal.example.toml";
/// Names of groups and streams, characters (CloudWatch Logs API reference, CreateLogGroup and CreateLogStream).
const NAME_LENGTH: RangeInclusive<usize> = 1..=512;
/// How long an entry may wait for others: longer than that is no journal that leaves the machine in time.
const FLUSH_MS: RangeInclusive<u64> = 100..=60_000;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalConfig {
    /// AWS region of the log group, for example `eu-central-1`.
    pub region: String,
    /// The log group; it has to be there.
    pub group: String,
    /// The log stream, made if missing. `None`: the instance id, of the instance metadata service.
    pub stream: Option<String>,
    /// Where the journal's cursor is kept; made with mode 0600.
    pub cursor_file: PathBuf,
    /// The units whose entries are shipped. Empty: everything, the kernel included.
    #[serde(default)]
    pub units: Vec<String>,
    /// URL of CloudWatch Logs. `None`: the region's own.
    pub endpoint: Option<String>,
    /// PEM file of the certificate authorities that the endpoint may be under. `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// Program that prints the journal, and its first arguments.
    #[serde(default = "journalctl")]
    pub journalctl: Vec<String>,
    /// How long an entry waits for others, 100 ms to 60 s. Default 2 s.
    #[serde(default = "default_flush", rename = "flush_ms", deserialize_with = "milliseconds")]
    pub flush: Duration,
}

fn journalctl() -> Vec<String> {
    vec!["journalctl".to_owned()]
}

fn default_flush() -> Duration {
    Duration::from_secs(2)
}

fn milliseconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Ok(Duration::from_millis(u64::deserialize(deserializer)?))
}

impl JournalConfig {
    /// Reads and checks a file. Relative paths in it are relative to its directory.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::parse(&config::read(file)?, file)
    }

    /// As [`JournalConfig::load`], of a text that is the content of `file`.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = config::parse(text, file, EXAMPLE)?;
        config.validate().map_err(|refused| refused.in_file(file))?;
        let directory = file.parent().unwrap_or(Path::new(""));
        config.cursor_file = directory.join(&config.cursor_file);
        config.ca_file = config.ca_file.map(|ca_file| directory.join(ca_file));
        Ok(config)
    }

    /// The program that prints the journal.
    pub fn program(&self) -> &str {
        self.journalctl.first().map_or("", String::as_str)
    }

    fn validate(&self) -> Result<(), Refused> {
        // It becomes part of a host name.
        let is_label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.region.is_empty() || !self.region.chars().all(is_label) {
            let problem = format!("expected a region such as \"eu-central-1\", got {:?}", self.region);
            return Err(Refused::new("region", problem));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-/.#".contains(c);
        if !has_name_length(&self.group) || !self.group.chars().all(allowed) {
            return Err(Refused::new("group", "expected 1 to 512 characters out of a-z A-Z 0-9 _ - / . #"));
        }
        if self.group.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws/")) {
            return Err(Refused::new("group", "\"aws/\" at the start is AWS's own; expected another name"));
        }
        let stream = self.stream.as_deref().unwrap_or("default");
        if !has_name_length(stream) || stream.contains([':', '*']) || stream.contains(char::is_control) {
            return Err(Refused::new("stream", "expected 1 to 512 characters without : and *"));
        }
        if self.endpoint.as_ref().is_some_and(|url| !is_https(url)) {
            return Err(Refused::new("endpoint", "expected \"https://host\" or \"https://host:port\""));
        }
        let no_ca_file = self.ca_file.as_ref().is_some_and(|file| file.as_os_str().is_empty());
        for (key, is_empty) in [
            ("cursor_file", self.cursor_file.as_os_str().is_empty()),
            ("ca_file", no_ca_file),
            ("units", self.units.iter().any(String::is_empty)),
            ("journalctl", self.program().is_empty()),
        ] {
            if is_empty {
                return Err(Refused::new(key, "an empty text has no meaning here"));
            }
        }
        let flush_ms = u64::try_from(self.flush.as_millis()).unwrap_or(u64::MAX);
        if !FLUSH_MS.contains(&flush_ms) {
            let (least, most) = (FLUSH_MS.start(), FLUSH_MS.end());
            let problem = format!("expected {least} to {most}, got {flush_ms}");
            return Err(Refused::new("flush_ms", problem));
        }
        Ok(())
    }
}

fn has_name_length(name: &str) -> bool {
    NAME_LENGTH.contains(&name.chars().count())
}

/// No path, no user, no query: the SDK appends its own path, and nothing but TLS carries the journal.
fn is_https(url: &str) -> bool {
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-.:[]".contains(c);
    url.strip_prefix("https://").is_some_and(|host| !host.is_empty() && host.chars().all(is_host))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../../docs/journal.example.toml");
    const FILE: &str = "/etc/nitro-sign/journal.toml";
    const LEAST: &str = "region = 'eu-central-1'\ngroup = '/nitro-sign/parent'\ncursor_file = 'cursor'\n";

    fn parse(text: &str) -> Result<JournalConfig, ConfigError> {
        JournalConfig::parse(text, Path::new(FILE))
    }

    /// The message for the least configuration and one more line, or with one line replaced.
    #[track_caller]
    fn refusal(line: &str) -> String {
        let key = line.split(' ').next().unwrap();
        let others = LEAST.lines().filter(|other| !other.starts_with(key));
        let text = others.chain([line]).collect::<Vec<_>>().join("\n");
        let message = parse(&text).unwrap_err().to_string();
        assert!(message.contains(FILE) && message.contains(key), "{message}");
        message
    }

    #[test]
    fn the_documented_example_is_accepted_and_its_values_are_read() {
        let config = parse(EXAMPLE).unwrap();
        assert_eq!(config.region, "eu-central-1");
        assert_eq!(config.group, "/nitro-sign/parent");
        assert_eq!(config.stream.as_deref(), Some("i-0123456789abcdef0"));
        assert_eq!(config.cursor_file, Path::new("/var/lib/nitro-sign-journal/cursor"));
        assert_eq!(config.units, [""; 0]);
        assert_eq!(config.endpoint.as_deref(), Some("https://logs.eu-central-1.amazonaws.com"));
        assert_eq!(config.ca_file.as_deref(), Some(Path::new("/etc/ssl/certs/ca-certificates.crt")));
        assert_eq!(config.program(), "journalctl");
        assert_eq!(config.flush, Duration::from_secs(2));
    }

    #[test]
    fn the_example_shows_every_key() {
        let shown: toml::Table = toml::from_str(EXAMPLE).unwrap();
        let names = parse("nothing = 1").unwrap_err().to_string();
        assert!(names.contains("docs/journal.example.toml"), "{names}");
        // The refusal of an unknown key lists those that exist.
        let known: Vec<_> = names.split('`').skip(5).step_by(2).collect();
        assert_eq!(known.len(), 9, "{names}");
        for key in known {
            assert!(shown.contains_key(key), "{key}");
        }
    }

    #[test]
    fn three_keys_are_enough_and_the_defaults_are_those_of_the_example() {
        let (least, example) = (parse(LEAST).unwrap(), parse(EXAMPLE).unwrap());
        assert_eq!(least.stream, None);
        assert_eq!(least.endpoint, None);
        assert_eq!(least.ca_file, None);
        assert_eq!(least.units, example.units);
        assert_eq!(least.journalctl, example.journalctl);
        assert_eq!(least.flush, example.flush);
        assert_eq!(least.cursor_file, Path::new("/etc/nitro-sign/cursor"));
    }

    #[test]
    fn values_that_cannot_work_are_refused_with_their_key() {
        refusal("region = ''");
        refusal("region = 'eu-central-1.attacker.example'");
        refusal("group = ''");
        refusal("group = 'a b'");
        refusal("group = 'AWS/parent'");
        refusal(&format!("group = '{}'", "a".repeat(513)));
        refusal("stream = 'a:b'");
        refusal("stream = ''");
        refusal("cursor_file = ''");
        refusal("units = ['nitro-sign-parent.service', '']");
        refusal("ca_file = ''");
        refusal("journalctl = []");
        refusal("journalctl = ['']");
        refusal("flush_ms = 99");
        refusal("flush_ms = 60001");
        refusal("flush_ms = -1");
        refusal("more = 1");
    }

    #[test]
    fn an_endpoint_is_reached_with_tls_or_not_at_all() {
        for url in
            ["http://logs.example", "logs.example", "https://", "https://logs.example/a", "https://a@b"]
        {
            assert!(refusal(&format!("endpoint = '{url}'")).contains("https://host"));
        }
        for url in ["https://logs.example:4434", "https://127.0.0.1:1", "https://[::1]:1"] {
            assert!(parse(&format!("{LEAST}endpoint = '{url}'")).is_ok(), "{url}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = JournalConfig::load(Path::new("/nonexistent/journal.toml")).unwrap_err().to_string();
        assert!(message.contains("/nonexistent/journal.toml") && message.contains("--config"), "{message}");
    }
}
