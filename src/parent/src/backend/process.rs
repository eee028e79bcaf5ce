//! Backend `process`: the enclave's programs as local processes. No isolation; for development and tests.
//!
//! Each launch has a fresh private directory, `runtime_dir/vm`, in which the hypervisor's stand-in and then the enclave
//! run. The paths they meet at are relative to it, so that `enclave.toml` is the same, and measures the same, in each
//! launch.

use std::{
    env, fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use async_trait::async_trait;
use attestation::Measurements;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
    time::timeout,
};
use vsock::Peer;

use super::{Backend, BackendError, Launched, console::Console};
use crate::config::{Config, Process};

/// The guest's socket, below the launch's directory.
const VSOCK: &str = "vm.vsock";
/// The software NSM's socket, relative to the launch's directory.
const NSM: &str = "nsm.sock";
const HYPERVISOR_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest line in which a hypervisor says that it is ready, bytes.
const MAX_READY_LINE: u64 = 64 << 10;
/// All that the programs inherit from the parent's environment: what an enclave gets, which is nothing, and two
/// variables for whoever debugs.
const ENVIRONMENT: [&str; 2] = [telemetry::FILTER_VARIABLE, "RUST_BACKTRACE"];

/// The backend.
#[derive(Debug)]
pub struct ProcessBackend {
    programs: Process,
    directory: PathBuf,
}

impl ProcessBackend {
    /// A backend that launches what `[enclave.process]` says, below `runtime_dir`.
    pub fn new(config: &Config) -> Self {
        Self { programs: config.enclave.process.clone(), directory: config.runtime_dir.join("vm") }
    }

    fn peer(&self) -> Peer {
        Peer::Unix { path: self.directory.join(VSOCK) }
    }

    fn start_hypervisor(&self) -> Result<Program, BackendError> {
        let Process { enclave, sign_service, config, hypervisor } = &self.programs;
        let (program, arguments) = hypervisor.split_first().map_or(("", &[][..]), |(p, a)| (p.as_str(), a));
        let mut command = Command::new(program);
        command.args(arguments).args(["--socket", NSM]);
        command.arg("--enclave").arg(enclave).arg("--sign-service").arg(sign_service);
        command.arg("--config").arg(config);
        Program::start("hypervisor", command, &self.directory)
    }

    fn start_enclave(&self) -> Result<Program, BackendError> {
        let mut command = Command::new(&self.programs.enclave);
        command.arg(&self.programs.config);
        Program::start("enclave", command, &self.directory)
    }
}

#[async_trait]
impl Backend for ProcessBackend {
    fn measure(&self) -> Result<Measurements, BackendError> {
        let Process { enclave, sign_service, config, .. } = &self.programs;
        Measurements::of_process_files(enclave, sign_service, config).map_err(BackendError::Measure)
    }

    async fn prepare(&self) -> Result<Peer, BackendError> {
        fresh_directory(&self.directory)
            .map_err(|source| BackendError::Directory { directory: self.directory.clone(), source })?;
        Ok(self.peer())
    }

    async fn launch(&self) -> Result<Box<dyn Launched>, BackendError> {
        let mut hypervisor = self.start_hypervisor()?;
        let measured = hypervisor.ready().await?;
        tracing::info!(pcrs = %measured["pcrs"], "the hypervisor is ready");
        let enclave = self.start_enclave()?;
        Ok(Box::new(ProcessEnclave {
            hypervisor,
            enclave,
            directory: self.directory.clone(),
            peer: self.peer(),
        }))
    }
}

/// Removes what an earlier launch left.
fn fresh_directory(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::DirBuilder::new().mode(0o700).create(directory)
}

/// An enclave of this backend and the hypervisor under it: if one ends, the other is of no use.
struct ProcessEnclave {
    // Dropped, and killed, before the hypervisor.
    enclave: Program,
    hypervisor: Program,
    directory: PathBuf,
    peer: Peer,
}

#[async_trait]
impl Launched for ProcessEnclave {
    fn peer(&self) -> Peer {
        self.peer.clone()
    }

    fn pid(&self) -> Option<u32> {
        self.enclave.child.id()
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

impl Drop for ProcessEnclave {
    fn drop(&mut self) {
        self.enclave.kill_group();
        self.hypervisor.kill_group();
        // The enclave wipes what it wrote; if it was killed before it could, this removes it.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A child process that leads a process group, so that its own children end with it.
struct Program {
    name: &'static str,
    path: String,
    child: Child,
    group: Option<Pid>,
    stdout: Option<ChildStdout>,
    console: Option<Console>,
}

impl Program {
    fn start(name: &'static str, mut command: Command, directory: &Path) -> Result<Self, BackendError> {
        let path = command.as_std().get_program().to_string_lossy().into_owned();
        command
            .current_dir(directory)
            .env_clear()
            .envs(ENVIRONMENT.into_iter().filter_map(|name| Some((name, env::var_os(name)?))))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        die_with_this_process(&mut command);
        let mut child =
            command.spawn().map_err(|source| BackendError::Start { program: path.clone(), source })?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let console = child.stderr.take().map(|output| Console::read(name, output));
        let stdout = child.stdout.take();
        Ok(Self { name, path, child, group, stdout, console })
    }

    /// Waits for the line of JSON with `"ready": true`, and returns it.
    async fn ready(&mut self) -> Result<serde_json::Value, BackendError> {
        let problem = match timeout(HYPERVISOR_TIMEOUT, self.first_line()).await {
            Err(_) => format!("nothing on standard output for {} s", HYPERVISOR_TIMEOUT.as_secs()),
            Ok(Err(error)) => error.to_string(),
            Ok(Ok(line)) if line.is_empty() => self.exited().await,
            Ok(Ok(line)) => match serde_json::from_str::<serde_json::Value>(&line) {
                Ok(ready) if ready["ready"] == true => return Ok(ready),
                _ => format!("it printed {:?} instead of a ready line", telemetry::redact(line.trim_end())),
            },
        };
        Err(BackendError::Hypervisor { program: self.path.clone(), problem })
    }

    async fn first_line(&mut self) -> io::Result<String> {
        let Some(stdout) = &mut self.stdout else { return Ok(String::new()) };
        let mut line = String::new();
        BufReader::new(stdout.take(MAX_READY_LINE)).read_line(&mut line).await?;
        Ok(line)
    }

    async fn exited(&mut self) -> String {
        let how = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let last = match &mut self.console {
            Some(console) => console.last_line().await,
            None => String::new(),
        };
        let name = self.name;
        if last.is_empty() {
            format!("the {name} ended ({how})")
        } else {
            format!("the {name} ended ({how}): {last}")
        }
    }

    async fn kill(&mut self) {
        self.kill_group();
        // It was sent SIGKILL; an error means that it is gone already.
        let _ = self.child.wait().await;
    }

    /// Kills the program and whatever it started. Once only: later the group's number may be another's.
    fn kill_group(&mut self) {
        if let Some(group) = self.group.take() {
            // An error means that nobody of the group is left.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// Lets the kernel kill the child when this process dies, even by SIGKILL.
///
/// The signal comes when the *thread* that started the child ends: launch from the runtime's main task, not from a
/// blocking thread.
#[allow(unsafe_code, reason = "PR_SET_PDEATHSIG can only be set by the child, between fork and exec")]
fn die_with_this_process(command: &mut Command) {
    let parent = nix::unistd::getpid();
    let in_child = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the line above.
        if nix::unistd::getppid() != parent {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: prctl and getppid are plain system calls,
    // and neither the conversion of an errno nor an error of a bare kind allocates.
    unsafe { command.pre_exec(in_child) };
}

#[cfg(test)]
mod tests;
