//! `status.json`: what the parent tells about itself, rewritten whole at each change.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use attestation::Pcr;
use serde::Serialize;

use crate::{Failed, service_manager};

/// Where a run is. `Serving` goes back to `Verifying` while a bridge is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum State {
    /// Ciphertexts are read into memory.
    Fetching,
    /// The image is measured and compared with the pinned PCR0.
    Measuring,
    /// Listeners are bound, the enclave is started.
    Launching,
    /// The enclave unseals the key shares and starts the signing service.
    Unsealing,
    /// The enclave's attestation document and certificate are verified.
    Verifying,
    /// Ingress is open.
    Serving,
    /// Sessions may end; no new ones.
    Draining,
    /// Ended because it was told to.
    Stopped,
    /// Ended for the `reason` given.
    Failed,
}

/// SHA-256 digests of the bundle, lower-case hex.
#[derive(Debug, Clone, Default, Serialize)]
pub struct BundleDigests {
    /// Of the sealed bundle, as the parent computed it.
    pub ciphertext: Option<String>,
    /// Of the plaintext, as the enclave reported it.
    pub plaintext: Option<String>,
}

/// Memory of the enclave, as it reported it last: when it began to serve, or when little was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// What is in use and cannot be freed at once, KiB.
    pub used_kib: u64,
    /// All that the enclave's kernel can give out, KiB.
    pub total_kib: u64,
    /// The enclave warned that little is left.
    pub is_low: bool,
    /// When it reported, Unix time by the enclave's clock, milliseconds.
    pub unix_ms: u64,
}

/// When a state was entered.
#[derive(Debug, Clone, Serialize)]
pub struct Entered {
    /// The state.
    pub state: State,
    /// Unix time, milliseconds.
    pub unix_ms: u64,
}

/// The content of `status.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Where the run is.
    pub state: State,
    /// Name of the reason of a failure ([`crate::Reason::name`]).
    pub reason: Option<&'static str>,
    /// What to tell people about the failure.
    pub message: Option<String>,
    /// Process id of the parent.
    pub pid: u32,
    /// How the enclave is launched, as in the configuration.
    pub backend: &'static str,
    /// Process id of the enclave's first program, or of the machine it is in, of backends that have one. Stays when the
    /// enclave has ended.
    pub enclave_pid: Option<u32>,
    /// File with what the console of the last launch printed, of backends that keep one.
    pub console_log: Option<PathBuf>,
    /// Socket of the machine's monitor (QMP), of backends that have one; only while it runs.
    pub qmp: Option<PathBuf>,
    /// The registers of the verified document that are not zero, by index.
    pub pcrs: BTreeMap<u16, Pcr>,
    /// Request id of the KMS call that released, or denied, the age identity.
    pub kms_request_id: Option<String>,
    /// Digests of the bundle.
    pub bundle_sha256: BundleDigests,
    /// SHA-256 of the SubjectPublicKeyInfo of the service's verified certificate, hex.
    pub spki_sha256: Option<String>,
    /// The attestation document that was verified last, Base64 of the COSE_Sign1.
    pub attestation_document: Option<String>,
    /// Where clients connect, `address:port`; only while ingress is open.
    pub ingress: Option<String>,
    /// Milliseconds of each step. Steps of the enclave begin with `enclave.`.
    pub timings_ms: BTreeMap<String, u64>,
    /// Number of accounts the service holds shares of.
    pub accounts: Option<u64>,
    /// Memory of the enclave, of enclaves that are machines.
    pub memory: Option<Memory>,
    /// Every state entered, in order.
    pub history: Vec<Entered>,
}

/// The runtime directory is not usable.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeDirError {
    /// It, or its lock, cannot be made.
    #[error("`runtime_dir` {}: {source}; make it writable for this user, or choose another", directory.display())]
    Unusable {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another parent runs there.
    #[error("`runtime_dir` {} is in use by another parent; stop it, or choose another", directory.display())]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
}

/// Attestation documents that are kept: the runtime directory may be in memory, and stays over restarts.
const DOCUMENTS: usize = 16;
/// States in `history`: those of some ten verifications.
const HISTORY: usize = 64;

/// Keeps `status.json`, and the runtime directory locked for this process.
#[derive(Debug)]
pub struct StatusFile {
    directory: PathBuf,
    status: Status,
    _lock: File,
}

impl StatusFile {
    /// Makes the directory (0700) if missing, locks it, and writes the first status: `Fetching`.
    pub fn create(directory: &Path, backend: &'static str) -> Result<Self, RuntimeDirError> {
        let unusable = |source| RuntimeDirError::Unusable { directory: directory.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unusable)?;
        let lock = private().open(directory.join("lock")).map_err(unusable)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => RuntimeDirError::InUse { directory: directory.to_owned() },
            TryLockError::Error(source) => unusable(source),
        })?;
        let file = Self { directory: directory.to_owned(), status: Status::new(backend), _lock: lock };
        file.write().map_err(unusable)?;
        service_manager::entered(&file.status);
        Ok(file)
    }

    /// The status as it was written last.
    pub fn get(&self) -> &Status {
        &self.status
    }

    /// Changes the status and rewrites the file.
    pub fn update(&mut self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status);
        if let Err(error) = self.write() {
            // The enclave is worth more than the file that describes it.
            tracing::error!(%error, directory = %self.directory.display(), "cannot write status.json");
        }
    }

    /// Enters a state, together with whatever else changes at that moment, and tells the service manager.
    pub fn enter(&mut self, state: State, change: impl FnOnce(&mut Status)) {
        tracing::info!(?state, "state");
        self.update(|status| {
            change(status);
            status.state = state;
            if matches!(state, State::Stopped | State::Failed) {
                status.qmp = None;
            }
            let too_many = (status.history.len() + 1).saturating_sub(HISTORY);
            status.history.drain(..too_many);
            status.history.push(Entered { state, unix_ms: unix_ms(SystemTime::now()) });
        });
        service_manager::entered(&self.status);
    }

    /// Enters `Failed`. Ingress has to be closed before.
    pub fn fail(&mut self, failed: &Failed) {
        self.enter(State::Failed, |status| {
            status.reason = Some(failed.reason.name());
            status.message = Some(failed.message.clone());
            status.ingress = None;
            status.note(&failed.details);
        });
    }

    /// Records how long a step took.
    pub fn took(&mut self, step: impl Into<String>, duration: Duration) {
        let step = step.into();
        let milliseconds = milliseconds(duration);
        tracing::info!(step, milliseconds, "done");
        self.update(|status| {
            status.timings_ms.insert(step, milliseconds);
        });
    }

    /// Keeps an attestation document beside the status, and returns its path. Of the documents there, runs before this one
    /// included, the newest [`DOCUMENTS`] stay.
    pub fn archive(&self, document: &[u8]) -> io::Result<PathBuf> {
        let mut documents = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if let Some(time) = archived_at(&path) {
                documents.push((time, path));
            }
        }
        documents.sort();
        let too_many = (documents.len() + 1).saturating_sub(DOCUMENTS);
        for (_, old) in &documents[..too_many] {
            fs::remove_file(old)?;
        }
        let path = self.directory.join(format!("attestation-{}.cose", unix_ms(SystemTime::now())));
        private().open(&path)?.write_all(document)?;
        Ok(path)
    }

    fn write(&self) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(&self.status)?;
        text.push(b'\n');
        let new = self.directory.join("status.json.new");
        private().open(&new)?.write_all(&text)?;
        fs::rename(new, self.directory.join("status.json"))
    }
}

impl Status {
    fn new(backend: &'static str) -> Self {
        let entered = Entered { state: State::Fetching, unix_ms: unix_ms(SystemTime::now()) };
        Self {
            state: State::Fetching,
            reason: None,
            message: None,
            pid: std::process::id(),
            backend,
            enclave_pid: None,
            console_log: None,
            qmp: None,
            pcrs: BTreeMap::new(),
            kms_request_id: None,
            bundle_sha256: BundleDigests::default(),
            spki_sha256: None,
            attestation_document: None,
            ingress: None,
            timings_ms: BTreeMap::new(),
            accounts: None,
            memory: None,
            history: vec![entered],
        }
    }

    /// Takes over the facts that the enclave reports with its events and its failure.
    pub fn note(&mut self, details: &std::collections::HashMap<String, String>) {
        let text = |key: &str| details.get(key).map(|value| telemetry::redact(value).to_string());
        if let Some(id) = text("kms_request_id") {
            self.kms_request_id = Some(id);
        }
        if let Some(digest) = text("bundle_sha256_plaintext") {
            self.bundle_sha256.plaintext = Some(digest);
        }
    }
}

/// When the document in this file was archived, Unix time in milliseconds; `None` if it is another file.
fn archived_at(file: &Path) -> Option<u64> {
    file.file_name()?.to_str()?.strip_prefix("attestation-")?.strip_suffix(".cose")?.parse().ok()
}

/// A file for this user only, emptied if it exists.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
}

fn unix_ms(time: SystemTime) -> u64 {
    milliseconds(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use api::control::FailureReason;

    use super::*;
    use crate::Reason;

    fn read(directory: &Path) -> serde_json::Value {
        serde_json::from_slice(&fs::read(directory.join("status.json")).unwrap()).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_oldest_documents_make_room_and_nothing_else_does() {
        let directory = tempfile::tempdir().unwrap();
        let file = StatusFile::create(directory.path(), "process").unwrap();
        // 9 is older than 10, whatever their names' order.
        for time in 9..40 {
            fs::write(directory.path().join(format!("attestation-{time}.cose")), "old").unwrap();
        }
        fs::write(directory.path().join("attestation-notes.txt"), "mine").unwrap();
        let new = file.archive(b"new").unwrap();
        let mut times: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .filter_map(|entry| archived_at(&entry.unwrap().path()))
            .collect();
        times.sort_unstable();
        assert_eq!(times.pop(), archived_at(&new));
        assert_eq!(times, (25..40).collect::<Vec<_>>());
        assert!(directory.path().join("attestation-notes.txt").exists());
        assert_eq!(fs::read(new).unwrap(), b"new");
    }

    #[test]
    fn of_many_states_the_last_ones_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = StatusFile::create(directory.path(), "process").unwrap();
        for _ in 0..HISTORY {
            file.enter(State::Verifying, |_| {});
        }
        file.enter(State::Serving, |_| {});
        let history = &file.get().history;
        assert_eq!(history.len(), HISTORY);
        assert_eq!(history.last().unwrap().state, State::Serving);
        assert_eq!(history[0].state, State::Verifying);
    }

    #[test]
    fn directory_and_file_are_private_and_hold_the_first_state() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/run");
        let _file = StatusFile::create(&directory, "process").unwrap();
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join("status.json")), 0o600);
        let status = read(&directory);
        assert_eq!(status["state"], "Fetching");
        assert_eq!(status["reason"], serde_json::Value::Null);
        assert_eq!(status["history"][0]["state"], "Fetching");
        assert_eq!(status["pid"], std::process::id());
        assert_eq!(status["backend"], "process");
    }

    #[test]
    fn every_state_is_in_the_history() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = StatusFile::create(directory.path(), "process").unwrap();
        file.enter(State::Serving, |status| status.ingress = Some("127.0.0.1:1".to_owned()));
        file.enter(State::Verifying, |_| {});
        let status = read(directory.path());
        let history: Vec<_> = status["history"].as_array().unwrap().iter().map(|e| &e["state"]).collect();
        assert_eq!(history, ["Fetching", "Serving", "Verifying"]);
        assert_eq!(status["ingress"], "127.0.0.1:1");
    }

    #[test]
    fn a_failure_names_reason_message_and_request_and_closes_ingress() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = StatusFile::create(directory.path(), "process").unwrap();
        file.update(|status| status.ingress = Some("127.0.0.1:1".to_owned()));
        let mut failed = Failed::new(Reason::Enclave(FailureReason::KmsDenied), "no");
        failed.details.insert("kms_request_id".to_owned(), "r-1".to_owned());
        file.fail(&failed);
        let status = read(directory.path());
        assert_eq!(status["state"], "Failed");
        assert_eq!(status["reason"], "KmsDenied");
        assert_eq!(status["message"], "no");
        assert_eq!(status["kms_request_id"], "r-1");
        assert_eq!(status["ingress"], serde_json::Value::Null);
    }

    #[test]
    fn the_monitor_is_named_only_while_the_machine_runs_and_the_console_log_for_longer() {
        for end in [State::Stopped, State::Failed] {
            let directory = tempfile::tempdir().unwrap();
            let mut file = StatusFile::create(directory.path(), "qemu").unwrap();
            file.enter(State::Launching, |status| status.console_log = Some("/run/console.log".into()));
            file.update(|status| status.qmp = Some("/run/vm/qmp.sock".into()));
            file.enter(State::Draining, |_| {});
            assert_eq!(read(directory.path())["qmp"], "/run/vm/qmp.sock");
            file.enter(end, |_| {});
            assert_eq!(read(directory.path())["qmp"], serde_json::Value::Null);
            assert_eq!(read(directory.path())["console_log"], "/run/console.log");
        }
    }

    #[test]
    fn a_second_parent_in_the_same_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let first = StatusFile::create(directory.path(), "process").unwrap();
        let message = StatusFile::create(directory.path(), "process").unwrap_err().to_string();
        assert!(message.contains("another parent"), "{message}");
        drop(first);
        StatusFile::create(directory.path(), "process").unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let message = StatusFile::create(Path::new("/proc/none/run"), "process").unwrap_err().to_string();
        assert!(message.contains("/proc/none/run"), "{message}");
    }

    #[test]
    fn registers_are_written_by_index_in_hex() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = StatusFile::create(directory.path(), "process").unwrap();
        file.update(|status| {
            status.pcrs.insert(16, Pcr::of_digests(&[[1; 48]]));
        });
        let written = read(directory.path())["pcrs"]["16"].as_str().unwrap().to_owned();
        assert_eq!(written, Pcr::of_digests(&[[1; 48]]).to_string());
    }

    #[test]
    fn an_archived_document_is_private_and_whole() {
        let directory = tempfile::tempdir().unwrap();
        let file = StatusFile::create(directory.path(), "process").unwrap();
        let path = file.archive(b"document").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"document");
        assert_eq!(mode(&path), 0o600);
    }
}
