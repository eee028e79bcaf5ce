//! RFC 9591 FROST over any of its ciphersuites.

mod keys;
mod round1;
mod round2;
mod suite;

use std::marker::PhantomData;

use frost_core::keys::{IdentifierList, PublicKeyPackage, split};
use zeroize::Zeroizing;

use crate::{
    DealError, Dealt, KeyMaterial, ShareError,
    scheme::{Fault, Position, Random, Scheme, Started},
};
use keys::Keys;
use suite::Suite;

/// FROST with ciphersuite `C`.
pub(crate) struct Frost<C>(PhantomData<fn() -> C>);

impl<C> Frost<C> {
    pub(crate) const NEW: Self = Self(PhantomData);
}

impl<C: Suite> Scheme for Frost<C> {
    fn check(&self, material: &KeyMaterial<'_>) -> Result<(), ShareError> {
        keys::check::<C>(material)
    }

    /// `trusted_dealer_keygen` of RFC 9591, appendix C.
    fn deal(
        &self,
        threshold: u16,
        parties: u16,
        secret: Option<&[u8; 32]>,
        mut rng: &mut dyn Random,
    ) -> Result<Dealt, DealError> {
        let key = C::secret_key(secret, &mut rng).ok_or(DealError::SecretKey { scheme: C::SCHEME })?;
        let (shares, public) = split(&key, parties, threshold, IdentifierList::Default, &mut rng)
            .map_err(|_| DealError::Split)?;
        encode_dealt(shares.values(), &public).ok_or(DealError::Split)
    }

    fn start(
        &self,
        material: &KeyMaterial<'_>,
        signers: &[Position],
        message: &[u8],
        rng: &mut dyn Random,
    ) -> Result<Started, Fault> {
        round1::start(Keys::<C>::of(material, signers)?, message, rng)
    }
}

/// Identifiers, and so both maps, are in the order of positions.
fn encode_dealt<'a, C: Suite>(
    shares: impl Iterator<Item = &'a frost_core::keys::SecretShare<C>>,
    public: &PublicKeyPackage<C>,
) -> Option<Dealt> {
    let group = public.verifying_key().serialize().ok()?;
    Some(Dealt {
        public_key: C::public_key(&group).to_vec(),
        verifying_shares: public
            .verifying_shares()
            .values()
            .map(|share| share.serialize().ok())
            .collect::<Option<_>>()?,
        shares: shares.map(|share| Zeroizing::new(share.signing_share().serialize())).collect(),
    })
}
