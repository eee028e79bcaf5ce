//! The whole way of a log line, in a process of its own.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::process::Command;

use serde_json::Value;

const CHILD: &str = "TELEMETRY_TEST_CHILD";

/// Not a test by itself: what the others run as a child process.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    telemetry::init("test-program");
    telemetry::init("second-call-changes-nothing");
    tracing::debug!("hidden by default");
    let span = tracing::info_span!("unseal", session_token = "span-value");
    let _entered = span.enter();
    tracing::info!(n = 7, secret_access_key = "field-value", "identity AGE-SECRET-KEY-1QQPQ9 \"quoted\"");
    tracing::error!(error = %"first\n-----BEGIN PRIVATE KEY-----\npem-value\n-----END PRIVATE KEY-----\nlast");
}

fn logged(filter: Option<&str>) -> Vec<Value> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(CHILD, "1").env_remove(telemetry::FILTER_VARIABLE);
    command.envs(filter.map(|filter| (telemetry::FILTER_VARIABLE, filter)));
    let output = command.output().unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stderr).unwrap();
    for secret in ["QQPQ9", "field-value", "span-value", "pem-value"] {
        assert!(!lines.contains(secret), "{lines}");
    }
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn events_are_lines_of_json_without_secrets() {
    let lines = logged(None);
    assert_eq!(lines.len(), 2);
    let first = &lines[0];
    assert_eq!(first["source"], "test-program");
    assert_eq!(first["level"], "INFO");
    assert_eq!(first["message"], "identity [redacted] \"quoted\"");
    assert_eq!(first["n"], 7);
    assert_eq!(first["secret_access_key"], "[redacted]");
    assert_eq!(first["span"]["session_token"], "[redacted]");
    assert!(first["timestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(lines[1]["error"], "first\n[redacted]\nlast");
}

#[test]
fn the_variable_sets_the_level() {
    assert_eq!(logged(Some("debug"))[0]["message"], "hidden by default");
    assert_eq!(logged(Some("error")).len(), 1);
    assert_eq!(logged(Some("off")).len(), 0);
    assert_eq!(logged(Some("init=debug")).len(), 3);
    // What names no level leaves it at info.
    assert_eq!(logged(Some("other=debug")).len(), 2);
    assert_eq!(logged(Some("[[")).len(), 2);
}

#[test]
fn a_filter_that_cannot_be_read_is_named_and_silences_nothing() {
    let lines = logged(Some("init=loud"));
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["level"], "WARN");
    assert!(lines[0]["message"].as_str().unwrap().starts_with("NITRO_SIGN_LOG is no filter"), "{}", lines[0]);
}
