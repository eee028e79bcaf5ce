use std::{io, time::Duration};

use tokio::{io::AsyncReadExt as _, time::timeout};
use vsock::Endpoint;

/// How long a connection has to stay open. A bridge accepts before it dials, and closes at once if nobody answers there.
const PATIENCE: Duration = Duration::from_millis(200);

/// A program does not accept connections.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// Nothing answers.
    #[error("{0}")]
    Connect(io::Error),
    /// It, or a bridge before it, closed the connection before anything was said.
    #[error("the connection was closed at once")]
    Closed,
}

/// Connects to `service` and says nothing: the connection has to stay open, or to bring something.
pub async fn stays_open(service: &Endpoint) -> Result<(), ConnectionError> {
    let mut stream = vsock::connect(service).await.map_err(ConnectionError::Connect)?;
    match timeout(PATIENCE, stream.read_u8()).await {
        Err(_) | Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(ConnectionError::Closed),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    async fn service() -> (TcpListener, Endpoint) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("tcp:{}", listener.local_addr().unwrap()).parse().unwrap();
        (listener, at)
    }

    #[tokio::test]
    async fn a_program_that_waits_to_be_spoken_to_and_one_that_speaks_first_are_there() {
        let (listener, at) = service().await;
        stays_open(&at).await.unwrap();
        // The connection before is still in the listener's queue.
        drop(listener.accept().await.unwrap());
        let speaks = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"220 ready").await.unwrap();
        };
        tokio::join!(stays_open(&at), speaks).0.unwrap();
    }

    /// As a bridge does that reaches nobody.
    #[tokio::test]
    async fn a_connection_that_is_closed_at_once_is_no_program() {
        let (listener, at) = service().await;
        let closes = async { drop(listener.accept().await.unwrap()) };
        let error = tokio::join!(stays_open(&at), closes).0.unwrap_err();
        assert!(matches!(error, ConnectionError::Closed), "{error}");
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_at_is_named() {
        let (listener, at) = service().await;
        drop(listener);
        let error = stays_open(&at).await.unwrap_err();
        assert!(
            matches!(&error, ConnectionError::Connect(_)) && error.to_string().contains("tcp:127.0.0.1:"),
            "{error}"
        );
    }
}
