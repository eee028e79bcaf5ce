//! The signing service that runs inside the enclave: the public API of `proto/signservice.proto` over mutual TLS 1.3
//! that ends here, and the caps that keep it alive.
//!
//! How a request goes: `accept` shakes hands and checks the client's certificate, `service` answers, and for `Sign`
//! `signing` drives one session of `threshold` between the two directions of the stream. `sessions` counts them.
//!
//! The library exists so that tests can run the service inside their own process; the program is `main.rs`.

mod accept;
mod attest;
mod config;
mod dictionary;
mod fields;
mod server;
mod service;
mod sessions;
mod signing;
mod status;
mod tls;

pub use config::{Config, ConfigError};
pub use dictionary::LoadError;
pub use server::{Ready, Server, StartError};
pub use tls::TlsError;

/// Largest request message, bytes (256 KiB): the largest field of the API has 64 KiB.
pub const MAX_REQUEST_BYTES: usize = 256 * 1024;
/// Client connections at the same time, handshakes included.
pub const MAX_CONNECTIONS: usize = 256;
