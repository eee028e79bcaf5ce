//! The enclave image, under `target/image/` (or `--out DIR`):
//!
//! ```text
//! image.eif          the image
//! pcrs.json          PCR0, PCR1 and PCR2
//! provenance.json    hashes of image and inputs, which PCR covers which, the compilers
//! inputs/            what it is made of: bzImage, enclave, sign-service, enclave.toml; kernel.config and
//!                    kernel.version to look at
//! inputs/arguments   arguments of `eif build`, one a line; files are relative to the directory above `inputs/`
//! ```
//!
//! Another image in two seconds, for tests: run `eif build` in that directory with the lines of `inputs/arguments`,
//! `--out` and, for another configuration, another file in the place of `inputs/enclave.toml`.

mod check;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    command::{step, target_directory, workspace},
    kernel, programs, steps,
};

const FILES: [&str; 3] = ["image.eif", "pcrs.json", "provenance.json"];

/// `cargo xtask image`
pub(crate) fn command(options: &[String]) -> Result<()> {
    let mut config = workspace().join("nix/enclave.toml");
    let mut out = target_directory().join("image");
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match (option.as_str(), options.len()) {
            ("--check", 0) => return check::from_another_directory(),
            ("--config", 1..) => config = absolute(options.next())?,
            ("--out", 1..) => out = absolute(options.next())?,
            _ => bail!(
                "`cargo xtask image` takes --config FILE and --out DIR, or --check alone; not {option:?}"
            ),
        }
    }
    steps::build_one("eif")?;
    build(&config, &out)
}

fn absolute(path: Option<&String>) -> Result<PathBuf> {
    Ok(std::path::absolute(path.context("the last option has no value")?)?)
}

/// The production image, and once more from a copy of its parts, by the program `eif` that is there.
pub(crate) fn build_and_repeat() -> Result<()> {
    let image = target_directory().join("image");
    build(&workspace().join("nix/enclave.toml"), &image)?;
    check::from_a_copy(&image)
}

/// Builds everything that is not there yet but the program `eif`, and puts it together in `out`.
fn build(config: &Path, out: &Path) -> Result<()> {
    let programs = programs::build()?;
    let kernel = kernel::build(kernel::ENCLAVE)?;

    let inputs = out.join("inputs");
    fs::create_dir_all(&inputs).with_context(|| format!("cannot make {}", inputs.display()))?;
    for (file, name) in [
        (&*kernel.image, "bzImage"),
        (&*kernel.config, "kernel.config"),
        (&*programs.join("enclave"), "enclave"),
        (&*programs.join("sign-service"), "sign-service"),
        (config, "enclave.toml"),
    ] {
        fs::copy(file, inputs.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    fs::write(inputs.join("kernel.version"), format!("{}\n", kernel.version))?;
    fs::write(inputs.join("arguments"), arguments(&kernel)?)?;
    step("put the image together", &mut eif_build(out)?)?;

    let size = fs::metadata(out.join("image.eif"))?.len();
    eprintln!("==> {}: {} kB", out.join("image.eif").display(), size / 1000);
    Ok(())
}

/// The committed arguments, and those that follow from what was built.
fn arguments(kernel: &kernel::Kernel) -> Result<String> {
    let path = workspace().join("nix/image.arguments");
    let committed = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut arguments: Vec<String> = without_comments(&committed).map(str::to_owned).collect();
    arguments.push(format!("--kernel-version={}", kernel.version));
    arguments.push(format!("--built-with=kernel source={}", kernel.source));
    for (name, version) in programs::compilers()? {
        arguments.push(format!("--built-with={name}={version}"));
    }
    Ok(arguments.join("\n") + "\n")
}

fn without_comments(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// `eif build` with the arguments that are in a directory's `inputs/`, into the same directory.
fn eif_build(directory: &Path) -> Result<Command> {
    let arguments = directory.join("inputs/arguments");
    let arguments =
        fs::read_to_string(&arguments).with_context(|| format!("cannot read {}", arguments.display()))?;
    let mut eif = Command::new(std::path::absolute(target_directory().join("debug/eif"))?);
    eif.arg("build").args(arguments.lines()).args(["--out", "."]).current_dir(directory);
    Ok(eif)
}

/// Are the three files of two images the same bytes?
fn compare(one: &Path, other: &Path) -> Result<()> {
    for name in FILES {
        let read = |directory: &Path| {
            let path = directory.join(name);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        ensure!(
            read(one)? == read(other)?,
            "{name} differs between {} and {}; `inputs/` in both shows which part",
            one.display(),
            other.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_committed_argument_is_an_option() {
        let committed = fs::read_to_string(workspace().join("nix/image.arguments")).unwrap();
        for argument in without_comments(&committed) {
            assert!(argument.starts_with("--") && argument.contains('='), "{argument}");
        }
        assert_eq!(
            without_comments(&committed).filter(|line| line.starts_with("--command-line=")).count(),
            1
        );
    }

    #[test]
    fn images_that_differ_in_a_byte_are_told_apart() {
        let directory = std::env::temp_dir().join(format!("nitro-sign-compare-{}", std::process::id()));
        let (one, other) = (directory.join("one"), directory.join("other"));
        for image in [&one, &other] {
            fs::create_dir_all(image).unwrap();
            for name in FILES {
                fs::write(image.join(name), name).unwrap();
            }
        }
        compare(&one, &other).unwrap();
        fs::write(other.join("image.eif"), "image.eiF").unwrap();
        let error = compare(&one, &other).unwrap_err().to_string();
        assert!(error.contains("image.eif differs"), "{error}");
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn unknown_options_and_missing_values_are_refused() {
        for options in [&["--fast"][..], &["--config"], &["--check", "--out"], &["--out"]] {
            let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
            assert!(
                command(&options).unwrap_err().to_string().contains("takes --config FILE"),
                "{options:?}"
            );
        }
    }
}
