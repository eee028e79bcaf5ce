//! What the program's end tells a service manager.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn parent(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_parent")).args(arguments).env_remove("NOTIFY_SOCKET").output().unwrap()
}

/// The exit code and what is printed on standard error.
fn ends(arguments: &[&str]) -> (i32, String) {
    let output = parent(arguments);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// A configuration in `directory` that is right, but for files that are not there.
fn config(directory: &Path, runtime_dir: &str) -> String {
    let path = directory.join("parent.toml");
    let example = include_str!("../../../docs/parent.example.toml");
    let runtime_dir = format!("runtime_dir = \"{runtime_dir}\"");
    fs::write(&path, example.replace("runtime_dir = \"/run/nitro-sign\"", &runtime_dir)).unwrap();
    path.into_os_string().into_string().unwrap()
}

#[test]
fn the_help_lists_every_exit_code() {
    for arguments in [["--help"].as_slice(), &["run", "--help"]] {
        let output = parent(arguments);
        assert_eq!(output.status.code(), Some(0));
        let help = String::from_utf8(output.stdout).unwrap();
        for code in [0, 1, 64, 75, 77, 78] {
            assert!(help.lines().any(|line| line.starts_with(&format!("{code:>4}  "))), "{code}: {help}");
        }
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let (code, message) = ends(&["serve"]);
    assert_eq!(code, 64);
    assert!(message.contains("serve"), "{message}");
    assert_eq!(ends(&["run"]).0, 64);
}

#[test]
fn a_configuration_that_is_missing_or_refused_is_a_configuration_error() {
    let directory = tempfile::tempdir().unwrap();
    let refused = directory.path().join("refused.toml");
    fs::write(&refused, "regoin = 1").unwrap();
    for (file, problem) in
        [("/nonexistent/parent.toml", "No such file"), (refused.to_str().unwrap(), "regoin")]
    {
        for command in ["run", "check", "measure", "check-image", "ship-journal"] {
            let (code, message) = ends(&[command, "--config", file]);
            assert_eq!(code, 78, "{command}: {message}");
            assert!(message.contains(problem), "{command}: {message}");
        }
    }
}

#[test]
fn files_that_are_not_there_fail_the_check_and_a_runtime_directory_that_cannot_be_made_the_run() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path(), "/proc/none");
    let (code, message) = ends(&["check", "--config", &config]);
    assert_eq!(code, 78, "{message}");
    assert!(message.contains("`enclave.process.enclave`"), "{message}");
    let (code, message) = ends(&["run", "--config", &config]);
    assert_eq!(code, 78, "{message}");
    assert!(message.contains("/proc/none"), "{message}");
}

#[test]
fn a_ciphertext_that_is_not_there_may_come_and_an_image_that_cannot_be_measured_stays_so() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path(), "run");
    assert_eq!(ends(&["run", "--config", &config]).0, 75);
    let status = fs::read_to_string(directory.path().join("run/status.json")).unwrap();
    assert!(status.contains("CiphertextUnavailable"), "{status}");
    let (code, message) = ends(&["measure", "--config", &config]);
    assert_eq!(code, 77, "{message}");
}
