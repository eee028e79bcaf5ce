//! An enclave in this process: speaks the real protocols over the real sockets, with the software NSM.

use std::{path::PathBuf, sync::Arc};

use api::{
    control::{
        AttestationReply, BootEvent, EnclaveMessage, Failure, FailureReason, GetBootRequest,
        GetSealedBundleRequest, LogLine, ParentMessage, Ready, enclave_message::Message,
        parent_client::ParentClient, parent_message,
    },
    ports,
};
use async_trait::async_trait;
use attestation::{
    Measurements, Nsm as _, PCR_CONFIGURATION, Pcr, sha384,
    software::{SoftwareNsm, TestAuthority},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{Notify, mpsc},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Streaming, transport::Channel};
use vsock::{Dial, Listener, Peer};

use super::{config_in, service::FakeService};
use crate::{
    backend::{Backend, BackendError, Launched, Staged},
    config::Config,
};

/// What the enclave does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    /// Everything right, until it is told to stop.
    Honest,
    /// Ends at once.
    Ends,
    /// Comes up, but never gives a sign of life.
    Silent,
    /// Comes up, but never becomes ready.
    Hangs,
    /// Unsealing is denied.
    KmsDenied,
    /// Extends another bundle's digest into PCR16.
    OtherBundle,
    /// The hypervisor measured another image than the parent.
    OtherImage,
    /// Reports another certificate than its service has.
    OtherCertificate,
    /// Answers requests for a document with an error.
    CannotAttest,
    /// Honest, but fails when it is told to by [`FakeBackend::now`].
    FailsLater,
    /// Honest, but just ends when it is told to by [`FakeBackend::now`].
    EndsLater,
    /// Honest, with a program in the place of the signing service that accepts connections and says nothing.
    Workload,
    /// The same, and nobody serves.
    DeafWorkload,
}

/// A client of the control channel, as an enclave has it.
pub(crate) async fn dial(guest: &Peer) -> ParentClient<Channel> {
    let channel = tonic::transport::Endpoint::from_static("http://parent")
        .connect_with_connector(Dial::new(guest.port(ports::CONTROL)))
        .await
        .unwrap();
    ParentClient::new(channel)
}

/// The enclave's end of the attached stream.
pub(crate) struct Attached {
    pub(crate) up: mpsc::Sender<EnclaveMessage>,
    pub(crate) down: Streaming<ParentMessage>,
}

impl Attached {
    pub(crate) async fn send(&self, message: Message) {
        self.up.send(EnclaveMessage { message: Some(message) }).await.unwrap();
    }
}

pub(crate) async fn attach(client: &mut ParentClient<Channel>) -> Result<Attached, tonic::Status> {
    let (up, messages) = mpsc::channel(8);
    let down = client.attach(ReceiverStream::new(messages)).await?.into_inner();
    Ok(Attached { up, down })
}

/// Fetches the sealed bundle; every chunk has an allowed size.
pub(crate) async fn sealed_bundle(client: &mut ParentClient<Channel>) -> Result<Vec<u8>, tonic::Status> {
    let mut chunks = client.get_sealed_bundle(GetSealedBundleRequest {}).await?.into_inner();
    let mut bundle = Vec::new();
    while let Some(chunk) = chunks.message().await? {
        assert!(!chunk.data.is_empty() && chunk.data.len() <= 16 << 10, "{} bytes", chunk.data.len());
        bundle.extend(chunk.data);
    }
    Ok(bundle)
}

/// The image that [`FakeBackend`] launches.
pub(crate) fn image() -> Measurements {
    Measurements::of_parts(&[], &[b"runtime"], &[b"application"])
}

/// Launches fake enclaves.
#[derive(Clone)]
pub(crate) struct FakeBackend {
    pub(crate) socket: PathBuf,
    pub(crate) authority: Arc<TestAuthority>,
    pub(crate) script: Script,
    /// The moment for what a script does later.
    pub(crate) now: Arc<Notify>,
}

/// A directory with a configuration, and the backend that launches what the configuration asks for.
pub(crate) struct Setting {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) config: Config,
    pub(crate) backend: FakeBackend,
}

pub(crate) fn setting(script: Script) -> Setting {
    let directory = tempfile::tempdir().unwrap();
    let authority = TestAuthority::generate().unwrap();
    std::fs::write(directory.path().join("root.pem"), authority.root_pem()).unwrap();
    let mut config = config_in(directory.path());
    config.enclave.pcr0 = image().pcr0;
    std::fs::create_dir_all(&config.runtime_dir).unwrap();
    let socket = config.runtime_dir.join("vm.vsock");
    let backend = FakeBackend { socket, authority: authority.into(), script, now: Arc::default() };
    Setting { directory, config, backend }
}

impl Backend for FakeBackend {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn measure(&self) -> Result<Measurements, BackendError> {
        Ok(image())
    }

    fn stage(&self) -> Result<Box<dyn Staged>, BackendError> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Staged for FakeBackend {
    fn measurements(&self) -> Measurements {
        image()
    }

    fn peer(&self) -> Peer {
        Peer::Unix { path: self.socket.clone() }
    }

    fn caller(&self) -> Option<u32> {
        None
    }

    async fn launch(self: Box<Self>) -> Result<Box<dyn Launched>, BackendError> {
        let measured = match self.script {
            Script::OtherImage => Measurements { pcr0: Pcr::measure(&[b"other"]), ..image() },
            _ => image(),
        };
        let enclave = FakeEnclave {
            guest: Peer::UnixGuest { path: self.socket.clone() },
            nsm: SoftwareNsm::new(&self.authority, measured).unwrap(),
            script: self.script,
            now: Arc::clone(&self.now),
        };
        let task = AbortOnDropHandle::new(tokio::spawn(enclave.run()));
        Ok(Box::new(FakeLaunched { peer: Peer::Unix { path: self.socket.clone() }, task }))
    }
}

struct FakeLaunched {
    peer: Peer,
    task: AbortOnDropHandle<()>,
}

#[async_trait]
impl Launched for FakeLaunched {
    fn peer(&self) -> Peer {
        self.peer.clone()
    }

    fn pid(&self) -> Option<u32> {
        Some(4711)
    }

    async fn exited(&mut self) -> String {
        while !self.task.is_finished() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        "the enclave ended (for a test)".to_owned()
    }

    async fn kill(&mut self) {
        self.task.abort();
        self.exited().await;
    }
}

struct FakeEnclave {
    guest: Peer,
    nsm: SoftwareNsm,
    script: Script,
    now: Arc<Notify>,
}

impl FakeEnclave {
    async fn run(self) {
        match self.script {
            Script::Ends => return,
            Script::Silent => std::future::pending().await,
            _ => {}
        }
        self.heartbeat().await;
        let mut client = dial(&self.guest).await;
        let attached = attach(&mut client).await.unwrap();
        let boot = client.get_boot(GetBootRequest {}).await.unwrap().into_inner();
        let bundle = sealed_bundle(&mut client).await.unwrap();
        match self.script {
            Script::Hangs => std::future::pending().await,
            Script::KmsDenied => return fail(&attached).await,
            _ => {}
        }
        let measured_bundle =
            if self.script == Script::OtherBundle { sha384(b"other") } else { sha384(&bundle) };
        self.nsm.extend_pcr(PCR_CONFIGURATION, &sha384(&boot.configuration)).unwrap();
        self.nsm.extend_pcr(PCR_CONFIGURATION, &measured_bundle).unwrap();
        self.nsm.lock_pcr(PCR_CONFIGURATION).unwrap();
        attached.send(Message::Event(unsealed())).await;
        let line = r#"{"level":"INFO","message":"unsealed"}"#.to_owned();
        attached.send(Message::Log(LogLine { source: "enclave".to_owned(), line })).await;

        let (_service, spki_sha256) = self.serve().await;
        let ready = Ready { spki_sha256: spki_sha256.clone(), accounts: 6, ..Ready::default() };
        attached.send(Message::Ready(ready)).await;
        self.answer(attached, &spki_sha256).await;
    }

    /// What answers where the signing service would, and the digest that the enclave reports of its key.
    async fn serve(&self) -> (Box<dyn Send>, Vec<u8>) {
        let at = self.guest.port(ports::SIGN);
        match self.script {
            // It listens, so that the system accepts; nobody speaks.
            Script::Workload => (Box::new(Listener::bind(&at).await.unwrap()), vec![]),
            Script::DeafWorkload => (Box::new(()), vec![]),
            _ => {
                let service = FakeService::start(&at).await;
                let mut spki_sha256 = service.spki_sha256.to_vec();
                if self.script == Script::OtherCertificate {
                    spki_sha256[0] ^= 1;
                }
                (Box::new(service), spki_sha256)
            }
        }
    }

    async fn heartbeat(&self) {
        let mut stream = vsock::connect(&self.guest.port(ports::HEARTBEAT)).await.unwrap();
        stream.write_u8(0xB7).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 0xB7);
    }

    /// Answers requests until the parent ends it.
    async fn answer(&self, mut attached: Attached, spki_sha256: &[u8]) {
        let user_data = (!spki_sha256.is_empty()).then_some(spki_sha256);
        loop {
            let message = tokio::select! {
                message = attached.down.message() => message,
                () = self.now.notified() => match self.script {
                    Script::FailsLater => return fail(&attached).await,
                    _ => return,
                },
            };
            match message.ok().flatten().and_then(|m| m.message) {
                Some(parent_message::Message::Attestation(request)) => {
                    let (document, error) = match self.script {
                        Script::CannotAttest => (vec![], "the NSM broke".to_owned()),
                        _ => (self.nsm.attest(user_data, Some(&request.nonce), None).unwrap(), String::new()),
                    };
                    let reply = AttestationReply { nonce: request.nonce, document, error };
                    attached.send(Message::Attestation(reply)).await;
                }
                Some(parent_message::Message::Shutdown(_)) | None => return,
            }
        }
    }
}

fn unsealed() -> BootEvent {
    let details = [("kms_request_id", "r-1"), ("bundle_sha256_plaintext", "abcd")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    BootEvent { step: "unseal".to_owned(), unix_ms: 1, duration_us: 12_000, details: details.into() }
}

async fn fail(attached: &Attached) {
    let failure = Failure {
        reason: FailureReason::KmsDenied.into(),
        message: "AccessDeniedException".to_owned(),
        step: "identity".to_owned(),
        details: [("kms_request_id".to_owned(), "r-2".to_owned())].into(),
    };
    attached.send(Message::Failure(failure)).await;
    // Time for the message to leave; a real enclave waits until the parent has read it.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
}
