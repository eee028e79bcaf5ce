use std::time::Duration;

use api::ports;
use vsock::{Bridge, Endpoint, Limits, Peer};

use crate::{Failed, Reason, config::Config};

/// KMS needs one connection at a time; a few more allow for retries.
const KMS_CONNECTIONS: usize = 8;
/// A KMS connection that is silent for this long is of no use to anybody.
const KMS_IDLE: Duration = Duration::from_secs(150);

/// The enclave's way to KMS: one vsock port to one `host:port`.
pub(crate) async fn kms(config: &Config, host: &Peer) -> Result<Bridge, Failed> {
    let limits = Limits { max_connections: KMS_CONNECTIONS, idle_timeout: Some(KMS_IDLE) };
    start("kms", host.port(ports::KMS), config.kms_upstream(), limits).await
}

/// The clients' way to the signing service.
pub(crate) async fn ingress(listen: Endpoint, enclave: &Peer) -> Result<Bridge, Failed> {
    start("ingress", listen, enclave.port(ports::SIGN), Limits::default()).await
}

async fn start(name: &str, from: Endpoint, to: Endpoint, limits: Limits) -> Result<Bridge, Failed> {
    let bridge = Bridge::start(name, from, to.clone(), limits)
        .await
        .map_err(|error| Failed::new(Reason::SocketUnavailable, error))?;
    tracing::info!(bridge = name, from = %bridge.local(), %to, "a bridge is open");
    Ok(bridge)
}
