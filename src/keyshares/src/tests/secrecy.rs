//! Errors never quote what may be a secret in the wrong place.

use serde_json::{Value, json};

use super::sample::{SECRET_KEY, SHARE, refusal, sample, text_refusal};
use crate::{BundleError, Identity, Secret32};

const AGE_KEY: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";

/// A run of 12 characters is 48 bits of a key in hex: far from enough, and far more than a coincidence.
#[track_caller]
fn assert_quotes_nothing(error: &BundleError) {
    let text = format!("{error} {error:?}").to_lowercase();
    for secret in [SECRET_KEY, SHARE, AGE_KEY] {
        let secret = secret.trim_start_matches("AGE-SECRET-KEY-").to_lowercase();
        for start in 0..=secret.len() - 12 {
            assert!(!text.contains(&secret[start..start + 12]), "the error quotes a secret: {error}");
        }
    }
}

#[test]
fn a_secret_in_the_place_of_any_value_is_not_quoted() {
    for secret in [SHARE, AGE_KEY] {
        let values = [json!(secret), json!([secret]), json!({secret: secret}), json!([[secret]])];
        for value in values {
            for field in [
                "version",
                "epoch",
                "party",
                "parties",
                "client_ca",
                "relay_ca",
                "accounts",
                "party_secret_key",
            ] {
                if field == "party_secret_key" && value == json!(SHARE) {
                    continue;
                }
                assert_quotes_nothing(&refusal(|bundle| bundle[field] = value.clone()));
            }
            for field in ["scheme", "threshold", "parties", "public_key", "verifying_shares"] {
                if field == "public_key" && value == json!(SHARE) {
                    continue;
                }
                assert_quotes_nothing(&refusal(|bundle| bundle["accounts"]["ed-1"][field] = value.clone()));
            }
        }
    }
}

#[test]
fn a_secret_in_the_place_of_any_key_is_not_quoted() {
    for secret in [SHARE, AGE_KEY] {
        for value in [json!(1), json!(secret), json!({})] {
            assert_quotes_nothing(&refusal(|bundle| bundle[secret] = value.clone()));
            assert_quotes_nothing(&refusal(|bundle| bundle["accounts"]["ed-1"][secret] = value.clone()));
            assert_quotes_nothing(&refusal(|bundle| bundle["accounts"][secret] = value.clone()));
            assert_quotes_nothing(&refusal(|bundle| {
                bundle["parties"][secret] = if value == json!(secret) { json!("zz") } else { value.clone() };
            }));
        }
    }
}

#[test]
fn a_secret_among_parties_of_the_bundle_or_of_an_account_is_not_quoted() {
    assert_quotes_nothing(&refusal(|bundle| bundle["accounts"]["ed-1"]["parties"][1] = json!(SHARE)));
    assert_quotes_nothing(&refusal(|bundle| bundle["accounts"]["ed-1"]["parties"] = json!([SHARE, SHARE])));
    assert_quotes_nothing(&refusal(|bundle| bundle["parties"][SHARE] = bundle["parties"]["node-a"].clone()));
    assert_quotes_nothing(&refusal(|bundle| {
        bundle["parties"][SHARE] = json!("77".repeat(32));
        bundle["party"] = json!(SHARE);
    }));
}

#[test]
fn a_secret_as_the_id_of_a_broken_account_is_not_quoted() {
    for secret in [SHARE, AGE_KEY] {
        let error = refusal(|bundle| {
            bundle["accounts"][secret] = bundle["accounts"]["ed-1"].clone();
            bundle["accounts"][secret]["threshold"] = json!(9);
        });
        assert_quotes_nothing(&error);
        assert!(error.to_string().contains(&secret[..8]), "its beginning is enough to find it: {error}");
    }
}

#[test]
fn a_malformed_secret_is_not_quoted() {
    let cases = [
        SHARE.to_uppercase(),
        SHARE[1..].to_owned(),
        format!("{SHARE}0"),
        format!(" {SHARE}"),
        format!("0x{SHARE}"),
        format!("\\u0035{}", &SHARE[1..]),
    ];
    for wrong in cases {
        assert_quotes_nothing(&text_refusal(
            &format!("\"share\":\"{SHARE}\""),
            &format!("\"share\":\"{wrong}\""),
        ));
    }
}

#[test]
fn a_secret_beside_a_syntax_error_is_not_quoted() {
    for junk in [SHARE.to_owned(), format!("\"{SHARE}"), format!("\"{SHARE}\" \"{SHARE}\"")] {
        assert_quotes_nothing(&text_refusal(&format!("\"{SHARE}\""), &junk));
    }
}

#[test]
fn errors_of_identities_quote_nothing() {
    for text in
        [&AGE_KEY[..70], &AGE_KEY.replace('Q', "b"), &format!("{AGE_KEY} "), &format!("{AGE_KEY}\n{AGE_KEY}")]
    {
        let error = Identity::parse(text.as_bytes()).err().unwrap();
        assert!(!format!("{error} {error:?}").contains(&AGE_KEY[17..29]));
    }
}

#[test]
fn a_bundles_text_holds_each_secret_once() {
    let bundle = super::sample::parse(&sample()).unwrap();
    let text = String::from_utf8(bundle.to_json().to_vec()).unwrap();
    assert_eq!(text.matches(SECRET_KEY).count(), 1);
    assert_eq!(text.matches(SHARE).count(), 2);
    assert!(serde_json::from_str::<Value>(&text).is_ok());
}

#[test]
fn secrets_are_made_of_32_bytes_only() {
    assert_eq!(Secret32::from_slice(&[5; 32]).map(|secret| *secret.expose()), Some([5; 32]));
    for length in [0, 31, 33] {
        assert!(Secret32::from_slice(&vec![5; length]).is_none());
    }
}
