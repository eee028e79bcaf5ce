//! What must stop a boot, over real processes: each ends with one named reason, the enclave gone, ingress never open,
//! and nothing secret in any log.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{fs, path::Path};

use harness::{Options, Rebound, Status, World, Worlds};
use secrecy::ExposeSecret as _;
use serde_json::json;

const TERMINAL: i32 = 77;
const TRANSIENT: i32 = 75;

fn world() -> World {
    world_with(Options::default())
}

fn world_with(options: Options) -> World {
    let options = Options { accounts_per_scheme: 1, ..options };
    Worlds::provision(options, &mut |_, _| {}).unwrap()
}

/// Starts the parent and asserts that it gives up as it must.
fn assert_refused(world: &World, reason: &str, exit_code: i32) -> Status {
    let mut node = world.start_parent().unwrap();
    let (status, code) = node.wait_failed().unwrap();
    assert_eq!(status.reason(), Some(reason), "{}\n{}", status.0, node.program.log_tail());
    assert_eq!(status.state(), "Failed");
    assert_eq!(code, exit_code, "exit code for {reason}");
    assert!(!status.history().contains(&"Serving"), "{:?}", status.history());
    assert_eq!(status.ingress(), None, "ingress must not be open");
    if let Ok(pid) = status.enclave_pid() {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the enclave {pid} is still there");
    }
    assert_no_leftovers(&world.path("run"));
    assert_logs_hold_no_secret(world);
    status
}

/// No plaintext of the shares may be left where the enclave worked.
fn assert_no_leftovers(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_no_leftovers(&path);
        } else {
            assert_ne!(
                path.file_name().unwrap(),
                "service_key_shares.json",
                "left behind: {}",
                path.display()
            );
        }
    }
}

fn assert_logs_hold_no_secret(world: &World) {
    let logs = world.all_logs().unwrap();
    assert!(!logs.is_empty(), "nothing was logged, so nothing was tested");
    assert!(!logs.to_uppercase().contains("AGE-SECRET-KEY-1"), "an age identity is in a log");
    for secret in ["\"share\"", "party_secret_key\":"] {
        assert!(!logs.contains(secret), "{secret} is in a log");
    }
    let credentials = fs::read_to_string(world.path("credentials.json")).unwrap();
    let credentials: serde_json::Value = serde_json::from_str(&credentials).unwrap();
    assert!(
        !logs.contains(credentials["secret_access_key"].as_str().unwrap()),
        "an AWS secret key is in a log"
    );
}

/// Seals a changed plaintext as the deployment's bundle, with everything around it in order.
fn replace_plaintext(world: &World, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let admin = world.kms_admin().unwrap();
    let bundle = admin.seal(&change(admin.open_bundle().unwrap())).unwrap();
    admin.replace_bundle(&Rebound { bundle, epoch: 1 }).unwrap();
}

/// The same, for changes to the JSON.
fn replace_json(world: &World, change: impl FnOnce(&mut serde_json::Value)) {
    replace_plaintext(world, |plaintext| {
        let mut json = serde_json::from_slice(&plaintext).unwrap();
        change(&mut json);
        serde_json::to_vec(&json).unwrap()
    });
}

#[test]
fn a_key_policy_that_lists_another_pcr0_denies() {
    let world = world();
    world.apply_policy(&[&"ab".repeat(48)], &[]).unwrap();
    let status = assert_refused(&world, "KmsDenied", TERMINAL);
    assert!(status.text("/kms_request_id").is_ok(), "the audit record names the refused request");
}

#[test]
fn a_key_policy_that_pins_another_pcr16_denies() {
    let world = world();
    let pcrs = world.measure().unwrap();
    world.apply_policy(&[pcrs["PCR0"].as_str().unwrap()], &[&"cd".repeat(48)]).unwrap();
    assert_refused(&world, "KmsDenied", TERMINAL);
}

#[test]
fn a_document_whose_root_kms_does_not_trust_is_denied() {
    let world = world();
    let other = world.path("other-authority");
    let made = std::process::Command::new(harness::binary("emulator").unwrap())
        .args(["authority", "--dir"])
        .arg(&other)
        .status()
        .unwrap();
    assert!(made.success());
    world
        .write_parent_toml(|parent| {
            let hypervisor = parent["enclave"]["process"]["hypervisor"].as_array_mut().unwrap();
            let at = hypervisor.iter().position(|a| a.as_str() == Some("--authority-dir")).unwrap();
            hypervisor[at + 1] = other.to_str().unwrap().into();
        })
        .unwrap();
    assert_refused(&world, "KmsDenied", TERMINAL);
}

#[test]
fn an_unreachable_kms_is_a_transient_failure() {
    let world = world_with(Options { kms_timeout_ms: 2000, ..Options::default() });
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    world.write_parent_toml(|parent| parent["kms"]["upstream"] = closed.to_string().into()).unwrap();
    assert_refused(&world, "KmsUnreachable", TRANSIENT);
}

#[test]
fn a_kms_that_answers_too_late_is_a_transient_failure() {
    let world = world_with(Options { kms_timeout_ms: 1500, ..Options::default() });
    world.kms_fault(&json!({"mode": "delay", "delay_ms": 20_000})).unwrap();
    assert_refused(&world, "KmsUnreachable", TRANSIENT);
}

#[test]
fn a_kms_that_answers_with_plaintext_is_refused() {
    let world = world();
    world.kms_fault(&json!({"mode": "plaintext"})).unwrap();
    assert_refused(&world, "KmsAnswerInvalid", TERMINAL);
}

#[test]
fn a_truncated_recipient_envelope_is_refused() {
    let world = world();
    world.kms_fault(&json!({"mode": "truncate-cms"})).unwrap();
    assert_refused(&world, "KmsAnswerInvalid", TERMINAL);
}

#[test]
fn an_altered_recipient_envelope_is_refused() {
    let world = world();
    world.kms_fault(&json!({"mode": "alter-cms"})).unwrap();
    assert_refused(&world, "KmsAnswerInvalid", TERMINAL);
}

#[test]
fn an_altered_identity_ciphertext_is_refused() {
    let world = world();
    let path = world.path("deployment/age-identity.kms");
    let mut blob = fs::read(&path).unwrap();
    *blob.last_mut().unwrap() ^= 1;
    fs::write(path, blob).unwrap();
    assert_refused(&world, "IdentityInvalid", TERMINAL);
}

#[test]
fn an_identity_that_is_no_age_identity_is_refused() {
    let world = world();
    world.kms_admin().unwrap().replace_identity(b"this is not an age identity").unwrap();
    assert_refused(&world, "IdentityInvalid", TERMINAL);
}

#[test]
fn a_bundle_for_another_identity_is_refused() {
    let world = world();
    let other = keyshares::Identity::generate();
    world.kms_admin().unwrap().replace_identity(other.to_text().expose_secret().as_bytes()).unwrap();
    assert_refused(&world, "BundleCorrupt", TERMINAL);
}

#[test]
fn a_bundle_that_is_not_the_configured_one_never_reaches_an_enclave() {
    let world = world();
    let path = world.path("deployment/service_key_shares.json.age");
    let mut bundle = fs::read(&path).unwrap();
    let middle = bundle.len() / 2;
    bundle[middle] ^= 1;
    fs::write(path, bundle).unwrap();
    let status = assert_refused(&world, "BundleCorrupt", TERMINAL);
    assert!(!status.history().contains(&"Launching"), "{:?}", status.history());
}

#[test]
fn a_bundle_with_one_byte_flipped_at_any_of_ten_places_is_refused() {
    let world = world();
    let admin = world.kms_admin().unwrap();
    let sealed = fs::read(world.path("deployment/service_key_shares.json.age")).unwrap();
    for place in 0..10 {
        let mut bundle = sealed.clone();
        let at = place * (bundle.len() - 1) / 9;
        bundle[at] ^= 0x20;
        admin.replace_bundle(&Rebound { bundle, epoch: 1 }).unwrap();
        let status = assert_refused(&world, "BundleCorrupt", TERMINAL);
        assert!(status.history().contains(&"Unsealing"), "byte {at} has to be refused by the enclave itself");
    }
}

#[test]
fn a_truncated_bundle_is_refused() {
    let world = world();
    let admin = world.kms_admin().unwrap();
    let mut bundle = fs::read(world.path("deployment/service_key_shares.json.age")).unwrap();
    bundle.truncate(bundle.len() - 1);
    admin.replace_bundle(&Rebound { bundle, epoch: 1 }).unwrap();
    assert_refused(&world, "BundleCorrupt", TERMINAL);
}

#[test]
fn a_bundle_that_is_not_json_is_refused() {
    let world = world();
    replace_plaintext(&world, |_| b"these are not the shares".to_vec());
    assert_refused(&world, "SharesInvalid", TERMINAL);
}

#[test]
fn a_bundle_with_an_unknown_field_is_refused_and_the_field_is_named() {
    let world = world();
    replace_json(&world, |bundle| bundle["extra_trust_root"] = "x".into());
    let status = assert_refused(&world, "SharesInvalid", TERMINAL);
    assert!(status.text("/message").unwrap().contains("extra_trust_root"), "{}", status.0["message"]);
}

#[test]
fn a_share_that_does_not_match_its_public_key_is_refused_and_the_account_is_named() {
    let world = world();
    let account = world.accounts[0].id.clone();
    let mut share = String::new();
    replace_json(&world, |bundle| {
        let field = &mut bundle["accounts"][&account]["share"];
        share = field.as_str().unwrap().to_owned();
        let other = if share.starts_with('0') { "1" } else { "0" };
        share.replace_range(0..1, other);
        *field = share.clone().into();
    });
    let status = assert_refused(&world, "SharesInvalid", TERMINAL);
    assert!(status.text("/message").unwrap().contains(&account), "{}", status.0["message"]);
    assert!(!world.all_logs().unwrap().contains(&share), "the share is in a log");
}

#[test]
fn an_epoch_that_differs_from_the_encryption_context_is_refused() {
    let world = world();
    let admin = world.kms_admin().unwrap();
    let bundle = fs::read(world.path("deployment/service_key_shares.json.age")).unwrap();
    admin.replace_bundle(&Rebound { bundle, epoch: 2 }).unwrap();
    assert_refused(&world, "EpochMismatch", TERMINAL);
}

#[test]
fn an_old_bundle_is_not_released_once_the_policy_names_the_new_one() {
    let world = world();
    let old: Vec<_> =
        ["deployment/service_key_shares.json.age", "deployment/age-identity.kms", "parent.toml"]
            .into_iter()
            .map(|file| (world.path(file), fs::read(world.path(file)).unwrap()))
            .collect();
    replace_json(&world, |bundle| bundle["epoch"] = 1.into());
    for (path, content) in old {
        fs::write(path, content).unwrap();
    }
    assert_refused(&world, "KmsDenied", TERMINAL);
}

#[test]
fn a_debug_mode_enclave_is_refused() {
    let world = world_with(Options { debug_mode: true, ..Options::default() });
    assert_refused(&world, "DebugMode", TERMINAL);
}

#[test]
fn an_image_with_another_measurement_than_the_pinned_one_is_not_launched() {
    let world = world();
    world.write_parent_toml(|parent| parent["enclave"]["pcr0"] = "ab".repeat(48).into()).unwrap();
    let status = assert_refused(&world, "MeasurementMismatch", TERMINAL);
    assert!(!status.history().contains(&"Launching"), "{:?}", status.history());
}

#[test]
fn a_failure_is_reported_exactly_once() {
    let world = world();
    world.apply_policy(&[&"ab".repeat(48)], &[]).unwrap();
    assert_refused(&world, "KmsDenied", TERMINAL);
    let logs = fs::read_to_string(world.path("logs/parent.log")).unwrap();
    let reports = logs.lines().filter(|line| line.contains("the enclave reported a failure")).count();
    assert_eq!(reports, 1, "{logs}");
}
