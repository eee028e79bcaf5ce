use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _},
    task::JoinHandle,
    time::{Duration, timeout},
};

/// Longest line, bytes; the rest of a longer one is dropped. Who prints is not trusted with more of our memory.
const MAX_LINE: u64 = 64 << 10;

/// Reads what a program, or a machine, prints, line by line, and keeps the last lines to explain an early end.
#[derive(Debug)]
pub(crate) struct Console {
    last: Arc<Mutex<VecDeque<String>>>,
    task: JoinHandle<()>,
}

impl Console {
    /// Hands each line to `sink`, redacted; the last `keep` that are not empty are kept.
    pub(crate) fn read(
        output: impl AsyncBufRead + Unpin + Send + 'static,
        keep: usize,
        sink: impl FnMut(&str) + Send + 'static,
    ) -> Self {
        let last = Arc::new(Mutex::new(VecDeque::new()));
        let task = tokio::spawn(follow(output, keep, Arc::clone(&last), sink));
        Self { last, task }
    }

    /// The last lines, once what prints them has ended; empty if there was none.
    pub(crate) async fn last_lines(&mut self) -> String {
        if !self.task.is_finished() {
            // Bounded, because a grandchild may hold the pipe open for longer.
            let _ = timeout(Duration::from_millis(200), &mut self.task).await;
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter().map(String::as_str).collect::<Vec<_>>().join("; ")
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(
    mut output: impl AsyncBufRead + Unpin,
    keep: usize,
    last: Arc<Mutex<VecDeque<String>>>,
    mut sink: impl FnMut(&str),
) {
    while let Ok(Some(line)) = next_line(&mut output).await {
        let line = String::from_utf8_lossy(&line);
        let line = telemetry::redact(line.trim_end());
        sink(&line);
        if !line.is_empty() {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            last.push_back(line.into_owned());
            if last.len() > keep {
                last.pop_front();
            }
        }
    }
}

/// The next line or the start of it, `None` at the end.
async fn next_line(output: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = (&mut *output).take(MAX_LINE).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Ok(None);
    }
    if line.pop_if(|last| *last == b'\n').is_none() {
        skip_line(output).await?;
    }
    Ok(Some(line))
}

async fn skip_line(output: &mut (impl AsyncBufRead + Unpin)) -> io::Result<()> {
    loop {
        let available = output.fill_buf().await?;
        let newline = available.iter().position(|byte| *byte == b'\n');
        let (used, done) = match newline {
            Some(at) => (at + 1, true),
            None => (available.len(), available.is_empty()),
        };
        output.consume(used);
        if done {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines handed on, and those kept.
    async fn read(input: &'static [u8], keep: usize) -> (Vec<String>, String) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&lines);
        let mut console = Console::read(input, keep, move |line| seen.lock().unwrap().push(line.to_owned()));
        (&mut console.task).await.unwrap();
        let last = console.last_lines().await;
        (lines.lock().unwrap().clone(), last)
    }

    #[tokio::test]
    async fn every_line_is_handed_on_and_the_last_ones_that_say_something_are_kept() {
        let (lines, last) = read(b"one\r\n\ntwo\nthree\n\nfo\xffur", 2).await;
        assert_eq!(lines, ["one", "", "two", "three", "", "fo\u{fffd}ur"]);
        assert_eq!(last, "three; fo\u{fffd}ur");
    }

    #[tokio::test]
    async fn of_a_line_without_end_the_start_is_kept_and_the_next_line_is_whole() {
        let limit = usize::try_from(MAX_LINE).unwrap();
        let input = [vec![b'x'; 3 * limit], b"\nnext\n".to_vec()].concat();
        let (lines, _) = read(input.leak(), 1).await;
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [limit, 4]);
        let (lines, _) = read([vec![b'x'; limit], b"\nnext\n".to_vec()].concat().leak(), 1).await;
        assert_eq!(lines[1..], ["next"]);
    }

    #[tokio::test]
    async fn a_secret_is_redacted_before_anybody_sees_it() {
        let input = format!("identity AGE-SECRET-KEY-1{}\n", "Q".repeat(58)).leak();
        let (lines, last) = read(input.as_bytes(), 1).await;
        assert!(!lines[0].contains("QQQ") && !last.contains("QQQ"), "{lines:?}");
    }
}
