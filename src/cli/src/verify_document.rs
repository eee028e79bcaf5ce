//! `verify-document`: an archived attestation document, verified at a time of choice.

use std::{
    collections::BTreeMap,
    path::Path,
    str::FromStr,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, anyhow};
use attestation::{Document, Expected, TrustRoot};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;

use crate::{args::VerifyDocument, files, print_json, say};

/// Documents are a few kilobytes; the NSM's own limit is 16 KiB.
const MAX_BYTES: u64 = 64 << 10;
/// A CBOR array of four (COSE_Sign1), bare or behind its tag 18. Neither byte can start base64.
const COSE_SIGN1: [u8; 2] = [0x84, 0xd2];

/// When certificates have to be valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At(pub SystemTime);

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "now" {
            return Ok(Self(SystemTime::now()));
        }
        let seconds =
            text.parse().map_err(|_| format!("expected seconds since 1970 or now, got {text:?}"))?;
        let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        at.map(Self).ok_or_else(|| format!("{text} seconds is too far in the future"))
    }
}

/// Bytes given in hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl FromStr for Bytes {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        hex::decode(text).map(Self)
    }
}

/// What a document says. Bytes are hex, certificates base64 (DER).
#[derive(Serialize)]
struct Content<'a> {
    module_id: &'a str,
    timestamp_ms: u64,
    digest: &'a str,
    pcrs: BTreeMap<u16, String>,
    public_key: Option<String>,
    user_data: Option<String>,
    nonce: Option<String>,
    certificate: String,
    cabundle: Vec<String>,
}

pub(crate) fn run(args: &VerifyDocument) -> Result<()> {
    let document = verify(args).with_context(|| args.file.display().to_string())?;
    say("The document is genuine. It says:");
    if args.pcr0.is_empty() {
        say("(which image it speaks of is for you to judge: PCR0 was compared with no --pcr0)");
    }
    print_json(&content(&document))
}

fn verify(args: &VerifyDocument) -> Result<Document> {
    let cose = decode(&files::read(&args.file, MAX_BYTES)?)?;
    let document = attestation::verify(&cose, &trust_root(&args.root)?, args.at.0)
        .context("the document is refused (an archived one has to be verified --at the time it was made)")?;
    // Without --pcr0 any image will do, but a debug one.
    let own = document.pcr(0).into_iter().collect::<Vec<_>>();
    document.check(&Expected {
        nonce: args.nonce.as_ref().map(|bytes| bytes.0.as_slice()),
        user_data: args.user_data.as_ref().map(|bytes| bytes.0.as_slice()),
        pcr0: if args.pcr0.is_empty() { &own } else { &args.pcr0 },
        pcr16: args.pcr16,
        ..Expected::default()
    })?;
    Ok(document)
}

fn decode(file: &[u8]) -> Result<Vec<u8>> {
    match file.first() {
        Some(first) if COSE_SIGN1.contains(first) => Ok(file.to_vec()),
        _ => STANDARD
            .decode(file.trim_ascii())
            .map_err(|_| anyhow!("neither a COSE_Sign1 document nor base64 of one")),
    }
}

fn trust_root(root: &Path) -> Result<TrustRoot> {
    if root == Path::new("aws") {
        return Ok(TrustRoot::AWS_NITRO_G1);
    }
    TrustRoot::from_pem(&files::read_text(root, MAX_BYTES)?)
        .with_context(|| format!("--root {}", root.display()))
}

fn content(document: &Document) -> Content<'_> {
    Content {
        module_id: &document.module_id,
        timestamp_ms: document.timestamp_ms,
        digest: &document.digest,
        pcrs: document.pcrs.iter().map(|(index, pcr)| (*index, pcr.to_string())).collect(),
        public_key: document.public_key.as_ref().map(hex::encode),
        user_data: document.user_data.as_ref().map(hex::encode),
        nonce: document.nonce.as_ref().map(hex::encode),
        certificate: STANDARD.encode(&document.certificate),
        cabundle: document.cabundle.iter().map(|certificate| STANDARD.encode(certificate)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use attestation::{
        Measurements, Nsm as _, Pcr,
        software::{SoftwareNsm, TestAuthority},
    };

    use super::*;

    /// A document with nonce 1, user_data 2 and PCR0 3, in a directory with its root.
    fn archive() -> (tempfile::TempDir, VerifyDocument) {
        let authority = TestAuthority::generate().unwrap();
        let pcr = Pcr::from_bytes([3; 48]);
        let nsm = SoftwareNsm::new(&authority, Measurements { pcr0: pcr, pcr1: pcr, pcr2: pcr }).unwrap();
        archived(&authority, &nsm)
    }

    fn archived(authority: &TestAuthority, nsm: &SoftwareNsm) -> (tempfile::TempDir, VerifyDocument) {
        let directory = tempfile::tempdir().unwrap();
        let (file, root) = (directory.path().join("document"), directory.path().join("root.pem"));
        std::fs::write(&file, nsm.attest(Some(&[2; 32]), Some(&[1; 32]), None).unwrap()).unwrap();
        std::fs::write(&root, authority.root_pem()).unwrap();
        let at = "now".parse().unwrap();
        let args =
            VerifyDocument { file, root, at, pcr0: Vec::new(), pcr16: None, nonce: None, user_data: None };
        (directory, args)
    }

    fn refusal(args: &VerifyDocument) -> String {
        format!("{:#}", verify(args).unwrap_err())
    }

    #[test]
    fn a_genuine_document_is_accepted_and_shown() {
        let (_directory, args) = archive();
        let args = VerifyDocument {
            nonce: Some(Bytes(vec![1; 32])),
            user_data: Some(Bytes(vec![2; 32])),
            pcr0: vec![Pcr::from_bytes([3; 48])],
            ..args
        };
        let document = verify(&args).unwrap();
        let shown = serde_json::to_value(content(&document)).unwrap();
        assert_eq!(shown["nonce"], "01".repeat(32));
        assert_eq!(shown["user_data"], "02".repeat(32));
        assert_eq!(shown["pcrs"]["0"], "03".repeat(48));
        assert_eq!(shown["public_key"], serde_json::Value::Null);
    }

    #[test]
    fn a_document_in_base64_is_the_same_document() {
        let (_directory, args) = archive();
        let text = STANDARD.encode(std::fs::read(&args.file).unwrap()) + "\n";
        let document = verify(&args).unwrap();
        std::fs::write(&args.file, text).unwrap();
        assert_eq!(verify(&args).unwrap(), document);
    }

    #[test]
    fn what_differs_from_the_expected_is_named() {
        let (_directory, args) = archive();
        let other = || Some(Bytes(vec![9; 32]));
        let error = refusal(&VerifyDocument { nonce: other(), ..args });
        assert!(error.contains("nonce") && error.contains(&"09".repeat(32)), "{error}");
        let (_directory, args) = archive();
        assert!(refusal(&VerifyDocument { user_data: other(), ..args }).contains("user_data"));
        let (_directory, args) = archive();
        assert!(refusal(&VerifyDocument { pcr0: vec![Pcr::from_bytes([9; 48])], ..args }).contains("PCR0"));
        let (_directory, args) = archive();
        assert!(refusal(&VerifyDocument { pcr16: Some(Pcr::from_bytes([9; 48])), ..args }).contains("PCR16"));
    }

    #[test]
    fn another_root_another_time_and_an_altered_document_are_refused() {
        let (_directory, args) = archive();
        refusal(&VerifyDocument { root: "aws".into(), ..args });

        let (_directory, args) = archive();
        let error = refusal(&VerifyDocument { at: "86400".parse().unwrap(), ..args });
        assert!(error.contains("--at"), "{error}");

        let (_directory, args) = archive();
        let mut altered = std::fs::read(&args.file).unwrap();
        let last = altered.len() - 1;
        altered[last] ^= 1;
        std::fs::write(&args.file, altered).unwrap();
        refusal(&args);
    }

    #[test]
    fn a_document_of_an_enclave_in_debug_mode_is_refused() {
        let authority = TestAuthority::generate().unwrap();
        let (_directory, args) = archived(&authority, &SoftwareNsm::debug(&authority).unwrap());
        assert!(refusal(&args).contains("debug"));
    }

    #[test]
    fn a_file_that_is_no_document_is_named() {
        let (_directory, args) = archive();
        std::fs::write(&args.file, "not a document").unwrap();
        let error = run(&args).map_err(|error| format!("{error:#}")).unwrap_err();
        assert!(error.contains("COSE_Sign1") && error.contains("document"), "{error}");
    }

    #[test]
    fn times_are_seconds_or_now() {
        assert_eq!("86400".parse(), Ok(At(SystemTime::UNIX_EPOCH + Duration::from_hours(24))));
        assert!("now".parse::<At>().is_ok());
        for bad in ["", "yesterday", "-1", "18446744073709551615"] {
            assert!(bad.parse::<At>().is_err(), "{bad}");
        }
    }
}
