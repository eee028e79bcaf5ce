//! The programs that are deployed inside the enclave hold no software NSM.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{fs, path::PathBuf};

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
fn deployed_programs_refuse_to_use_a_software_nsm() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("enclave.toml");
    fs::write(
        &config,
        "parent = \"unix-guest:vm.vsock\"\nnsm = \"unix:nsm.sock\"\nsign_service = \"/bin/true\"\nwork_dir = \"work\"\n",
    )
    .unwrap();
    let output = std::process::Command::new(deployed("enclave"))
        .arg(&config)
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("nsm"), "{words}");
}
