use std::collections::BTreeSet;

use rand::{CryptoRng, RngCore};
use zeroize::Zeroizing;

use crate::{
    SchemeId,
    scheme::{Position, Random},
};

/// FROST needs at least two signers for a signature.
pub(crate) const MIN_THRESHOLD: u16 = 2;

/// The plain parts of one party's share of one key. No `Debug`: it holds a secret.
#[derive(Clone, Copy)]
pub struct KeyMaterial<'a> {
    /// The signature scheme.
    pub scheme: SchemeId,
    /// How many signers make a signature; at least 2.
    pub threshold: u16,
    /// All parties, in order: a party's FROST identifier is its position here, counted from 1.
    pub parties: &'a [String],
    /// The party whose share this is.
    pub own: &'a str,
    /// The public key in the scheme's standard encoding, 32 bytes: Ed25519 (RFC 8032) or BIP340 x-only.
    pub public_key: &'a [u8],
    /// Each party's share times the generator, in the order of `parties`: Ed25519 32 bytes, secp256k1 33
    /// bytes (SEC1, compressed).
    pub verifying_shares: &'a [Vec<u8>],
    /// Secret: the own share, a scalar of 32 bytes (Ed25519 little-endian, secp256k1 big-endian).
    pub share: &'a [u8],
}

/// A key split into shares by a dealer.
pub struct Dealt {
    /// See [`KeyMaterial::public_key`].
    pub public_key: Vec<u8>,
    /// See [`KeyMaterial::verifying_shares`].
    pub verifying_shares: Vec<Vec<u8>>,
    /// Secret: one share a party, in order; see [`KeyMaterial::share`].
    pub shares: Vec<Zeroizing<Vec<u8>>>,
}

/// Why a key cannot be dealt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DealError {
    /// The threshold is less than 2 or more than the number of parties, or there are more than 65535 parties.
    #[error("threshold {threshold} of {parties} parties: expected a threshold of 2 to the number of parties")]
    Threshold {
        /// The threshold asked for.
        threshold: u16,
        /// The number of parties asked for.
        parties: usize,
    },
    /// The key to split is not one: zero, or not less than the group's order.
    #[error("the secret key to import is not a valid {scheme} key")]
    SecretKey {
        /// The scheme it was meant for.
        scheme: SchemeId,
    },
    /// The library failed; unexpected with checked numbers.
    #[error("splitting the key failed")]
    Split,
}

/// Why a share is refused. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// FROST needs a threshold of 2 to the number of parties.
    #[error(
        "threshold {threshold} of {parties} parties: FROST needs a threshold of 2 to the number of parties"
    )]
    Threshold {
        /// The threshold found.
        threshold: u16,
        /// The number of parties found.
        parties: usize,
    },
    /// More parties than there are 16-bit identifiers.
    #[error("{parties} parties; at most 65535 are possible")]
    TooManyParties {
        /// The number of parties found.
        parties: usize,
    },
    /// A party is listed more than once.
    #[error("party `{party}` is listed twice")]
    DuplicateParty {
        /// The party.
        party: String,
    },
    /// The own party is not listed.
    #[error("party `{party}` is not among the parties of this key")]
    NotAParty {
        /// The own party.
        party: String,
    },
    /// Not one verifying share a party.
    #[error("{actual} verifying shares for {expected} parties; expected one a party")]
    VerifyingShareCount {
        /// The number of parties.
        expected: usize,
        /// The number of verifying shares.
        actual: usize,
    },
    /// A verifying share is not the canonical encoding of a point of the prime-order group other than the
    /// identity.
    #[error("the verifying share of party `{party}` is not a valid point")]
    VerifyingShare {
        /// Whose share.
        party: String,
    },
    /// The public key is not the one the first verifying shares interpolate to.
    #[error("the public key does not match the verifying shares")]
    PublicKey,
    /// A verifying share is not on the polynomial, of a degree less than the threshold, through those before
    /// it.
    #[error("the verifying share of party `{party}` is not consistent with the others and the threshold")]
    Inconsistent {
        /// Whose share.
        party: String,
    },
    /// The share is not a canonical scalar.
    #[error("the share is not a canonical scalar of 32 bytes")]
    Share,
    /// The share does not belong to the own verifying share.
    #[error("the share does not match the verifying share of its party")]
    Mismatch,
}

/// Checks a share before it is used: that it belongs to the own verifying share, that all verifying shares
/// lie on one polynomial of a degree less than the threshold, that its value at 0 is the public key, and that
/// every point is canonically encoded, in the prime-order group and not the identity.
pub fn check(material: &KeyMaterial<'_>) -> Result<(), ShareError> {
    material.check_parties()?;
    material.scheme.scheme().check(material)
}

/// Splits a key among `parties` parties so that any `threshold` of them can sign; fewer learn nothing.
///
/// `secret` is a key to import, else a fresh one is made. For `frost-ed25519` it is an RFC 8032 seed, and the
/// public key is that seed's ordinary one. For `frost-secp256k1-tr` it is a secret key (32 bytes,
/// big-endian); of the two keys with its x-only public key, the one with an even Y coordinate is split, as
/// BIP340 signs with that one.
pub fn deal<R: RngCore + CryptoRng>(
    scheme: SchemeId,
    threshold: u16,
    parties: usize,
    secret: Option<&[u8; 32]>,
    rng: &mut R,
) -> Result<Dealt, DealError> {
    let refused = DealError::Threshold { threshold, parties };
    let count = u16::try_from(parties).map_err(|_| refused.clone())?;
    if !(MIN_THRESHOLD..=count).contains(&threshold) {
        return Err(refused);
    }
    let rng: &mut dyn Random = rng;
    scheme.scheme().deal(threshold, count, secret, rng)
}

impl KeyMaterial<'_> {
    /// The checks that need no arithmetic.
    pub(crate) fn check_parties(&self) -> Result<(), ShareError> {
        let parties = self.parties.len();
        let count = u16::try_from(parties).map_err(|_| ShareError::TooManyParties { parties })?;
        if !(MIN_THRESHOLD..=count).contains(&self.threshold) {
            return Err(ShareError::Threshold { threshold: self.threshold, parties });
        }
        let mut seen = BTreeSet::new();
        if let Some(party) = self.parties.iter().find(|party| !seen.insert(*party)) {
            return Err(ShareError::DuplicateParty { party: party.clone() });
        }
        if self.verifying_shares.len() != parties {
            return Err(ShareError::VerifyingShareCount {
                expected: parties,
                actual: self.verifying_shares.len(),
            });
        }
        self.own_position().map(|_| ())
    }

    pub(crate) fn own_position(&self) -> Result<Position, ShareError> {
        self.position(self.own).ok_or_else(|| ShareError::NotAParty { party: self.own.to_owned() })
    }

    pub(crate) fn position(&self, party: &str) -> Option<Position> {
        let index = self.parties.iter().position(|listed| listed == party)?;
        Position::try_from(index + 1).ok()
    }
}
