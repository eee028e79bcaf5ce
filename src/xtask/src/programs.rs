//! The programs that run inside the enclave: static, and the same bytes from whichever directory they are built in.
//!
//! `[profile.release]` in `Cargo.toml` has what every builder shares (one codegen unit, abort on panic, no symbols). Here is
//! what a build outside a sandbox needs on top: paths that end up in panic messages are mapped to fixed names, variables
//! that change compilers or flags are taken away, and the linker is the toolchain's own, so that the bytes follow
//! `rust-toolchain.toml` and, for aws-lc's C code, the machine's `gcc`.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    command::{cargo, output, step, target_directory, workspace},
    packages::{Package, need, program},
};

pub(crate) const TARGET: &str = "x86_64-unknown-linux-musl";
const PACKAGES: [Package; 2] = [program("gcc", "gcc"), program("musl-tools", "musl-gcc")];

/// Builds `enclave` and `sign-service` as they are deployed and returns the directory they are in.
pub(crate) fn build() -> Result<PathBuf> {
    need(&PACKAGES)?;
    let sysroot = PathBuf::from(output(Command::new("rustc").args(["--print", "sysroot"]))?);
    if !sysroot.join("lib/rustlib").join(TARGET).is_dir() {
        step("add the static target", Command::new("rustup").args(["target", "add", TARGET]))?;
    }
    // What the flags name has to be there first.
    step("fetch the dependencies", cargo(["fetch", "--locked", "--target", TARGET]))?;

    let mut build = cargo(["build", "--locked", "--release", "--target", TARGET]);
    build.args(["-p", "enclave", "-p", "sign-service"]);
    build.arg("--config").arg(format!("target.{TARGET}.linker = 'rust-lld'"));
    build.arg("--config").arg(format!("target.{TARGET}.rustflags = {:?}", flags(&sysroot)?));
    for (variable, _) in std::env::vars_os() {
        if variable.to_str().is_some_and(changes_programs) {
            build.env_remove(variable);
        }
    }
    build.env("CC_x86_64_unknown_linux_musl", "musl-gcc");
    step("build the enclave's programs as they are deployed", &mut build)?;
    Ok(target_directory().join(TARGET).join("release"))
}

/// Does this variable of the environment change what compilers produce?
fn changes_programs(variable: &str) -> bool {
    const NAMES: [&str; 8] = [
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CPPFLAGS",
        "LDFLAGS",
        "RUSTC_BOOTSTRAP",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTFLAGS",
    ];
    const PREFIXES: [&str; 7] =
        ["AWS_LC_", "CARGO_PROFILE_", "CARGO_TARGET_X86_64_", "CC_", "CFLAGS", "CRATE_CC_", "TARGET_"];
    NAMES.contains(&variable) || PREFIXES.iter().any(|prefix| variable.starts_with(prefix))
}

/// For rustc. Of two maps that fit a path, the later one is used.
fn flags(sysroot: &Path) -> Result<Vec<String>> {
    let mut maps = vec![(workspace().to_owned(), "/nitro-sign".to_owned())];
    maps.push((target_directory(), "/target".to_owned()));
    for registry in registries()? {
        maps.push((registry, "/dependencies".to_owned()));
    }
    // With the component rust-src rustc writes its path, otherwise this name, for the standard library's sources.
    maps.push((sysroot.join("lib/rustlib/src/rust"), format!("/rustc/{}", rustc_commit()?)));

    let mut flags = vec!["-Clink-arg=--build-id=none".to_owned()];
    for (from, to) in maps {
        let from = from.to_str().with_context(|| format!("{}: not UTF-8", from.display()))?;
        flags.push(format!("--remap-path-prefix={from}={to}"));
    }
    Ok(flags)
}

/// The directories in which cargo keeps the sources of dependencies; their names depend on the machine's mirror.
fn registries() -> Result<Vec<PathBuf>> {
    let home = cargo_home().context("neither CARGO_HOME nor HOME is set")?;
    let sources = home.join("registry/src");
    let entries = fs::read_dir(&sources).with_context(|| format!("cannot read {}", sources.display()))?;
    let mut found = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    found.sort();
    Ok(found)
}

pub(crate) fn cargo_home() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
    variable("CARGO_HOME").map(PathBuf::from).or_else(|| Some(Path::new(&variable("HOME")?).join(".cargo")))
}

fn rustc_commit() -> Result<String> {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: "));
    Ok(commit.context("`rustc -vV` names no commit-hash")?.to_owned())
}

/// The compilers that the bytes depend on.
pub(crate) fn compilers() -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("rustc", output(Command::new("rustc").arg("--version"))?),
        ("gcc", first_line("gcc")?),
        ("ld", first_line("ld")?),
    ])
}

/// What `program --version` says first.
fn first_line(program: &str) -> Result<String> {
    let version = output(Command::new(program).arg("--version"))?;
    Ok(version.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_the_environment_are_taken_away_and_nothing_else() {
        for variable in
            ["RUSTFLAGS", "CFLAGS", "CFLAGS_x86_64-unknown-linux-musl", "CARGO_PROFILE_RELEASE_LTO"]
        {
            assert!(changes_programs(variable), "{variable}");
        }
        for variable in ["PATH", "CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_BUILD_JOBS", "RUSTUP_TOOLCHAIN"] {
            assert!(!changes_programs(variable), "{variable}");
        }
    }

    #[test]
    fn the_more_special_path_is_mapped_later() {
        let flags = flags(Path::new("/sysroot")).unwrap();
        let position = |name: &str| flags.iter().position(|flag| flag.ends_with(name)).unwrap();
        assert!(position("=/nitro-sign") < position("=/target"));
        assert!(position("=/target") < position("=/dependencies"));
    }
}
