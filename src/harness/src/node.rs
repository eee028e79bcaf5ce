use std::{
    fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    World,
    program::{Program, binary},
};

/// Longer than the parent's own limit for a boot, so that the parent says what went wrong.
const SERVING_TIMEOUT: Duration = Duration::from_mins(4);

/// A parent and, through it, its enclave.
pub struct Node {
    /// The parent's process.
    pub program: Program,
    status: PathBuf,
}

/// `status.json` of the parent.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Status(pub serde_json::Value);

impl Status {
    /// The name of the state, for example `Serving`.
    pub fn state(&self) -> &str {
        self.0["state"].as_str().unwrap_or_default()
    }

    /// The reason of a failure, for example `KmsDenied`.
    pub fn reason(&self) -> Option<&str> {
        self.0["reason"].as_str()
    }

    /// A field that has to be there as text.
    pub fn text(&self, pointer: &str) -> Result<&str> {
        let value = self.0.pointer(pointer).and_then(serde_json::Value::as_str);
        value.with_context(|| format!("the parent's status has no {pointer}: {}", self.0))
    }

    /// Where clients connect; only while serving.
    pub fn ingress(&self) -> Option<&str> {
        self.0["ingress"].as_str()
    }

    /// The states it went through, in order.
    pub fn history(&self) -> Vec<&str> {
        let states = self.0["history"].as_array();
        states.into_iter().flatten().filter_map(|entry| entry["state"].as_str()).collect()
    }

    /// The enclave's process id.
    pub fn enclave_pid(&self) -> Result<u32> {
        let pid = self.0["enclave_pid"].as_u64().context("the parent's status has no enclave_pid")?;
        Ok(u32::try_from(pid)?)
    }
}

impl Node {
    pub(crate) fn start(world: &World) -> Result<Self> {
        let _ = fs::remove_file(world.path("run/status.json"));
        let mut command = Command::new(binary("parent")?);
        command.args(["run", "--config"]).arg(world.path("parent.toml"));
        let mut program = Program::start("parent", &mut command, &world.path("logs"))?;
        program.discard_output();
        Ok(Self { program, status: world.path("run/status.json") })
    }

    /// What the parent says of itself now.
    pub fn status(&self) -> Result<Status> {
        let text =
            fs::read(&self.status).with_context(|| format!("no status in {}", self.status.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Waits until it serves, calling `on_state` at each new state; a failure is an error.
    pub fn wait_serving(&mut self, on_state: impl FnMut(&Status)) -> Result<Status> {
        self.wait_serving_within(SERVING_TIMEOUT, on_state)
    }

    /// The same with another limit.
    pub fn wait_serving_within(
        &mut self,
        limit: Duration,
        mut on_state: impl FnMut(&Status),
    ) -> Result<Status> {
        let deadline = Instant::now() + limit;
        let mut last = String::new();
        loop {
            if let Ok(status) = self.status() {
                if status.state() != last {
                    on_state(&status);
                    status.state().clone_into(&mut last);
                }
                match status.state() {
                    "Serving" => return Ok(status),
                    "Failed" => bail!(
                        "the parent failed: {} ({})\n{}",
                        status.reason().unwrap_or("no reason"),
                        status.0["message"],
                        self.program.log_tail()
                    ),
                    _ => {}
                }
            }
            if self.program.has_ended()? || Instant::now() > deadline {
                bail!("the parent does not serve; its log says:\n{}", self.program.log_tail());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the parent has given up, and returns its last status and its exit code.
    pub fn wait_failed(&mut self) -> Result<(Status, i32)> {
        let exit = self.program.wait(SERVING_TIMEOUT)?;
        Ok((self.status()?, exit.code().context("the parent was killed by a signal")?))
    }
}
