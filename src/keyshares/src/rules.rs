//! The rules of a bundle that span more than one value.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::agreement;

use crate::{Account, Bundle, BundleError, Scheme, bundle::shown};

const CERTIFICATE_BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const CERTIFICATE_END: &str = "-----END CERTIFICATE-----";

pub(crate) fn check(bundle: &Bundle) -> Result<(), BundleError> {
    check_parties(bundle)?;
    check_certificates("client_ca", &bundle.client_ca)?;
    check_certificates("relay_ca", &bundle.relay_ca)?;
    bundle.accounts.iter().try_for_each(|(id, account)| check_account(bundle, id, account))
}

fn check_parties(bundle: &Bundle) -> Result<(), BundleError> {
    if let Some(id) = bundle.parties.keys().find(|id| !is_party_id(id)) {
        return Err(BundleError::field(
            "parties",
            format!("`{}` is not a party id; expected {PARTY_ID_RULE}", shown(id)),
        ));
    }
    let Some(public_key) = bundle.parties.get(&bundle.party) else {
        let problem = format!("`{}` is not among `parties`; add its public key there", shown(&bundle.party));
        return Err(BundleError::field("party", problem));
    };
    if x25519_public_key(bundle.party_secret_key.expose()) != Some(*public_key) {
        let problem = format!("does not belong to the public key of `{}` in `parties`", shown(&bundle.party));
        return Err(BundleError::field("party_secret_key", problem));
    }
    // Two parties with one key could speak for each other.
    let mut owners = BTreeMap::new();
    for (id, key) in &bundle.parties {
        if let Some(other) = owners.insert(key, id) {
            let problem = format!("`{}` and `{}` have the same public key", shown(other), shown(id));
            return Err(BundleError::field("parties", problem));
        }
    }
    Ok(())
}

/// A CA field holds certificates and nothing else: a private key pasted beside them must not enter the
/// enclave. Whether the certificates are well formed is found out where they are used.
fn check_certificates(field: &str, pem: &str) -> Result<(), BundleError> {
    let blocks = pem.matches("-----BEGIN ").count();
    let certificates = pem.matches(CERTIFICATE_BEGIN).count();
    if certificates == 0 || pem.matches(CERTIFICATE_END).count() != certificates {
        return Err(BundleError::field(field, "expected at least one PEM certificate"));
    }
    if blocks != certificates {
        return Err(BundleError::field(
            field,
            "expected PEM certificates only, found another kind of PEM block",
        ));
    }
    Ok(())
}

fn check_account(bundle: &Bundle, id: &str, account: &Account) -> Result<(), BundleError> {
    let refuse = |field: &str, problem: String| Err(BundleError::account(id, field, problem));
    if !is_account_id(id) {
        return Err(BundleError::field(
            "accounts",
            format!("an id is malformed; expected {ACCOUNT_ID_RULE}"),
        ));
    }
    let mut seen = BTreeSet::new();
    for party in &account.parties {
        if !bundle.parties.contains_key(party) {
            return refuse("parties", format!("`{}` is not among the bundle's parties", shown(party)));
        }
        if !seen.insert(party) {
            return refuse("parties", format!("`{}` is named twice", shown(party)));
        }
    }
    if !seen.contains(&bundle.party) {
        let problem =
            format!("this node's party, `{}`, is missing; remove the account", shown(&bundle.party));
        return refuse("parties", problem);
    }
    let parties = account.parties.len();
    if account.threshold == 0 || usize::from(account.threshold) > parties {
        return refuse(
            "threshold",
            format!("expected 1 to {parties} (the number of parties), got {}", account.threshold),
        );
    }
    check_lengths(id, account)
}

fn check_lengths(id: &str, account: &Account) -> Result<(), BundleError> {
    let Account { scheme, parties, public_key, verifying_shares, .. } = account;
    let refuse = |field: &str, problem: String| Err(BundleError::account(id, field, problem));
    if public_key.len() != scheme.public_key_bytes() {
        return refuse("public_key", wrong_length(*scheme, scheme.public_key_bytes(), public_key.len()));
    }
    if verifying_shares.len() != parties.len() {
        let problem = format!("expected {}, one a party, got {}", parties.len(), verifying_shares.len());
        return refuse("verifying_shares", problem);
    }
    let expected = scheme.verifying_share_bytes();
    match verifying_shares.iter().position(|share| share.len() != expected) {
        Some(at) => {
            let actual = verifying_shares.get(at).map_or(0, Vec::len);
            refuse(&format!("verifying_shares[{at}]"), wrong_length(*scheme, expected, actual))
        }
        None => Ok(()),
    }
}

fn wrong_length(scheme: Scheme, expected: usize, actual: usize) -> String {
    format!("expected {expected} bytes for {scheme}, got {actual}")
}

fn x25519_public_key(secret: &[u8; 32]) -> Option<[u8; 32]> {
    let secret = agreement::PrivateKey::from_private_key(&agreement::X25519, secret).ok()?;
    secret.compute_public_key().ok()?.as_ref().try_into().ok()
}

pub(crate) const PARTY_ID_RULE: &str = "1 to 64 of a-z 0-9 . _ -";
pub(crate) const ACCOUNT_ID_RULE: &str = "1 to 128 of A-Z a-z 0-9 . _ : -";

pub(crate) fn is_party_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    (1..=64).contains(&id.len()) && id.bytes().all(allowed)
}

pub(crate) fn is_account_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    (1..=128).contains(&id.len()) && id.bytes().all(allowed)
}
