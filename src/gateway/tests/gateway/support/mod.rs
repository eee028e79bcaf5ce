//! A signing group with its certificates, nodes, and a gateway in front of them.

mod front;
mod group;
mod http;
mod node;
mod world;

pub(crate) use front::{Front, must_accept_tls};
pub(crate) use http::{Answer, get, post, post_with_header};
pub(crate) use node::{RunningNode, with_pcr16};
pub(crate) use world::{RunningGateway, World, configuration};

/// The party that nodes play, and the gateway's.
pub(crate) const NODE: &str = "node-a";
pub(crate) const GATEWAY: &str = "gateway";
/// A third party of the accounts, which does not run.
pub(crate) const SPARE: &str = "spare";
