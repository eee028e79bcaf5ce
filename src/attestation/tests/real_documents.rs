//! Documents of the real Nitro hypervisor, read from the sources of the crates that published them.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, thread};

use attestation::{Document, Expected, MismatchError, TrustRoot, VerifyError, sha384, verify};

const DAY: Duration = Duration::from_hours(24);

/// Where Cargo keeps the source of a crate that `tests/documents/Cargo.toml` names; fetched if it is not there.
fn source_of(package: &str) -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/documents/Cargo.toml"))
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|entry| entry["name"] == package).expect("a dependency");
    PathBuf::from(package["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned()
}

/// 2025-01-06, eu-central-1; with a public key.
fn production() -> (Vec<u8>, SystemTime) {
    let path = source_of("nitro_attest").join("tests/fixtures/attestation.cose");
    (fs::read(path).unwrap(), UNIX_EPOCH + Duration::from_millis(1_736_179_625_472))
}

/// 2021-03-05, us-east-1; debug mode.
fn debug() -> (Vec<u8>, SystemTime) {
    let path = source_of("aws-nitro-enclaves-attestation").join("tests/data/nitro_ad_debug.bin");
    (fs::read(path).unwrap(), UNIX_EPOCH + Duration::from_millis(1_614_963_709_526))
}

fn verified((cose, at): &(Vec<u8>, SystemTime)) -> Document {
    verify(cose, &TrustRoot::AWS_NITRO_G1, *at).unwrap()
}

#[test]
fn the_root_certificate_that_aws_publishes_has_the_pinned_fingerprint() {
    let data = source_of("aws-nitro-enclaves-attestation").join("tests/data");
    assert_eq!(TrustRoot::from_der(&fs::read(data.join("aws_root.der")).unwrap()), TrustRoot::AWS_NITRO_G1);
    let pem = fs::read_to_string(data.join("aws_root.pem")).unwrap();
    assert_eq!(TrustRoot::from_pem(&pem), Ok(TrustRoot::AWS_NITRO_G1));
}

#[test]
fn a_production_document_verifies_at_its_time_and_says_what_it_says() {
    let document = verified(&production());
    assert_eq!(document.module_id, "i-0bee92034f3d60691-enc01943c5eaab3ad6a");
    assert_eq!(document.timestamp(), production().1);
    assert_eq!(document.digest, "SHA384");
    assert_eq!(document.pcrs.keys().copied().collect::<Vec<_>>(), (0..16).collect::<Vec<_>>());
    assert_eq!(document.public_key.as_ref().map(Vec::len), Some(294));
    assert_eq!((&document.user_data, &document.nonce), (&None, &None));
    assert_eq!(document.cabundle.len(), 4);

    let pcr0 = document.pcr(0).unwrap();
    let expected = Expected { pcr0: &[pcr0], ..Expected::default() };
    assert_eq!(document.check(&expected), Ok(()));
}

#[test]
fn a_debug_document_verifies_but_is_never_accepted() {
    let document = verified(&debug());
    let pcr0 = document.pcr(0).unwrap();
    assert!(pcr0.is_zero());
    let expected = Expected { pcr0: &[pcr0], ..Expected::default() };
    assert_eq!(document.check(&expected), Err(MismatchError::DebugMode));
}

#[test]
fn documents_with_the_tag_of_cose_sign1_verify_too() {
    let (cose, at) = production();
    let tagged = [&[0xd2], cose.as_slice()].concat();
    assert_eq!(verify(&tagged, &TrustRoot::AWS_NITRO_G1, at), Ok(verified(&(cose, at))));
}

#[test]
fn documents_are_refused_at_another_time() {
    for (cose, at) in [production(), debug()] {
        let verify_at = |at| verify(&cose, &TrustRoot::AWS_NITRO_G1, at);
        assert!(matches!(verify_at(at + DAY), Err(VerifyError::Chain(webpki::Error::CertExpired { .. }))));
        assert!(matches!(
            verify_at(at - DAY),
            Err(VerifyError::Chain(webpki::Error::CertNotValidYet { .. }))
        ));
        assert_eq!(verify_at(UNIX_EPOCH - DAY), Err(VerifyError::Clock));
    }
}

#[test]
fn documents_are_refused_under_another_root() {
    let other = TrustRoot::from_der(b"another certificate");
    for (cose, at) in [production(), debug()] {
        let error = VerifyError::RootNotTrusted { expected: other, actual: TrustRoot::AWS_NITRO_G1 };
        assert_eq!(verify(&cose, &other, at), Err(error));
    }
}

#[test]
fn documents_are_refused_with_any_byte_changed() {
    for (cose, at) in [production(), debug()] {
        let threads = thread::available_parallelism().map_or(2, usize::from);
        thread::scope(|scope| {
            for first in 0..threads {
                let mut cose = cose.clone();
                scope.spawn(move || {
                    for index in (first..cose.len()).step_by(threads) {
                        cose[index] ^= 1;
                        let result = verify(&cose, &TrustRoot::AWS_NITRO_G1, at);
                        assert!(result.is_err(), "byte {index} changed, and nobody noticed");
                        cose[index] ^= 1;
                    }
                });
            }
        });
    }
}

#[test]
fn documents_are_refused_when_cut_or_followed_by_more() {
    let (cose, at) = production();
    for length in [0, 1, cose.len() / 2, cose.len() - 1] {
        assert!(matches!(verify(&cose[..length], &TrustRoot::AWS_NITRO_G1, at), Err(VerifyError::Cose(_))));
    }
    let longer = [cose.as_slice(), &[0]].concat();
    assert!(matches!(verify(&longer, &TrustRoot::AWS_NITRO_G1, at), Err(VerifyError::Cose(_))));
}

#[test]
fn the_signature_of_another_document_is_refused() {
    let (cose, at) = production();
    let (other, _) = debug();
    let signature = cose.len() - 96;
    let forged = [&cose[..signature], &other[other.len() - 96..]].concat();
    assert_ne!(sha384(&forged), sha384(&cose));
    assert_eq!(verify(&forged, &TrustRoot::AWS_NITRO_G1, at), Err(VerifyError::Signature));
}
