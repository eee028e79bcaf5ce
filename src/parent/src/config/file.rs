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
    toml::from_str(text).map_err(|error| ConfigError::Form {
        file: file.to_owned(),
        problem: error.to_string(),
        example,
    })
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
