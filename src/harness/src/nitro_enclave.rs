//! QEMU's own emulation of Nitro Enclaves: the machine `nitro-enclave`. It reads the image itself, measures it itself, and
//! has a security module of its own, whose documents nobody signs.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::{Qemu, world::text};

/// The parent starts this as its QEMU: it makes the other machine with the same sockets. Of the parent's arguments only what
/// it appends to the command line is taken over, for the machine takes kernel and ramdisks from the image. The NSM device
/// that the parent has started beside it stays unused.
const SCRIPT: &str = r#"#!/bin/sh
for last; do :; done
exec 'QEMU' -M nitro-enclave,vsock=vsock,id=enclave,accel=tcg -cpu max -m MEMORYM -smp 1 \
    -no-reboot -nodefaults -no-user-config -display none -serial stdio \
    -chardev socket,id=vsock,path=vhost.sock -qmp unix:qmp.sock,server=on,wait=off \
    -kernel image.eif -append "nitro_sign.parent_cid=${last##*nitro_sign.parent_cid=}"
"#;

impl Qemu {
    /// The same with QEMU's own machine: `qemu` is a `qemu-system-x86_64` that has it. The script that starts it is written to
    /// `script`.
    pub fn nitro_enclave(self, qemu: &Path, script: PathBuf) -> Result<Self> {
        ensure!(qemu.is_file(), "no {}; `cargo xtask vm --nitro-enclave` obtains one", qemu.display());
        let qemu = qemu.canonicalize()?;
        ensure!(!text(&qemu)?.contains('\''), "{}: a path with a quote", qemu.display());
        let lines = SCRIPT.replace("MEMORY", &self.memory_mib.to_string()).replace("QEMU", text(&qemu)?);
        fs::write(&script, lines).with_context(|| format!("cannot write {}", script.display()))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        Ok(Self { qemu: script, ..self })
    }
}
