use std::{thread, time::Instant};

use api::control::{LogLine, enclave_message::Message};

use super::*;
use crate::outbox::{Queue, outbox};

const READY: &str = r#"{"ready":true,"spki_sha256":"0707070707070707070707070707070707070707070707070707070707070707","accounts":3,"loaded_at_unix_ms":5}"#;

fn script(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    file
}

async fn start(text: &str, outbox: Outbox) -> Result<(Service, ServiceReady), BootError> {
    let script = script(text);
    Service::start(Path::new("/bin/sh"), script.path(), outbox).await
}

fn logged(queue: &mut Queue) -> Vec<String> {
    let lines = std::iter::from_fn(|| queue.next_now());
    lines
        .map(|message| match message {
            Message::Log(LogLine { source, line }) => format!("{source}: {line}"),
            other => panic!("expected a log line, got {other:?}"),
        })
        .collect()
}

#[tokio::test]
async fn the_ready_line_says_what_serves() {
    let (_service, ready) = start(&format!("echo '{READY}'; exec sleep 60"), outbox().0).await.unwrap();
    assert_eq!((ready.spki_sha256, ready.accounts, ready.loaded_at_unix_ms), ([7; 32], 3, 5));
}

#[tokio::test]
async fn a_service_that_ends_before_it_is_ready_has_exited() {
    let error = start("exit 3", outbox().0).await.err().unwrap();
    assert_eq!(error.reason, FailureReason::ServiceExited);
    assert!(error.message.contains("exit status: 3"), "{}", error.message);
}

#[tokio::test]
async fn a_first_line_that_is_not_the_ready_line_is_refused() {
    for line in ["hello", r#"{"ready":true}"#, &READY.replace("true", "false"), &READY.replace("07", "zz")] {
        let error = start(&format!("echo '{line}'; exec sleep 60"), outbox().0).await.err().unwrap();
        assert_eq!(error.reason, FailureReason::ServiceExited, "{line}");
    }
}

#[tokio::test]
async fn an_endless_first_line_is_cut_off_and_refused() {
    let error = start("while :; do printf x; done", outbox().0).await.err().unwrap();
    assert_eq!(error.reason, FailureReason::ServiceExited);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let error =
        Service::start(Path::new("/nonexistent/service"), Path::new("x"), outbox().0).await.err().unwrap();
    assert_eq!(error.reason, FailureReason::ServiceExited);
    assert!(error.message.contains("/nonexistent/service"), "{}", error.message);
}

#[tokio::test]
async fn the_service_inherits_no_environment() {
    let (outbox, mut queue) = outbox();
    let error = start("/usr/bin/env >&2; exit 1", outbox).await.err().unwrap();
    assert_eq!(error.reason, FailureReason::ServiceExited);
    // What the shell sets by itself.
    let inherited: Vec<_> = logged(&mut queue)
        .into_iter()
        .filter(|line| !["PWD=", "_=", "SHLVL=", "OLDPWD"].iter().any(|own| line.contains(own)))
        .collect();
    assert_eq!(inherited, [""; 0]);
}

#[tokio::test]
async fn its_log_lines_are_forwarded_redacted() {
    let (outbox, mut queue) = outbox();
    let lines =
        r#"echo '{"level":"INFO"}' >&2; printf 'bad \377 byte\n' >&2; echo 'AGE-SECRET-KEY-1ABC' >&2"#;
    let _ = start(lines, outbox).await;
    let lines = logged(&mut queue);
    assert_eq!(
        lines,
        [
            r#"sign-service: {"level":"INFO"}"#.to_owned(),
            "sign-service: bad \u{fffd} byte".to_owned(),
            format!("sign-service: {}", telemetry::redact("AGE-SECRET-KEY-1ABC")),
        ]
    );
    assert!(!lines[2].contains("1ABC"));
}

#[tokio::test]
async fn stopping_lets_the_service_end_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let farewell = directory.path().join("farewell");
    let text = format!(
        "trap 'echo bye > {}; exit 0' TERM; echo '{READY}'; while :; do sleep 0.05; done",
        farewell.display()
    );
    let (service, _) = start(&text, outbox().0).await.unwrap();
    service.stop().await;
    assert_eq!(fs::read_to_string(farewell).unwrap(), "bye\n");
}

#[tokio::test]
async fn a_service_that_ignores_sigterm_is_killed() {
    let (service, _) =
        start(&format!("trap '' TERM; echo '{READY}'; while :; do sleep 1; done"), outbox().0).await.unwrap();
    let id = service.child.id().unwrap();
    service.stop_within(Duration::from_millis(200)).await;
    assert!(!Path::new(&format!("/proc/{id}")).exists());
}

#[test]
fn the_service_dies_with_the_thread_that_started_it() {
    let id = thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (service, _) =
            runtime.block_on(start(&format!("echo '{READY}'; exec sleep 60"), outbox().0)).unwrap();
        let id = service.child.id().unwrap();
        // As when this process is killed: nothing is cleaned up.
        std::mem::forget(service);
        id
    })
    .join()
    .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while is_running(id) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    assert!(!is_running(id));
}

/// Neither gone nor a zombie.
fn is_running(id: u32) -> bool {
    fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn the_configuration_is_written_with_hex_and_text() {
    let work_dir = tempfile::tempdir().unwrap();
    let config = ServiceConfig {
        key_share_file: "/run/nitro-sign/service_key_shares.json".into(),
        listen: "vsock:any:50051".parse().unwrap(),
        nsm: "device".to_owned(),
        configuration: vec![0xab, 0xcd],
        sealed_bundle_sha384: [0x11; 48],
        max_sessions: 64,
        session_deadline_ms: 30_000,
    };
    let path = config.write(work_dir.path()).unwrap();
    let written: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
    let text = |key: &str| written[key].as_str().unwrap().to_owned();
    assert_eq!(text("key_share_file"), "/run/nitro-sign/service_key_shares.json");
    assert_eq!(text("listen"), "vsock:any:50051");
    assert_eq!(text("nsm"), "device");
    assert_eq!(text("configuration"), "abcd");
    assert_eq!(text("sealed_bundle_sha384"), "11".repeat(48));
    assert_eq!(written["max_sessions"].as_integer(), Some(64));
    assert_eq!(written["session_deadline_ms"].as_integer(), Some(30_000));
    assert_eq!(written.len(), 7);
}
