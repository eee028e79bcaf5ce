//! Settings for the tests of this crate.

pub(crate) mod enclave;
pub(crate) mod machine;
pub(crate) mod programs;
pub(crate) mod service;

use std::{fs, path::Path};

use crate::config::Config;

/// Size of the sealed bundle of [`config_in`]: several chunks and a part of one.
pub(crate) const BUNDLE_BYTES: usize = 40_000;

/// A configuration in `directory` whose files are all there, with shell scripts for programs.
pub(crate) fn config_in(directory: &Path) -> Config {
    let bundle: Vec<u8> = (0..BUNDLE_BYTES).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let sha256 = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bundle));
    for (name, content) in [
        ("identity", b"identity".as_slice()),
        ("bundle", &bundle),
        ("credentials.json", br#"{"access_key_id":"AKIATEST","secret_access_key":"s3cr3t"}"#),
        ("enclave", b"#!/bin/sh\nexit 0\n"),
        ("sign-service", b"service"),
        ("enclave.toml", b"config"),
    ] {
        fs::write(directory.join(name), content).unwrap();
    }
    let text = format!(
        r#"
        runtime_dir = "run"
        [enclave]
        backend = "process"
        pcr0 = "{}"
        attestation_root = "root.pem"
        [enclave.process]
        enclave = "enclave"
        sign_service = "sign-service"
        config = "enclave.toml"
        hypervisor = ["hypervisor"]
        [ciphertexts]
        identity = "identity"
        bundle = "bundle"
        [bundle]
        epoch = 1
        sha256 = "{sha256}"
        [kms]
        region = "eu-central-1"
        key_id = "key"
        upstream = "127.0.0.1:1"
        credentials_file = "credentials.json"
        [ingress]
        listen = "127.0.0.1:0"
        "#,
        "11".repeat(48)
    );
    Config::parse(&text, &directory.join("parent.toml")).unwrap()
}
