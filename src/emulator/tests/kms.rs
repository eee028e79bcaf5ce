//! `emulator kms` as a process: what it prints, writes and logs.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

mod process;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use attestation::{
    Measurements, Nsm as _,
    software::{SoftwareNsm, TestAuthority},
};
use kms::{Access, Credentials, Kms, RecipientKey};
use serde_json::{Value, json};

use process::{log_of, ready};

const PARENT: &str = "arn:aws:iam::111122223333:role/parent";
const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const PLAINTEXT: &[u8] = b"AGE-SECRET-KEY-1-of-a-test";

fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_emulator"));
    command
        .args(["kms", "--listen", "127.0.0.1:0", "--host", "kms.eu-central-1.amazonaws.com"])
        .arg("--state-dir")
        .arg(directory)
        .arg("--attestation-root")
        .arg(directory.join("root.pem"))
        .arg("--principal")
        .arg(format!("{PARENT}:AKIAPARENT:{SECRET_KEY}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn client(ready: &Value) -> Kms {
    let ca = fs::read_to_string(ready["ca"].as_str().unwrap()).unwrap();
    Kms::new(Access {
        region: "eu-central-1".to_owned(),
        host: None,
        dial: format!("tcp:{}", ready["address"].as_str().unwrap()).parse().unwrap(),
        roots: kms::roots_from_pem(&ca).unwrap(),
        credentials: Credentials {
            access_key_id: "AKIAPARENT".to_owned(),
            secret_access_key: SECRET_KEY.to_owned().into(),
            session_token: None,
        },
        timeout: Duration::from_secs(30),
    })
}

#[tokio::test]
async fn every_request_is_logged_with_its_measurements_and_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let authority = TestAuthority::generate().unwrap();
    fs::write(directory.path().join("root.pem"), authority.root_pem()).unwrap();
    let mut child = command(directory.path()).spawn().unwrap();
    let ready = ready(&mut child);
    assert_eq!(ready["ca"], json!(directory.path().join("kms-ca.pem")));
    let client = client(&ready);

    let key_id = client.sdk().create_key().send().await.unwrap().key_metadata.unwrap().key_id;
    let encrypted =
        client.sdk().encrypt().key_id(&key_id).plaintext(PLAINTEXT.to_vec().into()).send().await.unwrap();
    let ciphertext = encrypted.ciphertext_blob.unwrap().into_inner();
    let measurements = Measurements::of_parts(&[], &[b"enclave"], &[b"sign-service"]);
    let nsm = SoftwareNsm::new(&authority, measurements).unwrap();
    nsm.lock_pcr(16).unwrap();
    let key = RecipientKey::generate().unwrap();
    let document = nsm.attest(None, None, Some(key.public_key_der())).unwrap();
    let released = client.decrypt_for_recipient(&key_id, &ciphertext, &[], &document).await.unwrap();
    assert_eq!(*key.open(&released.ciphertext_for_recipient).unwrap(), PLAINTEXT);
    client.decrypt_for_recipient(&key_id, b"nothing", &[], &document).await.unwrap_err();
    let decrypted = client.sdk().decrypt().ciphertext_blob(ciphertext.into()).send().await.unwrap();
    assert_eq!(decrypted.plaintext.unwrap().into_inner(), PLAINTEXT);

    let (text, lines) = log_of(&mut child);
    let requests: Vec<_> = lines.iter().filter(|line| line["message"] == "request").collect();
    let summary: Vec<_> = requests.iter().map(|line| (&line["operation"], &line["outcome"])).collect();
    let expected = [
        (json!("CreateKey"), json!("ok")),
        (json!("Encrypt"), json!("ok")),
        (json!("Decrypt"), json!("ok")),
        (json!("Decrypt"), json!("InvalidCiphertextException")),
        (json!("Decrypt"), json!("ok")),
    ];
    assert_eq!(summary, expected.iter().map(|(operation, outcome)| (operation, outcome)).collect::<Vec<_>>());
    for line in &requests {
        assert_eq!((&line["principal"], &line["key_id"]), (&json!(PARENT), &json!(key_id)), "{line}");
    }
    assert_eq!(requests[2]["request_id"], json!(released.request_id));
    assert_eq!(requests[2]["pcr0"], json!(measurements.pcr0));
    assert_eq!(requests[2]["pcr16"], json!("00".repeat(48)));
    assert_eq!(requests[4].get("pcr0"), None);
    for secret in [String::from_utf8(PLAINTEXT.to_vec()).unwrap(), base64(PLAINTEXT), SECRET_KEY.to_owned()] {
        assert!(!text.contains(&secret), "{secret} is in the log");
    }
}

fn base64(bytes: &[u8]) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)
}

#[test]
fn options_that_cannot_work_are_refused_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let failure = |arguments: &[&str]| process::failure(command(directory.path()).args(arguments));
    assert!(failure(&[]).contains("root.pem"), "{}", failure(&[]));
    fs::write(directory.path().join("root.pem"), TestAuthority::generate().unwrap().root_pem()).unwrap();
    let account = failure(&["--account", "1"]);
    assert!(account.contains("--account \"1\" is not 12 digits"), "{account}");
    let principal = failure(&["--principal", "name-without-secret"]);
    assert!(principal.contains("ARN:ACCESS_KEY_ID:SECRET_ACCESS_KEY"), "{principal}");
}

#[test]
fn a_host_without_a_region_needs_one() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("root.pem"), TestAuthority::generate().unwrap().root_pem()).unwrap();
    let mut arguments = Command::new(env!("CARGO_BIN_EXE_emulator"));
    arguments
        .args(["kms", "--host", "kms.test", "--principal", "a:b:c", "--state-dir"])
        .arg(directory.path());
    arguments.arg("--attestation-root").arg(directory.path().join("root.pem"));
    let output = arguments.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("--region"), "{text}");
}

/// Serves once with the authority in `authority`, and lets a client that trusts `ca` create a key.
async fn served_under(directory: &Path, authority: &Path, ca: &str) {
    let mut child = command(directory).arg("--authority-dir").arg(authority).spawn().unwrap();
    let ready = ready(&mut child);
    assert_eq!(fs::read_to_string(ready["ca"].as_str().unwrap()).unwrap(), ca);
    client(&ready).sdk().create_key().send().await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

fn kms_authority(directory: &Path) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_emulator"));
    let output = command.args(["kms-authority", "--dir"]).arg(directory).output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn an_authority_that_is_kept_serves_again_and_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("root.pem"), TestAuthority::generate().unwrap().root_pem()).unwrap();
    let authority = directory.path().join("kept/kms");
    assert!(kms_authority(&authority).0);
    let ca = fs::read_to_string(authority.join("kms-ca.pem")).unwrap();
    let mode = fs::metadata(authority.join("kms-ca.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    served_under(directory.path(), &authority, &ca).await;
    served_under(directory.path(), &authority, &ca).await;
    let (success, words) = kms_authority(&authority);
    assert!(!success && words.contains("kms-ca.key exists already"), "{words}");
    assert_eq!(fs::read_to_string(authority.join("kms-ca.pem")).unwrap(), ca);
}

#[tokio::test]
async fn an_authority_that_is_not_there_is_made() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("root.pem"), TestAuthority::generate().unwrap().root_pem()).unwrap();
    let authority = directory.path().join("new");
    let mut child = command(directory.path()).arg("--authority-dir").arg(&authority).spawn().unwrap();
    ready(&mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    let mode = fs::metadata(authority.join("kms-ca.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let ca = fs::read_to_string(authority.join("kms-ca.pem")).unwrap();
    served_under(directory.path(), &authority, &ca).await;
}

#[test]
fn an_authority_that_cannot_serve_is_refused_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("root.pem"), TestAuthority::generate().unwrap().root_pem()).unwrap();
    let (one, other) = (directory.path().join("one"), directory.path().join("other"));
    assert!(kms_authority(&one).0 && kms_authority(&other).0);
    let failure = || process::failure(command(directory.path()).arg("--authority-dir").arg(&one));

    fs::copy(other.join("kms-ca.key"), one.join("kms-ca.key")).unwrap();
    let words = failure();
    assert!(words.contains("do not belong together") && words.contains("one/kms-ca.pem"), "{words}");

    fs::copy(other.join("kms-ca.pem"), one.join("kms-ca.pem")).unwrap();
    fs::write(one.join("kms-ca.key"), "no key").unwrap();
    let words = failure();
    assert!(words.contains("one/kms-ca.key is no private key"), "{words}");

    fs::remove_file(one.join("kms-ca.key")).unwrap();
    let words = failure();
    assert!(words.contains("but no") && words.contains("one/kms-ca.key"), "{words}");

    fs::create_dir(one.join("kms-ca.key")).unwrap();
    let words = failure();
    assert!(words.contains("cannot read") && words.contains("one/kms-ca.key"), "{words}");
}
