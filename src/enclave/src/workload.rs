//! Another program in the place of the signing service: one that serves on a TCP port of the loopback interface, dials
//! the relay on another one, and knows nothing of vsock. Bridges make up for that.

use std::{net::SocketAddr, time::Duration};

use api::{control::FailureReason, ports};
use tokio::{net::TcpStream, time::sleep};
use vsock::{Bridge, Endpoint, Limits, Peer};

use crate::{
    config::{Health, Workload},
    error::{BootError, because},
    outbox::Outbox,
    service::Service,
};

/// Between two questions whether the program serves.
const INTERVAL: Duration = Duration::from_millis(20);

/// Starts the program and waits until it serves. The outside reaches it only then.
pub(crate) async fn start(workload: &Workload, parent: &Peer, outbox: Outbox) -> Result<Service, BootError> {
    let relay = bridge("relay", tcp(workload.relay), parent.port(ports::RELAY)).await?;
    let mut service = Service::start_other(&workload.program, &workload.args, outbox)?;
    service.add_bridge(relay);
    match workload.health {
        Health::Tcp => service.ready(accepts(workload.listen)).await?,
    }
    let sign = bridge("sign", parent.any().port(ports::SIGN), tcp(workload.listen)).await?;
    service.add_bridge(sign);
    Ok(service)
}

async fn bridge(name: &str, from: Endpoint, to: Endpoint) -> Result<Bridge, BootError> {
    Bridge::start(name, from, to, Limits::default())
        .await
        .map_err(because(FailureReason::Internal, "cannot reach a workload on TCP"))
}

fn tcp(address: SocketAddr) -> Endpoint {
    Endpoint::Tcp { host: address.ip().to_string(), port: address.port() }
}

async fn accepts(address: SocketAddr) {
    while TcpStream::connect(address).await.is_err() {
        sleep(INTERVAL).await;
    }
}

#[cfg(test)]
#[path = "workload_tests.rs"]
mod tests;
