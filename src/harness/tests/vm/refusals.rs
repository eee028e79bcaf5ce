//! What must end a boot or a service, with the image in QEMU.

use std::{fs, process::Command};

use harness::{Options, World};

use crate::{TERMINAL, TRANSIENT, qemu, refused, small, world};

/// Builds the world's image again with other parts, and pins the PCR0 it has: what a parent could do that cheats.
pub(crate) fn rebuild(world: &World, change: impl Fn(String) -> String, files: &[(&str, &[u8])]) {
    let directory = world.path("image");
    for (name, contents) in files {
        let path = directory.join("inputs").join(name);
        // A link to the production image's part.
        fs::remove_file(&path).unwrap();
        fs::write(path, contents).unwrap();
    }
    let arguments = fs::read_to_string(qemu().image.join("inputs/arguments")).unwrap();
    let output = Command::new(harness::binary("eif").unwrap())
        .arg("build")
        .args(arguments.lines().map(|line| change(line.to_owned())))
        .args(["--out", "."])
        .current_dir(&directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let pcrs = world.measure().unwrap();
    let pcr0 = pcrs["PCR0"].as_str().unwrap().to_owned();
    world.write_parent_toml(|parent| parent["enclave"]["pcr0"] = pcr0.into()).unwrap();
}

#[test]
fn a_key_policy_that_lists_another_pcr0_denies() {
    let world = world(small());
    world.apply_policy(&[&"ab".repeat(48)], &[]).unwrap();
    refused(&world, "KmsDenied", TERMINAL);
}

#[test]
fn one_changed_byte_in_the_image_is_another_pcr0_and_kms_refuses_it() {
    let world = world(small());
    let before = world.measure().unwrap();
    rebuild(&world, |argument| argument.replace("i8042.noaux", "i8042.nobux"), &[]);
    assert_ne!(world.measure().unwrap()["PCR0"], before["PCR0"]);
    refused(&world, "KmsDenied", TERMINAL);
}

#[test]
fn a_damaged_image_is_not_launched() {
    let world = world(small());
    let path = world.path("image/image.eif");
    let mut image = fs::read(&path).unwrap();
    let middle = image.len() / 2;
    image[middle] ^= 1;
    fs::write(path, image).unwrap();
    let mut node = world.start_parent().unwrap();
    let (status, code) = node.wait_failed().unwrap();
    assert_eq!(code, TERMINAL);
    assert!(!status.history().contains(&"Launching"), "{:?}", status.history());
    assert!(status.text("/message").unwrap().contains("CRC"), "{}", status.0["message"]);
}

#[test]
fn the_production_image_does_not_trust_the_kms_stand_in() {
    let world = world(Options { kms_timeout_ms: 8000, ..small() });
    let production = fs::read(qemu().image.join("inputs/enclave.toml")).unwrap();
    rebuild(&world, |argument| argument, &[("enclave.toml", &production)]);
    let built = fs::read(world.path("image/image.eif")).unwrap();
    assert!(built == fs::read(qemu().image.join("image.eif")).unwrap(), "this is the production image");
    let status = refused(&world, "KmsUnreachable", TRANSIENT);
    let message = status.text("/message").unwrap();
    assert!(message.contains("certificate") || message.contains("TLS"), "{message}");
}

#[test]
fn a_signing_service_that_ends_is_reported() {
    let world = world(small());
    // The runtime's program is none that signs: it ends at once.
    let wrong = fs::read(qemu().image.join("inputs/enclave")).unwrap();
    rebuild(&world, |argument| argument, &[("sign-service", &wrong)]);
    let pcrs = world.measure().unwrap();
    world.apply_policy(&[pcrs["PCR0"].as_str().unwrap()], &[]).unwrap();
    refused(&world, "ServiceExited", TRANSIENT);
}
