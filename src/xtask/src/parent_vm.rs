//! `cargo xtask vm --parent`: a machine in QEMU plays the parent instance. What happens in it is the harness's `parent-vm`.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{command::target_directory, kernel, qemu, steps};

/// Builds what is missing, and runs the demo in the machine.
pub(crate) fn run(options: &[String]) -> Result<()> {
    steps::build()?;
    prepare()?;
    let target = target_directory();
    let mut machine = Command::new(target.join("debug/parent-vm"));
    machine.arg("--target").arg(&target).arg("--").args(options);
    if machine.status().context("cannot start parent-vm")?.success() {
        return Ok(());
    }
    bail!("the demo in the parent's machine failed")
}

/// The machine's kernel, at `target/vm-parent/bzImage`, and QEMU.
pub(crate) fn prepare() -> Result<PathBuf> {
    let built = kernel::build(kernel::PARENT_VM)?;
    qemu::obtain()?;
    let directory = target_directory().join("vm-parent");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let copy = directory.join("bzImage");
    fs::copy(&built.image, &copy).with_context(|| format!("cannot make {}", copy.display()))?;
    Ok(copy)
}
