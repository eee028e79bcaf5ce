use serde_json::{Value, json};

use super::sample::{PEM, SECRET_KEY, SHARE, parse, public_key, refusal, sample, text_refusal};
use crate::{Bundle, BundleError, Scheme};

#[track_caller]
fn assert_refused(error: &BundleError, account: Option<&str>, field: &str, problem: &str) {
    let BundleError::Invalid { account: actual_account, field: actual_field, problem: actual_problem } =
        error
    else {
        panic!("expected a broken rule, got: {error}");
    };
    assert_eq!((actual_account.as_deref(), actual_field.as_str()), (account, field), "{error}");
    assert!(actual_problem.contains(problem), "{error}");
}

#[test]
fn the_sample_is_read_field_by_field() {
    let bundle = parse(&sample()).unwrap();
    assert_eq!(bundle.epoch, 7);
    assert_eq!(bundle.party, "node-a");
    assert_eq!(hex::encode(bundle.party_secret_key.expose()), SECRET_KEY);
    assert_eq!(bundle.parties["gateway"], [0x22; 32]);
    assert_eq!(hex::encode(bundle.parties["node-a"]), public_key(SECRET_KEY));
    assert_eq!((bundle.client_ca.as_str(), bundle.relay_ca.as_str()), (PEM, PEM));
    assert_eq!(bundle.accounts.keys().collect::<Vec<_>>(), ["ed-1", "tr-1"]);
    let account = &bundle.accounts["tr-1"];
    assert_eq!(account.scheme, Scheme::FrostSecp256k1Tr);
    assert_eq!(account.threshold, 2);
    assert_eq!(account.parties, ["node-a", "gateway"]);
    assert_eq!(account.public_key, [0x33; 32]);
    assert_eq!(account.verifying_shares.iter().map(Vec::len).collect::<Vec<_>>(), [33, 33]);
    assert_eq!(hex::encode(account.share.expose()), SHARE);
}

#[test]
fn what_is_written_reads_back_and_is_written_alike() {
    let written = parse(&sample()).unwrap().to_json();
    assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), sample());
    assert_eq!(written.len(), written.capacity(), "the buffer was measured, so that it never moved");
    assert_eq!(Bundle::from_json(&written).unwrap().to_json(), written);
}

#[test]
fn a_bundle_without_accounts_is_read() {
    let mut bundle = sample();
    bundle["accounts"] = json!({});
    assert!(parse(&bundle).unwrap().accounts.is_empty());
}

#[test]
fn fields_may_come_in_any_order_and_with_white_space() {
    let text = serde_json::to_string_pretty(&sample()).unwrap();
    let version = "\"version\": 1";
    let reordered =
        text.replacen(&format!(",\n  {version}"), "", 1).replacen('{', &format!("{{\n{version},"), 1);
    assert_ne!(text, reordered);
    assert!(Bundle::from_json(text.as_bytes()).is_ok());
    assert!(Bundle::from_json(reordered.as_bytes()).is_ok());
}

#[test]
fn text_that_is_not_json_is_told_from_json_that_breaks_a_rule() {
    let text = sample().to_string();
    let early = |bytes: &[u8]| match Bundle::from_json(bytes).err().unwrap() {
        BundleError::NotJson { problem, .. } => problem,
        error @ BundleError::Invalid { .. } => panic!("{error}"),
    };
    for end in [0, 1, 10, text.len() / 2, text.len() - 1] {
        assert_eq!(early(&text.as_bytes()[..end]), "it ends too early");
    }
    for junk in [
        "age-encryption.org/v1",
        "{,}",
        "\u{0}",
        "{\"version\":1,}",
        &format!("{text}x"),
        &format!("{text}{{}}"),
    ] {
        assert_eq!(early(junk.as_bytes()), "syntax error", "{junk}");
    }
    assert_eq!(early(b"{\"version\":\xff}"), "syntax error");
    assert_eq!(early(b"{\"\xff\":1}"), "syntax error");
    for json in ["[]", "null", "1", "\"text\"", "true"] {
        assert_refused(
            &Bundle::from_json(json.as_bytes()).err().unwrap(),
            None,
            "bundle",
            "expected an object",
        );
    }
}

#[test]
fn the_place_of_a_syntax_error_is_given() {
    let error = Bundle::from_json(b"{\n \"version\" 1}").err().unwrap();
    assert_eq!(error.to_string(), "the bundle is not JSON: syntax error at line 2, column 12");
}

#[test]
fn every_field_is_required() {
    for field in
        ["version", "epoch", "party", "party_secret_key", "parties", "client_ca", "relay_ca", "accounts"]
    {
        let error = refusal(|bundle| drop(bundle.as_object_mut().unwrap().remove(field)));
        assert_refused(&error, None, field, "is missing");
    }
    for field in ["scheme", "threshold", "parties", "public_key", "verifying_shares", "share"] {
        let error = refusal(|bundle| drop(bundle["accounts"]["ed-1"].as_object_mut().unwrap().remove(field)));
        assert_refused(&error, Some("ed-1"), field, "is missing");
    }
}

#[test]
fn unknown_fields_are_refused() {
    assert_refused(&refusal(|bundle| bundle["masters"] = json!({})), None, "bundle", "unknown field");
    let error = refusal(|bundle| bundle["accounts"]["tr-1"]["derived"] = json!({}));
    assert_refused(&error, Some("tr-1"), "account", "unknown field");
}

#[test]
fn repeated_keys_are_refused_at_every_level() {
    let cases = [
        ("\"epoch\":7", "\"epoch\":7,\"epoch\":7", None, "epoch"),
        ("\"version\":1", "\"version\":1,\"version\":1", None, "version"),
        ("\"gateway\":\"22", "\"node-a\":\"22", None, "parties"),
        ("\"tr-1\":", "\"ed-1\":", Some("ed-1"), "accounts"),
        ("\"threshold\":2", "\"threshold\":2,\"threshold\":2", Some("ed-1"), "threshold"),
        // The same key, spelled with an escape.
        ("\"tr-1\":", "\"\\u0065d-1\":", Some("ed-1"), "accounts"),
        ("\"threshold\":2", "\"threshold\":2,\"\\u0074hreshold\":3", Some("ed-1"), "threshold"),
    ];
    for (from, to, account, field) in cases {
        assert_refused(&text_refusal(from, to), account, field, "given twice");
    }
}

#[test]
fn a_repeated_share_is_refused_even_if_the_same() {
    let share = format!("\"share\":\"{SHARE}\"");
    let error = text_refusal(&share, &format!("{share},{share}"));
    assert_refused(&error, Some("ed-1"), "share", "given twice");
}

#[test]
fn other_versions_are_refused() {
    for version in [json!(0), json!(2), json!("1"), json!(1.0), json!(-1), json!(null)] {
        let error = refusal(|bundle| bundle["version"] = version);
        assert_refused(&error, None, "version", "expected 1");
    }
}

#[test]
fn epochs_that_are_not_64_bit_integers_are_refused() {
    for epoch in [json!(-1), json!(1.5), json!("1"), json!(null), json!([1])] {
        assert_refused(&refusal(|bundle| bundle["epoch"] = epoch), None, "epoch", "expected an integer");
    }
    let error = text_refusal("\"epoch\":7", "\"epoch\":18446744073709551616");
    assert_refused(&error, None, "epoch", "expected an integer");
    let largest = sample().to_string().replace("\"epoch\":7", "\"epoch\":18446744073709551615");
    assert_eq!(Bundle::from_json(largest.as_bytes()).unwrap().epoch, u64::MAX);
}

#[test]
fn keys_and_shares_are_exactly_64_lower_case_hex_digits() {
    let upper = SHARE.to_uppercase();
    let escaped = format!("\\u0035{}", &SHARE[1..]);
    for wrong in
        ["", "00", &SHARE[1..], &SHARE[..63], &format!("{SHARE}00"), &upper, &"g".repeat(64), &escaped]
    {
        let error = text_refusal(&format!("\"share\":\"{SHARE}\""), &format!("\"share\":\"{wrong}\""));
        assert_refused(&error, Some("ed-1"), "share", "expected 64 lower-case hex digits");
        let error = text_refusal(SECRET_KEY, wrong);
        assert_refused(&error, None, "party_secret_key", "expected 64 lower-case hex digits");
        let error = text_refusal(&"22".repeat(32), wrong);
        assert_refused(&error, None, "parties", "expected 64 lower-case hex digits");
    }
}

#[test]
fn public_keys_and_verifying_shares_have_the_schemes_length() {
    let mut error = refusal(|bundle| bundle["accounts"]["ed-1"]["public_key"] = json!("33".repeat(33)));
    assert_refused(&error, Some("ed-1"), "public_key", "expected 32 bytes for frost-ed25519, got 33");
    error = refusal(|bundle| bundle["accounts"]["ed-1"]["verifying_shares"][1] = json!("44".repeat(33)));
    assert_refused(
        &error,
        Some("ed-1"),
        "verifying_shares[1]",
        "expected 32 bytes for frost-ed25519, got 33",
    );
    error = refusal(|bundle| bundle["accounts"]["tr-1"]["verifying_shares"][0] = json!("44".repeat(32)));
    assert_refused(
        &error,
        Some("tr-1"),
        "verifying_shares[0]",
        "expected 33 bytes for frost-secp256k1-tr, got 32",
    );
    error = refusal(|bundle| bundle["accounts"]["tr-1"]["verifying_shares"][0] = json!("4"));
    assert_refused(&error, Some("tr-1"), "verifying_shares", "lower-case hex");
    error = refusal(|bundle| bundle["accounts"]["ed-1"]["public_key"] = json!("AA".repeat(32)));
    assert_refused(&error, Some("ed-1"), "public_key", "lower-case hex");
    error =
        refusal(|bundle| drop(bundle["accounts"]["ed-1"]["verifying_shares"].as_array_mut().unwrap().pop()));
    assert_refused(&error, Some("ed-1"), "verifying_shares", "expected 2, one a party, got 1");
}

#[test]
fn unknown_schemes_are_refused() {
    for scheme in ["", "ed25519", "Frost-Ed25519", "dkls23-secp256k1"] {
        let error = refusal(|bundle| bundle["accounts"]["ed-1"]["scheme"] = json!(scheme));
        assert_refused(&error, Some("ed-1"), "scheme", "expected \"frost-ed25519\" or");
    }
}

#[test]
fn thresholds_are_one_to_the_number_of_parties() {
    for threshold in [0, 3, 65_535] {
        let error = refusal(|bundle| bundle["accounts"]["ed-1"]["threshold"] = json!(threshold));
        assert_refused(&error, Some("ed-1"), "threshold", "expected 1 to 2");
    }
    for threshold in [json!(65_536), json!(-1), json!("2")] {
        let error = refusal(|bundle| bundle["accounts"]["ed-1"]["threshold"] = threshold);
        assert_refused(&error, Some("ed-1"), "threshold", "expected an integer, 1 to 65535");
    }
    let mut bundle = sample();
    bundle["accounts"]["ed-1"]["threshold"] = json!(1);
    assert!(parse(&bundle).is_ok(), "whether 1 is enough is for the scheme to say");
}

#[test]
fn an_accounts_parties_are_the_bundles_each_once_and_this_one_among_them() {
    let with = |parties: Value| refusal(|bundle| bundle["accounts"]["ed-1"]["parties"] = parties);
    assert_refused(&with(json!(["node-a", "stranger"])), Some("ed-1"), "parties", "`stranger` is not among");
    assert_refused(&with(json!(["node-a", "node-a"])), Some("ed-1"), "parties", "`node-a` is named twice");
    assert_refused(
        &with(json!(["gateway"])),
        Some("ed-1"),
        "parties",
        "this node's party, `node-a`, is missing",
    );
    assert_refused(&with(json!([])), Some("ed-1"), "parties", "this node's party");
    assert_refused(&with(json!("node-a")), Some("ed-1"), "parties", "expected an array of party ids");
    assert_refused(&with(json!(["node-a", 1])), Some("ed-1"), "parties", "expected an array of party ids");
}

#[test]
fn ids_have_a_limited_alphabet_and_length() {
    for id in ["", "Node", "a/b", "a b", "ä", "a:b", "a\n", &"a".repeat(65)] {
        let error = refusal(|bundle| bundle["parties"][id] = json!("66".repeat(32)));
        assert_refused(&error, None, "parties", "a party id is malformed");
        let error = refusal(|bundle| bundle["party"] = json!(id));
        assert_refused(&error, None, "party", "expected 1 to 64 of");
    }
    for id in ["", "a/b", "a b", "ä", "a\u{0}", &"a".repeat(129)] {
        let error = refusal(|bundle| bundle["accounts"][id] = bundle["accounts"]["ed-1"].clone());
        assert_refused(&error, None, "accounts", "an account id is malformed");
    }
    let mut bundle = sample();
    for id in ["A:b_C.d-9", "x", &"z".repeat(128)] {
        bundle["accounts"][id] = bundle["accounts"]["ed-1"].clone();
    }
    assert_eq!(parse(&bundle).unwrap().accounts.len(), 5);
}

#[test]
fn the_own_party_and_its_key_belong_together() {
    let error = refusal(|bundle| bundle["party"] = json!("stranger"));
    assert_refused(&error, None, "party", "`stranger` is not among `parties`");
    let error = refusal(|bundle| bundle["party"] = json!("gateway"));
    assert_refused(&error, None, "party_secret_key", "does not belong to the public key of `gateway`");
}

#[test]
fn two_parties_with_one_public_key_are_refused() {
    let error = refusal(|bundle| bundle["parties"]["gateway"] = bundle["parties"]["node-a"].clone());
    assert_refused(&error, None, "parties", "`gateway` and `node-a` have the same public key");
}

#[test]
fn certificate_authorities_are_pem_certificates_and_nothing_else() {
    for field in ["client_ca", "relay_ca"] {
        for none in ["MIIB", "-----BEGIN CERTIFICATE-----\nMIIB\n", "-----END CERTIFICATE-----"] {
            let error = refusal(|bundle| bundle[field] = json!(none));
            assert_refused(&error, None, field, "expected at least one PEM certificate");
        }
        let with_key = format!("{PEM}-----BEGIN PRIVATE KEY-----\nMC4C\n-----END PRIVATE KEY-----\n");
        let error = refusal(|bundle| bundle[field] = json!(with_key));
        assert_refused(&error, None, field, "PEM certificates only");
        for wrong in [json!(""), json!(1), json!(null), json!([PEM])] {
            let error = refusal(|bundle| bundle[field] = wrong);
            assert_refused(&error, None, field, "expected a string of PEM certificates");
        }
        let mut bundle = sample();
        bundle[field] = json!(format!("{PEM}{PEM}"));
        assert!(parse(&bundle).is_ok(), "several certificates are a rollover");
    }
}

#[test]
fn a_bundle_put_together_in_memory_is_held_to_the_same_rules() {
    let mut bundle = parse(&sample()).unwrap();
    bundle.accounts.get_mut("ed-1").unwrap().public_key.pop();
    assert_refused(&bundle.validate().unwrap_err(), Some("ed-1"), "public_key", "expected 32 bytes");
    let mut bundle = parse(&sample()).unwrap();
    let account = bundle.accounts.remove("ed-1").unwrap();
    bundle.accounts.insert("not an id".to_owned(), account);
    assert_refused(&bundle.validate().unwrap_err(), None, "accounts", "an id is malformed");
    let mut bundle = parse(&sample()).unwrap();
    bundle.parties.insert("Not an id".to_owned(), [9; 32]);
    assert_refused(&bundle.validate().unwrap_err(), None, "parties", "is not a party id");
}

#[test]
fn scheme_names_read_back() {
    for scheme in Scheme::ALL {
        assert_eq!(scheme.to_string().parse(), Ok(scheme));
    }
}
