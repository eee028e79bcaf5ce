use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_vsock::{VsockAddr, VsockStream};
use tower_service::Service;

use crate::{Endpoint, Stream, hybrid};

/// How long [`connect`] tries, handshake included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to `endpoint` within [`CONNECT_TIMEOUT`]. Errors name the endpoint.
pub async fn connect(endpoint: &Endpoint) -> io::Result<Stream> {
    timeout(CONNECT_TIMEOUT, connect_untimed(endpoint))
        .await
        .unwrap_or_else(|_| {
            let message = format!("no connection after {} seconds", CONNECT_TIMEOUT.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        })
        .map_err(|error| io::Error::new(error.kind(), format!("cannot connect to {endpoint}: {error}")))
}

async fn connect_untimed(endpoint: &Endpoint) -> io::Result<Stream> {
    match endpoint {
        Endpoint::Vsock { cid, port } => {
            VsockStream::connect(VsockAddr::new(*cid, *port)).await.map(Stream::from)
        }
        Endpoint::Unix { path, port } => {
            let mut stream = UnixStream::connect(path).await?;
            hybrid::ask(&mut stream, *port).await?;
            Ok(stream.into())
        }
        Endpoint::UnixGuest { path, port } => {
            UnixStream::connect(socket_of_port(path, *port)).await.map(Stream::from)
        }
        Endpoint::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            Ok(stream.into())
        }
    }
}

/// `PATH_PORT`: where the host listens for guests that dial `port`.
pub(crate) fn socket_of_port(path: &Path, port: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("_{port}"));
    name.into()
}

/// Dials one endpoint, whatever URI it is asked for: a connector for tonic channels and hyper clients.
#[derive(Debug, Clone)]
pub struct Dial(Endpoint);

impl Dial {
    /// A connector that always dials `endpoint`.
    pub fn new(endpoint: Endpoint) -> Self {
        Self(endpoint)
    }
}

impl Service<http::Uri> for Dial {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let endpoint = self.0.clone();
        Box::pin(async move { connect(&endpoint).await.map(TokioIo::new) })
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::UnixListener};

    use super::*;

    #[tokio::test]
    async fn nothing_there_is_an_error_that_names_the_endpoint() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vm.vsock");
        for endpoint in [
            Endpoint::Unix { path: path.clone(), port: 7 },
            Endpoint::UnixGuest { path: path.clone(), port: 7 },
        ] {
            let error = connect(&endpoint).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            assert!(error.to_string().contains(&endpoint.to_string()), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_never_answers_is_given_up_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vm.vsock");
        let _silent = UnixListener::bind(&path).unwrap();
        let error = connect(&Endpoint::Unix { path, port: 7 }).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("vm.vsock:7"), "{error}");
    }

    #[tokio::test]
    async fn a_wrong_answer_is_an_error_that_names_the_endpoint() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vm.vsock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"220 smtp.example\n").await.unwrap();
        });
        let error = connect(&Endpoint::Unix { path, port: 7 }).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("vm.vsock:7"), "{error}");
    }
}
