//! `nitro-sign`: the operator's tool. Exit codes: 0 done, 1 refused or failed, 2 usage; of `pcr` 0 same, 1 different,
//! 2 trouble.

use std::{alloc::System, process::ExitCode};

use anyhow::Context as _;
use clap::Parser as _;
use nix::sys::prctl;

/// Wipes all heap memory as it is freed: the AWS SDK, HTTP and TLS copy what they send, and so the age identity.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<System> = zeroizing_alloc::ZeroAlloc(System);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = match cli::Cli::try_parse() {
        Ok(arguments) => arguments,
        // Not in clap's own way: it would repeat a secret key that was given by mistake.
        Err(error) if error.use_stderr() => {
            cli::say(error.render().to_string().trim_end());
            return ExitCode::from(2);
        }
        Err(help) => help.exit(),
    };
    match protect_and_run(arguments).await {
        Ok(code) => code,
        Err(error) => {
            cli::say(format_args!("nitro-sign: {error:#}"));
            ExitCode::from(if error.is::<cli::Usage>() { 2 } else { 1 })
        }
    }
}

async fn protect_and_run(arguments: cli::Cli) -> anyhow::Result<ExitCode> {
    // No core dumps: they would put the identity and the shares on disk.
    prctl::set_dumpable(false).context("cannot turn core dumps off")?;
    cli::run(arguments).await
}
