use std::{
    io,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use api::control::{
    Boot, Chunk, EnclaveMessage, GetBootRequest, GetSealedBundleRequest, ParentMessage,
    enclave_message::Message, parent_server::Parent,
};
use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, transport::server::Connected};
use vsock::Listener;

use super::{Event, Offer, link::Requests};
use crate::logs;

/// Largest piece of the sealed bundle in one message, bytes: one write to a vsock.
pub(super) const CHUNK_BYTES: usize = 16 << 10;

pub(super) struct Service {
    /// What is yet to be served.
    next: Mutex<Next>,
    events: mpsc::Sender<Event>,
    requests: Requests,
}

/// The calls in their order. Each takes what it serves, so that the parent keeps nothing of it.
enum Next {
    Attach(Box<Boot>, Vec<u8>),
    Boot(Box<Boot>, Vec<u8>),
    Bundle(Vec<u8>),
    Nothing,
}

impl Next {
    fn expected(&self) -> &'static str {
        match self {
            Self::Attach(..) => "expected Attach",
            Self::Boot(..) => "expected GetBoot",
            Self::Bundle(_) => "expected GetSealedBundle",
            Self::Nothing => "each call is served once, to one enclave",
        }
    }
}

impl Service {
    pub(super) fn new(offer: Offer, events: mpsc::Sender<Event>, requests: Requests) -> Self {
        let bundle = offer.ciphertexts.bundle;
        let boot = Boot {
            configuration: offer.configuration.canonical_bytes(),
            identity_ciphertext: offer.ciphertexts.identity,
            credentials: Some(offer.credentials.to_message()),
            bundle_size: bundle.len() as u64,
        };
        Self { next: Mutex::new(Next::Attach(Box::new(boot), bundle)), events, requests }
    }

    fn next(&self) -> MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses a call that is not the next one; the state stays what it was.
fn unexpected(call: &str, next: &mut Next, was: Next) -> Status {
    tracing::warn!(call, expected = was.expected(), "refused a call on the control channel");
    let status = Status::failed_precondition(format!("{call}: {}", was.expected()));
    *next = was;
    status
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[async_trait]
impl Parent for Service {
    type GetSealedBundleStream = Answers<Chunk>;
    type AttachStream = Answers<ParentMessage>;

    async fn get_boot(&self, _: Request<GetBootRequest>) -> Result<Response<Boot>, Status> {
        let mut next = self.next();
        match std::mem::replace(&mut *next, Next::Nothing) {
            Next::Boot(boot, bundle) => {
                *next = Next::Bundle(bundle);
                Ok(Response::new(*boot))
            }
            was => Err(unexpected("GetBoot", &mut next, was)),
        }
    }

    async fn get_sealed_bundle(
        &self,
        _: Request<GetSealedBundleRequest>,
    ) -> Result<Response<Self::GetSealedBundleStream>, Status> {
        let mut next = self.next();
        match std::mem::replace(&mut *next, Next::Nothing) {
            Next::Bundle(bundle) => Ok(Response::new(Box::pin(tokio_stream::iter(chunks(bundle))))),
            was => Err(unexpected("GetSealedBundle", &mut next, was)),
        }
    }

    async fn attach(
        &self,
        request: Request<Streaming<EnclaveMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        {
            let mut next = self.next();
            match std::mem::replace(&mut *next, Next::Nothing) {
                Next::Attach(boot, bundle) => *next = Next::Boot(boot, bundle),
                was => return Err(unexpected("Attach", &mut next, was)),
            }
        }
        let down = self.requests.attach();
        tokio::spawn(listen(request.into_inner(), self.events.clone(), self.requests.clone()));
        Ok(Response::new(Box::pin(ReceiverStream::new(down))))
    }
}

fn chunks(bundle: Vec<u8>) -> impl Iterator<Item = Result<Chunk, Status>> + Send {
    (0..bundle.len()).step_by(CHUNK_BYTES).map(move |start| {
        let end = bundle.len().min(start + CHUNK_BYTES);
        Ok(Chunk { data: bundle[start..end].to_vec() })
    })
}

/// Reads what the enclave sends, to the end of the stream, and then ends the stream to it.
async fn listen(mut messages: Streaming<EnclaveMessage>, events: mpsc::Sender<Event>, requests: Requests) {
    let _ = events.send(Event::Attached).await;
    let how = loop {
        let message = match messages.message().await {
            Ok(Some(EnclaveMessage { message })) => message,
            Ok(None) => break "closed in order".to_owned(),
            Err(status) => break status.message().to_owned(),
        };
        let event = match message {
            Some(Message::Log(line)) => {
                logs::forward(&line);
                continue;
            }
            Some(Message::Attestation(reply)) => {
                requests.reply(reply);
                continue;
            }
            Some(Message::Event(step)) => Event::Step(step),
            Some(Message::Failure(failure)) => Event::Failure(failure),
            Some(Message::Ready(ready)) => Event::Ready(ready),
            None => {
                tracing::warn!("the enclave sent a message of an unknown kind");
                continue;
            }
        };
        // Fails when nobody listens any more; the enclave is being ended then.
        let _ = events.send(event).await;
    };
    requests.detach();
    let _ = events.send(Event::Detached(how)).await;
}

/// Hands connections to the server, until one of them is gone.
pub(super) async fn accept(listener: Listener, connections: mpsc::Sender<io::Result<Connection>>) {
    loop {
        let accepted = listener.accept().await.map(Connection);
        let is_broken = accepted.is_err();
        if connections.send(accepted).await.is_err() || is_broken {
            return;
        }
    }
}

/// A connection as tonic wants it.
pub(super) struct Connection(vsock::Stream);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
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
