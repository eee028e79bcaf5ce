//! One attested connection to a node, from the TCP handshake to the first ping.
//!
//! A [`Link`] exists only once the enclave at its other end is verified, and it is tied to one TCP connection: the
//! channel below it cannot connect again. Whoever holds a `Link` may therefore open sessions on it.

use std::{
    collections::HashSet,
    future::{Ready, ready},
    io,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use api::sign::{
    GetAttestationRequest, GetStatusRequest, PingRequest, sign_service_client::SignServiceClient,
};
use hyper_util::rt::TokioIo;
use rand::{RngCore as _, rngs::OsRng};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::oneshot,
};
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{
    NodeError,
    cosigner::CoSigner,
    tls::{self, Client},
    trust::{Attested, Trust},
};

/// Time for connecting and verifying, all steps together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest message a node may send, bytes: an envelope (64 KiB of ciphertext) or an attestation document, with room.
const MAX_MESSAGE_BYTES: usize = 128 * 1024;

/// The calls of a node's signing API.
pub type NodeClient = SignServiceClient<Channel>;

/// A verified connection.
pub struct Link {
    client: NodeClient,
    /// What the node proved.
    pub attested: Attested,
    /// The node's party id.
    pub party: String,
    /// How many accounts it serves.
    pub accounts: u64,
    /// When it was verified, by this machine's clock.
    pub verified_at: SystemTime,
    last_ping: Mutex<Ping>,
    /// Accounts about which node and co-signer agree, so that they are compared once a connection.
    agreed: Mutex<HashSet<String>>,
}

/// A ping that was answered.
#[derive(Debug, Clone, Copy)]
pub struct Ping {
    /// When it was answered.
    pub at: SystemTime,
    /// How long the answer took.
    pub round_trip: Duration,
}

/// Ends when the connection does.
pub type Closed = oneshot::Receiver<()>;

/// Connects to `address` and verifies what is there.
///
/// Up to the verdict the only thing sent is the attestation call with a fresh nonce.
pub async fn connect(
    address: &str,
    client: &Client,
    trust: &Trust,
    cosigner: &CoSigner,
) -> Result<(Link, Closed), NodeError> {
    tokio::time::timeout(CONNECT_TIMEOUT, establish(address, client, trust, cosigner))
        .await
        .map_err(|_| NodeError::TimedOut { after: CONNECT_TIMEOUT })?
}

async fn establish(
    address: &str,
    client: &Client,
    trust: &Trust,
    cosigner: &CoSigner,
) -> Result<(Link, Closed), NodeError> {
    let stream = handshake(address, client).await?;
    let protocol = |problem: String| NodeError::Protocol { address: address.to_owned(), problem };
    let certificate =
        tls::peer_certificate(&stream).ok_or_else(|| protocol("it shows no certificate".to_owned()))?;
    let spki_sha256 = attestation::spki_sha256(certificate.as_ref())
        .map_err(|error| protocol(format!("its certificate is malformed: {error}")))?;
    let (channel, closed) = channel_over(stream).await.map_err(|error| protocol(error.to_string()))?;
    let mut node = SignServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);

    let attested = attest(&mut node, trust, &spki_sha256).await?;
    let link = introduce(node, attested, cosigner).await?;
    Ok((link, closed))
}

async fn handshake(address: &str, client: &Client) -> Result<TlsStream<TcpStream>, NodeError> {
    let connect = |source| NodeError::Connect { address: address.to_owned(), source };
    let tcp = TcpStream::connect(address).await.map_err(connect)?;
    tcp.set_nodelay(true).map_err(connect)?;
    let stream = client
        .handshake(tcp)
        .await
        .map_err(|source| NodeError::Tls { address: address.to_owned(), source })?;
    if !tls::speaks_http2(&stream) {
        let problem = "it does not speak HTTP/2".to_owned();
        return Err(NodeError::Protocol { address: address.to_owned(), problem });
    }
    Ok(stream)
}

async fn attest(node: &mut NodeClient, trust: &Trust, spki_sha256: &[u8; 32]) -> Result<Attested, NodeError> {
    let mut nonce = [0; 32];
    OsRng.fill_bytes(&mut nonce);
    let request = GetAttestationRequest { nonce: nonce.to_vec() };
    let evidence = node.get_attestation(request).await.map_err(failed("GetAttestation"))?.into_inner();
    trust.verify(&evidence, &nonce, spki_sha256, SystemTime::now())
}

/// Asks the verified node who it is in the protocol.
async fn introduce(mut node: NodeClient, attested: Attested, cosigner: &CoSigner) -> Result<Link, NodeError> {
    let started = Instant::now();
    let hello = node.ping(PingRequest {}).await.map_err(failed("Ping"))?.into_inner();
    let first_ping = Ping { at: SystemTime::now(), round_trip: started.elapsed() };
    if hello.epoch != attested.configuration.epoch {
        return Err(NodeError::Epoch { expected: attested.configuration.epoch, actual: hello.epoch });
    }
    cosigner.check_peer(&hello.party)?;
    let status = node.get_status(GetStatusRequest {}).await.map_err(failed("GetStatus"))?.into_inner();
    Ok(Link {
        client: node,
        attested,
        party: hello.party,
        accounts: status.accounts,
        verified_at: SystemTime::now(),
        last_ping: Mutex::new(first_ping),
        agreed: Mutex::default(),
    })
}

fn failed(call: &'static str) -> impl Fn(tonic::Status) -> NodeError {
    move |status| NodeError::Call { call, status: Box::new(status) }
}

impl Link {
    /// The node's API over this connection.
    pub fn client(&self) -> NodeClient {
        self.client.clone()
    }

    /// Pings the node; the answer has to come within `timeout`.
    pub async fn ping(&self, timeout: Duration) -> Result<(), NodeError> {
        let started = Instant::now();
        tokio::time::timeout(timeout, self.client().ping(PingRequest {}))
            .await
            .map_err(|_| NodeError::TimedOut { after: timeout })?
            .map_err(failed("Ping"))?;
        let ping = Ping { at: SystemTime::now(), round_trip: started.elapsed() };
        *self.last_ping.lock().unwrap_or_else(PoisonError::into_inner) = ping;
        Ok(())
    }

    /// The last ping that was answered.
    pub fn last_ping(&self) -> Ping {
        *self.last_ping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether [`Self::remember_agreement`] was called for `account`.
    pub fn agrees_on(&self, account: &str) -> bool {
        self.agreed.lock().unwrap_or_else(PoisonError::into_inner).contains(account)
    }

    /// Notes that node and co-signer hold the same public data of `account`.
    pub fn remember_agreement(&self, account: &str) {
        self.agreed.lock().unwrap_or_else(PoisonError::into_inner).insert(account.to_owned());
    }
}

/// A gRPC channel over exactly this connection.
async fn channel_over(stream: TlsStream<TcpStream>) -> Result<(Channel, Closed), tonic::transport::Error> {
    let (open, closed) = oneshot::channel();
    let connector = OneConnection(Some(TokioIo::new(Guarded { stream, _open: open })));
    // The scheme only says that tonic is not to do TLS itself.
    let channel =
        Endpoint::from_static("http://sign-service.invalid").connect_with_connector(connector).await?;
    Ok((channel, closed))
}

/// A connector that hands out one connection, once. A channel that loses it fails instead of connecting again to a
/// peer that nobody has verified.
struct OneConnection(Option<TokioIo<Guarded>>);

impl tower_service::Service<Uri> for OneConnection {
    type Response = TokioIo<Guarded>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<Guarded>>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let lost = || io::Error::new(io::ErrorKind::NotConnected, "the attested connection is gone");
        ready(self.0.take().ok_or_else(lost))
    }
}

/// A stream whose end, however it comes, ends the [`Closed`] that belongs to it.
struct Guarded {
    stream: TlsStream<TcpStream>,
    _open: oneshot::Sender<()>,
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
