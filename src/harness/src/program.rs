use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long a program may take until its ready line, on a loaded machine.
const READY_TIMEOUT: Duration = Duration::from_mins(1);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// The path of one of the workspace's programs: beside the running one, or in `NITRO_SIGN_BIN_DIR`.
pub fn binary(name: &str) -> Result<PathBuf> {
    let path = program_directory()?.join(name);
    path.canonicalize()
        .with_context(|| format!("no program {}; `cargo xtask build` makes it", path.display()))
}

fn program_directory() -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("NITRO_SIGN_BIN_DIR") {
        return Ok(directory.into());
    }
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let directory = own.parent().context("this program has no directory")?;
    // Test programs are one level below the others.
    Ok(if directory.ends_with("deps") { directory.join("..") } else { directory.to_owned() })
}

/// A running program: standard error goes to a file, the first line of standard output says that it is ready.
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `command` and returns at once.
    pub fn start(name: &str, command: &mut Command, logs: &Path) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write the log {}", log.display()))?;
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).spawn().with_context(|| {
                format!("cannot start {name} ({})", command.get_program().to_string_lossy())
            })?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Waits for the line of JSON that the program prints when it is ready.
    pub fn ready(&mut self) -> Result<serde_json::Value> {
        let stdout = self.child.stdout.take().context("the ready line was already read")?;
        let (sender, receiver) = mpsc::channel();
        // Reads on to the end, so that the program never blocks on a full pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Only the first is waited for.
                let _ = sender.send(line);
            }
        });
        let Ok(line) = receiver.recv_timeout(READY_TIMEOUT) else {
            bail!("{} did not become ready; its log says:\n{}", self.name, self.log_tail());
        };
        serde_json::from_str(&line).with_context(|| format!("{} printed no JSON: {line}", self.name))
    }

    /// Reads and forgets standard output, for programs that print no ready line.
    pub fn discard_output(&mut self) {
        if let Some(mut stdout) = self.child.stdout.take() {
            thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        }
    }

    /// The operating system's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the program to end by itself.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} is still running after {timeout:?}; its log says:\n{}", self.name, self.log_tail());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Has it ended?
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Asks the program to end (SIGTERM) and waits for it.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if !self.has_ended()? {
            kill(pid(self.child.id())?, Signal::SIGTERM)?;
        }
        self.wait(STOP_TIMEOUT)
    }

    /// The end of the program's log, for error messages.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        // Its children are told first: SIGTERM, then the end.
        if let Ok(pid) = pid(self.child.id()) {
            let _ = kill(pid, Signal::SIGTERM);
        }
        if self.wait(Duration::from_secs(5)).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

pub(crate) fn pid(id: u32) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(id)?))
}

/// Runs a program to its end and returns its standard output; its words go into the error if it fails.
pub(crate) fn run(command: &mut Command, input: Option<&[u8]>) -> Result<Vec<u8>> {
    use std::io::Write as _;
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(input)?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        bail!(
            "{name} {} failed ({}):\n{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(output.stdout)
}
