use std::{io, path::PathBuf};

use api::control::FailureReason;
use eif::EifError;

use super::nitro::DriverError;
use crate::Reason;

/// A launch that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// A file of the backend `process` cannot be read.
    #[error("cannot measure the enclave: {0}; check the paths in `enclave.process`")]
    Measure(io::Error),
    /// The enclave image cannot be read, or is not one.
    #[error("cannot measure the enclave image {}: {source}; check `{key}`", image.display())]
    Image {
        /// The configured image.
        image: PathBuf,
        /// The key of the configuration that names it.
        key: &'static str,
        /// What is wrong with it.
        source: EifError,
    },
    /// The enclave image is for another processor.
    #[error(
        "the enclave image {} is for {actual}, and would run on {expected}; name one for {expected} in `{key}`",
        image.display()
    )]
    Architecture {
        /// The configured image.
        image: PathBuf,
        /// The key of the configuration that names it.
        key: &'static str,
        /// What the image is for.
        actual: &'static str,
        /// What it would run on.
        expected: &'static str,
    },
    /// The enclave would have less memory than the image needs.
    #[error(
        "an enclave needs four times the memory of its image: set `{key}` to {needed} or more, it is {configured}"
    )]
    Memory {
        /// The key of the configuration that says how much it has.
        key: &'static str,
        /// What would do, MiB.
        needed: u64,
        /// What is configured, MiB.
        configured: u32,
    },
    /// The kernel would cut its command line, silently.
    #[error(
        "the kernel's command line has {actual} bytes, and at most {limit} fit; shorten \
         `enclave.qemu.extra_command_line`, or the one in the image"
    )]
    CommandLine {
        /// Its length with what the backend appends, bytes.
        actual: usize,
        /// The longest, bytes.
        limit: usize,
    },
    /// An enclave gets whole cores.
    #[error(
        "an enclave gets whole cores, and a core of this machine has {threads} virtual processors: set \
         `enclave.nitro.cpu_count` to a multiple of {threads}, it is {configured}"
    )]
    Cores {
        /// Virtual processors of a core.
        threads: u32,
        /// What is configured.
        configured: u32,
    },
    /// The driver of enclaves does not launch it.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The launch's own directory, or a file in it, cannot be made.
    #[error("cannot make {}: {source}; make `runtime_dir` writable for this user, with space left", path.display())]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program cannot be started.
    #[error("cannot start {program}: {source}; check its path in `{key}`")]
    Start {
        /// The program.
        program: String,
        /// The key of the configuration that names it.
        key: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A program was started, but is of no use.
    #[error("{name}, {program}, did not become ready: {problem}")]
    NotReady {
        /// What the program is to the enclave.
        name: &'static str,
        /// The program.
        program: String,
        /// What it did instead.
        problem: String,
    },
}

impl BackendError {
    /// The reason of a run that fails with this.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Measure(_) | Self::Image { .. } => Reason::MeasurementMismatch,
            Self::Architecture { .. }
            | Self::Memory { .. }
            | Self::CommandLine { .. }
            | Self::Cores { .. } => Reason::Enclave(FailureReason::ConfigurationInvalid),
            Self::Driver(error) if error.is_configuration() => {
                Reason::Enclave(FailureReason::ConfigurationInvalid)
            }
            Self::Driver(_) | Self::Directory { .. } | Self::Start { .. } | Self::NotReady { .. } => {
                Reason::LaunchFailed
            }
        }
    }
}
