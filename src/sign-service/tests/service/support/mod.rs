//! A signing group, a service in this process, and a client of it.
mod cosigner;
mod group;
mod tls;

use std::{sync::Arc, time::Duration};

use api::{control::Configuration, sign::sign_service_client::SignServiceClient};
use attestation::{
    Measurements,
    software::{SoftwareNsm, TestAuthority},
};
use sign_service::{Config, Ready, Server, StartError};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::transport::Channel;
use vsock::{Endpoint, Peer};

pub(crate) use cosigner::{Stream, message, must_end, must_open, must_send, must_sign, open_stream};
pub(crate) use group::{Group, fresh_session_id};
pub(crate) use tls::{Ca, Client, must_connect, try_handshake};

/// The party that the service plays, and the one the tests play.
pub(crate) const NODE: &str = "node-a";
pub(crate) const GATEWAY: &str = "gateway";

/// What a service is started with.
pub(crate) struct World {
    pub(crate) directory: TempDir,
    pub(crate) authority: TestAuthority,
    pub(crate) ca: Ca,
    pub(crate) group: Group,
    pub(crate) config: Config,
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca = Ca::named("client CA");
        let group = Group::deal();
        let key_share_file = directory.path().join("shares.json");
        std::fs::write(&key_share_file, group.bundle(NODE, &ca.pem()).to_json()).unwrap();
        let config = Config {
            key_share_file,
            listen: Peer::UnixGuest { path: directory.path().join("vm.vsock") }.port(50051),
            nsm: "device".to_owned(),
            configuration: configuration().canonical_bytes(),
            sealed_bundle_sha384: [9; 48],
            max_sessions: 4,
            session_deadline: Duration::from_secs(20),
        };
        Self { directory, authority: TestAuthority::generate().unwrap(), ca, group, config }
    }

    /// Where clients connect.
    pub(crate) fn endpoint(&self) -> Endpoint {
        Peer::Unix { path: self.directory.path().join("vm.vsock") }.port(50051)
    }

    pub(crate) fn nsm(&self) -> SoftwareNsm {
        let measurements = Measurements::of_parts(&[b"kernel"], &[b"runtime"], &[b"application"]);
        SoftwareNsm::new(&self.authority, measurements).unwrap()
    }

    pub(crate) async fn start(self) -> Running {
        let server = Server::start(&self.config, Arc::new(self.nsm())).await.unwrap();
        let ready = server.ready().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Running { world: self, ready, stop: Some(stop), task }
    }
}

pub(crate) fn configuration() -> Configuration {
    Configuration {
        region: "eu-central-1".to_owned(),
        kms_key_id: "1234".to_owned(),
        epoch: 7,
        bundle_sha256: vec![7; 32],
        max_sessions: 4,
        session_deadline_ms: 20_000,
        kms_timeout_ms: 10_000,
    }
}

/// A service that serves.
pub(crate) struct Running {
    pub(crate) world: World,
    pub(crate) ready: Ready,
    stop: Option<oneshot::Sender<()>>,
    pub(crate) task: JoinHandle<Result<(), StartError>>,
}

impl Running {
    pub(crate) async fn new() -> Self {
        World::new().start().await
    }

    pub(crate) async fn channel(&self) -> Channel {
        must_connect(&self.world.endpoint(), self.world.ca.client()).await
    }

    pub(crate) async fn client(&self) -> SignServiceClient<Channel> {
        SignServiceClient::new(self.channel().await)
    }

    /// What SIGTERM does.
    pub(crate) fn terminate(&mut self) {
        drop(self.stop.take());
    }
}
