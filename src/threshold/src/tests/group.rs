//! A group of parties with a dealt key, and the ways tests use it.

use std::collections::BTreeMap;

use hpke::{
    Deserializable as _, Kem as _, OpModeS, Serializable as _, aead::ChaCha20Poly1305, kdf::HkdfSha256,
    kem::X25519HkdfSha256, single_shot_seal,
};
use rand::{Rng as _, rngs::OsRng};

use crate::{
    Dealt, Envelope, KeyMaterial, Open, PartyKeys, Progress, SchemeId, Session, SessionError, deal,
    generate_party_key, party_public_key,
};

pub(super) struct Group {
    pub(super) scheme: SchemeId,
    pub(super) threshold: u16,
    pub(super) parties: Vec<String>,
    pub(super) dealt: Dealt,
    pub(super) secrets: BTreeMap<String, [u8; 32]>,
    pub(super) public: BTreeMap<String, [u8; 32]>,
}

impl Group {
    /// Parties `a`, `b`, `c`, … with a fresh key.
    pub(super) fn new(scheme: SchemeId, threshold: u16, parties: u8) -> Self {
        let dealt = deal(scheme, threshold, parties.into(), None, &mut OsRng).unwrap();
        Self::with_key(scheme, threshold, dealt)
    }

    pub(super) fn with_key(scheme: SchemeId, threshold: u16, dealt: Dealt) -> Self {
        let parties: Vec<String> =
            (b'a'..).take(dealt.shares.len()).map(|letter| char::from(letter).to_string()).collect();
        let secrets: BTreeMap<_, _> =
            parties.iter().map(|party| (party.clone(), *generate_party_key())).collect();
        let public =
            secrets.iter().map(|(party, secret)| (party.clone(), party_public_key(secret))).collect();
        Self { scheme, threshold, parties, dealt, secrets, public }
    }

    pub(super) fn material<'a>(&'a self, party: &'a str) -> KeyMaterial<'a> {
        let index = self.parties.iter().position(|listed| listed == party).unwrap();
        KeyMaterial {
            scheme: self.scheme,
            threshold: self.threshold,
            parties: &self.parties,
            own: party,
            public_key: &self.dealt.public_key,
            verifying_shares: &self.dealt.verifying_shares,
            share: &self.dealt.shares[index],
        }
    }

    pub(super) fn keys<'a>(&'a self, party: &'a str) -> PartyKeys<'a> {
        PartyKeys { own: party, secret: &self.secrets[party], public: &self.public }
    }

    pub(super) fn try_open(&self, party: &str, open: Open) -> Result<(Session, Vec<Envelope>), SessionError> {
        Session::open(open, &self.material(party), &self.keys(party), &mut OsRng)
    }

    pub(super) fn open(&self, party: &str, open: &Open) -> (Session, Vec<Envelope>) {
        self.try_open(party, open.clone()).unwrap()
    }

    /// Opens the session at every signer; all messages of round 1.
    pub(super) fn open_all(&self, open: &Open) -> (BTreeMap<String, Session>, Vec<Envelope>) {
        let mut sessions = BTreeMap::new();
        let mut envelopes = Vec::new();
        for signer in &open.signers {
            let (session, sent) = self.open(signer, open);
            sessions.insert(signer.clone(), session);
            envelopes.extend(sent);
        }
        (sessions, envelopes)
    }

    /// What `sender` could send with its own key: any plaintext, sealed as the protocol says. Written
    /// against `hpke` directly, as another implementation would be.
    pub(super) fn forge(
        &self,
        open: &Open,
        round: u32,
        sender: &str,
        receiver: &str,
        plaintext: &[u8],
    ) -> Envelope {
        type Kem = X25519HkdfSha256;
        let secret = <Kem as hpke::Kem>::PrivateKey::from_bytes(&self.secrets[sender]).unwrap();
        let public = Kem::sk_to_pk(&secret);
        let peer = <Kem as hpke::Kem>::PublicKey::from_bytes(&self.public[receiver]).unwrap();
        let mut aad = Vec::new();
        for part in [
            open.session_id.as_slice(),
            open.account.as_bytes(),
            &round.to_be_bytes(),
            sender.as_bytes(),
            receiver.as_bytes(),
        ] {
            aad.extend((part.len() as u64).to_be_bytes());
            aad.extend(part);
        }
        let (key, ciphertext) = single_shot_seal::<ChaCha20Poly1305, HkdfSha256, Kem>(
            &OpModeS::Auth((secret, public)),
            &peer,
            b"nitro-sign v1 session message",
            plaintext,
            &aad,
        )
        .unwrap();
        Envelope {
            session_id: open.session_id,
            account: open.account.clone(),
            round,
            sender: sender.to_owned(),
            receiver: receiver.to_owned(),
            encapsulated_key: key.to_bytes().into(),
            ciphertext,
        }
    }

    pub(super) fn assert_valid(&self, message: &[u8], signature: &[u8]) {
        match self.scheme {
            SchemeId::FrostEd25519 => {
                let key: [u8; 32] = self.dealt.public_key.as_slice().try_into().unwrap();
                let key = ed25519_dalek::VerifyingKey::from_bytes(&key).unwrap();
                let signature = ed25519_dalek::Signature::from_slice(signature).unwrap();
                key.verify_strict(message, &signature).unwrap();
            }
            SchemeId::FrostSecp256k1Tr => {
                let key: [u8; 32] = self.dealt.public_key.as_slice().try_into().unwrap();
                let key = secp256k1::XOnlyPublicKey::from_byte_array(key).unwrap();
                let signature = secp256k1::schnorr::Signature::from_byte_array(signature.try_into().unwrap());
                secp256k1::Secp256k1::verification_only().verify_schnorr(&signature, message, &key).unwrap();
            }
        }
    }
}

/// A session of the named signers over `message`.
pub(super) fn params(message: &[u8], signers: &[&str]) -> Open {
    Open {
        session_id: OsRng.r#gen(),
        account: "account-1".to_owned(),
        message: message.to_vec(),
        signers: signers.iter().map(|&signer| signer.to_owned()).collect(),
    }
}

/// The one envelope to `receiver`.
pub(super) fn to<'a>(envelopes: &'a [Envelope], receiver: &str) -> &'a Envelope {
    envelopes.iter().find(|envelope| envelope.receiver == receiver).unwrap()
}

pub(super) fn sent(progress: Progress) -> Vec<Envelope> {
    let Progress::Send(envelopes) = progress else { panic!("expected messages to send") };
    envelopes
}

/// Delivers envelopes in random order until none is left; messages that come too early are delivered again.
/// The signature of each signer.
pub(super) fn run(sessions: &mut BTreeMap<String, Session>, mut pending: Vec<Envelope>) -> Vec<Vec<u8>> {
    let mut signatures = Vec::new();
    while !pending.is_empty() {
        let envelope = pending.swap_remove(OsRng.gen_range(0..pending.len()));
        match sessions.get_mut(&envelope.receiver).unwrap().receive(&envelope) {
            Ok(Progress::Waiting) => {}
            Ok(Progress::Send(envelopes)) => pending.extend(envelopes),
            Ok(Progress::Done { signature }) => signatures.push(signature),
            Err(SessionError::WrongRound { expected: 1, actual: 2 }) => pending.push(envelope),
            Err(error) => panic!("{error}"),
        }
    }
    signatures
}
