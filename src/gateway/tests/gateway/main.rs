//! The gateway in front of real signing services that run in this process, over TCP and TLS.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod lifecycle;
mod program;
mod protocol;
mod requests;
mod signing;
mod support;
mod trust;
