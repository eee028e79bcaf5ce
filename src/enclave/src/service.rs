use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use api::control::FailureReason;
use nix::{
    sys::{
        prctl,
        signal::{Signal, kill},
    },
    unistd::{Pid, getpid, getppid},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader},
    process::{Child, ChildStderr, ChildStdout, Command},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use vsock::{Bridge, Endpoint};

use crate::{
    error::{BootError, because},
    outbox::Outbox,
    pid1::children,
};

const READY_TIMEOUT: Duration = Duration::from_mins(1);
/// How long the service may take to end its sessions.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last lines of a service that has ended may take to arrive.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest ready line, bytes.
const MAX_READY_BYTES: u64 = 4 << 10;
const SOURCE: &str = "sign-service";

/// `sign-service.toml`: what the service has to know. No secret is in it, only where the secrets are.
#[derive(Serialize)]
pub(crate) struct ServiceConfig {
    pub(crate) key_share_file: PathBuf,
    pub(crate) listen: Endpoint,
    pub(crate) nsm: String,
    #[serde(with = "hex")]
    pub(crate) configuration: Vec<u8>,
    #[serde(with = "hex")]
    pub(crate) sealed_bundle_sha384: [u8; 48],
    pub(crate) max_sessions: u32,
    pub(crate) session_deadline_ms: u32,
}

impl ServiceConfig {
    /// Writes the file and returns its path.
    pub(crate) fn write(&self, work_dir: &Path) -> Result<PathBuf, BootError> {
        let doing = "cannot write sign-service.toml in the work directory";
        let path = work_dir.join("sign-service.toml");
        let text = toml::to_string(self).map_err(because(FailureReason::Internal, doing))?;
        fs::write(&path, text).map_err(because(FailureReason::Internal, doing))?;
        Ok(path)
    }
}

/// The line that the service prints when it serves.
#[derive(Debug, Deserialize)]
pub(crate) struct ServiceReady {
    ready: bool,
    /// SHA-256 of the service certificate's SubjectPublicKeyInfo.
    #[serde(with = "hex")]
    pub(crate) spki_sha256: [u8; 32],
    pub(crate) accounts: u64,
    /// Unix time, milliseconds.
    pub(crate) loaded_at_unix_ms: u64,
}

/// The signing service, a child of this process. It never outlives it.
pub(crate) struct Service {
    child: Child,
    logs: JoinHandle<()>,
    /// Between vsock and a service that knows TCP only; see [`crate::workload`].
    bridges: JoinSet<io::Error>,
}

impl Service {
    /// Starts the program with an empty environment and waits for its ready line. Its log lines go to the parent.
    pub(crate) async fn start(
        program: &Path,
        config: &Path,
        outbox: Outbox,
    ) -> Result<(Self, ServiceReady), BootError> {
        let (child, stdout, stderr) = spawn(program, [config])?;
        let mut service =
            Self { child, logs: tokio::spawn(forward_lines(stderr, outbox)), bridges: JoinSet::new() };
        let line = match timeout(READY_TIMEOUT, first_line(stdout)).await {
            Ok(line) => line.map_err(because(FailureReason::ServiceExited, "the signing service"))?,
            Err(_) => return Err(not_ready()),
        };
        match line.as_str() {
            "" => Err(service.ended().await),
            line => Ok((service, parse_ready(line)?)),
        }
    }

    /// Starts a program with `arguments` and an empty environment. What it writes goes to the parent, line by line.
    pub(crate) fn start_other(
        program: &Path,
        arguments: &[String],
        outbox: Outbox,
    ) -> Result<Self, BootError> {
        let (child, stdout, stderr) = spawn(program, arguments)?;
        let logs = tokio::spawn(async move {
            tokio::join!(forward_lines(stdout, outbox.clone()), forward_lines(stderr, outbox));
        });
        Ok(Self { child, logs, bridges: JoinSet::new() })
    }

    /// Waits until `ready` is, which the service's end, or too long a time, fails.
    pub(crate) async fn ready(&mut self, ready: impl Future<Output = ()>) -> Result<(), BootError> {
        tokio::select! {
            ready = timeout(READY_TIMEOUT, ready) => ready.map_err(|_| not_ready()),
            error = self.ended() => Err(error),
        }
    }

    /// Ties a bridge to the service: if either ends, [`Service::ended`] returns.
    pub(crate) fn add_bridge(&mut self, mut bridge: Bridge) {
        self.bridges.spawn(async move { bridge.wait().await });
    }

    /// Waits for the service to end, which it should not, and says how it did.
    pub(crate) async fn ended(&mut self) -> BootError {
        let status = tokio::select! {
            biased;
            status = self.child.wait() => status,
            Some(ended) = self.bridges.join_next() => {
                let error = ended.unwrap_or_else(io::Error::other);
                return BootError::new(FailureReason::Internal, format!("a bridge of the service ended: {error}"));
            }
        };
        let status = match status {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        // Its last words come before the news of its end.
        let _ = timeout(LAST_LINES_TIMEOUT, &mut self.logs).await;
        exited(&format!("it ended: {status}"))
    }

    /// Asks the service to end its sessions and stop; after [`STOP_TIMEOUT`] it is killed.
    pub(crate) async fn stop(self) {
        self.stop_within(STOP_TIMEOUT).await;
    }

    async fn stop_within(mut self, limit: Duration) {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok())
            && let Err(error) = kill(Pid::from_raw(id), Signal::SIGTERM)
        {
            tracing::warn!(%error, "cannot send SIGTERM to the signing service");
        }
        if timeout(limit, self.ended()).await.is_err() {
            tracing::warn!("the signing service did not end in time and is killed");
            let _ = self.child.kill().await;
        }
    }
}

fn exited(problem: &str) -> BootError {
    BootError::new(FailureReason::ServiceExited, format!("the signing service: {problem}"))
}

fn not_ready() -> BootError {
    exited(&format!("it was not ready within {} seconds", READY_TIMEOUT.as_secs()))
}

/// Starts the program as a child that does not outlive this process.
fn spawn(
    program: &Path,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<(Child, ChildStdout, ChildStderr), BootError> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    end_with_this_process(&mut command);
    let mut child = children::spawn(&mut command)
        .map_err(because(FailureReason::ServiceExited, format!("cannot start {}", program.display())))?;
    match (child.stdout.take(), child.stderr.take()) {
        (Some(stdout), Some(stderr)) => Ok((child, stdout, stderr)),
        _ => Err(BootError::new(FailureReason::Internal, "the service has no standard streams")),
    }
}

/// Empty if the program ends before it writes one.
async fn first_line(stdout: ChildStdout) -> io::Result<String> {
    let mut stdout = BufReader::new(stdout);
    let mut line = String::new();
    (&mut stdout).take(MAX_READY_BYTES).read_line(&mut line).await?;
    // Nothing more is expected, but a full pipe would block the service.
    tokio::spawn(async move { tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await });
    Ok(line)
}

fn parse_ready(line: &str) -> Result<ServiceReady, BootError> {
    let ready: ServiceReady = serde_json::from_str(line).map_err(because(
        FailureReason::ServiceExited,
        "the signing service's first line is not its ready line",
    ))?;
    if !ready.ready {
        return Err(exited("it says that it is not ready"));
    }
    Ok(ready)
}

async fn forward_lines(stderr: impl AsyncRead + Unpin, outbox: Outbox) {
    let mut lines = BufReader::new(stderr).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        outbox.log(SOURCE, &String::from_utf8_lossy(&line));
    }
}

/// Has the kernel kill the child when the thread that starts it ends, however it ends: key shares must not live on in a
/// process that nobody watches. The thread has to be one that lives as long as this process.
#[allow(unsafe_code, reason = "code between fork and exec is unsafe by nature")]
fn end_with_this_process(command: &mut Command) {
    let own_id = getpid();
    let in_child = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // Too late for the signal if this process ended before the line above.
        if getppid() == own_id { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. The closure makes two plain system calls,
    // prctl(2) and getppid(2), and neither kind of `io::Error` it returns allocates.
    unsafe {
        command.pre_exec(in_child);
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
