//! `gateway --config gateway.toml`: the reference Sign Gateway. See the library for what it does.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser;
use gateway::{Gateway, config::Config};
use tokio::signal::unix::{SignalKind, signal};

/// The reference Sign Gateway: verifies signing nodes by attestation and signs with them over HTTP.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file; docs/gateway.example.toml describes every key.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    telemetry::init("gateway");
    match run(&arguments.config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: &Path) -> anyhow::Result<()> {
    // Before anything is announced, so that a signal right after it already drains.
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let gateway = Gateway::start(Config::load(config)?).await?;
    announce(&serde_json::json!({"address": gateway.address()}))?;
    gateway
        .serve(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("draining");
        })
        .await
        .context("the HTTP API failed")
}

/// Tells whoever started this program, in one line, that it is ready.
fn announce(line: &serde_json::Value) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("cannot write to standard output")
}
