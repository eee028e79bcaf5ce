//! A signing group with its certificates, nodes, and a gateway in front of them.

mod front;
mod group;
mod http;
mod impostor;
mod liar;
mod node;
mod world;

pub(crate) use front::Front;
pub(crate) use http::{Answer, get, post, post_with_header};
pub(crate) use impostor::Impostor;
pub(crate) use liar::{Lie, start_liar};
pub(crate) use node::{RunningNode, SEALED_BUNDLE_SHA384, honest_nsm, with_pcr16};
pub(crate) use world::{RunningGateway, World, configuration};

/// The party that nodes play, and the gateway's.
pub(crate) const NODE: &str = "node-a";
pub(crate) const GATEWAY: &str = "gateway";
/// A third party of the accounts, which does not run.
pub(crate) const SPARE: &str = "spare";
