//! The hypervisor's part, as the programs of a test start it.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::SystemTime;

use attestation::{Expected, Measurements, MismatchError, TrustRoot, open, verify};

fn emulator() -> Command {
    Command::new(env!("CARGO_BIN_EXE_emulator"))
}

fn make_authority(directory: &Path) -> Output {
    emulator().arg("authority").arg("--dir").arg(directory).output().unwrap()
}

/// Files of an enclave, and an authority.
fn prepared() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["enclave", "sign-service", "enclave.toml"] {
        fs::write(directory.path().join(name), name).unwrap();
    }
    assert!(make_authority(&directory.path().join("authority")).status.success());
    directory
}

fn nsm_command(directory: &Path) -> Command {
    let mut command = emulator();
    command.current_dir(directory).args(["nsm", "--socket", "nsm.sock", "--authority-dir", "authority"]);
    command.args(["--enclave", "enclave", "--sign-service", "sign-service", "--config", "enclave.toml"]);
    command
}

/// A module that is killed when the test ends, and the line it printed.
struct Module {
    child: Child,
    ready: serde_json::Value,
}

impl Module {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, ready: serde_json::from_str(&line).unwrap() }
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn the_module_measures_the_files_and_signs_under_the_authority() {
    let directory = prepared();
    let module = Module::start(&mut nsm_command(directory.path()));
    let expected = Measurements::of_parts(&[], &[b"enclave"], &[b"sign-service", b"enclave.toml"]);
    let printed: Measurements = serde_json::from_value(module.ready["pcrs"].clone()).unwrap();
    assert_eq!((module.ready["ready"].as_bool(), printed), (Some(true), expected));

    let nsm = open(&format!("unix:{}", directory.path().join("nsm.sock").display())).unwrap();
    let cose = nsm.attest(None, Some(b"nonce"), None).unwrap();
    let root = fs::read_to_string(directory.path().join("authority/root.pem")).unwrap();
    let document = verify(&cose, &TrustRoot::from_pem(&root).unwrap(), SystemTime::now()).unwrap();
    let expected = Expected { nonce: Some(b"nonce"), pcr0: &[expected.pcr0], ..Expected::default() };
    assert_eq!(document.check(&expected), Ok(()));
}

#[test]
fn debug_mode_has_zeros() {
    let directory = prepared();
    let module = Module::start(nsm_command(directory.path()).arg("--debug-mode"));
    let printed: Measurements = serde_json::from_value(module.ready["pcrs"].clone()).unwrap();
    assert_eq!(printed, Measurements::ZERO);
    let nsm = open(&format!("unix:{}", directory.path().join("nsm.sock").display())).unwrap();
    let cose = nsm.attest(None, None, None).unwrap();
    let root = fs::read_to_string(directory.path().join("authority/root.pem")).unwrap();
    let document = verify(&cose, &TrustRoot::from_pem(&root).unwrap(), SystemTime::now()).unwrap();
    assert_eq!(document.check(&Expected::default()), Err(MismatchError::DebugMode));
}

#[test]
fn a_socket_that_a_killed_module_left_is_replaced_but_not_one_that_answers() {
    let directory = prepared();
    let first = Module::start(&mut nsm_command(directory.path()));
    let second = nsm_command(directory.path()).output().unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("another security module"));

    drop(first);
    assert!(directory.path().join("nsm.sock").exists());
    Module::start(&mut nsm_command(directory.path()));
}

#[test]
fn an_authority_is_not_overwritten() {
    let directory = prepared();
    let path = directory.path().join("authority/root.pem");
    let before = fs::read(&path).unwrap();
    let output = make_authority(&directory.path().join("authority"));
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("root.key"));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_missing_file_is_named() {
    let directory = prepared();
    fs::remove_file(directory.path().join("sign-service")).unwrap();
    let output = nsm_command(directory.path()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("sign-service"));
}
