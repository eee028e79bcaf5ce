//! A client of the public API, as a Sign Gateway would be, with its hands free to misbehave.

use std::fs;

use api::sign::{
    OpenSession, SignRequest, SignResponse, sign_request::Step, sign_service_client::SignServiceClient,
};
use hyper_util::rt::TokioIo;
use keyshares::{Bundle, Identity, Scheme};
use rand::{RngCore as _, rngs::OsRng};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use threshold::{Envelope, KeyMaterial, Open, PartyKeys, SchemeId, Session};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use crate::Serving;

/// What a client shows in the TLS handshake.
pub(crate) struct Certificate {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Certificate {
    /// The gateway's, from the bundle's client CA.
    pub(crate) fn gateway(serving: &Serving) -> Self {
        let read = |name: &str| fs::read_to_string(serving.world.path(name)).unwrap();
        Self { certificate: read("client.pem"), key: read("client.key") }
    }

    /// From a CA of its own.
    pub(crate) fn foreign() -> Self {
        let (_, certificate, key) = harness::client_certificate("Sign Gateway").unwrap();
        Self { certificate, key }
    }
}

pub(crate) async fn connect(
    serving: &Serving,
    shown: &Certificate,
) -> Result<SignServiceClient<Channel>, Box<dyn std::error::Error>> {
    let chain = vec![CertificateDer::from_pem_slice(shown.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
    channel(serving, gateway::tls::Client::new(chain, key)?).await
}

async fn channel(
    serving: &Serving,
    client: gateway::tls::Client,
) -> Result<SignServiceClient<Channel>, Box<dyn std::error::Error>> {
    let stream = tokio::net::TcpStream::connect(serving.ingress()).await?;
    let mut stream = Some(client.handshake(stream).await?);
    let connector = tower_service_fn(move || {
        stream.take().map(TokioIo::new).ok_or_else(|| std::io::Error::other("the connection is used up"))
    });
    let channel =
        tonic::transport::Endpoint::from_static("https://enclave").connect_with_connector(connector).await?;
    Ok(SignServiceClient::new(channel))
}

/// A connector that hands out what `next` gives.
fn tower_service_fn<T, F>(next: F) -> Connector<F>
where
    F: FnMut() -> std::io::Result<T>,
{
    Connector(next)
}

struct Connector<F>(F);

impl<T, F> tower_service::Service<tonic::codegen::http::Uri> for Connector<F>
where
    F: FnMut() -> std::io::Result<T>,
    T: Send + 'static,
{
    type Response = T;
    type Error = std::io::Error;
    type Future = std::future::Ready<std::io::Result<T>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: tonic::codegen::http::Uri) -> Self::Future {
        std::future::ready((self.0)())
    }
}

/// The co-signer's side: its bundle, opened as the gateway opens it.
pub(crate) struct CoSigner {
    bundle: Bundle,
}

impl CoSigner {
    pub(crate) fn new(serving: &Serving) -> Self {
        let identity =
            Identity::parse(&fs::read(serving.world.path("gateway-identity.txt")).unwrap()).unwrap();
        let sealed = fs::read(serving.world.path("gateway.json.age")).unwrap();
        let mut plaintext = Vec::new();
        keyshares::open(&sealed[..], &identity, 1 << 20, &mut plaintext).unwrap();
        Self { bundle: Bundle::from_json(&plaintext).unwrap() }
    }

    /// The gateway's side of the session that `open` asks for, and its first message.
    pub(crate) fn session(&self, open: &OpenSession) -> (Session, Envelope) {
        let account = &self.bundle.accounts[&open.account];
        let material = KeyMaterial {
            scheme: match account.scheme {
                Scheme::FrostEd25519 => SchemeId::FrostEd25519,
                Scheme::FrostSecp256k1Tr => SchemeId::FrostSecp256k1Tr,
            },
            threshold: account.threshold,
            parties: &account.parties,
            own: &self.bundle.party,
            public_key: &account.public_key,
            verifying_shares: &account.verifying_shares,
            share: account.share.expose(),
        };
        let keys = PartyKeys {
            own: &self.bundle.party,
            secret: self.bundle.party_secret_key.expose(),
            public: &self.bundle.parties,
        };
        let open = Open {
            session_id: open.session_id.clone().try_into().unwrap(),
            account: open.account.clone(),
            message: open.message.clone(),
            signers: open.signers.clone(),
        };
        let (session, mut first) = Session::open(open, &material, &keys, &mut OsRng).unwrap();
        (session, first.remove(0))
    }
}

pub(crate) fn open(account: &str) -> OpenSession {
    let mut session_id = vec![0; 32];
    OsRng.fill_bytes(&mut session_id);
    OpenSession {
        session_id,
        account: account.to_owned(),
        message: harness::sha256(b"message").to_vec(),
        signers: vec!["enclave-a".to_owned(), "gateway".to_owned()],
    }
}

pub(crate) fn message(envelope: &Envelope) -> Step {
    Step::Message(api::sign::Envelope {
        session_id: envelope.session_id.to_vec(),
        account: envelope.account.clone(),
        round: envelope.round,
        sender: envelope.sender.clone(),
        receiver: envelope.receiver.clone(),
        encapsulated_key: envelope.encapsulated_key.to_vec(),
        ciphertext: envelope.ciphertext.clone(),
    })
}

/// One call of `Sign`.
pub(crate) struct Call {
    requests: mpsc::Sender<SignRequest>,
    responses: Streaming<SignResponse>,
}

impl Call {
    pub(crate) async fn start(client: &mut SignServiceClient<Channel>, open: OpenSession) -> Self {
        let (requests, stream) = mpsc::channel(8);
        requests.send(SignRequest { step: Some(Step::Open(open)) }).await.unwrap();
        let responses = client.sign(ReceiverStream::new(stream)).await.unwrap().into_inner();
        Self { requests, responses }
    }

    pub(crate) async fn send(&self, step: Step) {
        // Fails once the service has ended the call; what it said is read by `refusal`.
        let _ = self.requests.send(SignRequest { step: Some(step) }).await;
    }

    pub(crate) async fn next(&mut self) -> Result<Option<SignResponse>, Status> {
        self.responses.message().await
    }

    /// Reads on until the service ends the call with an error.
    pub(crate) async fn refusal(mut self) -> Status {
        loop {
            match self.responses.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the service ended the call without an error"),
                Err(status) => return status,
            }
        }
    }
}
