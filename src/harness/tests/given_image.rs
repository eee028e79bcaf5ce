//! Which images `cargo xtask vm --eif` boots: those that trust the KMS stand-in they are given. No machine is started here.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{fs, path::Path, process::Command};

use harness::{GivenImage, binary};
use serde_json::{Value, json};

/// An image, not one that boots, with the root that its `enclave.toml` names.
fn image(directory: &Path, kms_roots_pem: &str) {
    for part in ["kernel", "enclave", "sign-service"] {
        fs::write(directory.join(part), part).unwrap();
    }
    let config = toml::Table::from_iter([("kms_roots_pem".to_owned(), kms_roots_pem.into())]);
    fs::write(directory.join("enclave.toml"), toml::to_string(&config).unwrap()).unwrap();
    let built = Command::new(binary("eif").unwrap())
        .args(["build", "--kernel=kernel", "--kernel-version=6.12", "--command-line=quiet"])
        .args(["--runtime=/init=enclave", "--application=/bin/sign-service=sign-service"])
        .args(["--application=/etc/nitro-sign/enclave.toml=enclave.toml:644", "--out=."])
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

#[test]
fn attested_pcrs_that_are_not_the_images_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let ca = authority(&directory.path().join("kms-authority"));
    image(directory.path(), &ca);
    let given = GivenImage::new(&directory.path().join("image.eif"), None).unwrap();
    let pcrs = directory.path().join("pcrs.json");
    let expected: Value = serde_json::from_slice(&fs::read(&pcrs).unwrap()).unwrap();
    let mut attested = json!({"0": expected["PCR0"], "1": expected["PCR1"], "2": expected["PCR2"]});
    given.check_pcrs(&attested).unwrap();

    attested["2"] = expected["PCR1"].clone();
    let words = given.check_pcrs(&attested).unwrap_err().to_string();
    assert!(words.contains("PCR2 is"), "{words}");
    assert!(given.check_pcrs(&json!({})).is_err());

    fs::remove_file(pcrs).unwrap();
    assert!(given.check_pcrs(&attested).unwrap_err().to_string().contains("pcrs.json"));
}
