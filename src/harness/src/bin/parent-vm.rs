//! The demo or a story in a machine that plays the parent instance: see `harness::parent_vm`.

use std::{
    path::PathBuf,
    process::{ExitCode, Stdio},
};

use anyhow::{Result, ensure};
use clap::Parser;
use harness::parent_vm::ParentVm;

/// Boot a machine that plays the parent instance, run the demo or a story in it, and exit with its status.
#[derive(Parser)]
#[command(name = "cargo xtask vm --parent")]
struct Arguments {
    /// The directory with `vm-parent/bzImage` and `qemu/`; the report goes to `vm-parent/report.json`.
    #[arg(long)]
    target: PathBuf,
    /// The story to play instead of the demo, and the directory it is in.
    #[arg(long, requires = "stories", conflicts_with = "options")]
    story: Option<String>,
    #[arg(long, requires = "story")]
    stories: Option<PathBuf>,
    /// The demo's options.
    #[arg(last = true)]
    options: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let Arguments { target, story, stories, options } = Arguments::parse();
    ensure!(
        !options.iter().any(|option| option == "--keep"),
        "nobody outside can reach the machine, so there is nothing to keep it for; leave --keep out"
    );
    let machine = ParentVm::in_target(&target)?;
    let status = match (story, stories) {
        (Some(story), Some(stories)) => {
            machine.play(&target.join("vm-stories").join(&story), &stories, &story, Stdio::inherit())?
        }
        _ => machine.run(&target.join("vm-parent"), &options, Stdio::inherit())?,
    };
    Ok(ExitCode::from(status))
}
