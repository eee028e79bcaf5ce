use std::{
    future::Future,
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use api::sign::{FILE_DESCRIPTOR_SET, sign_service_server::SignServiceServer};
use attestation::Nsm;
use rustls::ServerConfig;
use serde::Serialize;
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use tonic::transport;
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};
use vsock::Listener;

use crate::{
    Config, MAX_REQUEST_BYTES,
    accept::connections,
    attest::Attestor,
    dictionary::{Dictionary, LoadError},
    service::{Node, Service},
    sessions::Sessions,
    tls::{Identity, TlsError},
};

/// How often an idle connection is probed, and how long it may take to answer: a client that has vanished shall not
/// keep its place.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 streams per connection beyond the session cap, so that the cap itself is answered and not waited for.
const SPARE_STREAMS: u32 = 64;
/// Bytes of request headers; gRPC needs a few hundred.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// How long connections may take to close once the last session has ended.
const CLOSING: Duration = Duration::from_secs(1);

/// Why the service cannot start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The key shares cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The new certificate cannot be digested.
    #[error("the service's certificate has no readable public key: {0}")]
    Spki(String),
    /// The endpoint cannot be listened at.
    #[error(transparent)]
    Listen(#[from] io::Error),
    /// gRPC reflection cannot be set up.
    #[error("the API's descriptors are unusable: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// HTTP/2 serving failed.
    #[error("cannot serve: {0}")]
    Serve(#[from] transport::Error),
    /// The listener broke while serving.
    #[error("the service no longer accepts connections; see the log for the reason")]
    ListenerBroken,
}

/// What the service says on stdout, as one line of JSON, once it serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// Always true.
    pub ready: bool,
    /// SHA-256 of the service certificate's SubjectPublicKeyInfo, in hex.
    pub spki_sha256: String,
    /// Accounts in the bundle.
    pub accounts: usize,
    /// When the key shares were loaded: Unix time in milliseconds.
    pub loaded_at_unix_ms: u64,
}

/// The service: key shares loaded, TLS key made, listening.
pub struct Server {
    node: Arc<Node>,
    listener: Listener,
    tls: ServerConfig,
    health: HealthReporter,
    ready: Ready,
}

impl Server {
    /// Loads the key shares, makes the TLS key, listens. Clients that connect from now on are served by
    /// [`run`](Self::run).
    pub async fn start(config: &Config, nsm: Arc<dyn Nsm>) -> Result<Self, StartError> {
        let dictionary = Dictionary::load(&config.key_share_file)?;
        let (loaded_at, loaded_at_unix_ms) = (Instant::now(), unix_ms());
        let identity = Identity::generate()?;
        let spki_sha256 = attestation::spki_sha256(identity.certificate())
            .map_err(|error| StartError::Spki(error.to_string()))?;
        let tls = identity.server_config(dictionary.client_ca())?;
        let listener = Listener::bind(&config.listen).await?;
        let health = HealthReporter::new();
        health.set_serving::<SignServiceServer<Service>>().await;
        let ready = Ready {
            ready: true,
            spki_sha256: hex::encode(spki_sha256),
            accounts: dictionary.len(),
            loaded_at_unix_ms,
        };
        let node = Arc::new(Node {
            dictionary,
            sessions: Sessions::new(config.max_sessions as usize),
            session_deadline: config.session_deadline,
            attestor: Attestor::new(nsm, spki_sha256),
            configuration: config.configuration.clone(),
            sealed_bundle_sha384: config.sealed_bundle_sha384,
            loaded_at,
            loaded_at_unix_ms,
        });
        Ok(Self { node, listener, tls, health, ready })
    }

    /// The line to print.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Serves until `stop`, then drains: health says NOT_SERVING, no session begins, and active ones may end within the
    /// session deadline.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), StartError> {
        let Self { node, listener, tls, health, .. } = self;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let api =
            SignServiceServer::new(Service(Arc::clone(&node))).max_decoding_message_size(MAX_REQUEST_BYTES);
        let (close, closed) = oneshot::channel::<()>();
        let max_sessions = u32::try_from(node.sessions.figures().max).unwrap_or(u32::MAX);
        let serving = transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .max_concurrent_streams(max_sessions.saturating_add(SPARE_STREAMS))
            .add_service(api)
            .add_service(HealthServer::new(HealthService::from_health_reporter(health.clone())))
            .add_service(reflection)
            .serve_with_incoming_shutdown(connections(listener, tls), async {
                let _ = closed.await;
            });
        let stopping = async {
            stop.await;
            drain(&node, &health).await;
            drop(close);
            sleep(CLOSING).await;
        };
        tokio::select! {
            served = serving => served?,
            () = stopping => return Ok(()),
        }
        if node.sessions.is_draining() { Ok(()) } else { Err(StartError::ListenerBroken) }
    }
}

async fn drain(node: &Node, health: &HealthReporter) {
    tracing::info!(active_sessions = node.sessions.figures().active, "draining");
    node.sessions.close();
    health.set_not_serving::<SignServiceServer<Service>>().await;
    health.set_service_status("", ServingStatus::NotServing).await;
    if timeout(node.session_deadline, node.sessions.ended()).await.is_err() {
        tracing::warn!("stopping with sessions that are still active");
    }
}

fn unix_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
