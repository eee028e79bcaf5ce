//! Child processes: how they are started, when they are ready, how they end.

use std::{env, io, path::Path, process::Stdio, time::Duration};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
    time::{Instant, sleep, timeout},
};

use super::{BackendError, console::Console};
use crate::config::Invocation;

/// How long a program has to become ready: far more than any takes, on a loaded machine too.
pub(super) const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a socket is looked for that a program makes without saying so.
const POLL: Duration = Duration::from_millis(10);
/// Longest line in which a program says that it is ready, bytes.
const MAX_READY_LINE: u64 = 64 << 10;
/// All that the programs inherit from the parent's environment: what an enclave gets, which is nothing, and two
/// variables for whoever debugs.
const ENVIRONMENT: [&str; 2] = [telemetry::FILTER_VARIABLE, "RUST_BACKTRACE"];

/// What a program is to the enclave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Role {
    /// For people, for example `the hypervisor`.
    pub(super) name: &'static str,
    /// The key of the configuration that names the program.
    pub(super) key: &'static str,
    /// How many of its last lines on standard error explain an early end.
    pub(super) last_words: usize,
}

/// A child process that leads a process group, so that its own children end with it. Dropping it kills the group.
pub(super) struct Program {
    role: Role,
    path: String,
    child: Child,
    group: Option<Pid>,
    stdout: Option<BufReader<ChildStdout>>,
    /// What follows on standard output when nobody else wants it: read, so that the program never waits for a reader.
    rest: Option<Console>,
    stderr: Option<Console>,
}

/// The command of an invocation, to which arguments may be added.
pub(super) fn command(invocation: &Invocation) -> Command {
    let mut command = Command::new(&invocation.program);
    command.args(&invocation.arguments);
    command
}

impl Program {
    /// Starts a program in `directory`, with nothing to read and an almost empty environment.
    pub(super) fn start(role: Role, mut command: Command, directory: &Path) -> Result<Self, BackendError> {
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
        let mut child = command.spawn().map_err(|source| BackendError::Start {
            program: path.clone(),
            key: role.key,
            source,
        })?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let stdout = child.stdout.take().map(BufReader::new);
        let stderr = child.stderr.take().map(|output| logged(role, BufReader::new(output)));
        Ok(Self { role, path, child, group, stdout, rest: None, stderr })
    }

    /// Process id, until it has been waited for.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Its standard output, for a reader of its own; only once, and not after [`Program::ready`].
    pub(super) fn stdout(&mut self) -> Option<BufReader<ChildStdout>> {
        self.stdout.take()
    }

    /// Logs its standard output, from now on.
    pub(super) fn log_stdout(&mut self) {
        self.rest = self.stdout.take().map(|output| logged(self.role, output));
    }

    /// Waits for the line of JSON with `"ready": true` on standard output, and returns it.
    pub(super) async fn ready(&mut self) -> Result<serde_json::Value, BackendError> {
        let problem = match timeout(READY_TIMEOUT, self.first_line()).await {
            Err(_) => format!("nothing on standard output for {} s", READY_TIMEOUT.as_secs()),
            Ok(Err(error)) => error.to_string(),
            Ok(Ok(line)) if line.is_empty() => self.exited().await,
            Ok(Ok(line)) => match serde_json::from_str::<serde_json::Value>(&line) {
                Ok(ready) if ready["ready"] == true => {
                    self.log_stdout();
                    return Ok(ready);
                }
                _ => format!("it printed {:?} instead of a ready line", telemetry::redact(line.trim_end())),
            },
        };
        Err(self.not_ready(problem))
    }

    async fn first_line(&mut self) -> io::Result<String> {
        let Some(stdout) = &mut self.stdout else { return Ok(String::new()) };
        let mut line = String::new();
        stdout.take(MAX_READY_LINE).read_line(&mut line).await?;
        Ok(line)
    }

    /// Waits until it has made `socket`: the sign of readiness of a program that gives no other.
    pub(super) async fn has_made(&mut self, socket: &Path) -> Result<(), BackendError> {
        let started = Instant::now();
        while !socket.exists() {
            let problem = match timeout(POLL, self.exited()).await {
                Ok(ended) => ended,
                Err(_) if started.elapsed() < READY_TIMEOUT => continue,
                Err(_) => format!("no socket {} for {} s", socket.display(), READY_TIMEOUT.as_secs()),
            };
            return Err(self.not_ready(problem));
        }
        // The file is there from `bind` on, connections are taken from `listen` on.
        sleep(POLL).await;
        Ok(())
    }

    /// The error for a program that does something else than to become ready.
    pub(super) fn not_ready(&self, problem: String) -> BackendError {
        BackendError::NotReady { name: self.role.name, program: self.path.clone(), problem }
    }

    /// Returns when it has ended, with how, and with its last words on standard error. May be cancelled and called
    /// again.
    pub(super) async fn exited(&mut self) -> String {
        let how = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let last = match &mut self.stderr {
            Some(console) => console.last_lines().await,
            None => String::new(),
        };
        let name = self.role.name;
        if last.is_empty() {
            format!("{name} ended ({how})")
        } else {
            format!("{name} ended ({how}): {last}")
        }
    }

    /// Ends it with all that it started, and returns when it is gone.
    pub(super) async fn kill(&mut self) {
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

fn logged(role: Role, output: impl tokio::io::AsyncBufRead + Unpin + Send + 'static) -> Console {
    Console::read(output, role.last_words, move |line| tracing::debug!(program = role.name, line, "console"))
}

/// Lets the kernel kill the child when this process dies, even by SIGKILL.
///
/// The signal comes when the *thread* that started the child ends: launch from the runtime's main task, not from a
/// blocking thread.
#[allow(unsafe_code, reason = "PR_SET_PDEATHSIG can only be set by the child, between fork and exec")]
pub(crate) fn die_with_this_process(command: &mut Command) {
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
