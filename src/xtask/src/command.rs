//! Running other programs.

use std::{
    borrow::BorrowMut,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

/// Says what is done, does it in the workspace (or where the command says), says how long it took.
pub(crate) fn step(what: &str, mut command: impl BorrowMut<Command>) -> Result<()> {
    eprintln!("==> {what}");
    let start = Instant::now();
    run(command.borrow_mut()).with_context(|| format!("{what}: failed"))?;
    eprintln!("==> {what}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Runs a program to its end, with this program's output.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = prepared(command).status().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!("{} ended with {status}", name(command));
    }
    Ok(())
}

/// Runs a program to its end and returns what it writes to standard output, without the last newline.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = prepared(command).stderr(Stdio::piped()).output().with_context(|| cannot_start(command))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}:\n{}", name(command), output.status, words.trim_end());
    }
    let text = String::from_utf8(output.stdout).with_context(|| format!("{}'s output", name(command)))?;
    Ok(text.trim_end().to_owned())
}

fn prepared(command: &mut Command) -> &mut Command {
    if command.get_current_dir().is_none() {
        command.current_dir(workspace());
    }
    command.stdin(Stdio::null())
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start {}; is it installed and on PATH?", name(command))
}

/// The cargo that runs this program.
pub(crate) fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

/// A program from crates.io.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// `release`, or `dev` for one that does little itself: that is built sooner.
    pub(crate) profile: &'static str,
}

/// The program on PATH, or one built into `target/tools` the first time.
pub(crate) fn tool(Tool { name, version, profile }: Tool) -> Result<PathBuf> {
    if let Some(found) = on_path(name) {
        return Ok(found);
    }
    let tools = target_directory().join("tools");
    let installed = tools.join("bin").join(name);
    if !installed.is_file() {
        let mut install = cargo(["install", "--locked", "--profile", profile, "--version", version, name]);
        install.arg("--root").arg(&tools).env("CARGO_TARGET_DIR", tools.join("build"));
        install.env("CARGO_PROFILE_DEV_DEBUG", "false");
        step(&format!("build {name} {version} (once, a few minutes)"), &mut install)?;
    }
    Ok(installed)
}

/// Where PATH has a program.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// SHA-256 of files, in hex, in their order.
pub(crate) fn sha256(files: &[&Path]) -> Result<Vec<String>> {
    let lines = output(Command::new("sha256sum").args(files))?;
    Ok(lines.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect())
}

/// The folder of the root `Cargo.toml`.
pub(crate) fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    // src/xtask, two levels below.
    own.ancestors().nth(2).unwrap_or(own)
}

pub(crate) fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}
