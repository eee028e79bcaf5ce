use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;
use vsock::{Listener, Stream};

/// The byte an enclave sends when it starts, and expects back.
///
/// Source: the boot protocol of AWS's own init (`nsm.ko` is loaded, then 0xB7 to CID 3, port 9000).
pub const HEARTBEAT: u8 = 0xB7;

const PATIENCE: Duration = Duration::from_secs(5);

/// Answers heartbeats. Bind the listener before the launch: the enclave sends its heartbeat once. Dropping this stops
/// it.
#[derive(Debug)]
pub struct Heartbeat {
    seen: watch::Receiver<bool>,
    _task: AbortOnDropHandle<()>,
}

impl Heartbeat {
    /// Starts to answer on a bound listener.
    pub fn start(listener: Listener) -> Self {
        let (sender, seen) = watch::channel(false);
        let task = tokio::spawn(answer_all(listener, sender));
        Self { seen, _task: AbortOnDropHandle::new(task) }
    }

    /// Returns once a heartbeat was answered.
    pub async fn seen(&self) {
        if self.seen.clone().wait_for(|seen| *seen).await.is_err() {
            // The listener broke; whoever waits has a timeout.
            std::future::pending::<()>().await;
        }
    }
}

async fn answer_all(listener: Listener, seen: watch::Sender<bool>) {
    loop {
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => return tracing::error!(%error, "heartbeats can no longer be received"),
        };
        match timeout(PATIENCE, answer(stream)).await {
            Ok(Ok(())) => drop(seen.send_replace(true)),
            Ok(Err(error)) => tracing::warn!(%error, "a heartbeat failed"),
            Err(_) => tracing::warn!("a connection to the heartbeat port sent nothing"),
        }
    }
}

async fn answer(mut stream: Stream) -> std::io::Result<()> {
    let byte = stream.read_u8().await?;
    if byte != HEARTBEAT {
        return Err(std::io::Error::other(format!("got the byte {byte:#04x} instead of {HEARTBEAT:#04x}")));
    }
    stream.write_u8(HEARTBEAT).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use api::ports;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use vsock::Peer;

    use super::*;

    async fn setting() -> (tempfile::TempDir, Heartbeat, Peer) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vm.vsock");
        let host = Peer::Unix { path: path.clone() };
        let listener = Listener::bind(&host.port(ports::HEARTBEAT)).await.unwrap();
        (directory, Heartbeat::start(listener), Peer::UnixGuest { path })
    }

    #[tokio::test]
    async fn the_heartbeat_is_answered_with_the_same_byte_and_noticed() {
        let (_directory, heartbeat, guest) = setting().await;
        let mut stream = vsock::connect(&guest.port(ports::HEARTBEAT)).await.unwrap();
        stream.write_u8(0xB7).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 0xB7);
        timeout(PATIENCE, heartbeat.seen()).await.unwrap();
    }

    #[tokio::test]
    async fn another_byte_is_neither_answered_nor_noticed_and_the_next_heartbeat_is() {
        let (_directory, heartbeat, guest) = setting().await;
        let mut stream = vsock::connect(&guest.port(ports::HEARTBEAT)).await.unwrap();
        stream.write_u8(0xB8).await.unwrap();
        assert!(stream.read_u8().await.is_err());
        assert!(timeout(Duration::from_millis(50), heartbeat.seen()).await.is_err());
        let mut stream = vsock::connect(&guest.port(ports::HEARTBEAT)).await.unwrap();
        stream.write_u8(0xB7).await.unwrap();
        timeout(PATIENCE, heartbeat.seen()).await.unwrap();
    }
}
