use std::{collections::BTreeMap, io::Write as _};

use keyshares::{PartySecretKey, Scheme, SecretShare};
use zeroize::Zeroizing;

use super::*;

const PARTIES: [&str; 3] = ["enclave-a", "enclave-b", "gateway"];

/// A bundle of `enclave-a` with `count` accounts of each scheme.
fn bundle(count: usize) -> Bundle {
    let secret = threshold::generate_party_key();
    let mut parties: BTreeMap<_, _> = PARTIES
        .iter()
        .map(|party| ((*party).to_owned(), threshold::party_public_key(&threshold::generate_party_key())))
        .collect();
    parties.insert(PARTIES[0].to_owned(), threshold::party_public_key(&secret));
    let accounts = [Scheme::FrostEd25519, Scheme::FrostSecp256k1Tr]
        .into_iter()
        .flat_map(|scheme| {
            (0..count).map(move |number| (format!("{}-{number:03}", scheme.name()), account(scheme)))
        })
        .collect();
    Bundle {
        epoch: 3,
        party: PARTIES[0].to_owned(),
        party_secret_key: PartySecretKey::new(&secret),
        parties,
        client_ca: certificate(),
        relay_ca: certificate(),
        accounts,
    }
}

fn account(scheme: Scheme) -> Account {
    let dealt =
        threshold::deal(scheme.name().parse().unwrap(), 2, PARTIES.len(), None, &mut rand::rngs::OsRng)
            .unwrap();
    Account {
        scheme,
        threshold: 2,
        parties: PARTIES.iter().map(|party| (*party).to_owned()).collect(),
        public_key: dealt.public_key,
        verifying_shares: dealt.verifying_shares,
        share: SecretShare::from_slice(&dealt.shares[0]).unwrap(),
    }
}

/// The format asks for PEM; whose certificate it is matters to the service.
fn certificate() -> String {
    "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".to_owned()
}

fn check_json(json: &[u8], epoch: u64) -> Result<Facts, BootError> {
    let work_dir = tempfile::tempdir().unwrap();
    let mut key_file = KeyFile::create(&work_dir.path().join("plaintext")).unwrap();
    key_file.write_all(json).unwrap();
    let mut facts = Facts::new();
    check_bundle(&key_file, epoch, &mut facts).map(|accounts| {
        assert_eq!(facts["accounts"], accounts.to_string());
        facts
    })
}

fn check(bundle: &Bundle) -> Result<Facts, BootError> {
    check_json(&bundle.to_json(), bundle.epoch)
}

#[test]
fn a_bundle_whose_shares_all_match_is_accepted() {
    assert_eq!(check(&bundle(5)).unwrap()["accounts"], "10");
}

#[test]
fn a_bundle_without_accounts_is_accepted() {
    assert_eq!(check(&bundle(0)).unwrap()["accounts"], "0");
}

#[test]
fn one_share_that_does_not_match_is_found_and_its_account_named() {
    for id in ["frost-ed25519-000", "frost-secp256k1-tr-006"] {
        let mut bundle = bundle(7);
        let share = threshold_scalar(&bundle, id);
        bundle.accounts.get_mut(id).unwrap().share = SecretShare::from_slice(&share).unwrap();
        let error = check(&bundle).unwrap_err();
        assert_eq!(error.reason, FailureReason::SharesInvalid);
        assert!(error.message.contains(id), "{}", error.message);
    }
}

/// Another account's share of the same scheme: a valid scalar, but not this account's.
fn threshold_scalar(bundle: &Bundle, id: &str) -> Zeroizing<Vec<u8>> {
    let scheme = bundle.accounts[id].scheme;
    let other =
        bundle.accounts.iter().find(|(other, account)| *other != id && account.scheme == scheme).unwrap();
    Zeroizing::new(other.1.share.expose().to_vec())
}

#[test]
fn another_epoch_than_configured_is_a_mismatch_and_both_are_named() {
    let error = check_json(&bundle(1).to_json(), 4).unwrap_err();
    assert_eq!(error.reason, FailureReason::EpochMismatch);
    assert!(error.message.contains('3') && error.message.contains('4'), "{}", error.message);
}

#[test]
fn what_is_not_json_is_invalid() {
    assert_eq!(check_json(b"not json", 3).unwrap_err().reason, FailureReason::SharesInvalid);
}

#[test]
fn an_unknown_field_is_invalid() {
    let json = String::from_utf8(bundle(1).to_json().to_vec()).unwrap();
    let json = json.replacen('{', r#"{"debug":true,"#, 1);
    let error = check_json(json.as_bytes(), 3).unwrap_err();
    assert_eq!(error.reason, FailureReason::SharesInvalid);
    assert!(error.message.contains("unknown field"), "{}", error.message);
}
