use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use api::control::{AttestationReply, AttestationRequest, ParentMessage, Shutdown, parent_message::Message};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tonic::Status;

/// An NSM answers in milliseconds; a loaded machine takes longer.
const ATTESTATION_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that wait to be sent; at most one is outstanding in practice.
const CAPACITY: usize = 16;

/// No attestation document came.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// No enclave is attached, or not any more.
    #[error("the enclave is not attached to the control channel")]
    NotAttached,
    /// The enclave answered with an error.
    #[error("the enclave cannot attest: {0}")]
    Refused(String),
    /// No answer.
    #[error("the enclave sent no attestation document within {} s", ATTESTATION_TIMEOUT.as_secs())]
    Timeout,
}

/// Asks the attached enclave for something. Clones ask the same enclave.
#[derive(Debug, Clone)]
pub struct Requests(Arc<Mutex<Link>>);

pub(super) type Down = mpsc::Receiver<Result<ParentMessage, Status>>;

#[derive(Debug, Default)]
struct Link {
    down: Option<mpsc::Sender<Result<ParentMessage, Status>>>,
    waiting: HashMap<Vec<u8>, oneshot::Sender<AttestationReply>>,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// Asks for an attestation document over `nonce` (16 to 512 bytes, fresh for each call).
    pub async fn attest(&self, nonce: &[u8]) -> Result<Vec<u8>, AttestError> {
        let answer = {
            let mut link = self.lock();
            let (sender, answer) = oneshot::channel();
            link.waiting.insert(nonce.to_vec(), sender);
            answer
        };
        let request = Message::Attestation(AttestationRequest { nonce: nonce.to_vec() });
        let asked = async {
            self.send(request).await?;
            answer.await.map_err(|_| AttestError::NotAttached)
        };
        let reply = timeout(ATTESTATION_TIMEOUT, asked).await.unwrap_or(Err(AttestError::Timeout));
        self.lock().waiting.remove(nonce);
        match reply? {
            AttestationReply { document, error, .. } if error.is_empty() && !document.is_empty() => {
                Ok(document)
            }
            AttestationReply { error, .. } => {
                Err(AttestError::Refused(telemetry::redact(&error).to_string()))
            }
        }
    }

    /// Tells the enclave to stop. Nobody to tell is fine: then it has stopped.
    pub async fn shut_down(&self) {
        let _ = self.send(Message::Shutdown(Shutdown {})).await;
    }

    async fn send(&self, message: Message) -> Result<(), AttestError> {
        let down = self.lock().down.clone().ok_or(AttestError::NotAttached)?;
        let message = ParentMessage { message: Some(message) };
        down.send(Ok(message)).await.map_err(|_| AttestError::NotAttached)
    }

    /// The enclave is there; what is sent to it comes out of the receiver.
    pub(super) fn attach(&self) -> Down {
        let (down, messages) = mpsc::channel(CAPACITY);
        self.lock().down = Some(down);
        messages
    }

    /// The enclave is gone: this ends the stream to it and all waiting.
    pub(super) fn detach(&self) {
        *self.lock() = Link::default();
    }

    pub(super) fn reply(&self, reply: AttestationReply) {
        let waiting = self.lock().waiting.remove(&reply.nonce);
        // Whoever waited may have given up.
        if waiting.is_none_or(|waiting| waiting.send(reply).is_err()) {
            tracing::warn!("the enclave sent an attestation document nobody waits for");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Link> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
