//! `sign-service CONFIG`: loads the key shares, serves the API, and says so on stdout with one line of JSON.
use std::{
    alloc::System,
    env,
    ffi::OsString,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, setrlimit};
use sign_service::{Config, Server};
use tokio::signal::unix::{SignalKind, signal};
use zeroizing_alloc::ZeroAlloc;

/// Wipes all memory that is given back: parsers and TLS make copies that no type of ours sees.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

const HELP: &str = "\
The signing service that runs inside the enclave.

Usage: sign-service CONFIG

  CONFIG     TOML file, written by PID 1: key_share_file, listen, nsm, configuration,
             sealed_bundle_sha384, max_sessions, session_deadline_ms
  --help     print this
  --version  print the version

Prints one line of JSON on stdout when it serves; logs JSON lines on stderr.
SIGTERM: lets active sessions end, then exits 0. Any failure: exits 1.";

fn main() -> ExitCode {
    let config = match argument(env::args_os().skip(1)) {
        Ok(Argument::Config(path)) => path,
        Ok(Argument::Print(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("sign-service: {problem}");
            return ExitCode::FAILURE;
        }
    };
    telemetry::init("sign-service");
    match serve(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

enum Argument {
    Config(PathBuf),
    Print(String),
}

fn argument(mut arguments: impl Iterator<Item = OsString>) -> Result<Argument, String> {
    let (Some(first), None) = (arguments.next(), arguments.next()) else {
        return Err("expected one argument, the configuration file; try --help".to_owned());
    };
    match first.to_str() {
        Some("--help") => Ok(Argument::Print(HELP.to_owned())),
        Some("--version") => Ok(Argument::Print(format!("sign-service {}", env!("CARGO_PKG_VERSION")))),
        Some(option) if option.starts_with('-') => Err(format!("unknown option {option}; try --help")),
        _ => Ok(Argument::Config(first.into())),
    }
}

#[tokio::main]
async fn serve(config: &Path) -> Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("cannot forbid core dumps")?;
    let config = Config::load(config)?;
    let nsm =
        attestation::open(&config.nsm).with_context(|| format!("cannot open the NSM \"{}\"", config.nsm))?;
    // Before the ready line: whoever reads it may send SIGTERM at once.
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let server = Server::start(&config, Arc::from(nsm)).await?;
    announce(&server).context("cannot write the ready line to stdout")?;
    server
        .run(async move {
            terminate.recv().await;
        })
        .await?;
    tracing::info!("stopped");
    Ok(())
}

fn announce(server: &Server) -> Result<()> {
    let ready = server.ready();
    let line = serde_json::to_string(ready)?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()?;
    tracing::info!(accounts = ready.accounts, spki_sha256 = ready.spki_sha256, "serving");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(arguments: &[&str]) -> Result<Argument, String> {
        argument(arguments.iter().map(OsString::from))
    }

    #[test]
    fn one_argument_is_the_configuration() {
        assert!(matches!(given(&["a.toml"]), Ok(Argument::Config(path)) if path == Path::new("a.toml")));
    }

    #[test]
    fn help_and_version_are_printed() {
        assert!(
            matches!(given(&["--help"]), Ok(Argument::Print(text)) if text.contains("Usage: sign-service CONFIG"))
        );
        assert!(
            matches!(given(&["--version"]), Ok(Argument::Print(text)) if text.starts_with("sign-service "))
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for arguments in [&[][..], &["a", "b"], &["--debug"], &["a.toml", "--help"]] {
            assert!(given(arguments).is_err(), "{arguments:?}");
        }
    }
}
