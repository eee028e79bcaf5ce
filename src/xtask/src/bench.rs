//! `cargo xtask bench`: measurements. No time fails anything.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    command::{cargo, step, target_directory},
    image, kernel, qemu, steps,
};

/// `cargo xtask bench image`: the image's size, its boot in QEMU, and its build. The harness's `bench-image` does the rest.
pub(crate) fn command(options: &[String]) -> Result<()> {
    let Some(("image", options)) = options.split_first().map(|(what, options)| (what.as_str(), options))
    else {
        bail!("`cargo xtask bench` measures `image`");
    };
    let cold = options.iter().any(|option| option == "--cold");
    let others = options.iter().filter(|option| *option != "--cold");

    steps::build()?;
    image::command(&[])?;
    qemu::command(&[])?;
    let target = target_directory();
    let mut bench = Command::new(target.join("debug/bench-image"));
    bench.arg("--target").arg(&target).args(others);
    // Everything is there now.
    let warm = timed(|| image::command(&[]))?;
    bench.arg("--built-warm").arg(warm.as_secs_f64().to_string());
    if cold {
        let cold = from_nothing(&target.join("bench/from-nothing"))?;
        bench.arg("--built-cold").arg(cold.as_secs_f64().to_string());
    }
    if bench.status().context("cannot start bench-image")?.success() {
        return Ok(());
    }
    bail!("the measurement failed")
}

/// The whole image, the kernel included, in an empty target directory. Only downloads are there already.
fn from_nothing(directory: &Path) -> Result<Duration> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    kernel::copy_source(directory)?;
    let mut build = cargo(["run", "--quiet", "--package", "xtask", "--", "image"]);
    build.env("CARGO_TARGET_DIR", directory);
    let took = timed(|| step("build the image from nothing", &mut build))?;
    fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    Ok(took)
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_measured_is_refused() {
        for options in [&[][..], &["--cold".to_owned()], &["signing".to_owned()]] {
            assert!(command(options).unwrap_err().to_string().contains("measures `image`"), "{options:?}");
        }
    }
}
