use std::collections::BTreeMap;

use keyshares::{Account, Bundle, PartySecretKey, Scheme, SecretShare};
use rand::{RngCore as _, rngs::OsRng};
use threshold::{
    Dealt, Envelope, KeyMaterial, Open, PartyKeys, SchemeId, Session, deal, generate_party_key,
    party_public_key,
};
use zeroize::Zeroizing;

use super::{Ca, GATEWAY, NODE};

/// Three parties and two accounts, `ed` and `tr`, of which any two parties may sign.
pub(crate) struct Group {
    secrets: BTreeMap<String, Zeroizing<[u8; 32]>>,
    public: BTreeMap<String, [u8; 32]>,
    parties: Vec<String>,
    accounts: BTreeMap<String, (Scheme, Dealt)>,
}

const THRESHOLD: u16 = 2;

impl Group {
    pub(crate) fn deal() -> Self {
        let parties = [NODE, GATEWAY, "spare"].map(str::to_owned).to_vec();
        let secrets: BTreeMap<_, _> =
            parties.iter().map(|party| (party.clone(), generate_party_key())).collect();
        let public =
            secrets.iter().map(|(party, secret)| (party.clone(), party_public_key(secret))).collect();
        let dealt = |scheme| deal(scheme, THRESHOLD, parties.len(), None, &mut OsRng).unwrap();
        let accounts = BTreeMap::from([
            ("ed".to_owned(), (Scheme::FrostEd25519, dealt(SchemeId::FrostEd25519))),
            ("tr".to_owned(), (Scheme::FrostSecp256k1Tr, dealt(SchemeId::FrostSecp256k1Tr))),
        ]);
        Self { secrets, public, parties, accounts }
    }

    /// The bundle of `party`.
    pub(crate) fn bundle(&self, party: &str, client_ca: &str) -> Bundle {
        let position = self.parties.iter().position(|other| other == party).unwrap();
        let account = |(id, (scheme, dealt)): (&String, &(Scheme, Dealt))| {
            let account = Account {
                scheme: *scheme,
                threshold: THRESHOLD,
                parties: self.parties.clone(),
                public_key: dealt.public_key.clone(),
                verifying_shares: dealt.verifying_shares.clone(),
                share: SecretShare::from_slice(&dealt.shares[position]).unwrap(),
            };
            (id.clone(), account)
        };
        Bundle {
            epoch: 7,
            party: party.to_owned(),
            party_secret_key: PartySecretKey::new(&self.secrets[party]),
            parties: self.public.clone(),
            client_ca: client_ca.to_owned(),
            relay_ca: Ca::named("client CA").pem(),
            accounts: self.accounts.iter().map(account).collect(),
        }
    }

    pub(crate) fn public_key(&self, account: &str) -> &[u8] {
        &self.accounts[account].1.public_key
    }

    /// A session of `party`, with its own messages of round 1.
    pub(crate) fn session(&self, party: &str, open: Open) -> (Session, Vec<Envelope>) {
        let (scheme, dealt) = &self.accounts[&open.account];
        let position = self.parties.iter().position(|other| other == party).unwrap();
        let material = KeyMaterial {
            scheme: scheme.name().parse().unwrap(),
            threshold: THRESHOLD,
            parties: &self.parties,
            own: party,
            public_key: &dealt.public_key,
            verifying_shares: &dealt.verifying_shares,
            share: &dealt.shares[position],
        };
        let keys = PartyKeys { own: party, secret: &self.secrets[party], public: &self.public };
        Session::open(open, &material, &keys, &mut OsRng).unwrap()
    }
}

pub(crate) fn fresh_session_id() -> [u8; 32] {
    let mut id = [0; 32];
    OsRng.fill_bytes(&mut id);
    id
}
