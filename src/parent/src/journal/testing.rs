//! What the tests of several modules need.

use std::path::Path;

use super::JournalConfig;

/// A configuration whose `journalctl` is the shell, with `script`.
pub(super) fn shell(script: &str, units: &[&str]) -> JournalConfig {
    let text = "region = 'eu-central-1'\ngroup = 'group'\ncursor_file = '/nonexistent/cursor'\n";
    let mut config = JournalConfig::parse(text, Path::new("/etc/journal.toml")).unwrap();
    config.journalctl = ["sh", "-c", script, "journalctl"].map(str::to_owned).into();
    config.units = units.iter().map(|unit| (*unit).to_owned()).collect();
    config
}
