use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::program::{binary, run};

/// What booting an image in QEMU needs; `cargo xtask vm` obtains it.
#[derive(Debug, Clone)]
pub struct Qemu {
    /// Where `cargo xtask image` put the production image: `image.eif`, `pcrs.json`, `inputs/`.
    pub image: PathBuf,
    /// `qemu-system-x86_64` with the vhost-user devices.
    pub qemu: PathBuf,
    /// `vhost-device-vsock`.
    pub vsock_device: PathBuf,
    /// Memory of the machine, MiB.
    pub memory_mib: u32,
}

impl Qemu {
    /// As `cargo xtask vm` lays it out below `target`.
    pub fn in_target(target: &Path) -> Result<Self> {
        let qemu = Self {
            image: target.join("image"),
            qemu: target.join("qemu/qemu-system-x86_64"),
            vsock_device: target.join("tools/bin/vhost-device-vsock"),
            memory_mib: 512,
        };
        for file in [&qemu.image.join("inputs/arguments"), &qemu.qemu, &qemu.vsock_device] {
            ensure!(file.exists(), "no {}; `cargo xtask vm` makes it", file.display());
        }
        Ok(qemu)
    }

    /// Puts an image together from the production image's kernel and programs and another `enclave.toml`: the production
    /// one, with the KMS stand-in's certificate as the root for TLS to KMS. PCR1, which names kernel, command line and
    /// runtime, stays the production image's; PCR0 and PCR2 do not.
    pub(crate) fn build_image(&self, directory: &Path, kms_roots_pem: &str) -> Result<()> {
        let inputs = directory.join("inputs");
        fs::create_dir_all(&inputs)?;
        for file in ["bzImage", "enclave", "sign-service"] {
            let link = inputs.join(file);
            if !link.exists() {
                symlink(self.image.join("inputs").join(file).canonicalize()?, link)?;
            }
        }
        let production = fs::read_to_string(self.image.join("inputs/enclave.toml"))?;
        let mut config: toml::Table = toml::from_str(&production)?;
        config.insert("kms_roots_pem".into(), kms_roots_pem.into());
        fs::write(inputs.join("enclave.toml"), toml::to_string(&config)?)?;
        let arguments = fs::read_to_string(self.image.join("inputs/arguments"))
            .context("cannot read the production image's arguments")?;
        let mut build = Command::new(binary("eif")?);
        build.arg("build").args(arguments.lines()).arg("--out").arg(directory).current_dir(directory);
        run(&mut build, None).map(drop)
    }
}
