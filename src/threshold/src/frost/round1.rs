//! Round one: commitments to nonces (RFC 9591, section 5.1).

use std::collections::BTreeMap;

use frost_core::{
    Identifier, SigningPackage,
    round1::{SigningCommitments, SigningNonces, commit},
    round2::sign,
};

use super::{keys::Keys, round2::Round2, suite::Suite};
use crate::scheme::{Fault, Next, Position, Random, Round, Started};

/// The own nonces, and the commitments of the signers heard so far. No `Debug`, and not `Clone`: nonces that
/// sign twice give the key away.
struct Round1<C: Suite> {
    keys: Keys<C>,
    nonces: Box<SigningNonces<C>>,
    commitments: BTreeMap<Identifier<C>, SigningCommitments<C>>,
    message: Vec<u8>,
}

/// `commit` of RFC 9591.
pub(super) fn start<C: Suite>(
    keys: Keys<C>,
    message: &[u8],
    mut rng: &mut dyn Random,
) -> Result<Started, Fault> {
    let (nonces, own) = commit(keys.own.signing_share(), &mut rng);
    let nonces = Box::new(nonces);
    let encoded = own.serialize().map_err(|_| Fault::Protocol)?;
    let commitments = BTreeMap::from([(*keys.own.identifier(), own)]);
    let round = Box::new(Round1 { keys, nonces, commitments, message: message.to_vec() });
    Ok(Started { message: encoded, round })
}

impl<C: Suite> Round for Round1<C> {
    fn accept(&mut self, sender: Position, message: &[u8]) -> Result<(), Fault> {
        let identifier = self.keys.signers.get(&sender).ok_or(Fault::Malformed)?;
        let commitments = SigningCommitments::deserialize(message).map_err(|_| Fault::Malformed)?;
        // The decoder ignores what follows the commitments.
        if commitments.serialize().ok().as_deref() != Some(message) {
            return Err(Fault::Malformed);
        }
        self.commitments.insert(*identifier, commitments);
        Ok(())
    }

    /// `sign` of RFC 9591, section 5.2.
    fn finish(self: Box<Self>) -> Result<Next, Fault> {
        let Self { keys, nonces, commitments, message } = *self;
        let package = SigningPackage::new(commitments, &message);
        let own = sign(&package, &nonces, &keys.own).map_err(|_| Fault::Protocol)?;
        drop(nonces);
        Ok(Next::Round(Round2::start(keys, package, own)))
    }
}
