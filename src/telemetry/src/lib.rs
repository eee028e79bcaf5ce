//! Logs: JSON lines on stderr, with secrets redacted.
//!
//! Secrets have types that cannot be printed; the redaction here is the second line, for what slips through in an error
//! text or in a line that another program wrote.

mod redact;
mod writer;

use tracing_subscriber::EnvFilter;

pub use redact::{REDACTED, redact};
pub use writer::RedactingWriter;

/// Environment variable with the filter, in the syntax of [`tracing_subscriber::EnvFilter`], such as `info,kms=debug`.
pub const FILTER_VARIABLE: &str = "NITRO_SIGN_LOG";

/// Sends all `tracing` events of this process to stderr: one JSON object a line, with `source` naming the program.
///
/// The level is `info` unless [`FILTER_VARIABLE`] says otherwise. A second call changes nothing.
pub fn init(source: &'static str) {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(move || RedactingWriter::new(std::io::stderr(), source));
    // Fails only if a subscriber is set already: then its logs go on.
    let _ = subscriber.try_init();
}
