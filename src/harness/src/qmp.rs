//! QEMU's control socket, as far as tests need it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// A connection to QEMU's QMP socket.
pub struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects and leaves negotiation mode.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to QEMU at {}", socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_mins(1)))?;
        let mut qmp = Self { reader: BufReader::new(stream) };
        qmp.read()?;
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command to its end.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let line = json!({"execute": command, "arguments": arguments}).to_string();
        self.reader.get_mut().write_all(format!("{line}\n").as_bytes())?;
        loop {
            let answer = self.read()?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {command}: {error}");
            }
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            // Otherwise an event.
        }
    }

    /// Writes the machine's memory from address 0 to a file.
    pub fn dump_memory(&mut self, bytes: u64, file: &Path) -> Result<()> {
        let file = file.to_str().context("the path is not UTF-8")?;
        self.execute("pmemsave", &json!({"val": 0, "size": bytes, "filename": file})).map(drop)
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            bail!("QEMU closed its control socket");
        }
        serde_json::from_str(&line).with_context(|| format!("QEMU said {line:?}"))
    }
}
