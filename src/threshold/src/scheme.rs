use std::{fmt, str::FromStr};

use frost_ed25519::Ed25519Sha512;
use frost_secp256k1_tr::Secp256K1Sha256TR;
use rand::{CryptoRng, RngCore};

use crate::{DealError, Dealt, KeyMaterial, ShareError, frost::Frost};

/// Which signature scheme a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SchemeId {
    /// `frost-ed25519`: FROST(Ed25519, SHA-512) of RFC 9591; signatures are RFC 8032.
    FrostEd25519,
    /// `frost-secp256k1-tr`: FROST over secp256k1 as the Zcash Foundation's crate defines it; signatures are
    /// BIP340.
    FrostSecp256k1Tr,
}

/// A name that is not a [`SchemeId`]'s.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown signature scheme; expected \"frost-ed25519\" or \"frost-secp256k1-tr\"")]
pub struct UnknownScheme;

impl SchemeId {
    /// All schemes.
    pub const ALL: [Self; 2] = [Self::FrostEd25519, Self::FrostSecp256k1Tr];

    /// The name used in bundles and in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::FrostEd25519 => "frost-ed25519",
            Self::FrostSecp256k1Tr => "frost-secp256k1-tr",
        }
    }

    pub(crate) fn scheme(self) -> &'static dyn Scheme {
        match self {
            Self::FrostEd25519 => &Frost::<Ed25519Sha512>::NEW,
            Self::FrostSecp256k1Tr => &Frost::<Secp256K1Sha256TR>::NEW,
        }
    }
}

impl fmt::Display for SchemeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SchemeId {
    type Err = UnknownScheme;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|scheme| scheme.name() == name).ok_or(UnknownScheme)
    }
}

/// A party's place in an account's list of parties, counted from 1.
pub(crate) type Position = u16;

/// A cryptographic random number generator, as a trait object.
pub(crate) trait Random: RngCore + CryptoRng {}

impl<R: RngCore + CryptoRng> Random for R {}

/// A threshold signature scheme.
pub(crate) trait Scheme: Sync {
    /// See [`crate::check`]; the list of parties has been checked.
    fn check(&self, material: &KeyMaterial<'_>) -> Result<(), ShareError>;

    /// See [`crate::deal`]; the numbers have been checked.
    fn deal(
        &self,
        threshold: u16,
        parties: u16,
        secret: Option<&[u8; 32]>,
        rng: &mut dyn Random,
    ) -> Result<Dealt, DealError>;

    /// Begins to sign `message`. `signers` are ascending, hold the own position, and are at least the
    /// threshold.
    fn start(
        &self,
        material: &KeyMaterial<'_>,
        signers: &[Position],
        message: &[u8],
        rng: &mut dyn Random,
    ) -> Result<Started, Fault>;
}

/// A round that has begun: the own message to every other signer, and the round that waits for theirs.
pub(crate) struct Started {
    pub(crate) message: Vec<u8>,
    pub(crate) round: Box<dyn Round>,
}

/// One round of one signing session, on one signer's side.
pub(crate) trait Round: Send {
    /// Takes in another signer's message, once each.
    fn accept(&mut self, sender: Position, message: &[u8]) -> Result<(), Fault>;

    /// Ends the round once all messages are in. By value: what the round used up, such as nonces, is gone
    /// with it.
    fn finish(self: Box<Self>) -> Result<Next, Fault>;
}

/// What follows a round.
pub(crate) enum Next {
    Round(Started),
    /// In the scheme's standard encoding, verified.
    Signature(Vec<u8>),
}

/// Why a session cannot go on.
pub(crate) enum Fault {
    /// The message is not an encoding of what the round expects.
    Malformed,
    /// The signature share of this signer is wrong.
    BadShare(Position),
    /// The own key material cannot be used.
    Material(ShareError),
    /// Something else; unexpected with checked input.
    Protocol,
}

impl From<ShareError> for Fault {
    fn from(error: ShareError) -> Self {
        Self::Material(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheme_names_read_back_and_other_names_are_refused() {
        for scheme in SchemeId::ALL {
            assert_eq!(scheme.to_string().parse(), Ok(scheme));
        }
        for name in ["", "frost", "FROST-ED25519", "frost-ed25519 ", "dkls23-secp256k1"] {
            assert_eq!(name.parse::<SchemeId>(), Err(UnknownScheme));
        }
    }
}
