//! A bundle to start from: two parties, one account a scheme.

use aws_lc_rs::agreement;
use serde_json::{Value, json};

use crate::{Bundle, BundleError};

pub(super) const SECRET_KEY: &str = "a1c5e70b3d42f89668b0d1e2f3a4958677c8d9eafb0c1d2e3f405162738495a6";
pub(super) const SHARE: &str = "5eed5eed11223344556677889900aabbccddeeff0123456789abcdef5eed5eed";
pub(super) const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

pub(super) fn public_key(secret: &str) -> String {
    let secret = hex::decode(secret).unwrap();
    let secret = agreement::PrivateKey::from_private_key(&agreement::X25519, &secret).unwrap();
    hex::encode(secret.compute_public_key().unwrap())
}

pub(super) fn sample() -> Value {
    let account = |scheme: &str, verifying_share: String| {
        json!({
            "scheme": scheme,
            "threshold": 2,
            "parties": ["node-a", "gateway"],
            "public_key": "33".repeat(32),
            "verifying_shares": [verifying_share.clone(), verifying_share],
            "share": SHARE,
        })
    };
    json!({
        "version": 1,
        "epoch": 7,
        "party": "node-a",
        "party_secret_key": SECRET_KEY,
        "parties": {"node-a": public_key(SECRET_KEY), "gateway": "22".repeat(32)},
        "client_ca": PEM,
        "relay_ca": PEM,
        "accounts": {
            "ed-1": account("frost-ed25519", "44".repeat(32)),
            "tr-1": account("frost-secp256k1-tr", format!("02{}", "55".repeat(32))),
        },
    })
}

pub(super) fn parse(bundle: &Value) -> Result<Bundle, BundleError> {
    Bundle::from_json(bundle.to_string().as_bytes())
}

/// The error of the sample after `alter`.
pub(super) fn refusal(alter: impl FnOnce(&mut Value)) -> BundleError {
    let mut bundle = sample();
    alter(&mut bundle);
    parse(&bundle).err().unwrap()
}

/// The error of the sample's text after replacing `from`, which must occur, by `to`.
pub(super) fn text_refusal(from: &str, to: &str) -> BundleError {
    let text = sample().to_string();
    assert!(text.contains(from), "the sample has no {from}");
    Bundle::from_json(text.replacen(from, to, 1).as_bytes()).err().unwrap()
}
