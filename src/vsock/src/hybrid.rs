//! The two sides of the hybrid vsock handshake.
//!
//! Source: Firecracker, `docs/vsock.md`, "Host-Initiated Connections": the host connects to the socket and sends
//! `CONNECT <port>\n`; if a guest listens at that port it is answered `OK <number>\n`, else the connection is closed.
use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

/// How long a guest waits for the host's `CONNECT` line.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest handshake line, bytes: `CONNECT 4294967295\n` has 19.
const MAX_LINE: usize = 32;

/// Host side: asks for `port`. The caller bounds the time.
pub(crate) async fn ask<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut IO, port: u32) -> io::Result<()> {
    io.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    io.flush().await?;
    let line = read_line(io).await?.ok_or_else(|| {
        let message =
            format!("closed during the hybrid vsock handshake; nothing in the guest listens at port {port}");
        io::Error::new(io::ErrorKind::ConnectionRefused, message)
    })?;
    match line.strip_prefix("OK ").map(str::parse::<u32>) {
        Some(Ok(_)) => Ok(()),
        _ => {
            Err(invalid("the answer to CONNECT is not \"OK <port>\"; is this the socket of a hybrid vsock?"))
        }
    }
}

/// Guest side: accepts a host that asks for `port`, within [`HANDSHAKE_TIMEOUT`].
pub(crate) async fn answer<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut IO, port: u32) -> io::Result<()> {
    timeout(HANDSHAKE_TIMEOUT, answer_untimed(io, port))
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no CONNECT line in time")))
}

async fn answer_untimed<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut IO, port: u32) -> io::Result<()> {
    let line = read_line(io)
        .await?
        .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "closed before its CONNECT line"))?;
    match line.strip_prefix("CONNECT ").map(str::parse::<u32>) {
        Some(Ok(asked)) if asked == port => {}
        Some(Ok(asked)) => return Err(invalid(&format!("asked for port {asked}, only {port} listens"))),
        _ => return Err(invalid("expected \"CONNECT <port>\"")),
    }
    io.write_all(format!("OK {port}\n").as_bytes()).await?;
    io.flush().await
}

/// Reads one line, byte by byte so that nothing behind it is taken from the stream; `None` at the end of the stream.
async fn read_line<IO: AsyncRead + Unpin>(io: &mut IO) -> io::Result<Option<String>> {
    let mut line = Vec::with_capacity(MAX_LINE);
    while line.len() < MAX_LINE {
        match io.read_u8().await {
            Ok(b'\n') => {
                return String::from_utf8(line).map(Some).map_err(|_| invalid("the line is not text"));
            }
            Ok(byte) => line.push(byte),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
    Err(invalid(&format!("the handshake line is longer than {MAX_LINE} bytes")))
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// What the guest at port 7 does with a host that sends `bytes` and closes.
    async fn guest_given(bytes: &[u8]) -> (io::Result<()>, String) {
        let (mut host, mut guest) = duplex(1024);
        host.write_all(bytes).await.unwrap();
        host.shutdown().await.unwrap();
        let result = answer(&mut guest, 7).await;
        drop(guest);
        let mut reply = String::new();
        host.read_to_string(&mut reply).await.unwrap();
        (result, reply)
    }

    /// What the host asking for port 7 makes of a guest that answers `bytes` and closes.
    async fn host_given(bytes: &[u8]) -> io::Result<()> {
        let (mut host, mut guest) = duplex(1024);
        guest.write_all(bytes).await.unwrap();
        guest.shutdown().await.unwrap();
        ask(&mut host, 7).await
    }

    #[tokio::test]
    async fn the_two_sides_agree_and_take_nothing_of_what_follows() {
        let (mut host, mut guest) = duplex(1024);
        let (asked, answered) = tokio::join!(
            async {
                ask(&mut host, 7).await?;
                host.write_all(b"after").await
            },
            answer(&mut guest, 7)
        );
        asked.unwrap();
        answered.unwrap();
        let mut rest = [0; 5];
        guest.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"after");
    }

    #[tokio::test]
    async fn the_guest_answers_its_own_port_only() {
        let (result, reply) = guest_given(b"CONNECT 7\n").await;
        result.unwrap();
        assert_eq!(reply, "OK 7\n");

        let (result, reply) = guest_given(b"CONNECT 8\n").await;
        assert!(result.unwrap_err().to_string().contains("asked for port 8"));
        assert_eq!(reply, "");
    }

    #[tokio::test]
    async fn the_guest_refuses_anything_but_a_connect_line() {
        for bytes in [
            &b""[..],
            b"CONNECT 7",
            b"\n",
            b"CONNECT \n",
            b"connect 7\n",
            b"CONNECT 4294967296\n",
            b"\xff\xfe\n",
            b"GET / HTTP/1.1 and more than fits\n",
        ] {
            let (result, reply) = guest_given(bytes).await;
            assert!(result.is_err(), "{bytes:?}");
            assert_eq!(reply, "", "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn the_host_accepts_any_number_after_ok_and_nothing_else() {
        host_given(b"OK 1073741824\n").await.unwrap();
        for bytes in [&b"OK\n"[..], b"OK x\n", b"NO 7\n", b"\n", b"OK 0000000000000000000000000000000\n"] {
            assert_eq!(host_given(bytes).await.unwrap_err().kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
        for bytes in [&b""[..], b"OK 7"] {
            assert_eq!(host_given(bytes).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_guest_does_not_wait_for_ever() {
        let (_host, mut guest) = duplex(1024);
        assert_eq!(answer(&mut guest, 7).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
