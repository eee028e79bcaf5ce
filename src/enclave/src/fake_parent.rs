//! A parent for tests: serves the control channel on a Unix socket and keeps what the enclave sends.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use api::control::{
    Boot, Chunk, Configuration, Credentials, EnclaveMessage, GetBootRequest, GetSealedBundleRequest,
    ParentMessage, enclave_message, parent_message,
    parent_server::{Parent, ParentServer},
};
use tokio::{net::UnixListener, sync::mpsc, time::timeout};
use tokio_stream::{
    Stream, StreamExt as _,
    wrappers::{ReceiverStream, UnixListenerStream},
};
use tonic::{Request, Response, Status, Streaming, transport::Server};
use vsock::Peer;

/// A directory for the sockets of a hybrid vsock.
pub(crate) struct Sockets(tempfile::TempDir);

impl Sockets {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer::UnixGuest { path: self.0.path().join("vm.vsock") }
    }

    /// Where the parent listens for the enclave.
    pub(crate) fn of_port(&self, port: u32) -> PathBuf {
        self.0.path().join(format!("vm.vsock_{port}"))
    }
}

/// What the parent answers.
#[derive(Clone, Default)]
pub(crate) struct FakeParent {
    pub(crate) boot: Boot,
    pub(crate) chunks: Vec<Vec<u8>>,
}

/// A boot message that is right for `bundle`.
pub(crate) fn valid_boot(bundle: &[u8]) -> Boot {
    let configuration = Configuration {
        region: "eu-central-1".to_owned(),
        kms_key_id: "alias/test".to_owned(),
        epoch: 1,
        bundle_sha256: aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bundle).as_ref().to_vec(),
        max_sessions: 64,
        session_deadline_ms: 30_000,
        kms_timeout_ms: 10_000,
    };
    Boot {
        configuration: configuration.canonical_bytes(),
        identity_ciphertext: vec![1; 200],
        credentials: Some(Credentials::default()),
        bundle_size: bundle.len() as u64,
    }
}

/// A fake parent that serves.
pub(crate) struct Serving {
    sockets: Sockets,
    service: Service,
}

type Down = mpsc::Sender<Result<ParentMessage, Status>>;

#[derive(Clone)]
struct Service {
    answers: FakeParent,
    received: Arc<Mutex<Vec<enclave_message::Message>>>,
    /// Where what the enclave is asked goes in, while it is attached.
    down: Arc<Mutex<Option<Down>>>,
}

impl FakeParent {
    pub(crate) fn serve(self) -> Serving {
        let sockets = Sockets::new();
        let listener = UnixListener::bind(sockets.of_port(api::ports::CONTROL)).unwrap();
        let service = Service { answers: self, received: Arc::default(), down: Arc::default() };
        let server = Server::builder()
            .add_service(ParentServer::new(service.clone()))
            .serve_with_incoming(UnixListenerStream::new(listener));
        tokio::spawn(server);
        Serving { sockets, service }
    }
}

impl Serving {
    pub(crate) fn peer(&self) -> Peer {
        self.sockets.peer()
    }

    pub(crate) fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    pub(crate) fn received(&self) -> Vec<enclave_message::Message> {
        self.service.received.lock().unwrap().clone()
    }

    /// What came, once there are so many messages.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<enclave_message::Message> {
        let enough = async {
            while self.received().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), enough).await.unwrap();
        self.received()
    }

    /// Sends to the attached enclave.
    pub(crate) async fn send(&self, message: parent_message::Message) {
        let down = self.service.down.lock().unwrap().clone().unwrap();
        down.send(Ok(ParentMessage { message: Some(message) })).await.unwrap();
    }

    /// Ends the parent's side of the stream.
    pub(crate) fn hang_up(&self) {
        self.service.down.lock().unwrap().take();
    }
}

type Answers<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Parent for Service {
    type GetSealedBundleStream = Answers<Chunk>;
    type AttachStream = Answers<ParentMessage>;

    async fn get_boot(&self, _: Request<GetBootRequest>) -> Result<Response<Boot>, Status> {
        Ok(Response::new(self.answers.boot.clone()))
    }

    async fn get_sealed_bundle(
        &self,
        _: Request<GetSealedBundleRequest>,
    ) -> Result<Response<Self::GetSealedBundleStream>, Status> {
        let chunks = self.answers.chunks.clone().into_iter().map(|data| Ok(Chunk { data }));
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn attach(
        &self,
        request: Request<Streaming<EnclaveMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (sender, receiver) = mpsc::channel(4);
        *self.down.lock().unwrap() = Some(sender);
        let (kept, down) = (self.received.clone(), self.down.clone());
        let mut messages = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                kept.lock().unwrap().extend(message.message);
            }
            down.lock().unwrap().take();
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
