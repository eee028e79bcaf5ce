//! A reference Sign Gateway: the other signer of every account, and the front door for people and programs that want
//! a signature.
//!
//! It keeps one connection to each configured node (a signing enclave). A node is used only after the enclave at the
//! end of that very connection has proven itself with an attestation document ([`trust`]); a lost connection means a
//! new connection and a new proof. `POST /v1/sign` runs one threshold signing session between the gateway's own share
//! and a node; `GET /v1/nodes` shows the pool. The HTTP API is described in [`http`].
//!
//! Reading order: [`config`], [`trust`], [`connection`], [`node`], [`sign`], [`http`].

pub mod config;
pub mod connection;
pub mod cosigner;
mod error;
mod files;
pub mod http;
pub mod node;
pub mod pool;
pub mod sign;
pub mod tls;
pub mod trust;
mod wire;

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpListener;

pub use error::{NodeError, SignError, StartError};

use crate::{config::Config, cosigner::CoSigner, http::App, pool::Pool, tls::Client};

/// A gateway that listens and watches its nodes. Dropping it closes every connection to them.
pub struct Gateway {
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
    drain: Duration,
}

impl Gateway {
    /// Opens the co-signer's bundle, binds the HTTP API and starts to connect to the nodes.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let cosigner = Arc::new(CoSigner::open(&config.shares, &config.identity_file)?);
        let client = Client::load(&config.tls_certificate, &config.tls_key)?;
        let listen = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let pool = Pool::start(&config, &client, &cosigner);
        let drain = config.sign_timeout;
        let app = Arc::new(App { cosigner, pool, sign_timeout: config.sign_timeout });
        Ok(Self { listener, address, app, drain })
    }

    /// Where the HTTP API listens; the real port when the configuration says port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The nodes.
    pub fn pool(&self) -> &Pool {
        &self.app.pool
    }

    /// Serves until `shutdown` is done, then takes no new requests and lets those that run finish, at most for the
    /// time a signature may take.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
        let (draining, drain_begins) = tokio::sync::oneshot::channel();
        let shutdown = async move {
            shutdown.await;
            // Fails only when serving has already ended.
            let _ = draining.send(());
        };
        let serving = axum::serve(self.listener, http::router(Arc::clone(&self.app)))
            .with_graceful_shutdown(shutdown)
            .into_future();
        let drain_ends = async move {
            match drain_begins.await {
                Ok(()) => tokio::time::sleep(self.drain).await,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            served = serving => served,
            () = drain_ends => Ok(()),
        }
    }
}
