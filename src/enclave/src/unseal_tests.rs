use std::{fs, io::Write as _, path::PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use super::*;
use crate::key_file::nameless_file;

const PLAINTEXT: &[u8] = b"{\"stands for\": \"a bundle\"}";

pub(super) fn sealed(bytes: &[u8], work_dir: &Path) -> SealedBundle {
    let mut file = nameless_file(work_dir, "sealed").unwrap();
    file.write_all(bytes).unwrap();
    SealedBundle {
        file,
        size: bytes.len() as u64,
        sha256: digest(&SHA256, bytes).as_ref().try_into().unwrap(),
        sha384: attestation::sha384(bytes),
    }
}

pub(super) fn plaintext(work_dir: &tempfile::TempDir) -> PathBuf {
    work_dir.path().join("plaintext")
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().count() == 0
}

#[test]
fn the_identity_opens_the_bundle_into_the_key_file() {
    let work_dir = tempfile::tempdir().unwrap();
    let identity = Identity::generate();
    let bundle = keyshares::seal(PLAINTEXT, &identity.recipient()).unwrap();
    let (key_file, digests) =
        open_with(&identity, &sealed(&bundle, work_dir.path()), &plaintext(&work_dir)).unwrap();
    assert_eq!(key_file.read().unwrap().as_slice(), PLAINTEXT);
    assert_eq!(digests.plaintext_sha256, digest(&SHA256, PLAINTEXT).as_ref());
}

#[test]
fn a_bundle_altered_anywhere_is_corrupt_and_leaves_no_file() {
    let work_dir = tempfile::tempdir().unwrap();
    let identity = Identity::generate();
    let bundle = keyshares::seal(&vec![b'x'; 200_000], &identity.recipient()).unwrap();
    for position in [0, 40, bundle.len() / 2, bundle.len() - 1] {
        let mut altered = bundle.clone();
        altered[position] ^= 1;
        let error =
            open_with(&identity, &sealed(&altered, work_dir.path()), &plaintext(&work_dir)).err().unwrap();
        assert_eq!(error.reason, FailureReason::BundleCorrupt, "byte {position}");
        assert!(is_empty(work_dir.path()), "byte {position}: a file was left");
    }
}

#[test]
fn a_truncated_bundle_is_corrupt_and_leaves_no_file() {
    let work_dir = tempfile::tempdir().unwrap();
    let identity = Identity::generate();
    let bundle = keyshares::seal(&vec![b'x'; 200_000], &identity.recipient()).unwrap();
    let truncated = sealed(&bundle[..150_000], work_dir.path());
    let error = open_with(&identity, &truncated, &plaintext(&work_dir)).err().unwrap();
    assert_eq!(error.reason, FailureReason::BundleCorrupt);
    assert!(is_empty(work_dir.path()));
}

#[test]
fn a_bundle_for_somebody_else_is_corrupt() {
    let work_dir = tempfile::tempdir().unwrap();
    let bundle = keyshares::seal(PLAINTEXT, &Identity::generate().recipient()).unwrap();
    let error = open_with(&Identity::generate(), &sealed(&bundle, work_dir.path()), &plaintext(&work_dir))
        .err()
        .unwrap();
    assert_eq!(error.reason, FailureReason::BundleCorrupt);
}

#[test]
fn a_bundle_that_changed_after_it_was_measured_is_corrupt() {
    let work_dir = tempfile::tempdir().unwrap();
    let identity = Identity::generate();
    let bundle = keyshares::seal(PLAINTEXT, &identity.recipient()).unwrap();
    let changed = SealedBundle { sha384: [0; 48], ..sealed(&bundle, work_dir.path()) };
    let error = open_with(&identity, &changed, &plaintext(&work_dir)).err().unwrap();
    assert_eq!(error.reason, FailureReason::BundleCorrupt);
    assert!(error.message.contains("after it was measured"), "{}", error.message);
    assert!(is_empty(work_dir.path()));
}

#[test]
fn an_answer_that_is_no_envelope_for_the_key_is_invalid() {
    let nsm = crate::fake_nsm::FakeNsm::measured();
    let recipient = attest_recipient_key(&nsm).unwrap();
    let error = open_identity(&recipient, b"no CMS").err().unwrap();
    assert_eq!(error.reason, FailureReason::KmsAnswerInvalid);
}

#[test]
fn the_document_for_kms_names_the_recipients_key_and_nothing_else() {
    let nsm = crate::fake_nsm::FakeNsm::measured();
    let recipient = attest_recipient_key(&nsm).unwrap();
    assert_eq!(recipient.document, [b"||", recipient.key.public_key_der()].concat());
}

#[test]
fn each_refusal_of_kms_has_its_reason() {
    let texts = || (String::from("Code"), String::from("text"), String::from("r-1"));
    let other = |code: &str| KmsError::Other {
        code: code.to_owned(),
        message: String::new(),
        request_id: "r-1".to_owned(),
    };
    let (code, message, request_id) = texts();
    let denied = KmsError::Denied { code, message, request_id };
    let (code, message, request_id) = texts();
    let ciphertext = KmsError::InvalidCiphertext { code, message, request_id };
    let request_id = || "r-1".to_owned();
    for (error, reason) in [
        (denied, FailureReason::KmsDenied),
        (ciphertext, FailureReason::IdentityInvalid),
        (KmsError::Unreachable("no route".to_owned()), FailureReason::KmsUnreachable),
        (KmsError::PlaintextAnswer { request_id: request_id() }, FailureReason::KmsAnswerInvalid),
        (KmsError::NoRecipientCiphertext { request_id: request_id() }, FailureReason::KmsAnswerInvalid),
        (other("KMSInternalException"), FailureReason::KmsUnreachable),
        (other("ValidationException"), FailureReason::KmsDenied),
    ] {
        let failure = kms_failed(&error);
        assert_eq!(failure.reason, reason, "{error}");
        assert_eq!(failure.details.get("kms_request_id").map(String::as_str), error.request_id(), "{error}");
    }
    assert_eq!(kms_failed(&other("ValidationException")).details["kms_error_code"], "ValidationException");
}

#[test]
fn long_term_credentials_have_no_session_token() {
    let credentials = Credentials { access_key_id: "AKIA".to_owned(), ..Credentials::default() };
    assert!(wiped_credentials(credentials).session_token.is_none());
    let credentials = Credentials { session_token: "token".to_owned(), ..Credentials::default() };
    assert_eq!(wiped_credentials(credentials).session_token.as_deref().map(String::as_str), Some("token"));
}
