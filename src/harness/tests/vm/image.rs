//! What changes which PCR, and that the booted image is the measured one.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::{qemu, serve, small, world};

/// Builds an image from the production image's parts, with some of them replaced.
fn build(directory: &Path, replaced: &[(&str, &[u8])]) -> Value {
    let production = qemu().image;
    fs::create_dir_all(directory.join("inputs")).unwrap();
    for name in ["bzImage", "enclave", "sign-service", "enclave.toml"] {
        fs::copy(production.join("inputs").join(name), directory.join("inputs").join(name)).unwrap();
    }
    for (name, contents) in replaced {
        fs::write(directory.join("inputs").join(name), contents).unwrap();
    }
    let arguments = fs::read_to_string(production.join("inputs/arguments")).unwrap();
    let output = Command::new(harness::binary("eif").unwrap())
        .arg("build")
        .args(arguments.lines())
        .args(["--out", "."])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&fs::read(directory.join("pcrs.json")).unwrap()).unwrap()
}

#[test]
fn the_configuration_changes_pcr0_and_pcr2_and_the_runtime_pcr0_and_pcr1() {
    let directory = tempfile::tempdir().unwrap();
    let production: Value =
        serde_json::from_slice(&fs::read(qemu().image.join("pcrs.json")).unwrap()).unwrap();
    let same = build(&directory.path().join("same"), &[]);
    assert_eq!(same, production, "the same parts give the same PCRs");

    let config = fs::read_to_string(qemu().image.join("inputs/enclave.toml")).unwrap() + "\n# another line\n";
    let other = build(&directory.path().join("configuration"), &[("enclave.toml", config.as_bytes())]);
    assert_ne!(other["PCR0"], production["PCR0"]);
    assert_eq!(other["PCR1"], production["PCR1"]);
    assert_ne!(other["PCR2"], production["PCR2"]);

    let mut runtime = fs::read(qemu().image.join("inputs/enclave")).unwrap();
    runtime.push(0);
    let other = build(&directory.path().join("runtime"), &[("enclave", &runtime)]);
    assert_ne!(other["PCR0"], production["PCR0"]);
    assert_ne!(other["PCR1"], production["PCR1"]);
    assert_eq!(other["PCR2"], production["PCR2"]);
}

#[test]
fn the_attested_pcrs_are_those_of_the_image_and_its_runtime_is_the_production_one() {
    let world = world(small());
    let (mut node, status) = serve(&world);
    let image: Value = serde_json::from_slice(&fs::read(world.path("image/pcrs.json")).unwrap()).unwrap();
    for (index, name) in ["PCR0", "PCR1", "PCR2"].into_iter().enumerate() {
        assert_eq!(status.text(&format!("/pcrs/{index}")).unwrap(), image[name], "{name}");
    }
    let production: Value =
        serde_json::from_slice(&fs::read(qemu().image.join("pcrs.json")).unwrap()).unwrap();
    assert_eq!(image["PCR1"], production["PCR1"]);

    let gateway = world.start_gateway(status.ingress().unwrap(), status.text("/pcrs/0").unwrap()).unwrap();
    gateway.wait_verified().unwrap();
    for account in &world.accounts {
        let answer = gateway.sign(&account.id, b"a message").unwrap();
        assert_eq!(answer.code, 200, "{}", answer.body);
        let signature = hex::decode(answer.body["signature"].as_str().unwrap()).unwrap();
        harness::verify_signature(&account.scheme, &account.public_key, b"a message", &signature).unwrap();
    }
    drop(gateway);
    assert!(node.program.stop().unwrap().success());
    assert_eq!(node.status().unwrap().state(), "Stopped");
}
