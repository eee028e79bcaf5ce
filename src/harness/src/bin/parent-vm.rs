//! The demo in a machine that plays the parent instance: see `harness::parent_vm`.

use std::{
    path::PathBuf,
    process::{ExitCode, Stdio},
};

use anyhow::{Result, ensure};
use clap::Parser;
use harness::parent_vm::ParentVm;

/// Boot a machine that plays the parent instance, run the demo in it, and exit with the demo's status.
#[derive(Parser)]
#[command(name = "cargo xtask vm --parent")]
struct Arguments {
    /// The directory with `vm-parent/bzImage` and `qemu/`; the report goes to `vm-parent/report.json`.
    #[arg(long)]
    target: PathBuf,
    /// The demo's options.
    #[arg(last = true)]
    options: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let Arguments { target, options } = Arguments::parse();
    ensure!(
        !options.iter().any(|option| option == "--keep"),
        "nobody outside can reach the machine, so there is nothing to keep it for; leave --keep out"
    );
    let machine = ParentVm::in_target(&target)?;
    let status = machine.run(&target.join("vm-parent"), &options, Stdio::inherit())?;
    Ok(ExitCode::from(status))
}
