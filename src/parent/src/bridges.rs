use std::time::Duration;

use api::ports;
use vsock::{Bridge, Endpoint, Limits, Peer};

use crate::{Failed, Reason, config::Config, host::Host};

/// KMS needs one connection at a time; a few more allow for retries.
const KMS_CONNECTIONS: usize = 8;
/// A KMS connection that is silent for this long is of no use to anybody.
const KMS_IDLE: Duration = Duration::from_secs(150);

/// The enclave's way to KMS: one vsock port to one `host:port`.
pub(crate) async fn kms(config: &Config, host: &Host) -> Result<Bridge, Failed> {
    let limits = Limits { max_connections: KMS_CONNECTIONS, idle_timeout: Some(KMS_IDLE) };
    let (listener, upstream) = (host.listen(ports::KMS).await?, config.kms_upstream());
    let bridge = Bridge::with_listener("kms", listener, upstream.clone(), limits);
    opened("kms", &bridge, &upstream);
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
