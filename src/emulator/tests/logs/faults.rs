//! Misbehaviour on request.

use std::time::Instant;

use super::*;

/// A client that tries three times, as AWS's client does by default.
async fn patient(logs: &Logs) -> Client {
    logs.shipper().await;
    let retries = RetryConfig::standard().with_initial_backoff(Duration::from_millis(10));
    Client::from_conf(logs.config().retry_config(retries).build())
}

#[tokio::test]
async fn throttling_ends_after_its_times_and_the_client_gets_through() {
    let logs = Logs::start();
    let client = patient(&logs).await;
    logs.fault(&json!({"mode": "throttle", "times": 2}));
    put(&client, vec![event(now(), "one")]).await.unwrap();
    logs.fault(&json!({"mode": "throttle", "times": 3}));
    let refused = put(&client, vec![event(now(), "two")]).await.unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (400, "ThrottlingException"));
    put(&client, vec![event(now(), "three")]).await.unwrap();
    assert_eq!(logs.recorded_messages(), ["one", "three"]);
}

#[tokio::test]
async fn trouble_of_the_services_own_is_an_error_of_its_own() {
    let logs = Logs::start();
    let client = logs.shipper().await;
    for (mode, status, code) in [
        ("unavailable", 500, "ServiceUnavailableException"),
        ("internal-error", 500, "InternalFailure"),
        ("deny", 400, "AccessDeniedException"),
        ("throttle", 400, "ThrottlingException"),
    ] {
        logs.fault(&json!({"mode": mode}));
        let refused = put(&client, vec![event(now(), "m")]).await.unwrap_err();
        assert_eq!((refused.status, refused.code.as_str()), (status, code), "{refused:?}");
    }
    assert!(logs.recorded().is_empty());
}

#[tokio::test]
async fn a_fault_befalls_the_operation_that_it_names() {
    let logs = Logs::start();
    let client = logs.shipper().await;
    logs.fault(&json!({"mode": "deny", "operation": "CreateLogStream"}));
    put(&client, vec![event(now(), "m")]).await.unwrap();
    let refused = create_stream(&client, GROUP, "another").await.unwrap_err();
    assert_eq!(refused.code, "AccessDeniedException");
    logs.fault(&json!({"mode": "deny"}));
    create_stream(&client, GROUP, "another").await.unwrap();
}

#[tokio::test]
async fn a_late_answer_is_an_answer() {
    let logs = Logs::start();
    let client = logs.shipper().await;
    logs.fault(&json!({"mode": "delay", "delay_ms": 300}));
    let start = Instant::now();
    put(&client, vec![event(now(), "m")]).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(300));
}

/// A client that waits half a second for an answer, and what became of a request of it.
async fn unanswered(logs: &Logs, fault: &Value) -> SdkError<PutLogEventsError> {
    logs.shipper().await;
    logs.fault(fault);
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(Duration::from_millis(500)).build();
    let client = Client::from_conf(logs.config().timeout_config(timeouts).build());
    try_put(&client, vec![event(now(), "m")]).await.unwrap_err()
}

#[tokio::test]
async fn a_request_that_hangs_is_not_done() {
    let logs = Logs::start();
    let error = unanswered(&logs, &json!({"mode": "hang"})).await;
    assert!(matches!(error, SdkError::TimeoutError(_)), "{error:?}");
    assert!(logs.recorded().is_empty());
}

#[tokio::test]
async fn a_request_whose_answer_is_lost_is_done() {
    let logs = Logs::start();
    let error = unanswered(&logs, &json!({"mode": "lose-answer", "times": 1})).await;
    assert!(matches!(error, SdkError::TimeoutError(_)), "{error:?}");
    assert_eq!(logs.recorded_messages(), ["m"]);
    // At least once: who tries again has it there twice.
    put(&logs.client(), vec![event(now(), "m")]).await.unwrap();
    assert_eq!(logs.recorded_messages(), ["m", "m"]);
}

#[tokio::test]
async fn a_fault_file_that_cannot_be_read_lets_no_request_pass() {
    let logs = Logs::start();
    let client = logs.shipper().await;
    fs::remove_file(logs.directory.path().join("fault.json")).unwrap();
    let refused = put(&client, vec![event(now(), "m")]).await.unwrap_err();
    assert_eq!(refused.code, "InternalFailure");
    assert!(refused.message.contains("fault.json"), "{refused:?}");
}
