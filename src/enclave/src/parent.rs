use std::time::Duration;

use api::control::{
    AttestationRequest, FailureReason, ParentMessage, parent_client::ParentClient, parent_message::Message,
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tonic::{Streaming, transport::Channel};
use vsock::{Dial, Peer};

use crate::{
    error::{BootError, because},
    outbox::Queue,
    stop::{Cause, Stop},
};

/// Largest message accepted from the parent, bytes: far above a chunk of the bundle (16 KiB) and a boot message.
const MAX_MESSAGE_BYTES: usize = 64 << 10;
const ATTACH_TIMEOUT: Duration = Duration::from_secs(15);
/// Attestation requests that may wait for their answer.
const MAX_REQUESTS: usize = 16;
/// How long the parent has to read the last messages.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The control channel's stream of the enclave's life.
pub(crate) struct Parent {
    requests: mpsc::Receiver<AttestationRequest>,
    /// Ends when the parent's side of the stream ends.
    listener: JoinHandle<()>,
    /// The connection, kept for as long as the stream.
    _client: ParentClient<Channel>,
}

impl Parent {
    /// Dials the control port and opens the stream of the enclave's life. `queue` goes up; a shutdown, and the stream's
    /// end, become a wish to `stop`.
    pub(crate) async fn attach(peer: &Peer, queue: Queue, stop: Stop) -> Result<Self, BootError> {
        timeout(ATTACH_TIMEOUT, Self::attach_untimed(peer, queue, stop)).await.unwrap_or_else(|_| {
            let problem = format!(
                "the parent did not open the control channel within {} seconds",
                ATTACH_TIMEOUT.as_secs()
            );
            Err(BootError::new(FailureReason::ParentUnreachable, problem))
        })
    }

    async fn attach_untimed(peer: &Peer, queue: Queue, stop: Stop) -> Result<Self, BootError> {
        let mut client = dial(peer).await?;
        let inbound = client
            .attach(queue.into_stream())
            .await
            .map_err(because(FailureReason::ParentUnreachable, "cannot attach to the parent"))?
            .into_inner();
        let (sender, requests) = mpsc::channel(MAX_REQUESTS);
        let listener = tokio::spawn(listen(inbound, sender, stop));
        Ok(Self { requests, listener, _client: client })
    }

    /// The next request for an attestation document; `None` when the channel has ended.
    pub(crate) async fn next_request(&mut self) -> Option<AttestationRequest> {
        self.requests.recv().await
    }

    /// Waits until the parent has read everything, once the outbox is closed: it then ends its side of the stream.
    pub(crate) async fn flushed(self) {
        if timeout(FLUSH_TIMEOUT, self.listener).await.is_err() {
            tracing::warn!("the parent did not read the last messages in time");
        }
    }
}

/// A connection to the control port.
pub(crate) async fn dial(peer: &Peer) -> Result<ParentClient<Channel>, BootError> {
    // The host name is never resolved: `Dial` knows where to go.
    let channel = tonic::transport::Endpoint::from_static("http://parent")
        .connect_with_connector(Dial::new(peer.port(api::ports::CONTROL)))
        .await
        .map_err(|error| cannot_dial(&error))?;
    Ok(ParentClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES))
}

/// Reads what the parent sends, to the end of the stream.
async fn listen(
    mut inbound: Streaming<ParentMessage>,
    requests: mpsc::Sender<AttestationRequest>,
    stop: Stop,
) {
    loop {
        match inbound.message().await {
            Ok(Some(ParentMessage { message: Some(Message::Attestation(request)) })) => {
                if requests.try_send(request).is_err() {
                    tracing::warn!("the parent asks for more attestation documents than can be made");
                }
            }
            Ok(Some(ParentMessage { message: Some(Message::Shutdown(_)) })) => stop.request(Cause::Shutdown),
            Ok(Some(ParentMessage { message: None })) => {
                tracing::warn!("the parent sent a message of an unknown kind");
            }
            Ok(None) => break,
            Err(status) => {
                tracing::warn!(%status, "the control channel broke");
                break;
            }
        }
    }
    stop.request(Cause::ControlEnded);
}

/// The words of a transport error are in its sources.
fn cannot_dial(error: &dyn std::error::Error) -> BootError {
    let mut message = format!("cannot dial the control channel: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(": ");
        message.push_str(&cause.to_string());
        source = cause.source();
    }
    BootError::new(FailureReason::ParentUnreachable, message)
}

#[cfg(test)]
mod tests {
    use api::control::{Failure, enclave_message};

    use super::*;
    use crate::{
        fake_parent::{FakeParent, Sockets},
        outbox::outbox,
    };

    #[tokio::test]
    async fn what_was_queued_before_attaching_arrives_and_a_failure_is_flushed() {
        let fake = FakeParent::default().serve();
        let (outbox, queue) = outbox();
        outbox.log("enclave", "early");
        let parent = Parent::attach(&fake.peer(), queue, Stop::new()).await.unwrap();
        outbox.send(enclave_message::Message::Failure(Failure::default())).unwrap();
        outbox.close();
        parent.flushed().await;
        let received = fake.received();
        assert!(matches!(received[0], enclave_message::Message::Log(_)), "{received:?}");
        assert!(matches!(received[1], enclave_message::Message::Failure(_)), "{received:?}");
    }

    #[tokio::test]
    async fn a_shutdown_is_a_wish_to_stop() {
        let fake = FakeParent::default().serve();
        let stop = Stop::new();
        let _parent = Parent::attach(&fake.peer(), outbox().1, stop.clone()).await.unwrap();
        fake.send(Message::Shutdown(api::control::Shutdown {})).await;
        assert_eq!(stop.requested().await, Cause::Shutdown);
    }

    #[tokio::test]
    async fn the_end_of_the_stream_is_a_wish_to_stop() {
        let fake = FakeParent::default().serve();
        let stop = Stop::new();
        let (_outbox, queue) = outbox();
        let _parent = Parent::attach(&fake.peer(), queue, stop.clone()).await.unwrap();
        fake.hang_up();
        assert_eq!(stop.requested().await, Cause::ControlEnded);
    }

    #[tokio::test]
    async fn a_request_for_a_document_reaches_the_enclave() {
        let fake = FakeParent::default().serve();
        let (_outbox, queue) = outbox();
        let mut parent = Parent::attach(&fake.peer(), queue, Stop::new()).await.unwrap();
        fake.send(Message::Attestation(AttestationRequest { nonce: vec![7; 32] })).await;
        assert_eq!(parent.next_request().await.unwrap().nonce, [7; 32]);
    }

    #[tokio::test]
    async fn no_parent_is_unreachable_and_the_socket_is_named() {
        let error = Parent::attach(&Sockets::new().peer(), outbox().1, Stop::new()).await.err().unwrap();
        assert_eq!(error.reason, FailureReason::ParentUnreachable);
        assert!(error.message.contains("vm.vsock:9001"), "{}", error.message);
    }
}
