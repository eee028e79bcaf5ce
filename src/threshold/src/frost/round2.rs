//! Round two: signature shares and their sum (RFC 9591, sections 5.2 and 5.3).

use std::collections::BTreeMap;

use frost_core::{
    Error, Identifier, SigningPackage, aggregate, keys::PublicKeyPackage, round2::SignatureShare,
};

use super::{keys::Keys, suite::Suite};
use crate::scheme::{Fault, Next, Position, Round, Started};

/// The signature shares of the signers heard so far, the own one included.
pub(super) struct Round2<C: Suite> {
    package: SigningPackage<C>,
    public: PublicKeyPackage<C>,
    signers: BTreeMap<Position, Identifier<C>>,
    shares: BTreeMap<Identifier<C>, SignatureShare<C>>,
}

impl<C: Suite> Round2<C> {
    /// Takes the keys by value: from here on the secret share is not needed.
    pub(super) fn start(keys: Keys<C>, package: SigningPackage<C>, own: SignatureShare<C>) -> Started {
        let Keys { own: own_key, public, signers } = keys;
        let shares = BTreeMap::from([(*own_key.identifier(), own)]);
        Started { message: own.serialize(), round: Box::new(Self { package, public, signers, shares }) }
    }

    fn position(&self, identifier: &Identifier<C>) -> Option<Position> {
        self.signers.iter().find(|(_, known)| *known == identifier).map(|(position, _)| *position)
    }
}

impl<C: Suite> Round for Round2<C> {
    fn accept(&mut self, sender: Position, message: &[u8]) -> Result<(), Fault> {
        let identifier = self.signers.get(&sender).ok_or(Fault::Malformed)?;
        let share = SignatureShare::deserialize(message).map_err(|_| Fault::Malformed)?;
        self.shares.insert(*identifier, share);
        Ok(())
    }

    /// `aggregate` of RFC 9591, section 5.3. It verifies the signature, and the shares one by one if that
    /// fails.
    fn finish(self: Box<Self>) -> Result<Next, Fault> {
        match aggregate(&self.package, &self.shares, &self.public) {
            Ok(signature) => signature.serialize().map(Next::Signature).map_err(|_| Fault::Protocol),
            Err(Error::InvalidSignatureShare { culprits }) => {
                let culprit = culprits.first().and_then(|culprit| self.position(culprit));
                Err(culprit.map_or(Fault::Protocol, Fault::BadShare))
            }
            Err(_) => Err(Fault::Protocol),
        }
    }
}
