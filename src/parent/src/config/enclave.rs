//! `[enclave]`: what is launched, and how.

use std::path::{Path, PathBuf};

use attestation::Pcr;
use serde::Deserialize;

use super::{Refused, Root, nitro::Nitro};

/// The least memory that an enclave gets, MiB: so it is on Nitro, whose image is to run here unchanged.
pub(super) const MIN_MEMORY_MIB: u32 = 64;
/// The most, MiB: 1 TiB, far beyond any machine this is run on.
pub(super) const MAX_MEMORY_MIB: u32 = 1 << 20;
/// Context ids below are the hypervisor's, the loopback's and the host's; the last one means "any".
const GUEST_CIDS: std::ops::Range<u32> = 3..u32::MAX;
/// Room that is left on the kernel's command line, bytes.
const MAX_EXTRA_COMMAND_LINE: usize = 512;

/// `[enclave]`: what is launched. Of the tables of the backends, only that of the chosen one is looked at.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Table")]
pub struct Enclave {
    /// How it is launched.
    pub backend: Backend,
    /// The only PCR0 that is launched, 96 hex digits. `parent measure` prints that of the configured image; compare it
    /// with the one of your build.
    pub pcr0: Pcr,
    /// Under which root attestation documents have to be: `"aws"` for the AWS Nitro Enclaves root G1, or the path of a
    /// PEM file with another root certificate, for the software NSM.
    pub attestation_root: Root,
    /// The image has a program of its own in the place of the signing service (`[workload]` in its `enclave.toml`), which has
    /// no TLS key that a document could name. Default false: such an image is refused.
    pub workload: bool,
}

/// How the enclave is launched: the table that `enclave.backend` names.
#[derive(Debug, Clone)]
pub enum Backend {
    /// Its programs as local processes with a software NSM: no isolation, for development and tests.
    Process(Process),
    /// The enclave image, unchanged, in an emulated machine with an emulated NSM: for development and tests.
    Qemu(Qemu),
    /// The enclave image in a real enclave: production.
    Nitro(Nitro),
}

/// `[enclave.process]`: the programs of the backend `process`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// The program that is PID 1 of an enclave. Measured as the first ramdisk.
    pub enclave: PathBuf,
    /// The signing service. Measured as the second ramdisk, together with `config`.
    pub sign_service: PathBuf,
    /// `enclave.toml`, the enclave's own, measured configuration.
    pub config: PathBuf,
    /// What plays the hypervisor and its NSM. `--socket`, `--enclave`, `--sign-service` and `--config` are appended.
    pub hypervisor: Invocation,
    /// Meet the enclave on vsock, at this machine's own context id 1, instead of at a Unix socket. `enclave.toml` has to
    /// say `parent = "vsock:1"` then, and the kernel needs vsock's loopback. Default false.
    #[serde(default)]
    pub vsock: bool,
}

/// `[enclave.qemu]`: the image, and the programs that make up the machine of the backend `qemu`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Qemu {
    /// The enclave image (EIF), x86_64.
    pub image: PathBuf,
    /// `qemu-system-x86_64`, 11 or later: one that has the devices `vhost-user-vsock-device` and
    /// `vhost-user-test-device`.
    pub qemu: Invocation,
    /// The vsock device: the program of the crate `vhost-device-vsock`. `--vm` is appended.
    pub vsock_device: Invocation,
    /// The NSM device. `--socket` and `--eif` are appended.
    pub nsm_device: Invocation,
    /// Memory of the machine, MiB: 64 or more, and at least four times the size of the image. Default 512.
    #[serde(default = "default_memory_mib")]
    pub memory_mib: u32,
    /// The enclave's own context id. Default 16.
    #[serde(default = "default_guest_cid")]
    pub guest_cid: u32,
    /// Appended to the kernel's command line, behind what the backend appends itself. In no PCR. Default empty.
    #[serde(default)]
    pub extra_command_line: String,
}

fn default_memory_mib() -> u32 {
    512
}

fn default_guest_cid() -> u32 {
    16
}

/// A program and its arguments. Only the program's path is relative to the configuration file; it is started in another
/// directory, so give arguments absolute paths.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Invocation {
    /// The program.
    pub program: PathBuf,
    /// Its first arguments.
    pub arguments: Vec<String>,
}

impl TryFrom<Vec<String>> for Invocation {
    type Error = &'static str;

    fn try_from(words: Vec<String>) -> Result<Self, Self::Error> {
        let mut words = words.into_iter();
        let program = words.next().ok_or("expected a program and its arguments, got an empty list")?;
        Ok(Self { program: program.into(), arguments: words.collect() })
    }
}

/// The table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    backend: Name,
    pcr0: Pcr,
    attestation_root: Root,
    #[serde(default)]
    workload: bool,
    process: Option<Process>,
    qemu: Option<Qemu>,
    nitro: Option<Nitro>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Name {
    Process,
    Qemu,
    Nitro,
}

impl TryFrom<Table> for Enclave {
    type Error = &'static str;

    fn try_from(table: Table) -> Result<Self, Self::Error> {
        let Table { backend, pcr0, attestation_root, workload, process, qemu, nitro } = table;
        let backend = match backend {
            Name::Process => {
                process.map(Backend::Process).ok_or("backend \"process\" needs [enclave.process]")
            }
            Name::Qemu => qemu.map(Backend::Qemu).ok_or("backend \"qemu\" needs [enclave.qemu]"),
            Name::Nitro => nitro.map(Backend::Nitro).ok_or("backend \"nitro\" needs [enclave.nitro]"),
        }?;
        Ok(Self { backend, pcr0, attestation_root, workload })
    }
}

impl Enclave {
    /// The files that a launch reads, each with the key that names it.
    pub(super) fn files(&self) -> Vec<(&'static str, &Path)> {
        let mut files = self.backend.files();
        if let Root::Pem(file) = &self.attestation_root {
            files.push(("enclave.attestation_root", file));
        }
        files
    }

    pub(super) fn resolve(&mut self, directory: &Path) {
        for path in self.backend.paths() {
            *path = directory.join(&path);
        }
        if let Root::Pem(file) = &mut self.attestation_root {
            *file = directory.join(&file);
        }
    }

    pub(super) fn validate(&self) -> Result<(), Refused> {
        if self.pcr0.is_zero() {
            let problem = "all zero is the PCR0 of every enclave in debug mode; give the PCR0 of your image";
            return Err(Refused::new("enclave.pcr0", problem));
        }
        match &self.backend {
            Backend::Process(_) => Ok(()),
            Backend::Qemu(qemu) => qemu.validate(),
            Backend::Nitro(nitro) => {
                if self.attestation_root != Root::Aws {
                    let problem = "the NSM of backend \"nitro\" signs under AWS's root; set it to \"aws\"";
                    return Err(Refused::new("enclave.attestation_root", problem));
                }
                nitro.validate()
            }
        }
    }
}

impl Backend {
    fn files(&self) -> Vec<(&'static str, &Path)> {
        match self {
            Self::Process(Process { enclave, sign_service, config, hypervisor, .. }) => vec![
                ("enclave.process.enclave", enclave),
                ("enclave.process.sign_service", sign_service),
                ("enclave.process.config", config),
                ("enclave.process.hypervisor", &hypervisor.program),
            ],
            Self::Qemu(Qemu { image, qemu, vsock_device, nsm_device, .. }) => vec![
                ("enclave.qemu.image", image),
                ("enclave.qemu.qemu", &qemu.program),
                ("enclave.qemu.vsock_device", &vsock_device.program),
                ("enclave.qemu.nsm_device", &nsm_device.program),
            ],
            Self::Nitro(nitro) => vec![("enclave.nitro.image", &nitro.image)],
        }
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Process(Process { enclave, sign_service, config, hypervisor, .. }) => {
                vec![enclave, sign_service, config, &mut hypervisor.program]
            }
            Self::Qemu(Qemu { image, qemu, vsock_device, nsm_device, .. }) => {
                vec![image, &mut qemu.program, &mut vsock_device.program, &mut nsm_device.program]
            }
            Self::Nitro(nitro) => vec![&mut nitro.image],
        }
    }
}

impl Qemu {
    fn validate(&self) -> Result<(), Refused> {
        if !(MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&self.memory_mib) {
            let problem = format!("expected {MIN_MEMORY_MIB} to {MAX_MEMORY_MIB}, got {}", self.memory_mib);
            return Err(Refused::new("enclave.qemu.memory_mib", problem));
        }
        if !GUEST_CIDS.contains(&self.guest_cid) {
            let problem = format!("expected {} or more, got {}", GUEST_CIDS.start, self.guest_cid);
            return Err(Refused::new("enclave.qemu.guest_cid", problem));
        }
        let extra = &self.extra_command_line;
        if extra.len() > MAX_EXTRA_COMMAND_LINE || extra.contains(|c: char| !matches!(c, ' '..='~')) {
            let problem = format!("expected at most {MAX_EXTRA_COMMAND_LINE} printable ASCII characters");
            return Err(Refused::new("enclave.qemu.extra_command_line", problem));
        }
        Ok(())
    }
}
