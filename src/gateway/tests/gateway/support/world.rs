use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use api::control::Configuration;
use attestation::{Measurements, software::TestAuthority};
use gateway::{
    Gateway, NodeError, config::Config, connection::Link, cosigner::CoSigner, node::State, tls::Client,
};
use keyshares::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

use super::{Answer, GATEWAY, get, group::Group};

const EPOCH: u64 = 7;
/// Long enough for a slow machine; tests end much earlier.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that is there before a program starts: one directory with the gateway's files.
pub(crate) struct World {
    pub(crate) directory: TempDir,
    pub(crate) authority: TestAuthority,
    pub(crate) group: Group,
    pub(crate) client_ca: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let authority = TestAuthority::generate().unwrap();
        fs::write(at("root.pem"), authority.root_pem()).unwrap();

        let (client_ca, certificate, key) = client_certificate();
        fs::write(at("client.pem"), certificate).unwrap();
        write_secret(&at("client.key"), key.as_bytes());

        let group = Group::deal();
        let identity = Identity::generate();
        let bundle = group.bundle(GATEWAY, &client_ca, 1).to_json();
        fs::write(at("gateway.json.age"), keyshares::seal(&bundle, &identity.recipient()).unwrap()).unwrap();
        let text = identity.to_text();
        write_secret(&at("identity.txt"), secrecy::ExposeSecret::expose_secret(&text).as_bytes());
        Self { directory, authority, group, client_ca }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The measurements of the image that all nodes run unless a test says otherwise.
    pub(crate) fn measurements() -> Measurements {
        Measurements::of_parts(&[b"kernel"], &[b"runtime"], &[b"application"])
    }

    /// A configuration that trusts this world, with one node at each address: `node-0`, `node-1`, …
    pub(crate) fn config_text(addresses: &[&str]) -> String {
        use std::fmt::Write as _;

        let mut text = format!(
            r#"
listen = "127.0.0.1:0"
shares = "gateway.json.age"
identity_file = "identity.txt"
tls_certificate = "client.pem"
tls_key = "client.key"
probe_interval_ms = 200
probe_timeout_ms = 200

[trust]
attestation_root = "root.pem"
pcr0 = ["{}"]
bundle_sha256 = ["{}"]
"#,
            Self::measurements().pcr0,
            hex::encode(configuration().bundle_sha256),
        );
        for (index, address) in addresses.iter().enumerate() {
            write!(text, "\n[[nodes]]\nname = \"node-{index}\"\naddress = \"{address}\"\n").unwrap();
        }
        text
    }

    pub(crate) fn config(&self, addresses: &[&str]) -> Config {
        let path = self.path("gateway.toml");
        fs::write(&path, Self::config_text(addresses)).unwrap();
        Config::load(&path).unwrap()
    }

    pub(crate) async fn start_gateway(&self, config: Config) -> RunningGateway {
        let gateway = Gateway::start(config).await.unwrap();
        let url = format!("http://{}", gateway.address());
        let nodes = gateway.pool().nodes().to_vec();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(gateway.serve(async {
            let _ = stopped.await;
        }));
        RunningGateway { url, nodes, stop: Some(stop), task }
    }

    /// A gateway that has verified a node at each address.
    pub(crate) async fn start_verified_gateway(&self, addresses: &[&str]) -> RunningGateway {
        let gateway = self.start_gateway(self.config(addresses)).await;
        for index in 0..addresses.len() {
            gateway.must_reach(index, |state| matches!(state, State::Verified(_))).await;
        }
        gateway
    }

    /// Connects to a node as the gateway does, with the expectations that are right.
    pub(crate) async fn connect(&self, address: &str) -> Result<Link, NodeError> {
        let config = self.config(&[address]);
        let cosigner = CoSigner::open(&config.shares, &config.identity_file).unwrap();
        let (link, _closed) =
            gateway::connection::connect(address, &self.client(), &config.trust, &cosigner).await?;
        Ok(link)
    }

    pub(crate) fn client(&self) -> Client {
        Client::load(&self.path("client.pem"), &self.path("client.key")).unwrap()
    }
}

/// A gateway that serves in this process.
pub(crate) struct RunningGateway {
    pub(crate) url: String,
    nodes: Vec<std::sync::Arc<gateway::node::Node>>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl RunningGateway {
    /// Waits until a node's state is as wanted.
    pub(crate) async fn must_reach(&self, index: usize, wanted: impl FnMut(&State) -> bool) -> State {
        let mut changes = self.nodes[index].watch();
        let reached = tokio::time::timeout(PATIENCE, changes.wait_for(wanted)).await;
        reached.expect("the node did not reach the state").unwrap().clone()
    }

    /// Waits until a node has failed; gives the reason.
    pub(crate) async fn must_fail(&self, index: usize) -> String {
        match self.must_reach(index, |state| matches!(state, State::Failed { .. })).await {
            State::Failed { reason } => reason,
            _ => unreachable!("waited for it"),
        }
    }

    pub(crate) fn node(&self, index: usize) -> &gateway::node::Node {
        &self.nodes[index]
    }

    pub(crate) async fn nodes(&self) -> Answer {
        get(&format!("{}/v1/nodes", self.url)).await
    }

    pub(crate) async fn sign(&self, body: serde_json::Value) -> Answer {
        super::post(&format!("{}/v1/sign", self.url), &body.to_string()).await
    }

    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }
}

pub(crate) fn configuration() -> Configuration {
    Configuration {
        region: "eu-central-1".to_owned(),
        kms_key_id: "1234".to_owned(),
        epoch: EPOCH,
        bundle_sha256: vec![7; 32],
        max_sessions: 4,
        session_deadline_ms: 20_000,
        kms_timeout_ms: 10_000,
    }
}

/// (CA, certificate, key), PEM.
fn client_certificate() -> (String, String, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "client CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, "Sign Gateway");
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = parameters.signed_by(&key, &issuer).unwrap().pem();
    (ca_pem, certificate, key.serialize_pem())
}

pub(crate) fn write_secret(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}
