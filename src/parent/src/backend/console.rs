use std::sync::{Arc, Mutex, PoisonError};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    task::JoinHandle,
    time::{Duration, timeout},
};

/// What a program prints before, or without, a control channel: logged at level `debug`, the last line kept to explain
/// an early end.
#[derive(Debug)]
pub(super) struct Console {
    last: Arc<Mutex<String>>,
    task: JoinHandle<()>,
}

impl Console {
    pub(super) fn read(program: &'static str, output: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let last = Arc::new(Mutex::new(String::new()));
        let task = tokio::spawn(follow(program, output, Arc::clone(&last)));
        Self { last, task }
    }

    /// The last line, redacted, once the program has ended; empty if there was none.
    pub(super) async fn last_line(&mut self) -> String {
        if !self.task.is_finished() {
            // Bounded, because a grandchild may hold the pipe open for longer.
            let _ = timeout(Duration::from_millis(200), &mut self.task).await;
        }
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(program: &'static str, output: impl AsyncRead + Unpin, last: Arc<Mutex<String>>) {
    let mut lines = BufReader::new(output).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = telemetry::redact(&String::from_utf8_lossy(&line)).to_string();
        tracing::debug!(program, line, "console");
        if !line.trim().is_empty() {
            *last.lock().unwrap_or_else(PoisonError::into_inner) = line;
        }
    }
}
