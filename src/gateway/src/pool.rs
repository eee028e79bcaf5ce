//! The pool: all configured nodes, and the choice of one for a signature.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use keyshares::Account;
use tokio::task::JoinSet;

use crate::{
    SignError,
    config::Config,
    connection::Link,
    cosigner::CoSigner,
    node::{Node, State, Supervision},
    tls::Client,
};

/// All nodes. Dropping the pool ends their tasks and connections.
pub struct Pool {
    nodes: Vec<Arc<Node>>,
    next: AtomicUsize,
    _tasks: JoinSet<()>,
}

/// A node that may get a session, and the verified connection to it.
pub struct Chosen {
    /// The node's name.
    pub name: String,
    /// The connection.
    pub link: Arc<Link>,
}

impl Pool {
    /// Starts a task for each configured node.
    pub(crate) fn start(config: &Config, client: &Client, cosigner: &Arc<CoSigner>) -> Self {
        let supervision = Supervision {
            client: client.clone(),
            trust: config.trust.clone(),
            cosigner: Arc::clone(cosigner),
            probe_interval: config.probe_interval,
            probe_timeout: config.probe_timeout,
        };
        let nodes: Vec<Arc<Node>> = config.nodes.iter().map(|node| Arc::new(Node::new(node))).collect();
        let mut tasks = JoinSet::new();
        for node in &nodes {
            let (node, supervision) = (Arc::clone(node), supervision.clone());
            tasks.spawn(async move { node.supervise(supervision).await });
        }
        Self { nodes, next: AtomicUsize::new(0), _tasks: tasks }
    }

    /// All nodes, in the order of the configuration.
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// A verified node that holds a share of `account`: the one called `name`, or the next in turn.
    pub fn choose(&self, name: Option<&str>, id: &str, account: &Account) -> Result<Chosen, SignError> {
        match name {
            Some(name) => self.named(name, id, account),
            None => self.in_turn(id, account),
        }
    }

    fn named(&self, name: &str, id: &str, account: &Account) -> Result<Chosen, SignError> {
        let node = self
            .nodes
            .iter()
            .find(|node| node.name() == name)
            .ok_or_else(|| SignError::UnknownNode { node: name.to_owned() })?;
        match node.state() {
            State::Verified(link) if account.parties.contains(&link.party) => {
                Ok(Chosen { name: name.to_owned(), link })
            }
            State::Verified(_) => Err(SignError::NotAParty { node: name.to_owned(), account: id.to_owned() }),
            State::Unverified { reason } | State::Failed { reason } => {
                Err(SignError::NodeNotVerified { node: name.to_owned(), reason })
            }
        }
    }

    fn in_turn(&self, id: &str, account: &Account) -> Result<Chosen, SignError> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.nodes.len();
        (0..count)
            .map(|offset| &self.nodes[start.wrapping_add(offset) % count])
            .find_map(|node| {
                let link = node.link().filter(|link| account.parties.contains(&link.party))?;
                Some(Chosen { name: node.name().to_owned(), link })
            })
            .ok_or_else(|| SignError::NoVerifiedNode { account: id.to_owned() })
    }
}
