//! The image in QEMU's own emulation of Nitro Enclaves, which reads and measures it without any code of ours. Not part of
//! the usual tests, because QEMU has to be built for it: `cargo xtask vm --nitro-enclave` runs these, and fails if there is
//! none.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use attestation::{TrustRoot, VerifyError};
use ciborium::Value;
use harness::{Options, Qemu, Status, World, Worlds, events};

const PCRS: [&str; 3] = ["PCR0", "PCR1", "PCR2"];
/// COSE: the label of the algorithm in a header, and the number of ES384.
const ALGORITHM: i64 = 1;
const ES384: i64 = -35;

fn target() -> PathBuf {
    harness::binary("demo").unwrap().ancestors().nth(2).unwrap().to_owned()
}

/// What QEMU reads, and the directory that has to outlive it.
fn world() -> (World, tempfile::TempDir) {
    let qemu = std::env::var_os("NITRO_SIGN_NITRO_ENCLAVE")
        .map_or_else(|| target().join("qemu-nitro/qemu-system-x86_64"), PathBuf::from);
    let directory = tempfile::tempdir().unwrap();
    let ours = Qemu::in_target(&target()).unwrap();
    let theirs = ours.nitro_enclave(&qemu, directory.path().join("qemu-system-x86_64")).unwrap();
    // What no attempt can mend is not tried for long.
    let options =
        Options { accounts_per_scheme: 1, kms_timeout_ms: 8000, qemu: Some(theirs), ..Options::default() };
    (Worlds::provision(options, &mut |_, _| {}).unwrap(), directory)
}

fn refused(world: &World, reason: &str) -> Status {
    let mut node = world.start_parent().unwrap();
    let (status, _) = node.wait_failed().unwrap();
    assert_eq!(status.reason(), Some(reason), "{}\n{}", status.0, node.program.log_tail());
    status
}

/// PCR0, PCR1 and PCR2 as `cargo xtask image` or `eif build` wrote them.
fn computed(image: &Path) -> [String; 3] {
    let pcrs: serde_json::Value =
        serde_json::from_slice(&fs::read(image.join("pcrs.json")).unwrap()).unwrap();
    PCRS.map(|name| pcrs[name].as_str().unwrap().to_owned())
}

/// What the guest read from QEMU's security module.
fn reported(world: &World) -> [String; 3] {
    let boot = events::last_boot(world).unwrap();
    ["pcr0", "pcr1", "pcr2"].map(|name| boot["check_pcrs"].detail(name).unwrap().to_owned())
}

#[test]
#[ignore = "needs QEMU's machine nitro-enclave: `cargo xtask vm --nitro-enclave`"]
fn qemu_computes_the_pcrs_of_the_production_file_as_we_do() {
    let (world, _directory) = world();
    let production = world.options.qemu.as_ref().unwrap().image.clone();
    fs::copy(production.join("image.eif"), world.path("image/image.eif")).unwrap();
    let pcr0 = world.measure().unwrap()["PCR0"].clone();
    world.write_parent_toml(|parent| parent["enclave"]["pcr0"] = pcr0.as_str().unwrap().into()).unwrap();
    // It trusts AWS's KMS only. Until then it has booted, found its parent, and read its PCRs.
    refused(&world, "KmsUnreachable");
    assert_eq!(reported(&world), computed(&production));
}

#[test]
#[ignore = "needs QEMU's machine nitro-enclave: `cargo xtask vm --nitro-enclave`"]
fn the_document_names_the_images_pcrs_and_is_refused_because_nobody_signed_it() {
    let (world, _directory) = world();
    let status = refused(&world, "KmsDenied");
    let message = status.text("/message").unwrap();
    assert!(message.contains("Attestation document is invalid"), "{message}");

    let document = fs::read(world.path("kms-refused.cose")).unwrap();
    let image = world.path("image");
    assert_eq!(attested(&document), computed(&image));
    assert_eq!(attested(&document), reported(&world));
    let production = computed(&world.options.qemu.as_ref().unwrap().image);
    assert_eq!(computed(&image)[1], production[1], "the runtime is the production image's");

    let parts = cose(&document);
    assert_eq!(algorithm(&parts), (-1).into(), "QEMU names an algorithm that does not exist");
    let signature = parts[3].as_bytes().unwrap();
    assert!(signature.iter().all(|byte| *byte == 0), "QEMU signs: {}", hex::encode(signature));

    // Under no root, not even one that the document names itself.
    let root = TrustRoot::from_pem(&world.root_certificate().unwrap()).unwrap();
    for root in [root, own_root(&document)] {
        let error = attestation::verify(&document, &root, SystemTime::now()).unwrap_err();
        assert!(matches!(&error, VerifyError::Cose(reason) if reason.contains("IANA")), "{error}");
        // With the right algorithm it is no better: there is no certificate of anybody in it.
        let error = attestation::verify(&claiming_es384(&parts), &root, SystemTime::now()).unwrap_err();
        assert!(
            matches!(
                error,
                VerifyError::RootNotTrusted { .. }
                    | VerifyError::Chain(_)
                    | VerifyError::Certificate { .. }
                    | VerifyError::Field { .. }
            ),
            "{error}"
        );
    }
}

/// Header, other header, payload, signature.
fn cose(document: &[u8]) -> Vec<Value> {
    read(document).into_array().unwrap()
}

fn read(cbor: &[u8]) -> Value {
    ciborium::from_reader(cbor).unwrap()
}

fn field(map: &Value, key: impl Into<Value>) -> &Value {
    let key = key.into();
    let (_, value) = map.as_map().unwrap().iter().find(|(name, _)| *name == key).unwrap();
    value
}

fn algorithm(parts: &[Value]) -> Value {
    field(&read(parts[0].as_bytes().unwrap()), ALGORITHM).clone()
}

fn attested(document: &[u8]) -> [String; 3] {
    let payload = read(cose(document)[2].as_bytes().unwrap());
    [0, 1, 2].map(|index| hex::encode(field(field(&payload, "pcrs"), index).as_bytes().unwrap()))
}

/// The first certificate of the document's bundle as the root.
fn own_root(document: &[u8]) -> TrustRoot {
    let payload = read(cose(document)[2].as_bytes().unwrap());
    let bundle = field(&payload, "cabundle").as_array().unwrap();
    TrustRoot::from_der(bundle[0].as_bytes().unwrap())
}

fn claiming_es384(parts: &[Value]) -> Vec<u8> {
    let mut header = Vec::new();
    ciborium::into_writer(&Value::Map(vec![(ALGORITHM.into(), ES384.into())]), &mut header).unwrap();
    let mut parts = parts.to_vec();
    parts[0] = Value::Bytes(header);
    let mut document = Vec::new();
    ciborium::into_writer(&Value::Array(parts), &mut document).unwrap();
    document
}
