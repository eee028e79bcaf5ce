use std::{io, time::Duration};

use api::control::FailureReason;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};
use vsock::{Endpoint, Peer, Stream};

use crate::error::BootError;

/// What the Nitro hypervisor's tools expect from an enclave that has come up, and answer with.
const BEAT: u8 = 0xb7;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A parent listens before it starts an enclave; the second attempt is for a connection that was lost on the way.
const ATTEMPTS: u32 = 2;
const PAUSE: Duration = Duration::from_millis(100);

/// Tells the parent that the enclave runs, and waits for its answer.
pub(crate) async fn beat(parent: &Peer) -> Result<(), BootError> {
    let endpoint = parent.port(api::ports::HEARTBEAT);
    let answer = timeout(ANSWER_TIMEOUT, async {
        let mut stream = dial(&endpoint).await?;
        stream.write_all(&[BEAT]).await?;
        stream.flush().await?;
        stream.read_u8().await
    })
    .await
    .map_err(|_| failed(&format!("no answer within {} seconds", ANSWER_TIMEOUT.as_secs())))?
    .map_err(|error| failed(&error.to_string()))?;
    if answer != BEAT {
        return Err(failed(&format!("the parent answered {answer:#04x}; expected {BEAT:#04x}")));
    }
    Ok(())
}

async fn dial(endpoint: &Endpoint) -> io::Result<Stream> {
    for _ in 1..ATTEMPTS {
        if let Ok(stream) = vsock::connect(endpoint).await {
            return Ok(stream);
        }
        sleep(PAUSE).await;
    }
    vsock::connect(endpoint).await
}

fn failed(problem: &str) -> BootError {
    BootError::new(FailureReason::ParentUnreachable, format!("heartbeat: {problem}"))
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;
    use crate::fake_parent::Sockets;

    async fn beat_with_answer(answer: &'static [u8]) -> Result<u8, BootError> {
        let sockets = Sockets::new();
        let listener = UnixListener::bind(sockets.of_port(api::ports::HEARTBEAT)).unwrap();
        let parent = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let received = stream.read_u8().await.unwrap();
            stream.write_all(answer).await.unwrap();
            received
        });
        beat(&sockets.peer()).await?;
        Ok(parent.await.unwrap())
    }

    #[tokio::test]
    async fn the_parent_gets_the_beat_and_its_answer_is_accepted() {
        assert_eq!(beat_with_answer(&[0xb7]).await.unwrap(), 0xb7);
    }

    #[tokio::test]
    async fn another_answer_is_refused() {
        let error = beat_with_answer(&[0xb8]).await.unwrap_err();
        assert_eq!(error.reason, FailureReason::ParentUnreachable);
        assert!(error.message.contains("0xb8"), "{}", error.message);
    }

    #[tokio::test]
    async fn a_parent_that_hangs_up_is_unreachable() {
        assert_eq!(beat_with_answer(&[]).await.unwrap_err().reason, FailureReason::ParentUnreachable);
    }

    #[tokio::test]
    async fn a_parent_that_listens_a_moment_late_is_tried_again() {
        let sockets = Sockets::new();
        let path = sockets.of_port(api::ports::HEARTBEAT);
        let parent = tokio::spawn(async move {
            sleep(PAUSE / 2).await;
            let (mut stream, _) = UnixListener::bind(path).unwrap().accept().await.unwrap();
            let beat = stream.read_u8().await.unwrap();
            stream.write_all(&[beat]).await.unwrap();
        });
        beat(&sockets.peer()).await.unwrap();
        parent.await.unwrap();
    }

    #[tokio::test]
    async fn no_parent_is_unreachable() {
        let error = beat(&Sockets::new().peer()).await.unwrap_err();
        assert_eq!(error.reason, FailureReason::ParentUnreachable);
    }
}
