use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

/// The emulated NSM exists only in builds with these features.
const DEVELOPMENT_FEATURES: &str = "enclave/software-nsm,sign-service/software-nsm";
const ENCLAVE_TARGET: &str = "x86_64-unknown-linux-musl";
const CARGO_DENY: (&str, &str) = ("cargo-deny", "0.20.2");
const CARGO_NEXTEST: (&str, &str) = ("cargo-nextest", "0.9.143");

pub(crate) fn demo(options: &[String]) -> Result<()> {
    build()?;
    let mut demo = Command::new(target_directory().join("debug/demo"));
    // Its own messages say what went wrong.
    if demo.args(options).status().context("cannot start the demo")?.success() {
        return Ok(());
    }
    bail!("the demo failed")
}

pub(crate) fn build() -> Result<()> {
    step(
        "build the programs (with the software NSM)",
        cargo(["build", "--workspace", "--bins", "--features", DEVELOPMENT_FEATURES]),
    )
}

pub(crate) fn release() -> Result<()> {
    need_c_compiler()?;
    step("add the static target", Command::new("rustup").args(["target", "add", ENCLAVE_TARGET]))?;
    let mut build = cargo(["build", "--release", "--target", ENCLAVE_TARGET, "-p", "enclave", "-p", "sign-service"]);
    if !on_path("musl-gcc") {
        // The C code of aws-lc is freestanding enough for glibc's headers.
        build.env("CC_x86_64_unknown_linux_musl", "gcc");
    }
    step("build the enclave's programs as they are deployed", &mut build)
}

pub(crate) fn test(filter: Option<&str>) -> Result<()> {
    let nextest = tool(CARGO_NEXTEST)?;
    if filter.is_none() {
        step("format", cargo(["fmt", "--all", "--check"]))?;
        step(
            "lints",
            cargo(["clippy", "--workspace", "--all-targets", "--features", DEVELOPMENT_FEATURES, "--", "-D", "warnings"]),
        )?;
        let deny = tool(CARGO_DENY)?;
        step("dependencies", Command::new(deny).args(["--offline", "check", "bans", "licenses", "sources"]))?;
    }
    build()?;
    release()?;
    let mut tests = Command::new(nextest);
    tests.args(["nextest", "run", "--workspace", "--features", DEVELOPMENT_FEATURES]).args(filter);
    step("tests", &mut tests)
}

pub(crate) fn advisories() -> Result<()> {
    step("advisories", Command::new(tool(CARGO_DENY)?).args(["check", "advisories"]))
}

/// Says what is done, does it, says how long it took.
fn step(what: &str, mut command: impl std::borrow::BorrowMut<Command>) -> Result<()> {
    let command = command.borrow_mut();
    eprintln!("==> {what}");
    let start = Instant::now();
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .current_dir(workspace())
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {program}; is it installed and on PATH?"))?;
    if !status.success() {
        bail!("{what}: failed ({status})");
    }
    eprintln!("==> {what}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

/// A cargo subcommand: the one on PATH, or one built into `target/tools` the first time.
fn tool((name, version): (&str, &str)) -> Result<PathBuf> {
    if on_path(name) {
        return Ok(name.into());
    }
    let tools = target_directory().join("tools");
    let installed = tools.join("bin").join(name);
    if !installed.is_file() {
        let mut install = cargo(["install", "--locked", "--version", version, name, "--root"]);
        install.arg(&tools).env("CARGO_TARGET_DIR", tools.join("build"));
        step(&format!("build {name} {version} (once, a few minutes)"), &mut install)?;
    }
    Ok(installed)
}

fn need_c_compiler() -> Result<()> {
    if on_path("cc") {
        return Ok(());
    }
    bail!("no C compiler: aws-lc is written in C. Install one, on Debian: apt-get install gcc musl-tools")
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

fn workspace() -> &'static Path {
    // src/xtask, two levels below the workspace.
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}
