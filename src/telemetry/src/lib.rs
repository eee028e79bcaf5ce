//! Logs: JSON lines on stderr, with secrets redacted.
//!
//! Secrets have types that cannot be printed; the redaction here is the second line, for what slips through in an error
//! text or in a line that another program wrote.

mod redact;
mod writer;

use tracing::Level;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

pub use redact::{REDACTED, redact};
pub use writer::RedactingWriter;

/// Environment variable with the filter, in the syntax of [`Targets`], such as `kms=debug` or `warn,kms=debug`. (`EnvFilter`
/// can do more, but brings an engine for regular expressions into the enclave's programs.)
pub const FILTER_VARIABLE: &str = "NITRO_SIGN_LOG";

/// Sends all `tracing` events of this process to stderr: one JSON object a line, with `source` naming the program.
///
/// The level is `info` unless [`FILTER_VARIABLE`] names another; a value that cannot be read is named in a warning. A second
/// call changes nothing.
pub fn init(source: &'static str) {
    let asked = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| "info".into()).parse::<Targets>();
    let refused = asked.as_ref().err().map(ToString::to_string);
    let filter = match asked.unwrap_or_default() {
        filter if filter.default_level().is_some() => filter,
        filter => filter.with_default(Level::INFO),
    };
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(Level::TRACE)
        .with_writer(move || RedactingWriter::new(std::io::stderr(), source))
        .finish();
    // Fails only if a subscriber is set already: then its logs go on.
    if subscriber.with(filter).try_init().is_ok()
        && let Some(error) = refused
    {
        tracing::warn!(%error, "{FILTER_VARIABLE} is no filter such as `info,kms=debug`");
    }
}
