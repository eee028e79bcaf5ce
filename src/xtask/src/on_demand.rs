//! Comparisons with other people's code, which takes minutes to build and is no part of the usual tests. A test of these that
//! cannot be run fails the command.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::{
    command::{cargo, step, target_directory, workspace},
    image,
    packages::{Package, library, need, program},
    qemu, steps,
};

const OPENSSL: [Package; 3] =
    [program("gcc", "gcc"), program("pkg-config", "pkg-config"), library("libssl-dev", "openssl")];

/// `cargo xtask image --oracle`: AWS's own crate reads and writes the production image.
pub(crate) fn oracle() -> Result<()> {
    need(&OPENSSL)?;
    image::command(&[])?;
    let manifest = workspace().join("src/eif/tests/oracle/Cargo.toml");
    let mut build = cargo(["build", "--locked", "--manifest-path"]);
    build.arg(manifest).env("CARGO_TARGET_DIR", target_directory().join("oracle"));
    step("build AWS's reader and writer of images (once, six minutes of CPU time)", &mut build)?;
    step("compare with AWS's reader and writer", &mut steps::ignored_tests("aws")?)
}

/// `cargo xtask vm --nitro-enclave`: QEMU's own emulation of Nitro Enclaves boots the production image.
pub(crate) fn nitro_enclave(options: &[String]) -> Result<()> {
    let qemu = match options {
        [] => qemu::nitro_enclave()?,
        [option, path] if option == "--qemu" => given(Path::new(path))?,
        _ => bail!("`cargo xtask vm --nitro-enclave` takes --qemu PATH or nothing"),
    };
    steps::build()?;
    image::command(&[])?;
    qemu::command(&[])?;
    let mut tests = steps::ignored_tests("nitro_enclave")?;
    step("boot the image in QEMU's nitro-enclave", tests.env("NITRO_SIGN_NITRO_ENCLAVE", qemu))
}

fn given(qemu: &Path) -> Result<PathBuf> {
    let qemu = std::path::absolute(qemu)?;
    qemu::has_nitro_enclave(&qemu)?;
    Ok(qemu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qemu_without_the_machine_is_refused_before_anything_is_built() {
        for (path, problem) in
            [("/nonexistent/qemu", "cannot start"), ("/bin/true", "no machine nitro-enclave")]
        {
            let error = nitro_enclave(&["--qemu".to_owned(), path.to_owned()]).unwrap_err();
            assert!(format!("{error:#}").contains(problem), "{error:#}");
        }
    }

    #[test]
    fn unknown_options_are_refused() {
        let error = nitro_enclave(&["--fast".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("takes --qemu PATH"), "{error}");
    }
}
