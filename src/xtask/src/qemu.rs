//! QEMU with the devices that an enclave needs: a vsock and an NSM that other programs play (vhost-user), and with the one
//! through which the parent's machine sees the files of its host. Debian has them since 11.1, in trixie-backports; it runs on
//! older systems with its own C library.
//!
//! `target/qemu/qemu-system-x86_64` is a script that starts it; `target/tools/bin` has the vsock device, unless PATH has it.

mod nitro;

pub(crate) use nitro::{check as has_nitro_enclave, obtain as nitro_enclave};

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    apt::Apt,
    command::{Tool, on_path, output, target_directory, tool},
};

const PROGRAM: &str = "qemu-system-x86_64";
const DEVICES: [&str; 3] = ["vhost-user-test-device", "vhost-user-vsock-device", "virtio-9p-device"];
const RELEASE: &str = "trixie-backports";
const LISTS: [(&str, &str); 2] = [("deb", "trixie"), ("deb", RELEASE)];
const VHOST_DEVICE_VSOCK: Tool = Tool { name: "vhost-device-vsock", version: "0.3.0", profile: "release" };

/// `QEMU_MODULE_DIR`: without it, it looks for modules where Debian would have installed them, and stops.
const DEBIANS: &str = r#"#!/bin/sh
# Made by `cargo xtask qemu`.
here=$(dirname "$(readlink -f "$0")")
lib=$here/root/usr/lib/x86_64-linux-gnu
export QEMU_MODULE_DIR="$lib/qemu"
exec "$lib/ld-linux-x86-64.so.2" --library-path "$lib" "$here/root/usr/bin/qemu-system-x86_64" \
    -L "$here/root/usr/share/qemu" -L "$here/root/usr/share/seabios" "$@"
"#;

/// `cargo xtask qemu`: obtains QEMU and the vsock device, or QEMU's own Nitro Enclave, and says where they are.
pub(crate) fn command(options: &[String]) -> Result<()> {
    match options.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {}
        ["--nitro-enclave"] => {
            println!("{}", nitro::obtain()?.display());
            return Ok(());
        }
        _ => bail!("`cargo xtask qemu` takes --nitro-enclave or nothing"),
    }
    println!("{}", obtain()?.display());
    println!("{}", tool(VHOST_DEVICE_VSOCK)?.display());
    Ok(())
}

/// Makes the script: for a QEMU on PATH that has the devices, or else for Debian's, which is obtained.
pub(crate) fn obtain() -> Result<PathBuf> {
    let directory = target_directory().join("qemu");
    let script = directory.join(PROGRAM);
    if script.is_file() {
        return Ok(script);
    }
    let text = match on_path(PROGRAM) {
        Some(found) if check(&found).is_ok() => format!("#!/bin/sh\nexec '{}' \"$@\"\n", found.display()),
        _ => {
            let apt = directory.join("apt");
            Apt::new(&apt, &LISTS)?.unpack(
                &["qemu-system-x86", "libc6"],
                RELEASE,
                &directory.join("root"),
            )?;
            fs::remove_dir_all(&apt)?;
            DEBIANS.to_owned()
        }
    };
    fs::create_dir_all(&directory)?;
    // It has its name only once it is known to work.
    let unchecked = directory.join("unchecked");
    write_program(&unchecked, &text)?;
    check(&unchecked)?;
    fs::rename(&unchecked, &script)?;
    Ok(script)
}

fn check(qemu: &Path) -> Result<()> {
    let devices = output(Command::new(qemu).args(["-device", "help"]))?;
    for device in DEVICES {
        let listed = devices.contains(&format!("name \"{device}\""));
        ensure!(listed, "{} has no device {device}; QEMU 11.1 has it", qemu.display());
    }
    Ok(())
}

fn write_program(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}
