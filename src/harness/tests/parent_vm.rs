//! The machine that plays the parent instance: `cargo xtask vm --parent` and `cargo xtask test` make what these tests need.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use attestation::TrustRoot;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use harness::parent_vm::ParentVm;
use serde_json::{Value, json};

/// `target/`, or where `NITRO_SIGN_VM_DIR` says the machine's kernel and QEMU are.
fn target() -> PathBuf {
    if let Some(directory) = std::env::var_os("NITRO_SIGN_VM_DIR") {
        return directory.into();
    }
    harness::binary("demo").unwrap().ancestors().nth(2).unwrap().to_owned()
}

/// Runs the demo in the machine: its exit status, and the console.
fn run(out: &Path, options: &[&str]) -> (u8, String) {
    let console = out.join("console.log");
    let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
    let machine = ParentVm::in_target(&target()).unwrap();
    let status = machine.run(out, &options, File::create(&console).unwrap().into());
    let console = String::from_utf8_lossy(&fs::read(console).unwrap()).into_owned();
    (status.unwrap_or_else(|error| panic!("{error:#}\n{console}")), console)
}

fn hex_of(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

#[test]
fn a_machine_as_the_parent_boots_unseals_and_signs_over_vsock() {
    let out = tempfile::tempdir().unwrap();
    let started = SystemTime::now();
    let (status, console) = run(out.path(), &["--accounts", "1"]);
    assert_eq!(status, 0, "{console}");
    assert!(console.contains("Everything is stopped."), "{console}");
    let report: Value = serde_json::from_slice(&fs::read(out.path().join("report.json")).unwrap()).unwrap();

    // Here, with this machine's library, once more.
    let signatures = report["signatures"].as_array().unwrap();
    assert_eq!(signatures.len(), 2);
    for one in signatures {
        let (key, message, signature) =
            (hex_of(&one["public_key"]), hex_of(&one["message"]), hex_of(&one["signature"]));
        harness::verify_signature(one["scheme"].as_str().unwrap(), &key, &message, &signature).unwrap();
    }

    // The machine's clock is this machine's, to the second that its hardware clock counts.
    let document = STANDARD.decode(report["attestation_document"].as_str().unwrap()).unwrap();
    let root = TrustRoot::from_pem(report["root_certificate"].as_str().unwrap()).unwrap();
    let document = attestation::verify(&document, &root, SystemTime::now()).unwrap();
    let tolerance = Duration::from_secs(3);
    let run = started - tolerance..SystemTime::now() + tolerance;
    assert!(run.contains(&document.timestamp()), "{:?} is not in {run:?}", document.timestamp());
    assert_eq!(document.pcr(0).unwrap().to_string(), report["pcrs"]["0"].as_str().unwrap());

    // As the kernel listed them: the parent is only where the machine reaches itself, and both are really connected.
    let sockets = report["vsock"].as_array().unwrap();
    for (state, key, address) in [
        ("listening", "local", "vsock:1:9001"),
        ("listening", "local", "vsock:1:5000"),
        ("listening", "local", "vsock:any:50051"),
        ("connected", "local", "vsock:1:9001"),
        ("connected", "remote", "vsock:1:9001"),
        ("connected", "local", "vsock:1:50051"),
        ("connected", "remote", "vsock:1:50051"),
    ] {
        let found = sockets.iter().any(|socket| socket["state"] == state && socket[key] == address);
        assert!(found, "no {state} socket has the {key} address {address}: {sockets:?}");
    }
}

#[test]
fn a_demo_that_fails_in_the_machine_fails_here_and_leaves_no_report_of_an_earlier_one() {
    let out = tempfile::tempdir().unwrap();
    for stale in ["report.json", "exit-status"] {
        fs::write(out.path().join(stale), "0\n").unwrap();
    }
    let (status, console) = run(out.path(), &["--accounts", "0"]);
    assert_eq!(status, 2, "{console}");
    assert!(console.contains("0 is not in 1..=1000"), "{console}");
    assert!(!out.path().join("report.json").exists());
    let options: Value = serde_json::from_slice(&fs::read(out.path().join("options.json")).unwrap()).unwrap();
    assert_eq!(options, json!(["--accounts", "0"]));
}

#[test]
fn a_machine_that_cannot_reach_its_files_ends_without_a_status() {
    let out = tempfile::tempdir().unwrap();
    let console = out.path().join("console.log");
    let mut machine = ParentVm::in_target(&target()).unwrap();
    // The enclave's kernel, which knows no 9P.
    machine.kernel = target().join("image/inputs/bzImage");
    let error = machine.run(out.path(), &[], File::create(&console).unwrap().into()).unwrap_err().to_string();
    assert!(error.contains("before the demo did"), "{error}");
    let console = fs::read_to_string(console).unwrap();
    assert!(console.contains("Kernel panic"), "{console}");
}

#[test]
fn outside_of_such_a_machine_its_first_program_touches_nothing() {
    let init = harness::binary("parent-vm-init").unwrap();
    let output = Command::new(init).env("PARENT_VM_OUT", "/nonexistent").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("cargo xtask vm --parent"), "{words}");
}
