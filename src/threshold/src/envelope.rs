use std::collections::BTreeMap;

use hpke::{
    Deserializable as _, HpkeError, Kem as _, OpModeR, OpModeS, Serializable as _, aead::ChaCha20Poly1305,
    kdf::HkdfSha256, kem::X25519HkdfSha256, single_shot_open, single_shot_seal,
};
use zeroize::Zeroizing;

use crate::{SESSION_ID_BYTES, SessionError};

/// Length of [`Envelope::encapsulated_key`]: Nenc of DHKEM(X25519, HKDF-SHA256), RFC 9180 section 7.1.
pub const ENCAPSULATED_KEY_BYTES: usize = 32;

/// Longest [`Envelope::ciphertext`], bytes.
pub const MAX_CIPHERTEXT_BYTES: usize = 65_536;

/// HPKE's `info`: these messages and no others.
const INFO: &[u8] = b"nitro-sign v1 session message";

type Aead = ChaCha20Poly1305;
type Kdf = HkdfSha256;
type Kem = X25519HkdfSha256;
type SecretKey = <Kem as hpke::Kem>::PrivateKey;
type PublicKey = <Kem as hpke::Kem>::PublicKey;

/// One protocol message between two parties, sealed to its receiver: HPKE (RFC 9180) in mode Auth with
/// DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20-Poly1305, between the static keys of the parties.
/// Every other field is authenticated as additional data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The session.
    pub session_id: [u8; SESSION_ID_BYTES],
    /// The account that signs.
    pub account: String,
    /// The protocol round, counted from 1.
    pub round: u32,
    /// The party that sealed it.
    pub sender: String,
    /// The party that can open it.
    pub receiver: String,
    /// HPKE's encapsulated key.
    pub encapsulated_key: [u8; ENCAPSULATED_KEY_BYTES],
    /// Ciphertext and 16-byte tag, at most [`MAX_CIPHERTEXT_BYTES`].
    pub ciphertext: Vec<u8>,
}

/// The static X25519 keys (RFC 7748) of the parties. No `Debug`: it holds a secret.
#[derive(Clone, Copy)]
pub struct PartyKeys<'a> {
    /// The party whose secret key this is.
    pub own: &'a str,
    /// Secret: its secret key.
    pub secret: &'a [u8; 32],
    /// Public keys by party, at least of the own party and of the other signers.
    pub public: &'a BTreeMap<String, [u8; 32]>,
}

/// The public key of a party's secret key.
pub fn party_public_key(secret: &[u8; 32]) -> [u8; 32] {
    // Any 32 bytes are an X25519 secret key; the default is never used.
    hpke_secret(secret).map(|secret| Kem::sk_to_pk(&secret).to_bytes().into()).unwrap_or_default()
}

/// A fresh secret key for a party, from the operating system's random number generator.
pub fn generate_party_key() -> Zeroizing<[u8; 32]> {
    let (secret, _) = Kem::gen_keypair();
    let mut bytes = Zeroizing::new([0; 32]);
    secret.write_exact(bytes.as_mut_slice());
    bytes
}

/// One party's side of all envelopes of one session. No `Debug`: it holds a secret.
pub(crate) struct Channel {
    pub(crate) session_id: [u8; SESSION_ID_BYTES],
    pub(crate) account: String,
    pub(crate) own: String,
    secret: Box<SecretKey>,
    own_public: PublicKey,
    peers: BTreeMap<String, PublicKey>,
}

impl Channel {
    pub(crate) fn new(
        session_id: [u8; SESSION_ID_BYTES],
        account: String,
        keys: &PartyKeys<'_>,
        signers: &[&str],
    ) -> Result<Self, SessionError> {
        let no_key = |party: &str| SessionError::NoPartyKey { party: party.to_owned() };
        let secret = Box::new(hpke_secret(keys.secret).map_err(|_| no_key(keys.own))?);
        let own_public = Kem::sk_to_pk(&secret);
        let mut peers = BTreeMap::new();
        for party in signers.iter().filter(|party| **party != keys.own) {
            let key = keys.public.get(*party).ok_or_else(|| no_key(party))?;
            peers.insert((*party).to_owned(), PublicKey::from_bytes(key).map_err(|_| no_key(party))?);
        }
        Ok(Self { session_id, account, own: keys.own.to_owned(), secret, own_public, peers })
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = &str> {
        self.peers.keys().map(String::as_str)
    }

    pub(crate) fn seal(
        &self,
        round: u32,
        receiver: &str,
        plaintext: &[u8],
    ) -> Result<Envelope, SessionError> {
        let no_key = || SessionError::NoPartyKey { party: receiver.to_owned() };
        let peer = self.peers.get(receiver).ok_or_else(no_key)?;
        let mode = OpModeS::Auth(((*self.secret).clone(), self.own_public.clone()));
        let aad = self.additional_data(round, &self.own, receiver);
        let (key, ciphertext) =
            single_shot_seal::<Aead, Kdf, Kem>(&mode, peer, INFO, plaintext, &aad).map_err(|_| no_key())?;
        Ok(Envelope {
            session_id: self.session_id,
            account: self.account.clone(),
            round,
            sender: self.own.clone(),
            receiver: receiver.to_owned(),
            encapsulated_key: key.to_bytes().into(),
            ciphertext,
        })
    }

    /// Opens an envelope that names this session, account and receiver.
    pub(crate) fn open(&self, envelope: &Envelope) -> Result<Zeroizing<Vec<u8>>, SessionError> {
        let not_authentic = || SessionError::NotAuthentic { sender: envelope.sender.clone() };
        let peer = self.peers.get(&envelope.sender).ok_or_else(not_authentic)?;
        let key = <Kem as hpke::Kem>::EncappedKey::from_bytes(&envelope.encapsulated_key)
            .map_err(|_| not_authentic())?;
        let mode = OpModeR::Auth(peer.clone());
        let aad = self.additional_data(envelope.round, &envelope.sender, &self.own);
        single_shot_open::<Aead, Kdf, Kem>(&mode, &self.secret, &key, INFO, &envelope.ciphertext, &aad)
            .map(Zeroizing::new)
            .map_err(|_| not_authentic())
    }

    /// Each part with its length before it, so that no two sets of parts give the same bytes.
    fn additional_data(&self, round: u32, sender: &str, receiver: &str) -> Vec<u8> {
        let round = round.to_be_bytes();
        let parts =
            [&self.session_id[..], self.account.as_bytes(), &round, sender.as_bytes(), receiver.as_bytes()];
        let mut data = Vec::new();
        for part in parts {
            data.extend_from_slice(&(part.len() as u64).to_be_bytes());
            data.extend_from_slice(part);
        }
        data
    }
}

fn hpke_secret(secret: &[u8; 32]) -> Result<SecretKey, HpkeError> {
    SecretKey::from_bytes(secret)
}
