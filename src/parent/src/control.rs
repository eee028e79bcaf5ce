//! The control channel, served to one enclave: `proto/parent.proto`.
//!
//! The order is fixed: Attach, GetBoot, GetSealedBundle, each once. Anything else is FAILED_PRECONDITION.

mod link;
mod service;

use api::control::{BootEvent, Configuration, Failure, Ready, parent_server::ParentServer};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Server;
use vsock::Listener;

use crate::{Ciphertexts, Credentials};

pub use link::{AttestError, Requests};

/// Events that wait for the run to look at them.
const EVENTS: usize = 256;

/// What one enclave gets, once.
pub struct Offer {
    /// Configuration, measured into PCR16 by the enclave.
    pub configuration: Configuration,
    /// Identity and sealed bundle.
    pub ciphertexts: Ciphertexts,
    /// For the enclave's KMS call.
    pub credentials: Credentials,
}

/// What the enclave tells.
#[derive(Debug)]
pub enum Event {
    /// The enclave dialled.
    Attached,
    /// A step of its boot is done.
    Step(BootEvent),
    /// The signing service serves.
    Ready(Ready),
    /// The enclave is about to end, and why.
    Failure(Failure),
    /// The stream has ended, and how.
    Detached(String),
}

/// The server of the control channel. Dropping it stops it.
#[derive(Debug)]
pub struct Control {
    events: mpsc::Receiver<Event>,
    requests: Requests,
    /// Dropping it lets connections end.
    _stop: oneshot::Sender<()>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Control {
    /// Serves on a listener that is already bound.
    pub fn start(listener: Listener, offer: Offer) -> Self {
        let (events_in, events) = mpsc::channel(EVENTS);
        let requests = Requests::new();
        let service = ParentServer::new(service::Service::new(offer, events_in, requests.clone()));
        let (connections_in, connections) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let server = Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(ReceiverStream::new(connections), async { drop(stopped.await) });
        let serve = async {
            if let Err(error) = server.await {
                tracing::error!(%error, "the control server ended");
            }
        };
        let accept = service::accept(listener, connections_in);
        Self {
            events,
            requests,
            _stop: stop,
            _tasks: [tokio::spawn(serve), tokio::spawn(accept)].map(AbortOnDropHandle::new),
        }
    }

    /// The next event, in the order the enclave sent them. `None`: the server is gone. May be cancelled.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// A handle to ask the enclave for something.
    pub fn requests(&self) -> Requests {
        self.requests.clone()
    }
}

#[cfg(test)]
mod tests;
