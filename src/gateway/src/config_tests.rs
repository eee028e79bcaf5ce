use super::*;

const EXAMPLE: &str = include_str!("../../../docs/gateway.example.toml");

fn load(text: &str) -> Result<Config, StartError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gateway.toml");
    fs::write(&path, text).unwrap();
    Config::load(&path)
}

/// The example with one piece of text replaced, and the message it is refused with.
fn refusal_of(old: &str, new: &str) -> String {
    assert!(EXAMPLE.contains(old), "the example has no {old:?}");
    let message = load(&EXAMPLE.replacen(old, new, 1)).unwrap_err().to_string();
    assert!(message.contains("gateway.toml"), "the file is not named: {message}");
    message
}

#[test]
fn the_documented_example_is_a_valid_configuration() {
    let config = load(EXAMPLE).unwrap();
    assert!(config.listen.ip().is_loopback());
    assert_eq!(config.probe_interval, Duration::from_secs(5));
    assert_eq!(config.sign_timeout, Duration::from_secs(10));
    assert_eq!(config.trust.pcr0.len(), 1);
    assert_eq!(config.nodes.len(), 2);
}

#[test]
fn relative_paths_are_beside_the_configuration_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gateway.toml");
    let text = EXAMPLE.replacen("shares = \"", "shares = \"sub/", 1).replace("/etc/nitro-sign/", "");
    fs::write(&path, text).unwrap();
    let config = Config::load(&path).unwrap();
    assert!(config.shares.starts_with(dir.path().join("sub")), "{:?}", config.shares);
}

#[test]
fn an_unknown_key_is_refused_and_named() {
    let message = refusal_of("sign_timeout_ms", "sign_timeout");
    assert!(message.contains("unknown field `sign_timeout`"), "{message}");
}

#[test]
fn a_missing_key_is_named() {
    let message = refusal_of("identity_file =", "# identity_file =");
    assert!(message.contains("missing field `identity_file`"), "{message}");
}

#[test]
fn an_address_other_machines_can_reach_needs_allow_remote() {
    let message = refusal_of("127.0.0.1:8080", "0.0.0.0:8080");
    assert!(message.contains("`listen`") && message.contains("allow_remote"), "{message}");

    let allowed = EXAMPLE.replacen("127.0.0.1:8080", "0.0.0.0:8080", 1).replacen(
        "allow_remote = false",
        "allow_remote = true",
        1,
    );
    assert!(load(&allowed).is_ok());
}

#[test]
fn an_all_zero_pcr0_is_refused_because_it_means_debug_mode() {
    let pcr0 = load(EXAMPLE).unwrap().trust.pcr0[0].to_string();
    let message = refusal_of(&pcr0, &"0".repeat(96));
    assert!(message.contains("`trust.pcr0[0]`"), "{message}");
}

#[test]
fn short_digests_are_refused_and_named() {
    let config = load(EXAMPLE).unwrap();
    let pcr0 = config.trust.pcr0[0].to_string();
    assert!(refusal_of(&pcr0, &pcr0[2..]).contains("`trust.pcr0[0]`"));
    let bundle = hex::encode(config.trust.bundles[0]);
    assert!(refusal_of(&bundle, &bundle[2..]).contains("`trust.bundle_sha256[0]`"));
}

#[test]
fn a_trust_root_that_is_not_there_is_refused() {
    let message = refusal_of("attestation_root = \"aws\"", "attestation_root = \"missing.pem\"");
    assert!(message.contains("`trust.attestation_root`") && message.contains("missing.pem"), "{message}");
}

#[test]
fn two_nodes_of_one_name_are_refused() {
    let message = refusal_of("node-b", "node-a");
    assert!(message.contains("`nodes[1].name`"), "{message}");
}

#[test]
fn malformed_nodes_are_refused() {
    assert!(refusal_of("\"node-a\"", "\"Node A\"").contains("`nodes[0].name`"));
    assert!(refusal_of(":50051\"", "\"").contains("`nodes[0].address`"));
}

#[test]
fn times_out_of_range_are_refused() {
    assert!(refusal_of("sign_timeout_ms = 10000", "sign_timeout_ms = 1").contains("`sign_timeout_ms`"));
    let message = refusal_of("probe_interval_ms = 5000", "probe_interval_ms = 600001");
    assert!(message.contains("`probe_interval_ms`"), "{message}");
}
