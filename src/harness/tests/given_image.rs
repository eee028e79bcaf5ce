//! Which images `cargo xtask vm --eif` boots: those that trust the KMS stand-in they are given, and siblings of those that
//! their inputs are beside. No machine is started here.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{GivenImage, Qemu, binary};
use serde_json::{Value, json};

const ARGUMENTS: [&str; 6] = [
    "--kernel=inputs/kernel",
    "--kernel-version=6.12",
    "--command-line=quiet",
    "--runtime=/init=inputs/enclave",
    "--application=/bin/sign-service=inputs/sign-service",
    "--application=/etc/nitro-sign/enclave.toml=inputs/enclave.toml:644",
];

/// An image, not one that boots, with the root that its `enclave.toml` names, and its inputs.
fn image(directory: &Path, kms_roots_pem: &str) {
    let inputs = directory.join("inputs");
    fs::create_dir(&inputs).unwrap();
    for part in ["kernel", "enclave", "sign-service"] {
        fs::write(inputs.join(part), part).unwrap();
    }
    let config = toml::Table::from_iter([("kms_roots_pem".to_owned(), kms_roots_pem.into())]);
    fs::write(inputs.join("enclave.toml"), toml::to_string(&config).unwrap()).unwrap();
    fs::write(inputs.join("arguments"), ARGUMENTS.join("\n")).unwrap();
    let built = Command::new(binary("eif").unwrap())
        .arg("build")
        .args(ARGUMENTS)
        .arg("--out=.")
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

/// Makes an authority and returns its certificate.
fn authority(directory: &Path) -> String {
    let mut emulator = Command::new(binary("emulator").unwrap());
    assert!(emulator.args(["kms-authority", "--dir"]).arg(directory).status().unwrap().success());
    fs::read_to_string(directory.join("kms-ca.pem")).unwrap()
}

fn refusal(eif: &Path, kms_authority: Option<&Path>) -> String {
    format!("{:#}", GivenImage::new(eif, kms_authority).unwrap_err())
}

#[test]
fn the_authority_beside_the_image_is_the_default() {
    let directory = tempfile::tempdir().unwrap();
    let (eif, beside) = (directory.path().join("image.eif"), directory.path().join("kms-authority"));
    image(directory.path(), &authority(&beside));
    assert_eq!(GivenImage::new(&eif, None).unwrap().kms_authority, beside.canonicalize().unwrap());

    let elsewhere = directory.path().join("elsewhere");
    fs::rename(&beside, &elsewhere).unwrap();
    assert_eq!(GivenImage::new(&eif, Some(&elsewhere)).unwrap().kms_authority, elsewhere);
    let words = refusal(&eif, None);
    assert!(words.contains("there is no authority") && words.contains("kms-authority/kms-ca.pem"), "{words}");
    assert!(words.contains("nix build .#eif-emulated") && words.contains("threat-model.md"), "{words}");
}

#[test]
fn an_image_that_trusts_another_authority_is_refused_before_it_boots() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (directory.path().join("one"), directory.path().join("other"));
    image(directory.path(), &authority(&one));
    authority(&other);
    let words = refusal(&directory.path().join("image.eif"), Some(&other));
    assert!(words.contains("image.eif does not trust") && words.contains("other/kms-ca.pem"), "{words}");
    assert!(words.contains("nix build .#eif-emulated") && words.contains("threat-model.md"), "{words}");
}

#[test]
fn what_is_no_image_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    authority(&directory.path().join("kms-authority"));
    let eif = directory.path().join("image.eif");
    assert!(refusal(&eif, None).contains("cannot read the image"));
    fs::write(&eif, "no image").unwrap();
    assert!(refusal(&eif, None).contains("eif extract"));
}

/// As if `cargo xtask vm` had obtained what it needs.
fn target(directory: &Path) -> PathBuf {
    let target = directory.join("target");
    for program in ["qemu/qemu-system-x86_64", "tools/bin/vhost-device-vsock"] {
        let program = target.join(program);
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(program, "").unwrap();
    }
    target
}

fn pcrs(directory: &Path) -> Value {
    serde_json::from_slice(&fs::read(directory.join("pcrs.json")).unwrap()).unwrap()
}

#[test]
fn attested_pcrs_that_are_not_the_images_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    image(directory, &authority(&directory.join("kms-authority")));
    let qemu = Qemu::with_image(&target(directory), &directory.join("image.eif"), None).unwrap();
    assert!(qemu.given.is_some());
    let expected = pcrs(directory);
    let mut attested = json!({"0": expected["PCR0"], "1": expected["PCR1"], "2": expected["PCR2"]});
    qemu.check_pcrs(&attested).unwrap();

    attested["2"] = expected["PCR1"].clone();
    let words = qemu.check_pcrs(&attested).unwrap_err().to_string();
    assert!(words.contains("PCR2 is"), "{words}");
    assert!(qemu.check_pcrs(&json!({})).is_err());

    fs::remove_file(directory.join("pcrs.json")).unwrap();
    assert!(qemu.check_pcrs(&attested).unwrap_err().to_string().contains("pcrs.json"));
}

#[test]
fn of_an_image_that_trusts_no_authority_a_sibling_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let (production, sibling) = (directory.path().join("production"), directory.path().join("sibling"));
    fs::create_dir(&production).unwrap();
    image(&production, "the roots of KMS");
    let certificate = authority(&directory.path().join("authority"));
    let qemu = Qemu::with_image(&target(directory.path()), &production.join("image.eif"), None).unwrap();
    assert!(qemu.given.is_none());

    qemu.build_image(&sibling, &certificate).unwrap();
    GivenImage::new(&sibling.join("image.eif"), Some(&directory.path().join("authority"))).unwrap();
    let (before, after) = (pcrs(&production), pcrs(&sibling));
    assert!(before["PCR0"] != after["PCR0"] && before["PCR2"] != after["PCR2"]);
    let attested = json!({"0": after["PCR0"], "1": after["PCR1"], "2": after["PCR2"]});
    qemu.check_pcrs(&attested).unwrap();
    let words = qemu.check_pcrs(&json!({"1": after["PCR2"]})).unwrap_err().to_string();
    assert!(words.contains("PCR1 is"), "{words}");

    // Nobody knows then what the sibling is one of.
    fs::write(production.join("inputs/sign-service"), "another one").unwrap();
    let refused = Qemu::with_image(&target(directory.path()), &production.join("image.eif"), None);
    let words = format!("{:#}", refused.unwrap_err());
    assert!(words.contains("image.eif is not made of what is in") && words.contains("inputs"), "{words}");
}
