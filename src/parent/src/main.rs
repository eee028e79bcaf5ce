//! `parent`: the daemon on the parent EC2 instance.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use parent::{backend, config::Config};
use tokio::signal::unix::{SignalKind, signal};

/// Launches the signing enclave, verifies it, and bridges clients to it.
///
/// docs/parent.example.toml shows every key of the configuration.
#[derive(Debug, Parser)]
#[command(name = "parent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one enclave until SIGTERM or SIGINT, or until it fails.
    ///
    /// Exit codes: 0 stopped, 1 the configuration or the runtime directory is unusable, 2 failed for a reason that
    /// stays (denied, corrupt, mismatch), 3 failed for a reason that may pass. <runtime_dir>/status.json says more.
    Run(ConfigFile),
    /// Print PCR0, PCR1 and PCR2 of the configured image as JSON.
    Measure(ConfigFile),
    /// Check the configuration, and that the files it names are there.
    Check(ConfigFile),
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration.
    #[arg(long, value_name = "parent.toml")]
    config: PathBuf,
}

impl ConfigFile {
    fn load(&self) -> Result<Config> {
        Ok(Config::load(&self.config)?)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    telemetry::init("parent");
    let result = match Cli::parse().command {
        Command::Run(file) => Box::pin(run(&file)).await,
        Command::Measure(file) => measure(&file),
        Command::Check(file) => check(&file),
    };
    result.unwrap_or_else(|error| {
        eprintln!("parent: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run(file: &ConfigFile) -> Result<ExitCode> {
    let config = file.load()?;
    let backend = backend::of(&config);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let outcome = Box::pin(parent::run(config, backend, stop)).await?;
    Ok(outcome.exit_code().into())
}

fn measure(file: &ConfigFile) -> Result<ExitCode> {
    let measured = backend::of(&file.load()?).measure()?;
    println!("{}", serde_json::to_string_pretty(&measured)?);
    Ok(ExitCode::SUCCESS)
}

fn check(file: &ConfigFile) -> Result<ExitCode> {
    let config = file.load()?;
    for (key, path) in config.files() {
        std::fs::File::open(path).with_context(|| format!("`{key}`: cannot open {}", path.display()))?;
    }
    config.trust_root()?;
    println!("{}: ok", file.config.display());
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_check_names_the_key_of_a_file_that_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("parent.toml");
        std::fs::write(&config, include_str!("../../../docs/parent.example.toml")).unwrap();
        let error = check(&ConfigFile { config }).unwrap_err();
        assert!(format!("{error:#}").contains("`enclave.process.enclave`"), "{error:#}");
    }
}
