use std::{
    io,
    io::IoSlice,
    pin::Pin,
    task::{Context, Poll},
};

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_vsock::VsockStream;

use crate::capped::Capped;

/// A connection of any kind; no single write to its socket is larger than [`MAX_WRITE`](crate::MAX_WRITE).
#[derive(Debug)]
pub struct Stream(Capped<Socket>);

#[derive(Debug)]
enum Socket {
    Vsock(VsockStream),
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl From<VsockStream> for Stream {
    fn from(stream: VsockStream) -> Self {
        Self(Capped::new(Socket::Vsock(stream)))
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self(Capped::new(Socket::Unix(stream)))
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self(Capped::new(Socket::Tcp(stream)))
    }
}

/// Lets hyper's client use it as a connection.
impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// Calls the same method of whichever socket it is.
macro_rules! each {
    ($socket:expr, $io:ident => $call:expr) => {
        match $socket {
            Socket::Vsock($io) => $call,
            Socket::Unix($io) => $call,
            Socket::Tcp($io) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(&mut *self, io => Pin::new(io).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(&mut *self, io => Pin::new(io).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(&mut *self, io => Pin::new(io).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, io => io.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut *self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut *self, io => Pin::new(io).poll_shutdown(cx))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream as StdUnixStream;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::MAX_WRITE;

    /// Two ends of a socket that keeps the borders between writes, so that a reader sees the size of each.
    fn must_pair() -> (UnixStream, UnixStream) {
        let flags = SockFlag::SOCK_NONBLOCK;
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let tokio = |fd| UnixStream::from_std(StdUnixStream::from(fd)).unwrap();
        (tokio(a), tokio(b))
    }

    #[tokio::test]
    async fn the_largest_write_that_reaches_the_other_side_is_the_cap() {
        let (near, mut far) = must_pair();
        let writing = tokio::spawn(async move {
            let mut stream = Stream::from(near);
            stream.write_all(&vec![1; 100_000]).await.unwrap();
            let half = vec![2; 10_000];
            stream
                .write_vectored(&[IoSlice::new(&half[..6_000]), IoSlice::new(&half), IoSlice::new(&half)])
                .await
                .unwrap()
        });
        let mut record = vec![0; 4 * MAX_WRITE];
        let mut sizes = Vec::new();
        loop {
            match far.read(&mut record).await.unwrap() {
                0 => break,
                size => sizes.push(size),
            }
        }
        assert_eq!(writing.await.unwrap(), 16_000);
        assert_eq!(sizes.iter().max(), Some(&MAX_WRITE), "{sizes:?}");
        assert_eq!(sizes.iter().sum::<usize>(), 116_000);
    }
}
