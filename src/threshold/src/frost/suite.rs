//! What differs between the ciphersuites.

use frost_core::{Ciphersuite, Scalar, SigningKey};
use frost_ed25519::Ed25519Sha512;
use frost_secp256k1_tr::{Secp256K1Sha256TR, keys::EvenY as _};
use sha2::{Digest as _, Sha512};
use zeroize::Zeroizing;

use crate::{SchemeId, scheme::Random};

/// A FROST ciphersuite and the standard encodings of what it signs with.
pub(crate) trait Suite: Ciphersuite {
    const SCHEME: SchemeId;

    /// The standard encoding of a public key, of the ciphersuite's encoding of the same point.
    fn public_key(point: &[u8]) -> &[u8];

    /// Imports a secret key in its standard encoding. None if it is not one.
    fn import(secret: &[u8; 32]) -> Option<SigningKey<Self>>;

    /// The one of the keys with the same public key that is dealt.
    fn normal(key: SigningKey<Self>) -> SigningKey<Self>;

    /// The key to deal: `secret`, else a fresh one.
    fn secret_key(secret: Option<&[u8; 32]>, mut rng: &mut dyn Random) -> Option<SigningKey<Self>> {
        let key = match secret {
            Some(secret) => Self::import(secret)?,
            None => SigningKey::new(&mut rng),
        };
        Some(Self::normal(key))
    }
}

impl Suite for Ed25519Sha512 {
    const SCHEME: SchemeId = SchemeId::FrostEd25519;

    fn public_key(point: &[u8]) -> &[u8] {
        point
    }

    /// RFC 8032, section 5.1.5, steps 1 and 2: the scalar is the clamped first half of the seed's SHA-512.
    /// Reducing it modulo the group's order does not change its multiples of the base point.
    fn import(seed: &[u8; 32]) -> Option<SigningKey<Self>> {
        let hash = Zeroizing::new(<[u8; 64]>::from(Sha512::digest(seed)));
        let mut scalar = Zeroizing::new(*hash.first_chunk::<32>()?);
        scalar[0] &= 0b1111_1000;
        scalar[31] &= 0b0111_1111;
        scalar[31] |= 0b0100_0000;
        SigningKey::from_scalar(Scalar::<Self>::from_bytes_mod_order(*scalar)).ok()
    }

    fn normal(key: SigningKey<Self>) -> SigningKey<Self> {
        key
    }
}

impl Suite for Secp256K1Sha256TR {
    const SCHEME: SchemeId = SchemeId::FrostSecp256k1Tr;

    /// BIP340 public keys are the X coordinate: SEC1's compressed form without its first byte, the parity of
    /// Y.
    fn public_key(point: &[u8]) -> &[u8] {
        point.get(1..).unwrap_or_default()
    }

    fn import(secret: &[u8; 32]) -> Option<SigningKey<Self>> {
        SigningKey::deserialize(secret).ok()
    }

    /// BIP340 signs with the key whose public key has an even Y coordinate. Dealing that one spares every
    /// signer the negation; shares of the other one, dealt elsewhere, work as well.
    fn normal(key: SigningKey<Self>) -> SigningKey<Self> {
        key.into_even_y(None)
    }
}
