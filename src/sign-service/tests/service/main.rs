//! The service over real sockets: in this process, and in `program` as the program it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod api_calls;
mod program;
mod signing;
mod support;
mod tls;
