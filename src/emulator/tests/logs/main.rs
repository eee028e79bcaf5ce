//! `emulator logs` as a process, called by AWS's own client.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

mod faults;
#[path = "../process/mod.rs"]
mod process;
mod refusals;
mod startup;
mod taken;

use std::{
    fmt::Debug,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_sdk_cloudwatchlogs::{
    Client,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata, SdkError},
    operation::put_log_events::{PutLogEventsError, PutLogEventsOutput},
    types::InputLogEvent,
};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use serde_json::{Value, json};

const GROUP: &str = "/nitro-sign/parent";
const STREAM: &str = "i-0123456789abcdef0";
const SHIPPER: &str = "arn:aws:iam::111122223333:role/parent";
const OTHER: &str = "arn:aws:iam::111122223333:role/other";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// Milliseconds.
const DAY: i64 = 24 * 60 * 60 * 1000;

/// The stand-in with one group. Ends with its value.
struct Logs {
    directory: tempfile::TempDir,
    child: Child,
    ready: Value,
}

fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_emulator"));
    command
        .args(["logs", "--listen", "127.0.0.1:0", "--state-dir"])
        .arg(directory)
        .arg("--principal")
        .arg(format!("{SHIPPER}:AKIASHIPPER:{SECRET}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Logs {
    /// With names of its own, and so for any region.
    fn start() -> Self {
        Self::with(&["--host", "localhost", "127.0.0.1"])
    }

    fn with(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fault_file = directory.path().join("fault.json");
        fs::write(&fault_file, r#"{"mode":"none"}"#).unwrap();
        let mut command = command(directory.path());
        command.args(["--group", GROUP, "--fault-file"]).arg(fault_file).args(arguments);
        let mut child = command.spawn().unwrap();
        let ready = process::ready(&mut child);
        Self { directory, child, ready }
    }

    fn fault(&self, fault: &Value) {
        fs::write(self.directory.path().join("fault.json"), fault.to_string()).unwrap();
    }

    /// How the shipper calls it; one attempt only.
    fn config(&self) -> aws_sdk_cloudwatchlogs::config::Builder {
        self.config_for("localhost", &fs::read(self.ready["ca"].as_str().unwrap()).unwrap())
    }

    fn config_for(&self, host: &str, ca: &[u8]) -> aws_sdk_cloudwatchlogs::config::Builder {
        let roots = TrustStore::empty().with_pem_certificate(ca);
        let tls = TlsContext::builder().with_trust_store(roots).build().unwrap();
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::rustls(CryptoMode::AwsLc))
            .tls_context(tls);
        let (_, port) = self.ready["address"].as_str().unwrap().rsplit_once(':').unwrap();
        aws_sdk_cloudwatchlogs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(credentials("AKIASHIPPER", SECRET, None))
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_timeout(Duration::from_secs(30)).build())
            .endpoint_url(format!("https://{host}:{port}"))
            .http_client(http.build_https())
    }

    fn client(&self) -> Client {
        Client::from_conf(self.config().build())
    }

    /// The shipper's client, once its stream is there.
    async fn shipper(&self) -> Client {
        let client = self.client();
        create_stream(&client, GROUP, STREAM).await.unwrap();
        client
    }

    /// What is in `events.jsonl`.
    fn recorded(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.directory.path().join("events.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn recorded_messages(&self) -> Vec<String> {
        let message = |event: &Value| event["message"].as_str().unwrap().to_owned();
        self.recorded().iter().map(message).collect()
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn credentials(access_key_id: &str, secret: &str, token: Option<&str>) -> Credentials {
    Credentials::new(access_key_id, secret, token.map(str::to_owned), None, "test")
}

/// Milliseconds since 1970.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

fn event(timestamp: i64, message: impl Into<String>) -> InputLogEvent {
    InputLogEvent::builder().timestamp(timestamp).message(message).build().unwrap()
}

async fn create_stream(client: &Client, group: &str, stream: &str) -> Result<(), Refusal> {
    let request = client.create_log_stream().log_group_name(group).log_stream_name(stream);
    request.send().await.map(|_| ()).map_err(|error| refusal(&error))
}

async fn try_put(
    client: &Client,
    events: Vec<InputLogEvent>,
) -> Result<PutLogEventsOutput, SdkError<PutLogEventsError>> {
    let request = client.put_log_events().log_group_name(GROUP).log_stream_name(STREAM);
    request.set_log_events(Some(events)).send().await
}

async fn put(client: &Client, events: Vec<InputLogEvent>) -> Result<PutLogEventsOutput, Refusal> {
    try_put(client, events).await.map_err(|error| refusal(&error))
}

/// What the service answered with when it refused.
#[derive(Debug)]
struct Refusal {
    status: u16,
    code: String,
    message: String,
}

fn refusal<E: ProvideErrorMetadata + Debug>(error: &SdkError<E>) -> Refusal {
    let status = error.raw_response().unwrap_or_else(|| panic!("{error:?}")).status().as_u16();
    let code = error.code().unwrap().to_owned();
    Refusal { status, code, message: error.message().unwrap_or_default().to_owned() }
}
