//! What the configuration files of this crate have in common.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

/// Why a configuration file is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}; give its path with --config", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not TOML, a key is unknown or missing, or a value has the wrong form.
    #[error("{} is refused: {problem}\n{example} shows every key", file.display())]
    Form {
        /// The file.
        file: PathBuf,
        /// Line, key and what is wrong with it.
        problem: String,
        /// The documented example.
        example: &'static str,
    },
    /// A value is not allowed.
    #[error("{}: `{key}`: {problem}", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// The key, with its table, for example `kms.region`.
        key: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// The content of a configuration file.
pub(crate) fn read(file: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(file).map_err(|source| ConfigError::Read { file: file.to_owned(), source })
}

/// The values in `text`, the content of `file`; `example` is the document that shows every key.
pub(crate) fn parse<T: DeserializeOwned>(
    text: &str,
    file: &Path,
    example: &'static str,
) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map(|span| at(text, span.start)).unwrap_or_default();
        ConfigError::Form { file: file.to_owned(), problem: format!("{at}{}", error.message()), example }
    })
}

/// The line and its key. Not its value, which the error itself prints: it may be of a file with secrets that was named by
/// mistake.
fn at(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let number = before.matches('\n').count() + 1;
    let line = text[start..].lines().next().unwrap_or_default();
    let is_bare = |key: &str| {
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
    };
    match line.split_once('=').map(|(key, _)| key.trim()).filter(|key| is_bare(key)) {
        Some(key) => format!("line {number}, `{key}`: "),
        None => format!("line {number}: "),
    }
}

/// A value that is not allowed, before the file's name is known.
pub(crate) struct Refused {
    key: &'static str,
    problem: String,
}

impl Refused {
    pub(crate) fn new(key: &'static str, problem: impl Into<String>) -> Self {
        Self { key, problem: problem.into() }
    }

    pub(crate) fn in_file(self, file: &Path) -> ConfigError {
        ConfigError::Value { file: file.to_owned(), key: self.key, problem: self.problem }
    }
}
