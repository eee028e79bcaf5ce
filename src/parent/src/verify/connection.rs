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
