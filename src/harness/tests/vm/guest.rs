//! Programs that a test puts in the signing service's place.

use std::{fs, path::Path, process::Command};

/// Compiles `guest/service.rs` and returns the program that does `what`.
pub(crate) fn service_that(what: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("service");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2024", "--target=x86_64-unknown-linux-musl", "-Cpanic=abort", "-Cstrip=symbols"]);
    rustc.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/guest/service.rs"));
    rustc.arg("-o").arg(&program).env("SERVICE_DOES", what);
    assert!(rustc.status().unwrap().success(), "compiling the service failed");
    fs::read(program).unwrap()
}
