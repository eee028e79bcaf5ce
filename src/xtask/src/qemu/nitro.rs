//! QEMU's own emulation of Nitro Enclaves (`-M nitro-enclave`), somebody else's reader of our image: it computes PCR0, PCR1
//! and PCR2 itself. Debian builds QEMU without it, so it is built here from Debian's source: three minutes on two cores.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::write_program;
use crate::{
    apt::Apt,
    command::{output, step, target_directory},
    packages::{Package, header, library, need, program},
};

const LISTS: [(&str, &str); 2] = [("deb-src", "trixie"), ("deb", "trixie")];

const PACKAGES: [Package; 12] = [
    program("dpkg-dev", "dpkg-source"),
    program("gcc", "gcc"),
    program("make", "make"),
    program("ninja-build", "ninja"),
    program("pkg-config", "pkg-config"),
    program("bison", "bison"),
    program("flex", "flex"),
    program("python3-venv", "python3"),
    library("libcbor-dev", "libcbor"),
    header("libfdt-dev", "libfdt.h"),
    library("libglib2.0-dev", "glib-2.0"),
    library("libgnutls28-dev", "gnutls"),
];

/// This machine and what it needs, nothing else.
const DEVICES: &str = "\
CONFIG_I440FX=n
CONFIG_ISAPC=n
CONFIG_Q35=n
CONFIG_NITRO_ENCLAVE=y
";

const OPTIONS: [&str; 11] = [
    "--target-list=x86_64-softmmu",
    "--without-default-features",
    "--without-default-devices",
    "--with-devices-x86_64=nitro",
    "--enable-tcg",
    "--enable-gnutls",
    "--enable-libcbor",
    "--enable-vhost-user",
    "--disable-install-blobs",
    "--disable-docs",
    "--disable-download",
];

const SCRIPT: &str = r#"#!/bin/sh
# Made by `cargo xtask qemu --nitro-enclave`.
here=$(dirname "$(readlink -f "$0")")
exec "$here/qemu" -L "$here/root/usr/share/qemu" -L "$here/root/usr/share/seabios" "$@"
"#;

/// Makes `target/qemu-nitro/qemu-system-x86_64`, if it is not there.
pub(crate) fn obtain() -> Result<PathBuf> {
    let directory = target_directory().join("qemu-nitro");
    let script = directory.join("qemu-system-x86_64");
    if script.is_file() {
        return Ok(script);
    }
    need(&PACKAGES)?;
    let work = directory.join("work");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    }
    let apt = Apt::new(&work.join("apt"), &LISTS)?;
    // The firmware is not part of the source package, and this machine's meson may be too old.
    apt.unpack_alone(&["qemu-system-data", "seabios"], &directory.join("root"))?;
    apt.unpack_alone(&["meson"], &work.join("meson"))?;
    let source = apt.source("qemu")?;

    fs::write(source.join("configs/devices/x86_64-softmmu/nitro.mak"), DEVICES)?;
    let build = work.join("build");
    fs::create_dir_all(&build)?;
    let mut configure = Command::new(source.join("configure"));
    configure.args(OPTIONS).current_dir(&build);
    let meson = work.join("meson/usr/lib/python3/dist-packages");
    configure.env("PYTHONPATH", &meson);
    step("configure QEMU", configure.stdout(fs::File::create(work.join("configure.log"))?))?;
    let mut ninja = Command::new("ninja");
    ninja.args(["--quiet", "qemu-system-x86_64"]).current_dir(&build).env("PYTHONPATH", &meson);
    step("build QEMU (three minutes)", &mut ninja)?;

    fs::copy(build.join("qemu-system-x86_64"), directory.join("qemu"))?;
    let unchecked = directory.join("unchecked");
    write_program(&unchecked, SCRIPT)?;
    check(&unchecked)?;
    fs::remove_dir_all(&work)?;
    fs::rename(&unchecked, &script)?;
    Ok(script)
}

/// Has this QEMU the machine?
pub(crate) fn check(qemu: &Path) -> Result<()> {
    let machines = output(Command::new(qemu).args(["-M", "help"]))?;
    ensure!(machines.contains("nitro-enclave"), "{} has no machine nitro-enclave", qemu.display());
    Ok(())
}
