//! Backend `qemu`: the enclave image, unchanged, in an emulated machine. For development and tests.
//!
//! Three programs make the machine: QEMU, and the two devices of an enclave as programs beside it, which QEMU reaches
//! over sockets: the vsock device, and the NSM, which measures the image and signs. They run in a private directory,
//! `runtime_dir/vm`; if one ends, the enclave is gone.
//!
//! What was measured is what boots: the image is copied into that directory, and the copy is what is measured, taken
//! apart for QEMU, and given to the NSM. Another file under the configured name changes nothing after that.

mod console;
mod image;
mod machine;
mod monitor;
mod tsc;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use attestation::Measurements;
use tokio::time::timeout;
use vsock::Peer;

use super::{
    Backend, BackendError, Launched, Staged,
    console::Console,
    directory::{RunDirectory, VSOCK},
    image::Configured,
    program::{Program, READY_TIMEOUT, Role, command},
};
use crate::config::Qemu;

pub use tsc::host_khz as host_tsc_khz;

const QEMU: Role = Role { name: "QEMU", key: "enclave.qemu.qemu", last_words: 4 };
const VSOCK_DEVICE: Role = Role { name: "the vsock device", key: "enclave.qemu.vsock_device", last_words: 1 };
const NSM_DEVICE: Role = Role { name: "the NSM device", key: "enclave.qemu.nsm_device", last_words: 1 };

/// Sockets, relative to the launch's directory: where QEMU reaches the devices, and where QEMU itself is reached.
const VHOST_VSOCK: &str = "vhost.sock";
const VHOST_NSM: &str = "nsm.sock";
const MONITOR: &str = "qmp.sock";

/// A device may see QEMU's end before this process does: how long to wait for the better explanation.
const END_OF_QEMU: Duration = Duration::from_millis(500);

/// The backend.
#[derive(Debug)]
pub struct QemuBackend {
    machine: Qemu,
    directory: PathBuf,
    console_log: PathBuf,
}

impl QemuBackend {
    /// A backend that launches this machine below `runtime_dir`, and keeps what its console prints in
    /// `runtime_dir/console.log`.
    pub fn new(machine: Qemu, runtime_dir: &Path) -> Self {
        Self { machine, directory: runtime_dir.join("vm"), console_log: runtime_dir.join("console.log") }
    }

    fn image(&self) -> Configured<'_> {
        Configured {
            image: &self.machine.image,
            image_key: "enclave.qemu.image",
            memory_mib: self.machine.memory_mib,
            memory_key: "enclave.qemu.memory_mib",
        }
    }
}

impl Backend for QemuBackend {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn console_log(&self) -> Option<&Path> {
        Some(&self.console_log)
    }

    fn measure(&self) -> Result<Measurements, BackendError> {
        self.image().measure()
    }

    fn check(&self) -> Result<Measurements, BackendError> {
        self.image().check(image::MACHINE)
    }

    fn stage(&self) -> Result<Box<dyn Staged>, BackendError> {
        let directory = RunDirectory::create(self.directory.clone())?;
        let summary = image::stage(self.image(), directory.path())?;
        let extra = &self.machine.extra_command_line;
        let command_line = machine::command_line(&summary.command_line, tsc::host_khz(), extra)?;
        Ok(Box::new(StagedMachine {
            machine: self.machine.clone(),
            measurements: summary.measurements,
            command_line,
            console_log: self.console_log.clone(),
            directory,
        }))
    }
}

struct StagedMachine {
    machine: Qemu,
    measurements: Measurements,
    command_line: String,
    console_log: PathBuf,
    directory: RunDirectory,
}

impl StagedMachine {
    fn start_vsock_device(&self) -> Result<Program, BackendError> {
        let mut command = command(&self.machine.vsock_device);
        let cid = self.machine.guest_cid;
        command.args(["--vm", &format!("guest-cid={cid},socket={VHOST_VSOCK},uds-path={VSOCK}")]);
        Program::start(VSOCK_DEVICE, command, self.directory.path())
    }

    fn start_nsm_device(&self) -> Result<Program, BackendError> {
        let mut command = command(&self.machine.nsm_device);
        command.args(["--socket", VHOST_NSM, "--eif", image::COPY]);
        Program::start(NSM_DEVICE, command, self.directory.path())
    }

    fn start_qemu(&self) -> Result<(Program, Console), BackendError> {
        let mut command = command(&self.machine.qemu);
        command.args(machine::arguments(self.machine.memory_mib, &self.command_line));
        let mut log = console::Log::create(&self.console_log)?;
        let mut qemu = Program::start(QEMU, command, self.directory.path())?;
        let output = qemu.stdout().ok_or_else(|| qemu.not_ready("it has no standard output".to_owned()))?;
        let console = Console::read(output, 1, move |line| log.write(line));
        Ok((qemu, console))
    }
}

#[async_trait]
impl Staged for StagedMachine {
    fn measurements(&self) -> Measurements {
        self.measurements
    }

    fn peer(&self) -> Peer {
        self.directory.peer()
    }

    fn caller(&self) -> Option<u32> {
        None
    }

    async fn launch(self: Box<Self>) -> Result<Box<dyn Launched>, BackendError> {
        let mut vsock_device = self.start_vsock_device()?;
        let mut nsm_device = self.start_nsm_device()?;
        vsock_device.has_made(&self.directory.path().join(VHOST_VSOCK)).await?;
        let measured = nsm_device.ready().await?;
        tracing::info!(pcrs = %measured["pcrs"], "the devices are ready");
        let (qemu, console) = self.start_qemu()?;
        let mut enclave = Machine { qemu, vsock_device, nsm_device, console, directory: self.directory };
        enclave.is_set_up().await?;
        Ok(Box::new(enclave))
    }
}

/// A machine that runs.
struct Machine {
    // Dropped, and killed, in this order.
    qemu: Program,
    vsock_device: Program,
    nsm_device: Program,
    console: Console,
    directory: RunDirectory,
}

impl Machine {
    fn monitor(&self) -> PathBuf {
        self.directory.path().join(MONITOR)
    }

    /// Waits until QEMU has made the machine: what it refuses, it has refused by then.
    async fn is_set_up(&mut self) -> Result<(), BackendError> {
        let monitor = self.monitor();
        let problem = tokio::select! {
            greeted = timeout(READY_TIMEOUT, monitor::greeting(&monitor)) => match greeted {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => format!("its monitor {}: {error}", monitor.display()),
                Err(_) => format!("no monitor {} for {} s", monitor.display(), READY_TIMEOUT.as_secs()),
            },
            ended = self.exited() => ended,
        };
        Err(self.qemu.not_ready(problem))
    }

    /// How QEMU ended, with what the machine said last: QEMU's own status does not tell a panic from a power-off.
    async fn told(&mut self, ended: String) -> String {
        let last = self.console.last_lines().await;
        if last.is_empty() { ended } else { format!("{ended}; last on the console: {last}") }
    }
}

#[async_trait]
impl Launched for Machine {
    fn peer(&self) -> Peer {
        self.directory.peer()
    }

    fn pid(&self) -> Option<u32> {
        self.qemu.pid()
    }

    fn qmp(&self) -> Option<PathBuf> {
        Some(self.monitor())
    }

    async fn exited(&mut self) -> String {
        let device = tokio::select! {
            biased;
            ended = self.qemu.exited() => return self.told(ended).await,
            ended = self.vsock_device.exited() => ended,
            ended = self.nsm_device.exited() => ended,
        };
        match timeout(END_OF_QEMU, self.qemu.exited()).await {
            Ok(ended) => self.told(ended).await,
            Err(_) => device,
        }
    }

    async fn kill(&mut self) {
        self.qemu.kill().await;
        self.vsock_device.kill().await;
        self.nsm_device.kill().await;
    }
}

#[cfg(test)]
mod tests;
