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
    /// Where `cargo xtask image`, or Nix, put the production image: `image.eif`, `pcrs.json`, `inputs/`.
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
        Self::new(target.join("image"), target, None)
    }

    /// As `cargo xtask vm --eif` does: everything but the image is below `target`.
    ///
    /// An image with an authority for the KMS stand-in, the named one or `kms-authority/` beside it, is booted as it is.
    /// Of another one, which has to be what its `inputs/` give, a sibling is made, as of the production image.
    pub fn with_image(target: &Path, eif: &Path, kms_authority: Option<&Path>) -> Result<Self> {
        let eif = eif.canonicalize().with_context(|| format!("cannot read the image {}", eif.display()))?;
        let directory = eif.parent().context("the image is in no directory")?;
        let beside = |name: &str| directory.join(name).exists();
        if kms_authority.is_some() || beside("kms-authority") || !beside("inputs/arguments") {
            return Self::new(target.join("image"), target, Some(GivenImage::new(&eif, kms_authority)?));
        }
        let qemu = Self::new(directory.to_owned(), target, None)?;
        qemu.check_inputs(&eif)?;
        Ok(qemu)
    }

    fn new(image: PathBuf, target: &Path, given: Option<GivenImage>) -> Result<Self> {
        let qemu = Self {
            image,
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
    pub fn build_image(&self, directory: &Path, kms_roots_pem: &str) -> Result<()> {
        const CONFIG: &str = "enclave.toml";
        let (production, inputs) = (self.image.join("inputs"), directory.join("inputs"));
        fs::create_dir_all(&inputs)?;
        for input in fs::read_dir(&production)? {
            let input = input?;
            let link = inputs.join(input.file_name());
            if input.file_name() != CONFIG && !link.exists() {
                symlink(input.path().canonicalize()?, link)?;
            }
        }
        let mut config: toml::Table = toml::from_str(&fs::read_to_string(production.join(CONFIG))?)?;
        config.insert("kms_roots_pem".into(), kms_roots_pem.into());
        fs::write(inputs.join(CONFIG), toml::to_string(&config)?)?;
        eif_build(directory, directory)
    }

    /// Do the `inputs/` beside the image give the image?
    fn check_inputs(&self, eif: &Path) -> Result<()> {
        let again = tempfile::tempdir()?;
        eif_build(&self.image, again.path())?;
        ensure!(
            fs::read(eif)? == fs::read(again.path().join("image.eif"))?,
            "{} is not made of what is in {}; build the image again, or give one as it was built",
            eif.display(),
            self.image.join("inputs").display()
        );
        Ok(())
    }

    /// Are the attested PCRs (index to value) those of the `pcrs.json` beside the image? Of a sibling: is PCR1?
    pub fn check_pcrs(&self, attested: &Value) -> Result<()> {
        let (path, indices): (_, &[&str]) = match &self.given {
            Some(given) => (given.eif.with_file_name("pcrs.json"), &["0", "1", "2"]),
            None => (self.image.join("pcrs.json"), &["1"]),
        };
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let expected: Value =
            serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
        for &index in indices {
            let (expected, attested) = (&expected[format!("PCR{index}")], &attested[index]);
            ensure!(
                expected.is_string() && expected == attested,
                "PCR{index} is {attested} in the attestation document, and {expected} in {}",
                path.display()
            );
        }
        Ok(())
    }

    /// What is booted, for people.
    pub fn booted(&self) -> String {
        match &self.given {
            Some(given) => given.eif.display().to_string(),
            None => format!(
                "{} but for enclave.toml, which trusts the KMS stand-in: same PCR1, other PCR0",
                self.image.join("image.eif").display()
            ),
        }
    }
}

/// `eif build` with the arguments in `directory/inputs/`.
fn eif_build(directory: &Path, out: &Path) -> Result<()> {
    let arguments = directory.join("inputs/arguments");
    let arguments =
        fs::read_to_string(&arguments).with_context(|| format!("cannot read {}", arguments.display()))?;
    let mut build = Command::new(binary("eif")?);
    build.arg("build").args(arguments.lines()).arg("--out").arg(out).current_dir(directory);
    run(&mut build, None).map(drop)
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
             (docs/threat-model.md says why), so the production image cannot talk to the stand-in. With its inputs/ \
             beside it, as `nix build .#eif` leaves them, a sibling that can is made of them; \
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
}
