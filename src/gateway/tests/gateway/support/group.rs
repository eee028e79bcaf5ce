use std::collections::BTreeMap;

use keyshares::{Account, Bundle, PartySecretKey, Scheme, SecretShare};
use rand::rngs::OsRng;
use threshold::{Dealt, deal, generate_party_key, party_public_key};
use zeroize::Zeroizing;

use super::{GATEWAY, NODE, SPARE};

/// An account and the parties whose bundles hold it.
struct Dealing {
    id: &'static str,
    scheme: Scheme,
    threshold: u16,
    parties: Vec<String>,
    dealt: Dealt,
    /// Bundles that hold it.
    holders: &'static [&'static str],
}

/// Parties with their keys, and accounts dealt among them.
pub(crate) struct Group {
    secrets: BTreeMap<String, Zeroizing<[u8; 32]>>,
    public: BTreeMap<String, [u8; 32]>,
    accounts: Vec<Dealing>,
}

impl Group {
    /// `ed` and `tr` are ordinary accounts, 2 of 3. `three` needs all 3. `unknown-to-node` is in the gateway's bundle
    /// only. `disputed` is another key in each bundle. `elsewhere` is shared without the node.
    pub(crate) fn deal() -> Self {
        let secrets: BTreeMap<_, _> =
            [NODE, GATEWAY, SPARE].map(|party| (party.to_owned(), generate_party_key())).into();
        let public =
            secrets.iter().map(|(party, secret)| (party.clone(), party_public_key(secret))).collect();
        let all: &[&str] = &[NODE, GATEWAY, SPARE];
        let both = &[NODE, GATEWAY];
        let (ed, tr) = (Scheme::FrostEd25519, Scheme::FrostSecp256k1Tr);
        let accounts = vec![
            dealing("ed", ed, 2, all, both),
            dealing("tr", tr, 2, all, both),
            dealing("three", ed, 3, all, both),
            dealing("unknown-to-node", ed, 2, all, &[GATEWAY]),
            dealing("disputed", ed, 2, all, &[GATEWAY]),
            dealing("disputed", ed, 2, all, &[NODE]),
            dealing("elsewhere", ed, 2, &[GATEWAY, SPARE], &[GATEWAY]),
        ];
        Self { secrets, public, accounts }
    }

    /// The bundle of `party`.
    pub(crate) fn bundle(&self, party: &str, ca: &str, epoch: u64) -> Bundle {
        let held = self.accounts.iter().filter(|account| account.holders.contains(&party));
        Bundle {
            epoch,
            party: party.to_owned(),
            party_secret_key: PartySecretKey::new(&self.secrets[party]),
            parties: self.public.clone(),
            client_ca: ca.to_owned(),
            relay_ca: ca.to_owned(),
            accounts: held.map(|account| (account.id.to_owned(), account.of(party))).collect(),
        }
    }

    pub(crate) fn public_key(&self, account: &str) -> &[u8] {
        &self.accounts.iter().find(|dealing| dealing.id == account).unwrap().dealt.public_key
    }
}

fn dealing(
    id: &'static str,
    scheme: Scheme,
    threshold: u16,
    parties: &[&str],
    holders: &'static [&'static str],
) -> Dealing {
    let dealt = deal(scheme.name().parse().unwrap(), threshold, parties.len(), None, &mut OsRng).unwrap();
    let parties = parties.iter().map(|party| (*party).to_owned()).collect();
    Dealing { id, scheme, threshold, parties, dealt, holders }
}

impl Dealing {
    fn of(&self, party: &str) -> Account {
        let position = self.parties.iter().position(|other| other == party).unwrap();
        Account {
            scheme: self.scheme,
            threshold: self.threshold,
            parties: self.parties.clone(),
            public_key: self.dealt.public_key.clone(),
            verifying_shares: self.dealt.verifying_shares.clone(),
            share: SecretShare::from_slice(&self.dealt.shares[position]).unwrap(),
        }
    }
}
