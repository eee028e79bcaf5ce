//! A software module in another process.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use aws_nitro_enclaves_nsm_api::api::{Request, Response};

use super::Nsm;
use crate::NsmError;
use crate::software::{read_frame, write_frame};

/// Longest wait for an answer; making a certificate takes some milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The software security module that serves on a unix socket. Each request has a connection of its own.
#[derive(Debug)]
pub(super) struct SocketNsm {
    path: String,
}

impl SocketNsm {
    /// Names the socket and sees whether somebody answers.
    pub(super) fn open(path: &str) -> Result<Self, NsmError> {
        let nsm = Self { path: path.to_owned() };
        nsm.describe()?;
        Ok(nsm)
    }

    fn exchange(&self, request: &Request) -> io::Result<Response> {
        let mut stream = UnixStream::connect(&self.path)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        write_frame(&mut stream, request)?;
        read_frame(&mut stream)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Nsm for SocketNsm {
    fn request(&self, request: Request) -> Result<Response, NsmError> {
        self.exchange(&request).map_err(|source| NsmError::Socket { path: self.path.clone(), source })
    }
}
