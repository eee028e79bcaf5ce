//! Reading a bundle's JSON: which fields there are and what they hold. How they are read is in [`values`].

mod values;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use crate::{
    Account, Bundle, BundleError, Scheme, Secret32,
    rules::{ACCOUNT_ID_RULE, PARTY_ID_RULE, is_account_id, is_party_id},
};
use values::{Integer, Key, List, Object, Text, Trace, Verbatim, hex_32, lower_hex};

const BUNDLE: [&str; 8] =
    ["version", "epoch", "party", "party_secret_key", "parties", "client_ca", "relay_ca", "accounts"];
const ACCOUNT: [&str; 6] = ["scheme", "threshold", "parties", "public_key", "verifying_shares", "share"];

const HEX_32: &str = "64 lower-case hex digits (32 bytes)";
const HEX: &str = "lower-case hex digits";
const HEXES: &str = "an array of strings of lower-case hex digits, one a party";
const VERSION: &str = "1, the only version this program reads";
const ACCOUNTS: &str = "an object of accounts by id";
const EPOCH: &str = "an integer, 0 to 2^64 - 1";
const PARTIES: &str = "an object of public keys by party id";
const PARTY_LIST: &str = "an array of party ids";
const THRESHOLD: &str = "an integer, 1 to 65535";
const PEM: &str = "a string of PEM certificates";
const SCHEME: &str = "\"frost-ed25519\" or \"frost-secp256k1-tr\"";

pub(crate) fn bundle(json: &[u8]) -> Result<Bundle, BundleError> {
    let trace = Trace::default();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    BundleSeed(&trace)
        .deserialize(&mut deserializer)
        .and_then(|bundle| deserializer.end().map(|()| bundle))
        .map_err(|error| trace.explain(&error))
}

struct BundleSeed<'t>(&'t Trace);

impl<'de> DeserializeSeed<'de> for BundleSeed<'_> {
    type Value = Bundle;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Bundle, D::Error> {
        self.0.at("bundle", "an object");
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for BundleSeed<'_> {
    type Value = Bundle;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Bundle, A::Error> {
        let (mut version, mut epoch, mut party, mut secret_key) = (None, None, None, None);
        let (mut parties, mut client_ca, mut relay_ca, mut accounts) = (None, None, None, None);
        let mut object = Object::new(self.0, map, "bundle", &BUNDLE);
        while let Some(name) = object.next_name()? {
            match name {
                "version" => object.read(name, &mut version, VERSION, Integer(version_1))?,
                "epoch" => object.read(name, &mut epoch, EPOCH, Integer(Some))?,
                "party" => object.read(name, &mut party, PARTY_ID_RULE, Text(party_id))?,
                "party_secret_key" => {
                    object.read(name, &mut secret_key, HEX_32, Verbatim(Secret32::from_hex))?;
                }
                "parties" => object.read(name, &mut parties, PARTIES, Parties(self.0))?,
                "client_ca" => object.read(name, &mut client_ca, PEM, Text(pem))?,
                "relay_ca" => object.read(name, &mut relay_ca, PEM, Text(pem))?,
                _ => object.read(name, &mut accounts, ACCOUNTS, Accounts(self.0))?,
            }
        }
        object.take("version", version)?;
        Ok(Bundle {
            epoch: object.take("epoch", epoch)?,
            party: object.take("party", party)?,
            party_secret_key: object.take("party_secret_key", secret_key)?,
            parties: object.take("parties", parties)?,
            client_ca: object.take("client_ca", client_ca)?,
            relay_ca: object.take("relay_ca", relay_ca)?,
            accounts: object.take("accounts", accounts)?,
        })
    }
}

struct Parties<'t>(&'t Trace);

impl<'de> DeserializeSeed<'de> for Parties<'_> {
    type Value = BTreeMap<String, [u8; 32]>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Parties<'_> {
    type Value = BTreeMap<String, [u8; 32]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let trace = self.0;
        let mut parties = BTreeMap::new();
        while let Some(id) = map.next_key_seed(Key)? {
            trace.at("parties", HEX_32);
            if !is_party_id(&id) {
                return Err(trace.refuse(format!("a party id is malformed; expected {PARTY_ID_RULE}")));
            }
            let Entry::Vacant(vacant) = parties.entry(id.into_owned()) else {
                return Err(trace.refuse("a party is given twice"));
            };
            vacant.insert(map.next_value_seed(Verbatim(hex_32))?);
        }
        Ok(parties)
    }
}

struct Accounts<'t>(&'t Trace);

impl<'de> DeserializeSeed<'de> for Accounts<'_> {
    type Value = BTreeMap<String, Account>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Accounts<'_> {
    type Value = BTreeMap<String, Account>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let trace = self.0;
        let mut accounts = BTreeMap::new();
        while let Some(id) = map.next_key_seed(Key)? {
            trace.at("accounts", "an object");
            if !is_account_id(&id) {
                return Err(trace.refuse(format!("an account id is malformed; expected {ACCOUNT_ID_RULE}")));
            }
            trace.enter_account(&id);
            let Entry::Vacant(vacant) = accounts.entry(id.into_owned()) else {
                return Err(trace.refuse("the account is given twice"));
            };
            vacant.insert(map.next_value_seed(AccountSeed(trace))?);
            trace.leave_account();
        }
        Ok(accounts)
    }
}

struct AccountSeed<'t>(&'t Trace);

impl<'de> DeserializeSeed<'de> for AccountSeed<'_> {
    type Value = Account;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Account, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for AccountSeed<'_> {
    type Value = Account;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Account, A::Error> {
        let (mut scheme, mut threshold, mut parties) = (None, None, None);
        let (mut public_key, mut verifying_shares, mut share) = (None, None, None);
        let mut object = Object::new(self.0, map, "account", &ACCOUNT);
        while let Some(name) = object.next_name()? {
            match name {
                "scheme" => object.read(name, &mut scheme, SCHEME, Text(scheme_named))?,
                "threshold" => object.read(name, &mut threshold, THRESHOLD, Integer(narrow))?,
                "parties" => object.read(name, &mut parties, PARTY_LIST, List(Text(party_id)))?,
                "public_key" => object.read(name, &mut public_key, HEX, Verbatim(lower_hex))?,
                "verifying_shares" => {
                    object.read(name, &mut verifying_shares, HEXES, List(Verbatim(lower_hex)))?;
                }
                _ => object.read(name, &mut share, HEX_32, Verbatim(Secret32::from_hex))?,
            }
        }
        Ok(Account {
            scheme: object.take("scheme", scheme)?,
            threshold: object.take("threshold", threshold)?,
            parties: object.take("parties", parties)?,
            public_key: object.take("public_key", public_key)?,
            verifying_shares: object.take("verifying_shares", verifying_shares)?,
            share: object.take("share", share)?,
        })
    }
}

fn version_1(version: u64) -> Option<u64> {
    (version == 1).then_some(version)
}

fn narrow(threshold: u64) -> Option<u16> {
    u16::try_from(threshold).ok()
}

fn scheme_named(name: &str) -> Option<Scheme> {
    name.parse().ok()
}

fn party_id(text: &str) -> Option<String> {
    is_party_id(text).then(|| text.to_owned())
}

/// Something must be there; what it holds is checked with the other rules.
fn pem(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
