use std::{path::Path, sync::Arc, time::Duration};

use attestation::software::TestAuthority;
use serde_json::Value;
use tokio::{
    net::TcpStream,
    sync::Notify,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::*;
use crate::{
    backend, config,
    testing::{
        enclave::{Script, Setting, image, setting},
        machine::{self, machine, shell},
    },
};

/// Far more than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_mins(1);

struct Running {
    directory: tempfile::TempDir,
    task: JoinHandle<Result<Outcome, RuntimeDirError>>,
    stop: Arc<Notify>,
    now: Arc<Notify>,
}

fn start(setting: Setting) -> Running {
    let Setting { directory, config, backend } = setting;
    let (stop, now) = (Arc::new(Notify::new()), Arc::clone(&backend.now));
    let told = Arc::clone(&stop);
    let task = tokio::spawn(run(config, Arc::new(backend), async move { told.notified().await }));
    Running { directory, task, stop, now }
}

impl Running {
    fn status(&self) -> Value {
        status(self.directory.path())
    }

    async fn until(&self, state: &str) -> Value {
        timeout(PATIENCE, async {
            while self.status()["state"] != state {
                assert!(!self.task.is_finished(), "ended before {state}: {:#}", self.status());
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        self.status()
    }

    /// The failure it ended in, as the program and the file tell it.
    async fn failed(self) -> (Failed, Value) {
        match timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap() {
            Outcome::Failed(failed) => {
                let status = status(self.directory.path());
                assert_eq!(status["state"], "Failed");
                assert_eq!(status["reason"], failed.reason.name());
                assert_eq!(status["message"], failed.message);
                assert_eq!(status["ingress"], Value::Null);
                (failed, status)
            }
            Outcome::Stopped => panic!("it was not told to stop"),
        }
    }
}

fn status(directory: &Path) -> Value {
    match std::fs::read(directory.join("run/status.json")) {
        Ok(content) => serde_json::from_slice(&content).unwrap(),
        Err(_) => Value::Null,
    }
}

fn states(status: &Value) -> Vec<&str> {
    status["history"].as_array().unwrap().iter().map(|e| e["state"].as_str().unwrap()).collect()
}

/// Runs a script to its failure; ingress must never have been open.
async fn refused(script: Script) -> (Failed, Value) {
    let (failed, status) = start(setting(script)).failed().await;
    assert!(!states(&status).contains(&"Serving"), "{status:#}");
    (failed, status)
}

#[tokio::test]
async fn an_honest_enclave_serves_through_ingress_until_it_is_told_to_stop() {
    let running = start(setting(Script::Honest));
    let status = running.until("Serving").await;
    assert_eq!(states(&status), ["Fetching", "Measuring", "Launching", "Unsealing", "Verifying", "Serving"]);
    assert_eq!(status["accounts"], 6);
    assert_eq!(status["enclave_pid"], 4711);
    assert_eq!(status["kms_request_id"], "r-1");
    assert_eq!(status["bundle_sha256"]["plaintext"], "abcd");
    assert_eq!(status["pcrs"]["0"], image().pcr0.to_string());
    assert_eq!(status["pcrs"]["16"].as_str().unwrap().len(), 96);
    assert_eq!(status["timings_ms"]["enclave.unseal"], 12);
    for step in ["fetch", "measure", "launch", "unseal", "verify", "verify_ingress"] {
        assert!(status["timings_ms"][step].is_u64(), "{step}: {status:#}");
    }
    let ingress = status["ingress"].as_str().unwrap().to_owned();
    TcpStream::connect(&ingress).await.unwrap();

    running.stop.notify_one();
    let outcome = timeout(PATIENCE, running.task).await.unwrap().unwrap().unwrap();
    assert_eq!(outcome.exit_code(), 0);
    let status = self::status(running.directory.path());
    assert_eq!(states(&status)[6..], ["Draining", "Stopped"]);
    assert_eq!(status["ingress"], Value::Null);
    assert!(TcpStream::connect(&ingress).await.is_err(), "ingress is still open");
}

#[tokio::test]
async fn the_document_of_a_serving_enclave_is_archived_as_it_is_in_the_status() {
    use base64::Engine as _;
    let running = start(setting(Script::Honest));
    let status = running.until("Serving").await;
    let in_status = base64::engine::general_purpose::STANDARD
        .decode(status["attestation_document"].as_str().unwrap())
        .unwrap();
    let archived = std::fs::read_dir(running.directory.path().join("run"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "cose"))
        .unwrap();
    assert!(archived.file_name().unwrap().to_str().unwrap().starts_with("attestation-"));
    assert_eq!(std::fs::read(archived).unwrap(), in_status);
}

#[tokio::test]
async fn a_denial_by_kms_is_named_terminal_and_keeps_the_request_id() {
    let (failed, status) = refused(Script::KmsDenied).await;
    assert_eq!(failed.reason.name(), "KmsDenied");
    assert_eq!(Outcome::Failed(failed).exit_code(), 77);
    assert_eq!(status["kms_request_id"], "r-2");
}

#[tokio::test]
async fn an_enclave_that_just_ends_is_a_transient_failure() {
    let (failed, _) = refused(Script::Ends).await;
    assert_eq!(failed.reason, Reason::EnclaveExited);
    assert!(failed.message.contains("for a test"), "{failed}");
    assert_eq!(Outcome::Failed(failed).exit_code(), 75);
}

#[tokio::test]
async fn an_image_with_another_measurement_is_never_launched() {
    let mut setting = setting(Script::Honest);
    setting.config.enclave.pcr0 = attestation::Pcr::measure(&[b"another"]);
    let (failed, status) = start(setting).failed().await;
    assert_eq!(failed.reason, Reason::MeasurementMismatch);
    assert!(failed.message.contains(&image().pcr0.to_string()), "{failed}");
    assert_eq!(states(&status), ["Fetching", "Measuring", "Failed"]);
}

#[tokio::test]
async fn a_corrupt_bundle_is_never_launched() {
    let mut setting = setting(Script::Honest);
    setting.config.bundle.sha256[0] ^= 1;
    let (failed, status) = start(setting).failed().await;
    assert_eq!(failed.reason.name(), "BundleCorrupt");
    assert_eq!(states(&status), ["Fetching", "Failed"]);
}

#[tokio::test]
async fn a_document_of_another_image_closes_the_case_before_ingress_opens() {
    let (failed, _) = refused(Script::OtherImage).await;
    assert_eq!(failed.reason, Reason::VerificationFailed);
    assert!(failed.message.contains("PCR0"), "{failed}");
}

#[tokio::test]
async fn a_document_of_another_bundle_is_refused() {
    let (failed, _) = refused(Script::OtherBundle).await;
    assert_eq!(failed.reason, Reason::VerificationFailed);
    assert!(failed.message.contains("PCR16"), "{failed}");
}

#[tokio::test]
async fn a_certificate_that_was_not_reported_is_refused() {
    let (failed, _) = refused(Script::OtherCertificate).await;
    assert_eq!(failed.reason, Reason::VerificationFailed);
    assert!(failed.message.contains("SPKI"), "{failed}");
}

#[tokio::test]
async fn documents_under_another_root_are_refused() {
    let setting = setting(Script::Honest);
    let other = TestAuthority::generate().unwrap();
    std::fs::write(setting.directory.path().join("root.pem"), other.root_pem()).unwrap();
    let (failed, _) = start(setting).failed().await;
    assert_eq!(failed.reason, Reason::VerificationFailed);
}

fn workload(script: Script) -> Setting {
    let mut setting = setting(script);
    setting.config.enclave.workload = true;
    setting
}

#[tokio::test]
async fn a_program_in_the_place_of_the_service_is_served_if_it_is_expected() {
    let running = start(workload(Script::Workload));
    let status = running.until("Serving").await;
    assert_eq!(status["pcrs"]["0"], image().pcr0.to_string());
    assert_eq!(status["spki_sha256"], Value::Null);
    assert!(status["attestation_document"].is_string(), "{status:#}");
    TcpStream::connect(status["ingress"].as_str().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_service_without_an_attested_key_is_refused_unless_it_is_expected() {
    let (failed, _) = refused(Script::Workload).await;
    assert_eq!(failed.reason, Reason::VerificationFailed);
    assert!(failed.message.contains("set `enclave.workload` to true"), "{failed}");

    let (failed, status) = start(workload(Script::Honest)).failed().await;
    assert_eq!(failed.reason, Reason::VerificationFailed);
    assert!(failed.message.contains("set `enclave.workload` to false"), "{failed}");
    assert!(!states(&status).contains(&"Serving"), "{status:#}");
}

#[tokio::test]
async fn a_program_that_nobody_reaches_is_not_served_but_may_be_tried_again() {
    let (failed, status) = start(workload(Script::DeafWorkload)).failed().await;
    assert_eq!(failed.reason, Reason::VerificationUnavailable);
    assert!(failed.message.contains("in the place of the signing service"), "{failed}");
    assert!(!states(&status).contains(&"Serving"), "{status:#}");
}

#[tokio::test]
async fn an_enclave_that_cannot_attest_is_not_served_but_may_be_tried_again() {
    let (failed, _) = refused(Script::CannotAttest).await;
    assert_eq!(failed.reason, Reason::VerificationUnavailable);
    assert!(failed.reason.is_transient());
    assert!(failed.message.contains("the NSM broke"), "{failed}");
}

#[tokio::test]
async fn an_enclave_that_never_becomes_ready_runs_out_of_time() {
    let mut setting = setting(Script::Hangs);
    setting.config.limits.boot_timeout_ms = 1_000;
    let (failed, status) = start(setting).failed().await;
    assert_eq!(failed.reason, Reason::Timeout);
    assert_eq!(states(&status).last(), Some(&"Failed"));
}

#[tokio::test]
async fn an_enclave_without_a_sign_of_life_is_given_up_before_the_boot_timeout() {
    let running = start(setting(Script::Silent));
    running.until("Launching").await;
    while running.status()["enclave_pid"].is_null() {
        sleep(Duration::from_millis(5)).await;
    }
    // From here on time passes as soon as nothing else happens.
    tokio::time::pause();
    let Outcome::Failed(failed) = running.task.await.unwrap().unwrap() else { panic!("it stopped") };
    assert_eq!(failed.reason, Reason::LaunchFailed);
    assert!(failed.message.contains("no heartbeat for 60 s"), "{failed}");
}

#[tokio::test]
async fn a_machine_that_cannot_be_made_is_a_failed_launch_and_its_console_log_is_named() {
    let Setting { directory, mut config, .. } = setting(Script::Honest);
    let mut machine = machine(directory.path());
    machine.qemu = shell("echo 'early console'; echo \"no such device\" >&2; exit 1");
    config.enclave.pcr0 = machine::image().measurements().pcr0;
    config.enclave.backend = config::Backend::Qemu(machine);
    let backend = backend::of(&config);
    let outcome = timeout(PATIENCE, run(config, backend, std::future::pending())).await.unwrap().unwrap();
    assert_eq!(outcome.exit_code(), 75);
    let status = status(directory.path());
    assert_eq!((&status["backend"], &status["reason"]), (&"qemu".into(), &"LaunchFailed".into()));
    let message = status["message"].as_str().unwrap();
    assert!(message.contains("no such device") && message.contains("early console"), "{message}");
    assert_eq!(status["qmp"], Value::Null);
    let log = std::fs::read_to_string(status["console_log"].as_str().unwrap()).unwrap();
    assert_eq!(log, "early console\n");
    assert!(!directory.path().join("run/vm").exists());
}

#[tokio::test]
async fn a_failure_while_serving_closes_ingress_and_is_named() {
    let running = start(setting(Script::FailsLater));
    let ingress = running.until("Serving").await["ingress"].as_str().unwrap().to_owned();
    running.now.notify_one();
    let (failed, _) = running.failed().await;
    assert_eq!(failed.reason.name(), "KmsDenied");
    assert!(TcpStream::connect(&ingress).await.is_err(), "ingress is still open");
}

#[tokio::test]
async fn an_end_while_serving_is_noticed() {
    let running = start(setting(Script::EndsLater));
    let ingress = running.until("Serving").await["ingress"].as_str().unwrap().to_owned();
    running.now.notify_one();
    let (failed, _) = running.failed().await;
    assert_eq!(failed.reason, Reason::EnclaveExited);
    assert!(TcpStream::connect(&ingress).await.is_err(), "ingress is still open");
}

#[tokio::test]
async fn an_ingress_address_in_use_fails_after_verification_and_ends_the_enclave() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut setting = setting(Script::Honest);
    setting.config.ingress.listen = taken.local_addr().unwrap();
    let (failed, _) = start(setting).failed().await;
    assert_eq!(failed.reason, Reason::SocketUnavailable);
}

#[tokio::test]
async fn told_to_stop_while_it_boots_it_stops_even_if_the_enclave_does_not_listen() {
    let mut setting = setting(Script::Hangs);
    setting.config.limits.session_deadline_ms = 100;
    let running = start(setting);
    running.until("Unsealing").await;
    running.stop.notify_one();
    let outcome = timeout(PATIENCE, running.task).await.unwrap().unwrap().unwrap();
    assert!(matches!(outcome, Outcome::Stopped));
    let status = status(running.directory.path());
    assert_eq!(states(&status)[3..], ["Unsealing", "Draining", "Stopped"]);
}

#[tokio::test]
async fn a_trust_root_that_is_no_certificate_is_an_invalid_configuration() {
    let setting = setting(Script::Honest);
    std::fs::write(setting.directory.path().join("root.pem"), "hello").unwrap();
    let (failed, _) = start(setting).failed().await;
    assert_eq!(failed.reason.name(), "ConfigurationInvalid");
}

#[tokio::test]
async fn an_unusable_runtime_directory_is_an_error_without_a_status() {
    let mut setting = setting(Script::Honest);
    setting.config.runtime_dir = "/proc/none".into();
    let ended = timeout(PATIENCE, start(setting).task).await.unwrap().unwrap();
    assert!(ended.unwrap_err().to_string().contains("/proc/none"));
}
