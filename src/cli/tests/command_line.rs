//! Exit codes and words of the command line, without any KMS.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

const SECRET: &str = "5ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4";

/// Runs nitro-sign in `directory` without AWS credentials: exit code, standard output, standard error.
fn run(directory: &Path, arguments: &str, input: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_nitro-sign"))
        .args(arguments.split_whitespace())
        .current_dir(directory)
        .env_remove("AWS_ACCESS_KEY_ID")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The program may end before it reads.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A deployment `d` whose identity ciphertext is empty.
fn write_deployment(directory: &Path, epoch: &str) {
    // SHA-256 of nothing: FIPS 180-4.
    let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let text = format!(
        "region = \"eu-central-1\"\nkms_key_id = \"k\"\nparty = \"enclave-a\"\nrecipient = \"age1own\"\n\
         identity_sha256 = \"{nothing}\"\n{epoch}\n"
    );
    std::fs::create_dir(directory.join("d")).unwrap();
    std::fs::write(directory.join("d/deployment.toml"), text).unwrap();
    std::fs::write(directory.join("d/age-identity.kms"), "").unwrap();
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [
        "",
        "init",
        "init --dir d --party p",
        "init --dir d --party p --kms-key k --create-kms-key --region eu-central-1",
        "init --dir d --party p --create-kms-key --region eu-central-1",
        "init --dir d --party p --create-kms-key --admin a --policy f --region eu-central-1",
        "init --dir d --party p --kms-key k --admin a --region eu-central-1",
        "init --dir d --party p --kms-key k",
        "init --dir d --party Not_A_Party --kms-key k --region eu-central-1",
        "init --dir d --party p --kms-key k --region eu-central-1", // no credentials
        "key-gen --dir d --cosigner gateway --client-ca c --relay-ca r --account a --scheme frost-ed25519",
        "key-gen --dir d --cosigner g=age1x=f --client-ca c --relay-ca r",
        "key-gen --dir d --cosigner g=age1x=f --client-ca c --relay-ca r --account a --scheme rsa",
        "policy --dir d --role r --admin a --pcr0 abcd",
        "verify-document --file f --root aws --at yesterday",
        "measure",
        "pcr",
        "pcr compare base",
        "pcr compare base head --derivations a.drv",
        "pcr compare base head --store store",
        "pcr check image",
    ] {
        let (code, stdout, stderr) = run(directory.path(), arguments, "");
        assert_eq!(code, 2, "{arguments}: {stderr}");
        assert!(stdout.is_empty() && !stderr.is_empty(), "{arguments}");
    }
    assert!(!directory.path().join("d").exists());
}

#[test]
fn a_new_key_needs_its_administrators_or_its_policy_and_not_both() {
    let directory = tempfile::tempdir().unwrap();
    let init = "init --dir d --party p --region eu-central-1 --create-kms-key";
    for (more, words) in [
        ("", ["not provided", "--admin", "--policy"]),
        ("--admin a --policy f", ["cannot be used with", "--admin", "--policy"]),
    ] {
        let (code, _, stderr) = run(directory.path(), &format!("{init} {more}"), "");
        assert_eq!(code, 2, "{stderr}");
        for word in words {
            assert!(stderr.contains(word), "{word}: {stderr}");
        }
    }
}

#[test]
fn what_cannot_be_done_ends_with_1_and_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let zero = "0".repeat(96);
    for (arguments, named) in [
        ("measure --parent none.toml".to_owned(), "none.toml"),
        ("pcr16 --parent none.toml".to_owned(), "none.toml"),
        ("verify-document --file none.cose --root aws".to_owned(), "none.cose"),
        (format!("policy --dir none --role r --admin a --pcr0 {zero}"), "none"),
    ] {
        let (code, stdout, stderr) = run(directory.path(), &arguments, "");
        assert_eq!(code, 1, "{arguments}: {stderr}");
        assert!(stdout.is_empty() && stderr.contains(named), "{arguments}: {stderr}");
    }
}

#[test]
fn help_names_every_subcommand_and_the_usual_order() {
    let directory = tempfile::tempdir().unwrap();
    let (code, stdout, _) = run(directory.path(), "--help", "");
    assert_eq!(code, 0);
    for word in [
        "init",
        "cosigner",
        "key-gen",
        "policy",
        "measure",
        "pcr16",
        "pcr",
        "verify-document",
        "The usual order",
    ] {
        assert!(stdout.contains(word), "{word}");
    }
}

#[test]
fn a_secret_in_a_malformed_import_is_not_repeated() {
    let directory = tempfile::tempdir().unwrap();
    write_deployment(directory.path(), "epoch = 0");
    let child = Command::new(env!("CARGO_BIN_EXE_nitro-sign"))
        .args("key-gen --dir d --cosigner g=age1x=f --client-ca c --relay-ca r --import -".split(' '))
        .current_dir(directory.path())
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "none")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let import = format!(r#"{{"a": {{"scheme": "frost-ed25519", "secret": "{SECRET}00"}}}}"#);
    child.stdin.as_ref().unwrap().write_all(import.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("standard input") && stderr.contains("account `a`, field `secret`"), "{stderr}");
    assert!(!stderr.contains(&SECRET[..8]), "{stderr}");
}

#[test]
fn a_policy_is_rendered_without_credentials() {
    let directory = tempfile::tempdir().unwrap();
    write_deployment(directory.path(), &format!("epoch = 7\nbundle_sha256 = \"{}\"", "ef".repeat(32)));
    let account = "arn:aws:iam::111122223333";
    let policy = |pcr0: String| {
        format!("policy --dir d --role {account}:role/parent --admin {account}:role/admin --pcr0 {pcr0}")
    };
    let (code, stdout, stderr) = run(directory.path(), &policy("AB".repeat(48)), "");
    assert_eq!(code, 0, "{stderr}");
    let rendered: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let condition = &rendered["Statement"][2]["Condition"];
    assert_eq!(condition["StringEquals"]["kms:EncryptionContext:epoch"], "7");
    assert!(stderr.contains("NOT in force"), "{stderr}");

    let (code, _, stderr) = run(directory.path(), &policy("0".repeat(96)), "");
    assert_eq!(code, 1);
    assert!(stderr.contains("--pcr0 is all zero"), "{stderr}");
}

#[test]
fn a_standard_error_that_cannot_be_written_changes_neither_result_nor_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let zero = "00".repeat(48);
    let pcrs = serde_json::json!({ "PCR0": zero, "PCR1": zero, "PCR2": zero });
    std::fs::write(directory.path().join("pcrs.json"), pcrs.to_string()).unwrap();
    for (arguments, code, result) in [
        ("cosigner --identity id.txt", 0, "recipient"),
        ("cosigner --identity id.txt", 1, ""), // it exists by now
        ("pcr compare pcrs.json pcrs.json", 0, "{"),
        ("pcr check pcrs.json --release none.json", 0, ""),
        ("pcr compare none none", 2, ""),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_nitro-sign"))
            .args(arguments.split_whitespace())
            .current_dir(directory.path())
            .stderr(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert_eq!(stdout.is_empty(), result.is_empty(), "{arguments}: {stdout}");
        assert!(stdout.contains(result), "{arguments}: {stdout}");
    }
}

#[test]
fn a_secret_that_is_given_in_a_wrong_place_is_not_printed() {
    let directory = tempfile::tempdir().unwrap();
    write_deployment(directory.path(), "epoch = 0");
    let (code, _, _) = run(directory.path(), "cosigner --identity id.txt", "");
    assert_eq!(code, 0);
    let identity = std::fs::read_to_string(directory.path().join("id.txt")).unwrap();
    let key = identity.lines().last().unwrap();
    let lower = key.to_ascii_lowercase();
    let key_gen = "key-gen --dir d --client-ca c --relay-ca r --account a --scheme frost-ed25519";
    for arguments in [
        format!("{key_gen} --cosigner g={key}=f"),
        format!("{key_gen} --cosigner g={lower}=f"),
        format!("{key_gen} --cosigner {key}"),
        format!("{key_gen} --cosigner {key}=age1x=f"),
        format!("{key_gen} --cosigner g=age1x={key}"),
        format!("{key_gen} --cosigner g={SECRET}=f"),
        format!("{key_gen} --cosigner {SECRET}{SECRET}=age1x=f"),
        // What clap itself refuses, and quotes:
        format!("{key_gen} --cosigner g= {key}=f"),
        format!("{key_gen} --cosigner g=age1x=f --scheme {key}"),
        format!("{key_gen} --cosigner g=age1x=f --threshold {lower}"),
        format!("{key_gen} --cosigner g=age1x=f --kms-endpoint {key}"),
        format!("--{key} {key_gen}"),
        format!("{key} {key_gen}"),
        format!("policy --dir d --role r --admin a --pcr0 {key}"),
        format!("verify-document --file f --root aws --nonce {key}"),
        format!("verify-document --file f --root aws --at {key}"),
        format!("{key_gen} --cosigner g=age1x=f --import {SECRET}"),
        format!(
            "{key_gen} --cosigner g=age1x=f --import {{\"a\":{{\"scheme\":\"frost-ed25519\",\"secret\":\"{SECRET}\"}}}}"
        ),
    ] {
        let (code, stdout, stderr) = run(directory.path(), &arguments, "");
        assert_eq!(code, 2, "{arguments}: {stderr}");
        assert!(stdout.is_empty() && !stderr.is_empty(), "{arguments}");
        for secret in [&key[15..], &lower[15..], &SECRET[..16]] {
            assert!(!stderr.contains(secret), "{arguments}: {stderr}");
        }
    }
    let (_, _, stderr) = run(directory.path(), &format!("{key_gen} --cosigner g={key}=f"), "");
    assert!(stderr.contains("--cosigner number 1") && stderr.contains("secret key"), "{stderr}");
}
