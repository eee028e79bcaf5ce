//! Is the image the same when it is built elsewhere?

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result};

use super::{FILES, build, compare, eif_build};
use crate::{
    command::{cargo, output, sha256, step, target_directory, workspace},
    kernel,
    programs::cargo_home,
    steps,
};

/// `cargo xtask image --check`: builds the image here, then all of it again from nothing, kernel included, in a copy of the
/// source tree, as somebody would who cloned the repository: another directory, another target directory, another
/// `CARGO_HOME`. Only downloads are shared.
pub(super) fn from_another_directory() -> Result<()> {
    let here = target_directory().join("image");
    let start = Instant::now();
    steps::build_one("eif")?;
    build(&workspace().join("nix/enclave.toml"), &here)?;
    let duration_here = start.elapsed();

    let copy = target_directory().join("image-check/another-directory-with-a-longer-name");
    let start = Instant::now();
    copy_sources(&copy)?;
    let target = copy.join("target");
    kernel::copy_source(&target)?;
    let mut again = cargo(["run", "--quiet", "--package", "xtask", "--", "image"]);
    again.current_dir(&copy).env("CARGO_TARGET_DIR", &target).env("CARGO_HOME", cargo_home_in(&target)?);
    step("build the image again, from nothing", &mut again)?;
    let duration_again = start.elapsed();

    let there = target.join("image");
    show(&here, &there)?;
    compare(&here, &there)?;
    fs::remove_dir_all(&copy).with_context(|| format!("cannot remove {}", copy.display()))?;
    println!(
        "the same bytes from two directories: here in {:.0} s with what was there before, again from nothing in {:.0} s",
        duration_here.as_secs_f64(),
        duration_again.as_secs_f64()
    );
    Ok(())
}

/// What costs a second: puts an image's parts together once more, in another directory, from copies made now.
pub(super) fn from_a_copy(image: &Path) -> Result<()> {
    let copy = target_directory().join("image-check/parts-in-another-directory");
    let inputs = copy.join("inputs");
    fs::create_dir_all(&inputs).with_context(|| format!("cannot make {}", inputs.display()))?;
    for part in fs::read_dir(image.join("inputs"))? {
        let part = part?;
        fs::copy(part.path(), inputs.join(part.file_name()))?;
    }
    step("put the image together in another directory", &mut eif_build(&copy)?)?;
    compare(image, &copy)?;
    fs::remove_dir_all(&copy).with_context(|| format!("cannot remove {}", copy.display()))
}

/// Copies every file that is committed or could be.
fn copy_sources(to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
    let mut list = Command::new("git");
    list.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    for name in output(&mut list)?.split_terminator('\0') {
        let (from, to) = (workspace().join(name), to.join(name));
        // Git also lists what was committed and has been removed since.
        if !from.is_file() {
            continue;
        }
        if let Some(directory) = to.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

/// The same downloads and settings under another path. Crates are unpacked anew: files have other times there.
fn cargo_home_in(target: &Path) -> Result<PathBuf> {
    let home = cargo_home().context("neither CARGO_HOME nor HOME is set")?;
    let copy = target.join("cargo-home");
    link_all(&home, &copy, "registry")?;
    link_all(&home.join("registry"), &copy.join("registry"), "src")?;
    Ok(copy)
}

/// Links to everything in a directory but one.
fn link_all(from: &Path, to: &Path, but: &str) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        if entry.file_name() != but {
            symlink(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Prints the hashes of both images and their parts, and the PCRs.
fn show(one: &Path, other: &Path) -> Result<()> {
    let parts = ["inputs/bzImage", "inputs/enclave", "inputs/sign-service", "inputs/enclave.toml"];
    for name in parts.iter().chain(&FILES) {
        let hashes = sha256(&[&one.join(name), &other.join(name)])?;
        let verdict = if hashes[0] == hashes[1] { "same" } else { "DIFFERENT" };
        println!("{verdict}  {}  {name}", hashes.join("  "));
    }
    print!("{}", fs::read_to_string(one.join("pcrs.json"))?);
    Ok(())
}
