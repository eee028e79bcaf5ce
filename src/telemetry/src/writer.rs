//! The way every log line takes.

use std::io::{self, Write};

use crate::redact;

/// Redacts whole lines on their way to `inner`, and adds the name of the program to each JSON object.
///
/// A line may arrive in several writes: a secret that was cut in two is still found. What is left without a newline is
/// written when the writer is dropped.
#[derive(Debug)]
pub struct RedactingWriter<W: Write> {
    inner: W,
    source: &'static str,
    pending: Vec<u8>,
}

impl<W: Write> RedactingWriter<W> {
    /// Writes to `inner`; `source` is a plain word, it goes into the JSON as it is.
    pub fn new(inner: W, source: &'static str) -> Self {
        Self { inner, source, pending: Vec::new() }
    }

    fn write_lines(&mut self, end: usize) -> io::Result<()> {
        let lines: Vec<u8> = self.pending.drain(..end).collect();
        let mut output = String::with_capacity(lines.len() + self.source.len() + 16);
        for line in String::from_utf8_lossy(&lines).split_inclusive('\n') {
            let line = redact(line);
            match line.strip_prefix('{') {
                Some(rest) => output.extend(["{\"source\":\"", self.source, "\",", rest]),
                None => output.push_str(&line),
            }
        }
        // In one call, so that lines of two threads do not mix.
        self.inner.write_all(output.as_bytes())
    }
}

impl<W: Write> Write for RedactingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        if let Some(newline) = self.pending.iter().rposition(|byte| *byte == b'\n') {
            self.write_lines(newline + 1)?;
        }
        Ok(bytes.len())
    }

    /// Leaves an unfinished line where it is: half a secret cannot be recognised.
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W: Write> Drop for RedactingWriter<W> {
    fn drop(&mut self) {
        // Nobody is left to hear of a log that cannot be written.
        let _ = self.write_lines(self.pending.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(parts: &[&str]) -> String {
        let mut output = Vec::new();
        let mut writer = RedactingWriter::new(&mut output, "test");
        for part in parts {
            writer.write_all(part.as_bytes()).unwrap();
            writer.flush().unwrap();
        }
        drop(writer);
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn a_secret_cut_by_two_writes_is_found() {
        assert_eq!(written(&["x AGE-SECR", "ET-KEY-1ABC y\n"]), "x [redacted] y\n");
        assert_eq!(
            written(&["{\"secret\":\"ab", "cd\"}\n"]),
            "{\"source\":\"test\",\"secret\":\"[redacted]\"}\n"
        );
    }

    #[test]
    fn a_line_without_a_newline_is_written_at_the_end() {
        assert_eq!(written(&["first\nsecret=", "abc"]), "first\nsecret=[redacted]");
    }

    #[test]
    fn lines_that_are_not_utf8_are_written_too() {
        let mut output = Vec::new();
        RedactingWriter::new(&mut output, "test").write_all(b"\xff secret=abc\n").unwrap();
        assert_eq!(String::from_utf8(output).unwrap(), "\u{fffd} secret=[redacted]\n");
    }
}
