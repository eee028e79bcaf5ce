//! The programs that are deployed inside the enclave hold no software NSM.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{fs, path::PathBuf};

use harness::{Options, Worlds};

const MARKER: &[u8] = b"nitro-sign software NSM";

fn occurrences(path: &PathBuf) -> usize {
    let program = fs::read(path).unwrap_or_else(|error| {
        panic!(
            "cannot read {}: {error}; `cargo xtask release` and `cargo xtask build` make it",
            path.display()
        )
    });
    memchr::memmem::find_iter(&program, MARKER).count()
}

fn deployed(name: &str) -> PathBuf {
    let development = harness::binary("demo").unwrap();
    development.ancestors().nth(2).unwrap().join("x86_64-unknown-linux-musl/release").join(name)
}

#[test]
fn deployed_programs_do_not_contain_the_software_nsm() {
    for name in ["enclave", "sign-service"] {
        assert_eq!(occurrences(&deployed(name)), 0, "{name}");
    }
}

#[test]
fn the_marker_would_be_found_in_programs_that_contain_it() {
    for name in ["enclave", "sign-service", "emulator"] {
        assert!(occurrences(&harness::binary(name).unwrap()) > 0, "{name}");
    }
}

#[test]
fn the_deployed_enclave_refuses_to_use_a_software_nsm() {
    let options = Options { accounts_per_scheme: 1, ..Options::default() };
    let world = Worlds::provision(options, &mut |_, _| {}).unwrap();
    let enclave = deployed("enclave").to_str().unwrap().to_owned();
    let deploy = |parent: &mut toml::Value| parent["enclave"]["process"]["enclave"] = enclave.clone().into();
    world.write_parent_toml(deploy).unwrap();
    let pcr0 = world.measure().unwrap()["PCR0"].as_str().unwrap().to_owned();
    world
        .write_parent_toml(|parent| {
            deploy(parent);
            parent["enclave"]["pcr0"] = pcr0.into();
        })
        .unwrap();
    let (status, _) = world.start_parent().unwrap().wait_failed().unwrap();
    assert_eq!(status.reason(), Some("NsmFailed"), "{}", status.0);
    assert!(!status.history().contains(&"Serving"));
}
