use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{
    command::{Tool, cargo, step, target_directory, tool},
    image, parent_vm, programs, qemu, space,
};

/// The emulated NSM exists only in builds with these features.
const DEVELOPMENT_FEATURES: &str = "enclave/software-nsm,sign-service/software-nsm";
/// What `target/` takes after `cargo xtask test`, in 10⁹ bytes.
const TEST_GB: u64 = 8;
const CARGO_DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2", profile: "dev" };
const CARGO_NEXTEST: Tool = Tool { name: "cargo-nextest", version: "0.9.143", profile: "dev" };

pub(crate) fn demo(options: &[String]) -> Result<()> {
    build()?;
    run_demo(Command::new(target_directory().join("debug/demo")).args(options))
}

/// The demo with the enclave's image in QEMU: ours, or the one that `--eif` names.
pub(crate) fn vm(options: &[String]) -> Result<()> {
    build()?;
    if !options.iter().any(|option| option == "--eif" || option.starts_with("--eif=")) {
        image::command(&[])?;
    }
    qemu::command(&[])?;
    let target = target_directory();
    let mut demo = Command::new(target.join("debug/demo"));
    run_demo(demo.arg("--qemu").arg(&target).arg("--out").arg(target.join("vm")).args(options))
}

fn run_demo(demo: &mut Command) -> Result<()> {
    // Its own messages say what went wrong.
    if demo.status().context("cannot start the demo")?.success() {
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

/// The same programs and their tests: in one build, as what the tests depend on gives other features to crates that the
/// programs depend on, and these would be compiled twice.
fn build_with_tests() -> Result<()> {
    let mut build = cargo(["build", "--workspace", "--bins", "--tests"]);
    step(
        "build the programs (with the software NSM) and the tests",
        build.args(["--features", DEVELOPMENT_FEATURES]),
    )
}

/// One program of `build`, out of the same build: the whole workspace decides the features of what it is made of.
pub(crate) fn build_one(program: &str) -> Result<()> {
    step(
        &format!("build {program}"),
        cargo(["build", "--workspace", "--bin", program, "--features", DEVELOPMENT_FEATURES]),
    )
}

pub(crate) fn release() -> Result<()> {
    programs::build().map(drop)
}

pub(crate) fn test(filter: Option<&str>) -> Result<()> {
    space::need(TEST_GB)?;
    let nextest = tool(CARGO_NEXTEST)?;
    if filter.is_none() {
        step("format", cargo(["fmt", "--all", "--check"]))?;
        step(
            "lints",
            cargo([
                "clippy",
                "--workspace",
                "--all-targets",
                "--features",
                DEVELOPMENT_FEATURES,
                "--",
                "-D",
                "warnings",
            ]),
        )?;
        let deny = tool(CARGO_DENY)?;
        step("dependencies", Command::new(deny).args(["check", "bans", "licenses", "sources"]))?;
    }
    build_with_tests()?;
    image::build_and_repeat()?;
    qemu::command(&[])?;
    parent_vm::prepare()?;
    let mut tests = Command::new(nextest);
    tests.args(["nextest", "run", "--workspace", "--features", DEVELOPMENT_FEATURES]).args(filter);
    step("tests", &mut tests)
}

/// The tests of one file that `test` leaves out.
pub(crate) fn ignored_tests(file: &str) -> Result<Command> {
    let mut tests = Command::new(tool(CARGO_NEXTEST)?);
    tests.args(["nextest", "run", "--workspace", "--features", DEVELOPMENT_FEATURES]);
    tests.args(["--test", file, "--run-ignored", "only"]);
    Ok(tests)
}

pub(crate) fn advisories() -> Result<()> {
    step("advisories", Command::new(tool(CARGO_DENY)?).args(["check", "advisories"]))
}
