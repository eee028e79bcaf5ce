//! The enclave's ways out, each from one vsock port to one `host:port`, and the clients' way in. There are no others.

use std::{future::pending, io, time::Duration};

use api::ports;
use vsock::{Bridge, Endpoint, Limits, Peer};

use crate::{Failed, Reason, config::Config, host::Host};

/// KMS needs one connection at a time; a few more allow for retries.
const KMS_CONNECTIONS: usize = 8;
/// A KMS connection that is silent for this long is of no use to anybody.
const KMS_IDLE: Duration = Duration::from_secs(150);

/// The enclave's ways out.
pub(crate) struct Egress {
    kms: Bridge,
    relay: Option<Bridge>,
}

/// One of the enclave's ways out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Kms,
    Relay,
}

impl Way {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kms => "kms",
            Self::Relay => "relay",
        }
    }
}

impl Egress {
    pub(crate) async fn open(config: &Config, host: &Host) -> Result<Self, Failed> {
        Ok(Self { kms: kms(config, host).await?, relay: relay(config, host).await? })
    }

    /// Returns when one of them has died: which, and of what. May be cancelled.
    pub(crate) async fn died(&mut self) -> (Way, io::Error) {
        tokio::select! {
            error = self.kms.wait() => (Way::Kms, error),
            error = died(&mut self.relay) => (Way::Relay, error),
        }
    }

    /// Opens one of them again.
    pub(crate) async fn reopen(&mut self, way: Way, config: &Config, host: &Host) -> Result<(), Failed> {
        match way {
            Way::Kms => self.kms = kms(config, host).await?,
            Way::Relay => self.relay = relay(config, host).await?,
        }
        Ok(())
    }

    pub(crate) async fn stop(self) {
        self.kms.stop().await;
        if let Some(relay) = self.relay {
            relay.stop().await;
        }
    }
}

/// Returns when a bridge has died, if there is one.
pub(crate) async fn died(bridge: &mut Option<Bridge>) -> io::Error {
    match bridge {
        Some(bridge) => bridge.wait().await,
        None => pending().await,
    }
}

async fn kms(config: &Config, host: &Host) -> Result<Bridge, Failed> {
    let limits =
        Limits { max_connections: KMS_CONNECTIONS, idle_timeout: Some(KMS_IDLE), ..Limits::default() };
    way_out(Way::Kms, ports::KMS, config.kms_upstream(), limits, host).await
}

/// Its connections stay: a subscription to events may be silent for long.
async fn relay(config: &Config, host: &Host) -> Result<Option<Bridge>, Failed> {
    let Some(relay) = &config.relay else { return Ok(None) };
    way_out(Way::Relay, ports::RELAY, relay.upstream.endpoint(), Limits::default(), host).await.map(Some)
}

async fn way_out(
    way: Way,
    port: u32,
    upstream: Endpoint,
    limits: Limits,
    host: &Host,
) -> Result<Bridge, Failed> {
    let listener = host.listen(port).await?;
    let bridge = Bridge::with_listener(way.name(), listener, upstream.clone(), limits);
    opened(way.name(), &bridge, &upstream);
    Ok(bridge)
}

/// The clients' way to the signing service.
pub(crate) async fn ingress(listen: Endpoint, enclave: &Peer) -> Result<Bridge, Failed> {
    let service = enclave.port(ports::SIGN);
    let bridge = Bridge::start("ingress", listen, service.clone(), Limits::default())
        .await
        .map_err(|error| Failed::new(Reason::SocketUnavailable, error))?;
    opened("ingress", &bridge, &service);
    Ok(bridge)
}

fn opened(name: &str, bridge: &Bridge, to: &Endpoint) {
    tracing::info!(bridge = name, from = %bridge.local(), %to, "a bridge is open");
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        runtime::Runtime,
        time::sleep,
    };
    use vsock::Stream;

    use super::*;
    use crate::{config::Relay, testing::config_in};

    /// An enclave's way to a relay.
    struct Setting {
        directory: tempfile::TempDir,
        config: Config,
        host: Host,
        relay: TcpListener,
    }

    async fn setting() -> Setting {
        let directory = tempfile::tempdir().unwrap();
        let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = config_in(directory.path());
        config.relay = Some(Relay { upstream: relay.local_addr().unwrap().to_string().parse().unwrap() });
        let host = Host::of_unix_socket(&directory.path().join("vm.vsock"));
        Setting { directory, config, host, relay }
    }

    impl Setting {
        async fn dial(&self, port: u32) -> io::Result<Stream> {
            let path = self.directory.path().join("vm.vsock");
            vsock::connect(&Peer::UnixGuest { path }.port(port)).await
        }

        async fn is_relayed(&self) {
            let mut enclave = self.dial(ports::RELAY).await.unwrap();
            enclave.write_all(b"event").await.unwrap();
            let mut got = [0; 5];
            self.relay.accept().await.unwrap().0.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"event");
        }
    }

    #[tokio::test]
    async fn the_relay_is_reached_and_its_bridge_opened_again_when_it_has_died() {
        let setting = setting().await;
        let mut egress = Egress::open(&setting.config, &setting.host).await.unwrap();
        setting.is_relayed().await;

        // A bridge runs on a runtime of its own, which can be taken from under it.
        egress.relay.take().unwrap().stop().await;
        let other = Runtime::new().unwrap();
        egress.relay = {
            let _context = other.enter();
            relay(&setting.config, &setting.host).await.unwrap()
        };
        other.shutdown_background();
        assert_eq!(egress.died().await.0, Way::Relay);
        egress.reopen(Way::Relay, &setting.config, &setting.host).await.unwrap();
        setting.is_relayed().await;

        egress.stop().await;
        assert!(setting.dial(ports::RELAY).await.is_err(), "the bridge is still there");
    }

    #[tokio::test]
    async fn without_a_relay_nothing_listens_for_one() {
        let mut setting = setting().await;
        setting.config.relay = None;
        let mut egress = Egress::open(&setting.config, &setting.host).await.unwrap();
        assert!(setting.dial(ports::RELAY).await.is_err());
        setting.dial(ports::KMS).await.unwrap();
        tokio::select! {
            (way, error) = egress.died() => panic!("{}: {error}", way.name()),
            () = sleep(Duration::from_millis(100)) => {}
        }
    }
}
