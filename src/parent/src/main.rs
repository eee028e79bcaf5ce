//! `parent`: the daemon on the parent EC2 instance.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use attestation::Measurements;
use clap::{Args, Parser, Subcommand};
use parent::{JournalConfig, backend, config::Config, exit};
use tokio::signal::unix::{SignalKind, signal};

/// Launches the signing enclave, verifies it, and bridges clients to it.
///
/// docs/parent.example.toml shows every key of the configuration.
#[derive(Debug, Parser)]
#[command(name = "parent", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
   0  done, or stopped when told to
   1  something that has no code of its own
  64  the command line is wrong
  75  failed for a reason that may pass: another run may help
  77  failed for a reason that stays: denied, corrupt, not the pinned image, not verified; not to be restarted
  78  the configuration is refused, or cannot work on this machine; not to be restarted
`run` writes the reason to <runtime_dir>/status.json.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one enclave until SIGTERM or SIGINT, or until it fails.
    #[command(after_help = EXIT_CODES)]
    Run(ConfigFile),
    /// Print PCR0, PCR1 and PCR2 of the configured image as JSON.
    Measure(ConfigFile),
    /// Check the configured image, and print its PCRs as `measure` does.
    ///
    /// Its PCR0 has to be `enclave.pcr0` (77 otherwise), and the enclave needs memory for it, and the processor that it is
    /// for (78). Of the files that the configuration names, only the image is read, and nothing of this machine matters:
    /// a build can check what another machine is to launch.
    #[command(after_help = EXIT_CODES)]
    CheckImage(ConfigFile),
    /// Check the configuration, and that the files it names are there.
    Check(ConfigFile),
    /// Send this machine's journal to CloudWatch Logs until SIGTERM or SIGINT, or until it fails.
    ///
    /// docs/journal.example.toml shows every key of the configuration.
    #[command(after_help = EXIT_CODES)]
    ShipJournal(JournalFile),
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration.
    #[arg(long, value_name = "parent.toml")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct JournalFile {
    /// The configuration.
    #[arg(long, value_name = "journal.toml")]
    config: PathBuf,
}

impl ConfigFile {
    fn load(&self) -> Result<Config> {
        Ok(Config::load(&self.config)?)
    }
}

fn main() -> ExitCode {
    telemetry::init("parent");
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        // What was asked for, such as --help, is no error.
        let code = if error.use_stderr() { exit::USAGE } else { exit::STOPPED };
        // Nobody to print to is no reason for another code.
        let _ = error.print();
        std::process::exit(code.into())
    });
    let result = match cli.command {
        Command::Run(file) => on_runtime(run(&file)),
        Command::Measure(file) => measure(&file),
        Command::CheckImage(file) => check_image(&file),
        Command::Check(file) => check(&file),
        Command::ShipJournal(file) => on_runtime(ship_journal(&file)),
    };
    result.unwrap_or_else(|error| {
        eprintln!("parent: {}", telemetry::redact(&format!("{error:#}")));
        exit::of_error(&*error).into()
    })
}

/// The work is the runtime's main task, and its end is the process's: a thread that waits for the hypervisor holds up nobody.
fn on_runtime(work: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
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

async fn ship_journal(file: &JournalFile) -> Result<ExitCode> {
    parent::ship_journal(JournalConfig::load(&file.config)?).await?;
    Ok(exit::STOPPED.into())
}

fn measure(file: &ConfigFile) -> Result<ExitCode> {
    print(&backend::of(&file.load()?).measure()?)
}

fn check_image(file: &ConfigFile) -> Result<ExitCode> {
    let config = file.load()?;
    print(&parent::check_image(&*backend::of(&config), &config.enclave.pcr0)?)
}

fn print(measured: &Measurements) -> Result<ExitCode> {
    println!("{}", serde_json::to_string_pretty(measured)?);
    Ok(ExitCode::SUCCESS)
}

fn check(file: &ConfigFile) -> Result<ExitCode> {
    let config = file.load()?;
    config.check_files()?;
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
