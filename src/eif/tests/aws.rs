//! Our reader and writer of images against AWS's, with the production image. Not part of the usual tests, because AWS's crate
//! has 250 dependencies, OpenSSL among them: `cargo xtask image --oracle` builds it and the image, and runs these.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
    process::Command,
};

use eif::{EifError, SectionKind, Summary};
use serde_json::{Value, json};

fn target() -> PathBuf {
    let directory = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    directory.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"))
}

fn production() -> PathBuf {
    target().join("image/image.eif")
}

/// PCR0, PCR1 and PCR2 as they were written when the image was built.
fn pcrs() -> Value {
    let path = target().join("image/pcrs.json");
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

/// Runs AWS's code: see `oracle/program.rs`.
fn aws(command: &str, files: &[&Path]) -> Result<Value, String> {
    let program = target().join("oracle/debug/oracle");
    let output = Command::new(&program).arg(command).args(files).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{}: {error}; `cargo xtask image --oracle` builds it", program.display())
    });
    if output.status.success() {
        return Ok(serde_json::from_slice(&output.stdout).unwrap());
    }
    Err(String::from_utf8(output.stderr).unwrap())
}

fn ours(image: &Path) -> Result<Summary, EifError> {
    eif::scan(BufReader::new(File::open(image).unwrap()), |_, _, _| Ok(()))
}

#[test]
#[ignore = "needs AWS's crate: `cargo xtask image --oracle`"]
fn awss_reader_sees_in_the_production_image_what_ours_sees() {
    let image = production();
    let theirs = aws("read", &[&image]).unwrap();
    let ours = ours(&image).unwrap();
    let of_sections = |value: fn(&eif::Section) -> u64| ours.sections.iter().map(value).collect::<Vec<_>>();
    let expected = json!({
        "version": 4,
        "flags": 0,
        "default_memory": ours.default_memory,
        "default_cpus": ours.default_cpus,
        "offsets": of_sections(|section| section.offset),
        "sizes": of_sections(|section| section.size),
        "crc_is_right": true,
        "signature_is_right": null,
        "metadata": ours.metadata,
        "pcrs": pcrs(),
    });
    assert_eq!(theirs, expected);
    assert_eq!(serde_json::to_value(ours.measurements).unwrap(), pcrs());
}

#[test]
#[ignore = "needs AWS's crate: `cargo xtask image --oracle`"]
fn awss_writer_makes_the_same_bytes_of_the_same_parts() {
    let directory = tempfile::tempdir().unwrap();
    eif::extract(&production(), directory.path()).unwrap();
    let theirs = directory.path().join("theirs.eif");
    assert_eq!(aws("build", &[directory.path(), &theirs]).unwrap(), pcrs());
    assert!(fs::read(&theirs).unwrap() == fs::read(production()).unwrap(), "the files differ");
}

#[test]
#[ignore = "needs AWS's crate: `cargo xtask image --oracle`"]
fn an_image_that_awss_writer_signed_is_read() {
    let directory = tempfile::tempdir().unwrap();
    eif::extract(&production(), directory.path()).unwrap();
    let signed = directory.path().join("signed.eif");
    let measured = aws("sign", &[directory.path(), &signed]).unwrap();
    assert!(measured["PCR8"].is_string(), "{measured}");

    let summary = ours(&signed).unwrap();
    assert_eq!(summary.sections.last().unwrap().kind, SectionKind::Signature);
    let theirs = aws("read", &[&signed]).unwrap();
    assert_eq!((&theirs["signature_is_right"], &theirs["pcrs"]), (&Value::Bool(true), &measured));
    for (name, value) in pcrs().as_object().unwrap() {
        assert_eq!(&measured[name], value, "a signature is in none of the image's PCRs");
    }
    assert_eq!(serde_json::to_value(summary.measurements).unwrap(), pcrs());
}

#[test]
#[ignore = "needs AWS's crate: `cargo xtask image --oracle`"]
fn both_readers_find_a_changed_byte() {
    let directory = tempfile::tempdir().unwrap();
    let damaged = directory.path().join("damaged.eif");
    let mut image = fs::read(production()).unwrap();
    // In the last ramdisk.
    *image.last_mut().unwrap() ^= 1;
    fs::write(&damaged, image).unwrap();
    let theirs = aws("read", &[&damaged]).unwrap();
    assert_eq!(theirs["crc_is_right"], false);
    assert_ne!(theirs["pcrs"]["PCR0"], pcrs()["PCR0"]);
    assert_eq!(theirs["pcrs"]["PCR1"], pcrs()["PCR1"]);
    assert!(matches!(ours(&damaged), Err(EifError::Crc { .. })));
}
