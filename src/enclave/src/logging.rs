use std::io::{self, Write};

use telemetry::RedactingWriter;
use tracing::Level;

use crate::outbox::Outbox;

const SOURCE: &str = "enclave";

/// Sends this program's logs, redacted, to stderr (the console of an enclave) and to the parent.
pub(crate) fn start(outbox: Outbox) {
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(Level::INFO)
        .with_writer(move || RedactingWriter::new(Both(outbox.clone()), SOURCE));
    // Fails only if a subscriber is set already.
    let _ = subscriber.try_init();
}

struct Both(Outbox);

impl Write for Both {
    /// Called with whole lines.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        for line in String::from_utf8_lossy(lines).lines() {
            self.0.log(SOURCE, line);
        }
        // The console may be closed; the parent is told anyway.
        let _ = io::stderr().write_all(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
