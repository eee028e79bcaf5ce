//! Where bytes go: endpoints, listeners, connectors, and the bridge between two of them.
//!
//! One type, [`Endpoint`], names every place a program of this workspace listens at or dials: a vsock port (production),
//! a "hybrid vsock" Unix socket (processes and emulated machines on one host, the protocol of Firecracker, Cloud
//! Hypervisor and `vhost-device-vsock`), or TCP. What is above a [`Stream`] does not know which of them it uses.
//!
//! | text | [`connect`] | [`Listener::bind`] |
//! |---|---|---|
//! | `vsock:CID:PORT`, `vsock:any:PORT` | `AF_VSOCK` | `AF_VSOCK` |
//! | `unix:PATH:PORT` (host side) | connects `PATH`, sends `CONNECT PORT\n`, awaits `OK <n>\n` | binds `PATH_PORT` |
//! | `unix-guest:PATH:PORT` (guest side) | connects `PATH_PORT` | binds `PATH`, answers `CONNECT PORT\n` |
//! | `tcp:HOST:PORT` | TCP, no delay | TCP, no delay |
//!
//! Every single write is capped at [`MAX_WRITE`], in one place. The bytes themselves are never logged.
//!
//! The tests of this crate run on Unix sockets and TCP. `AF_VSOCK` needs a hypervisor (or the `vsock_loopback` module),
//! so those few lines run only in the virtual machine tests and in production.

mod bridge;
mod caller;
mod capped;
mod dial;
mod endpoint;
mod hybrid;
mod listener;
mod stream;

pub use bridge::{Bridge, BridgeStats, Limits};
pub use capped::MAX_WRITE;
pub use dial::{CONNECT_TIMEOUT, Dial, connect};
pub use endpoint::{Endpoint, EndpointError, Peer};
pub use hybrid::HANDSHAKE_TIMEOUT;
pub use listener::Listener;
pub use stream::Stream;
