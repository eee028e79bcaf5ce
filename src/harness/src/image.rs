use std::{
    fs,
    io::Read as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use flate2::read::MultiGzDecoder;
use memchr::memmem;
use serde_json::Value;

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
    /// Boot this image as it is, instead of one that is made of the production image's parts.
    pub given: Option<GivenImage>,
}

/// An image that trusts a KMS stand-in already.
#[derive(Debug, Clone)]
pub struct GivenImage {
    /// The image.
    pub eif: PathBuf,
    /// The stand-in's authority: `kms-ca.pem` and `kms-ca.key`.
    pub kms_authority: PathBuf,
}

impl Qemu {
    /// As `cargo xtask vm` lays it out below `target`.
    pub fn in_target(target: &Path) -> Result<Self> {
        Self::new(target, None)
    }

    /// As `cargo xtask vm --eif` does: everything but the image is below `target`.
    pub fn with_image(target: &Path, given: GivenImage) -> Result<Self> {
        Self::new(target, Some(given))
    }

    fn new(target: &Path, given: Option<GivenImage>) -> Result<Self> {
        let qemu = Self {
            image: target.join("image"),
            qemu: target.join("qemu/qemu-system-x86_64"),
            vsock_device: target.join("tools/bin/vhost-device-vsock"),
            memory_mib: 512,
            given,
        };
        let mut needed = vec![qemu.qemu.clone(), qemu.vsock_device.clone()];
        if qemu.given.is_none() {
            needed.push(qemu.image.join("inputs/arguments"));
        }
        for file in needed {
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

impl GivenImage {
    /// Takes the authority beside the image if none is named, and refuses an image that does not trust it: its boot would
    /// end at KMS.
    pub fn new(eif: &Path, kms_authority: Option<&Path>) -> Result<Self> {
        let eif = eif.canonicalize().with_context(|| format!("cannot read the image {}", eif.display()))?;
        let beside = eif.with_file_name("kms-authority");
        let kms_authority = std::path::absolute(kms_authority.unwrap_or(&beside))?;
        let given = Self { eif, kms_authority };
        given.trusts_authority()?;
        Ok(given)
    }

    fn trusts_authority(&self) -> Result<()> {
        const REMEDY: &str = "An image takes no KMS for the real one but those under the roots it was built with \
             (docs/threat-model.md says why), so the production image cannot talk to the stand-in. \
             `nix build .#eif-emulated` makes an image that can, with the stand-in's authority beside it";
        let certificate = self.kms_authority.join("kms-ca.pem");
        let pem = fs::read_to_string(&certificate).with_context(|| {
            format!(
                "there is no authority for the KMS stand-in: cannot read {}. {REMEDY}",
                certificate.display()
            )
        })?;
        let application = self.application()?;
        // However TOML writes line breaks.
        let mut base64 = pem.lines().filter(|line| !line.is_empty() && !line.starts_with("-----"));
        ensure!(
            base64.all(|line| memmem::find(&application, line.as_bytes()).is_some()),
            "{} does not trust {}. {REMEDY}",
            self.eif.display(),
            certificate.display()
        );
        Ok(())
    }

    /// The ramdisk that `enclave.toml` is in, unpacked.
    fn application(&self) -> Result<Vec<u8>> {
        let directory = tempfile::tempdir()?;
        run(Command::new(binary("eif")?).arg("extract").arg(&self.eif).arg(directory.path()), None)?;
        let ramdisk = directory.path().join("ramdisk-2");
        let ramdisk = fs::File::open(&ramdisk)
            .with_context(|| format!("{} has no second ramdisk", self.eif.display()))?;
        let mut application = Vec::new();
        MultiGzDecoder::new(ramdisk).read_to_end(&mut application)?;
        Ok(application)
    }

    /// Are the PCRs (index to value) those of the `pcrs.json` beside the image?
    pub fn check_pcrs(&self, attested: &Value) -> Result<()> {
        let path = self.eif.with_file_name("pcrs.json");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let expected: Value =
            serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
        for index in ["0", "1", "2"] {
            let (expected, attested) = (&expected[format!("PCR{index}")], &attested[index]);
            ensure!(
                expected.is_string() && expected == attested,
                "PCR{index} is {attested} in the attestation document, and {expected} in {}",
                path.display()
            );
        }
        Ok(())
    }
}
