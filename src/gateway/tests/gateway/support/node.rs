use std::{fs, sync::Arc, time::Duration};

use api::sign::{GetStatusRequest, GetStatusResponse};
use attestation::{Nsm as _, PCR_CONFIGURATION, sha384, software::SoftwareNsm};
use sign_service::{Config, Server};
use tokio::{sync::oneshot, task::JoinHandle};
use vsock::{Endpoint, Peer};

use super::{Front, NODE, World, configuration};

pub(crate) const SEALED_BUNDLE_SHA384: [u8; 48] = [9; 48];
const PORT: u32 = 50051;

/// A signing service in this process, behind a TCP front.
pub(crate) struct RunningNode {
    pub(crate) front: Front,
    name: String,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// A security module whose PCR16 holds these values and is locked: what an enclave makes of it at its start.
pub(crate) fn with_pcr16(nsm: SoftwareNsm, values: &[&[u8]]) -> SoftwareNsm {
    for value in values {
        nsm.extend_pcr(PCR_CONFIGURATION, value).unwrap();
    }
    nsm.lock_pcr(PCR_CONFIGURATION).unwrap();
    nsm
}

/// The module of an enclave that started as it should.
pub(crate) fn honest_nsm(world: &World) -> SoftwareNsm {
    let nsm = SoftwareNsm::new(&world.authority, World::measurements()).unwrap();
    with_pcr16(nsm, &[&sha384(&configuration().canonical_bytes()), &SEALED_BUNDLE_SHA384])
}

impl RunningNode {
    /// A node that is as it should be.
    pub(crate) async fn start(world: &World) -> Self {
        Self::start_with(world, "one", honest_nsm(world)).await
    }

    /// One more of the same party.
    pub(crate) async fn start_another(world: &World) -> Self {
        Self::start_with(world, "two", honest_nsm(world)).await
    }

    pub(crate) async fn start_with(world: &World, name: &str, nsm: SoftwareNsm) -> Self {
        Self::start_at_epoch(world, name, nsm, configuration().epoch).await
    }

    /// A node whose bundle says another epoch than its configuration.
    pub(crate) async fn start_at_other_epoch(world: &World) -> Self {
        Self::start_at_epoch(world, "one", honest_nsm(world), configuration().epoch + 1).await
    }

    async fn start_at_epoch(world: &World, name: &str, nsm: SoftwareNsm, epoch: u64) -> Self {
        let socket = world.path(&format!("{name}.vsock"));
        let front = Front::start(Peer::Unix { path: socket }.port(PORT)).await;
        let (stop, task) = serve(world, name, nsm, epoch).await;
        Self { front, name: name.to_owned(), stop: Some(stop), task }
    }

    pub(crate) fn address(&self) -> &str {
        self.front.address()
    }

    /// Stops the service, as a crash or a deployment would; the front stays.
    pub(crate) async fn stop(&mut self) {
        drop(self.stop.take());
        (&mut self.task).await.unwrap();
    }

    /// Starts the service again behind the same front: another enclave, another key.
    pub(crate) async fn restart(&mut self, world: &World) {
        let (stop, task) = serve(world, &self.name, honest_nsm(world), configuration().epoch).await;
        (self.stop, self.task) = (Some(stop), task);
    }

    /// What the service counted, asked over a connection of its own.
    pub(crate) async fn status(&self, world: &World) -> GetStatusResponse {
        let link = world.connect(self.address()).await.unwrap();
        link.client().get_status(GetStatusRequest {}).await.unwrap().into_inner()
    }
}

async fn serve(
    world: &World,
    name: &str,
    nsm: SoftwareNsm,
    epoch: u64,
) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let configuration = configuration();
    let key_share_file = world.path(&format!("{name}.json"));
    let bundle = world.group.bundle(NODE, &world.client_ca, epoch);
    fs::write(&key_share_file, bundle.to_json()).unwrap();
    let config = Config {
        key_share_file,
        listen: listen(world, name),
        nsm: "device".to_owned(),
        configuration: configuration.canonical_bytes(),
        sealed_bundle_sha384: SEALED_BUNDLE_SHA384,
        max_sessions: configuration.max_sessions,
        session_deadline: Duration::from_secs(2),
    };
    let server = Server::start(&config, Arc::new(nsm)).await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        server.run(stopped).await.unwrap();
    });
    (stop, task)
}

fn listen(world: &World, name: &str) -> Endpoint {
    Peer::UnixGuest { path: world.path(&format!("{name}.vsock")) }.port(PORT)
}
