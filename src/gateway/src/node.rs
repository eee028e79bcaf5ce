//! One node of the pool: its state, and the task that connects, verifies, pings, and starts over.

use std::{sync::Arc, time::Duration};

use rand::Rng as _;
use tokio::sync::watch;

use crate::{
    NodeError,
    config::NodeConfig,
    connection::{self, Closed, Link},
    cosigner::CoSigner,
    tls::Client,
    trust::Trust,
};

/// Shortest and longest pause between two attempts to connect, before jitter.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
/// Pings that may fail in a row before the connection is given up.
const PING_FAILURES: u32 = 2;

/// What is known about a node.
#[derive(Clone)]
pub enum State {
    /// Not asked yet, or its connection was lost; `reason` says which.
    Unverified {
        /// For people.
        reason: String,
    },
    /// Verified and connected: may get sessions.
    Verified(Arc<Link>),
    /// The last attempt failed; another follows.
    Failed {
        /// For people.
        reason: String,
    },
}

/// A configured node.
pub struct Node {
    name: String,
    address: String,
    state: watch::Sender<State>,
}

/// What the task of a node needs.
#[derive(Clone)]
pub(crate) struct Supervision {
    pub(crate) client: Client,
    pub(crate) trust: Trust,
    pub(crate) cosigner: Arc<CoSigner>,
    pub(crate) probe_interval: Duration,
    pub(crate) probe_timeout: Duration,
}

impl Node {
    pub(crate) fn new(config: &NodeConfig) -> Self {
        let initial = State::Unverified { reason: "not connected yet".to_owned() };
        Self {
            name: config.name.clone(),
            address: config.address.clone(),
            state: watch::Sender::new(initial),
        }
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its state now.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Notifies of every change of the state.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// The verified connection, if there is one.
    pub fn link(&self) -> Option<Arc<Link>> {
        match &*self.state.borrow() {
            State::Verified(link) => Some(Arc::clone(link)),
            State::Unverified { .. } | State::Failed { .. } => None,
        }
    }

    /// Keeps the node connected and verified; never ends.
    pub(crate) async fn supervise(&self, with: Supervision) {
        let mut backoff = Backoff::new();
        loop {
            match connection::connect(&self.address, &with.client, &with.trust, &with.cosigner).await {
                Ok((link, closed)) => {
                    backoff = Backoff::new();
                    let reason = self.keep(link, closed, &with).await;
                    tracing::warn!(node = self.name, reason, "node lost");
                    self.state.send_replace(State::Unverified { reason });
                }
                Err(error) => self.fail(&error),
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Holds a verified connection until it ends or its node stops answering; returns why.
    async fn keep(&self, link: Link, closed: Closed, with: &Supervision) -> String {
        tracing::info!(
            node = self.name,
            party = link.party,
            epoch = link.attested.configuration.epoch,
            "node verified"
        );
        let link = Arc::new(link);
        self.state.send_replace(State::Verified(Arc::clone(&link)));
        tokio::select! {
            // The sender is never used, only dropped.
            _ = closed => "the connection was lost".to_owned(),
            error = probe(&link, with.probe_interval, with.probe_timeout) => {
                format!("{PING_FAILURES} pings in a row failed, the last with: {error}")
            }
        }
    }

    fn fail(&self, error: &NodeError) {
        let reason = error.to_string();
        let known = matches!(&*self.state.borrow(), State::Failed { reason: known } if *known == reason);
        // A node that stays away would fill the log.
        if !known {
            tracing::warn!(node = self.name, reason, "node not verified");
        }
        self.state.send_replace(State::Failed { reason });
    }
}

/// Pings until too many in a row fail; returns the last failure.
async fn probe(link: &Link, interval: Duration, timeout: Duration) -> NodeError {
    let mut failures = 0;
    loop {
        tokio::time::sleep(interval).await;
        match link.ping(timeout).await {
            Ok(()) => failures = 0,
            Err(error) => {
                failures += 1;
                if failures >= PING_FAILURES {
                    return error;
                }
            }
        }
    }
}

/// Pauses that double up to a limit, each shortened by a random part so that gateways do not come back in step.
struct Backoff {
    next: Duration,
}

impl Backoff {
    fn new() -> Self {
        Self { next: BACKOFF.0 }
    }

    fn pause(&mut self) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(BACKOFF.1);
        full.mul_f64(rand::thread_rng().gen_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_are_jittered() {
        let mut backoff = Backoff::new();
        let first = backoff.pause();
        assert!(first >= BACKOFF.0 / 2 && first <= BACKOFF.0, "{first:?}");
        let later: Vec<Duration> = (0..40).map(|_| backoff.pause()).collect();
        assert!(later[5..].iter().all(|pause| *pause >= BACKOFF.1 / 2 && *pause <= BACKOFF.1), "{later:?}");
        assert!(later[5..].windows(2).any(|pair| pair[0] != pair[1]), "{later:?}");
    }
}
