//! Backend `process`: the enclave's programs as local processes. No isolation; for development and tests.
//!
//! Each launch has a fresh private directory, `runtime_dir/vm`, in which the hypervisor's stand-in and then the enclave
//! run. The paths they meet at are relative to it, so that `enclave.toml` is the same, and measures the same, in each
//! launch. With `vsock` they meet the parent on vsock instead, whose loopback is one context id for both sides: the parent
//! listens only there, and nobody outside this machine can connect; whoever is on it can.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use attestation::Measurements;
use tokio::process::Command;
use vsock::Peer;

use super::{
    Backend, BackendError, Launched, Staged,
    directory::RunDirectory,
    program::{Program, Role, command},
};
use crate::config::Process;

/// The software NSM's socket, relative to the launch's directory.
const NSM: &str = "nsm.sock";
/// The context id by which a machine reaches itself (`VMADDR_CID_LOCAL`).
pub(crate) const LOCAL: u32 = 1;
const HYPERVISOR: Role = Role { name: "the hypervisor", key: "enclave.process.hypervisor", last_words: 1 };
const ENCLAVE: Role = Role { name: "the enclave", key: "enclave.process.enclave", last_words: 1 };

/// The backend.
#[derive(Debug)]
pub struct ProcessBackend {
    programs: Process,
    directory: PathBuf,
}

impl ProcessBackend {
    /// A backend that launches these programs, below `runtime_dir`.
    pub fn new(programs: Process, runtime_dir: &Path) -> Self {
        Self { programs, directory: runtime_dir.join("vm") }
    }
}

impl Backend for ProcessBackend {
    fn name(&self) -> &'static str {
        "process"
    }

    fn measure(&self) -> Result<Measurements, BackendError> {
        let Process { enclave, sign_service, config, .. } = &self.programs;
        Measurements::of_process_files(enclave, sign_service, config).map_err(BackendError::Measure)
    }

    /// The programs are started from where they are: nothing is isolated here, so nothing would be gained by a copy.
    /// The hypervisor measures them once more.
    fn stage(&self) -> Result<Box<dyn Staged>, BackendError> {
        let directory = RunDirectory::create(self.directory.clone())?;
        let measurements = self.measure()?;
        Ok(Box::new(StagedProcesses { programs: self.programs.clone(), measurements, directory }))
    }
}

struct StagedProcesses {
    programs: Process,
    measurements: Measurements,
    directory: RunDirectory,
}

impl StagedProcesses {
    fn start_hypervisor(&self) -> Result<Program, BackendError> {
        let Process { enclave, sign_service, config, hypervisor, .. } = &self.programs;
        let mut command = command(hypervisor);
        command.args(["--socket", NSM]);
        command.arg("--enclave").arg(enclave).arg("--sign-service").arg(sign_service);
        command.arg("--config").arg(config);
        Program::start(HYPERVISOR, command, self.directory.path())
    }

    fn start_enclave(&self) -> Result<Program, BackendError> {
        let mut command = Command::new(&self.programs.enclave);
        command.arg(&self.programs.config);
        let mut enclave = Program::start(ENCLAVE, command, self.directory.path())?;
        enclave.log_stdout();
        Ok(enclave)
    }
}

#[async_trait]
impl Staged for StagedProcesses {
    fn measurements(&self) -> Measurements {
        self.measurements
    }

    fn peer(&self) -> Peer {
        if self.programs.vsock { Peer::Vsock { cid: LOCAL } } else { self.directory.peer() }
    }

    fn caller(&self) -> Option<u32> {
        self.programs.vsock.then_some(LOCAL)
    }

    async fn launch(self: Box<Self>) -> Result<Box<dyn Launched>, BackendError> {
        let mut hypervisor = self.start_hypervisor()?;
        let measured = hypervisor.ready().await?;
        tracing::info!(pcrs = %measured["pcrs"], "the hypervisor is ready");
        let enclave = self.start_enclave()?;
        let peer = self.peer();
        Ok(Box::new(ProcessEnclave { enclave, hypervisor, peer, _directory: self.directory }))
    }
}

/// An enclave of this backend and the hypervisor under it: if one ends, the other is of no use.
struct ProcessEnclave {
    // Dropped, and killed, in this order.
    enclave: Program,
    hypervisor: Program,
    _directory: RunDirectory,
    peer: Peer,
}

#[async_trait]
impl Launched for ProcessEnclave {
    fn peer(&self) -> Peer {
        self.peer.clone()
    }

    fn pid(&self) -> Option<u32> {
        self.enclave.pid()
    }

    async fn exited(&mut self) -> String {
        tokio::select! {
            ended = self.enclave.exited() => ended,
            ended = self.hypervisor.exited() => ended,
        }
    }

    async fn kill(&mut self) {
        self.enclave.kill().await;
        self.hypervisor.kill().await;
    }
}

#[cfg(test)]
mod tests;
