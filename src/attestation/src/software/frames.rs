//! The module over a unix socket: requests and answers in CBOR, as on the device, each after its length (u32, big
//! endian).

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;

use aws_nitro_enclaves_nsm_api::api::{ErrorCode, Request, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{SoftwareNsm, handle};

/// Most bytes of a frame: what the kernel's driver takes for an answer. Requests have a limit of their own below it.
const MAX_FRAME: usize = 0x3000;
/// Most bytes of a request, as in the kernel's driver.
const MAX_REQUEST: usize = 0x1000;

/// Serves the module on `listener`, one thread a connection, until accepting fails.
#[allow(clippy::needless_pass_by_value, reason = "it is the last user of both, mostly a thread of its own")]
pub fn serve(listener: UnixListener, nsm: Arc<SoftwareNsm>) -> io::Result<()> {
    for stream in listener.incoming() {
        let (mut stream, nsm) = (stream?, Arc::clone(&nsm));
        // A client that goes away, or speaks something else, ends its own connection and nothing more.
        thread::Builder::new().name("nsm".to_owned()).spawn(move || converse(&mut stream, &nsm))?;
    }
    Ok(())
}

fn converse(stream: &mut UnixStream, nsm: &SoftwareNsm) -> io::Result<()> {
    while let Some(bytes) = read_bytes(stream)? {
        let response = if bytes.len() > MAX_REQUEST {
            Response::Error(ErrorCode::InputTooLarge)
        } else {
            decode::<Request>(&bytes)
                .map_or(Response::Error(ErrorCode::InvalidOperation), |request| handle(nsm, request))
        };
        write_frame(stream, &response)?;
    }
    Ok(())
}

/// Reads one message; none if the other side is done.
pub(crate) fn read_frame<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<Option<T>> {
    read_bytes(stream)?.map(|bytes| decode(&bytes)).transpose()
}

/// Writes one message.
pub(crate) fn write_frame(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    // Room for the length, so that the frame leaves in one write.
    let mut frame = vec![0; 4];
    ciborium::into_writer(message, &mut frame).map_err(io::Error::other)?;
    let length = u32::try_from(frame.len() - 4).map_err(io::Error::other)?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&frame)
}

fn read_bytes(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {length} bytes, the limit is {MAX_FRAME}"),
        ));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

fn decode<T: DeserializeOwned>(mut bytes: &[u8]) -> io::Result<T> {
    let message = ciborium::from_reader(&mut bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    if bytes.is_empty() { Ok(message) } else { Err(io::ErrorKind::InvalidData.into()) }
}
