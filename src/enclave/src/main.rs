//! PID 1 of the enclave: unseals the key shares, starts the signing service, and watches it.
//!
//! The boot is [`boot`], one function of named steps; what a step does is in the module it calls.

mod config;
mod download;
mod error;
#[cfg(test)]
mod fake_nsm;
#[cfg(test)]
mod fake_parent;
mod heartbeat;
mod journal;
mod key_file;
mod logging;
mod measure;
mod outbox;
mod parent;
mod pid1;
mod scrub;
mod service;
mod stop;
mod supervise;
mod unseal;
mod validate;
mod workload;

use std::{
    alloc::System,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use api::control::{FailureReason, Ready, enclave_message::Message};
use nix::sys::resource::{Resource, setrlimit};
use vsock::Peer;
use zeroizing_alloc::ZeroAlloc;

use crate::{
    config::{Config, Workload},
    download::{Boot, Downloads},
    error::{BootError, because},
    journal::Journal,
    outbox::{Outbox, Queue},
    parent::Parent,
    service::{Service, ServiceConfig, ServiceReady},
    stop::Stop,
    supervise::Serving,
};

/// Whatever is freed is overwritten, also by libraries that do not think of it.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    let began = pid1::uptime();
    let is_pid1 = pid1::is_this_process();
    let (outbox, queue) = outbox::outbox();
    logging::start(outbox.clone());
    let outcome = start(is_pid1, began, outbox, queue);
    if let Err(error) = &outcome {
        tracing::error!(%error, "the enclave stops");
    }
    if is_pid1 {
        // Does not return.
        pid1::end_machine();
    }
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn start(is_pid1: bool, began: Duration, outbox: Outbox, queue: Queue) -> Result<(), BootError> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)
        .map_err(because(FailureReason::Internal, "cannot forbid core dumps"))?;
    // This thread and one more, which goes on while this one calculates.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(because(FailureReason::Internal, "cannot start the async runtime"))?;
    // On this thread, which lives as long as the process: the service dies with the thread that starts it.
    let outcome = runtime.block_on(async {
        let journal = Journal::new(outbox.clone());
        let config = configure(is_pid1, began, &journal).await;
        run(is_pid1, config, &journal, outbox, queue).await
    });
    // Whatever still runs is not waited for: this may be a machine that nobody else can end.
    runtime.shutdown_background();
    outcome
}

/// Sets the machine up, if this is PID 1, and reads the configuration.
async fn configure(is_pid1: bool, began: Duration, journal: &Journal) -> Result<Config, BootError> {
    if !is_pid1 {
        let path = std::env::args_os().nth(1).map_or_else(|| config::DEFAULT_PATH.into(), PathBuf::from);
        return Config::load(&path);
    }
    journal.step("set_up", async |facts| pid1::set_up(began, facts)).await?;
    // Arguments come from the kernel, which passes on what it does not know on its own command line.
    let mut config = Config::load(Path::new(config::DEFAULT_PATH))?;
    config.parent = pid1::parent(&config.parent)?;
    Ok(config)
}

/// The enclave's life: meet the parent, boot, serve, and tell the parent why it ends.
async fn run(
    is_pid1: bool,
    config: Result<Config, BootError>,
    journal: &Journal,
    outbox: Outbox,
    queue: Queue,
) -> Result<(), BootError> {
    let peer = match &config {
        Ok(config) => config.parent.clone(),
        // A machine has a parent to tell, most likely where all have theirs. A process has whoever reads its output.
        Err(error) if is_pid1 => {
            tracing::error!(%error, "the enclave cannot boot");
            config::default_parent()
        }
        Err(_) => return config.map(drop),
    };
    journal
        .step("heartbeat", async |facts| {
            heartbeat::beat(&peer).await?;
            if is_pid1 {
                pid1::note(pid1::uptime(), facts);
            }
            Ok(())
        })
        .await?;
    let stop = Stop::on_sigterm().map_err(because(FailureReason::Internal, "cannot listen for SIGTERM"))?;
    let mut parent =
        journal.step("attach", async |_| Parent::attach(&peer, queue, stop.clone()).await).await?;

    let mut outcome = match &config {
        Ok(config) => boot_and_serve(is_pid1, config, journal, &mut parent, &outbox, &stop).await,
        Err(_) => config.map(drop),
    };
    if let Err(error) = &mut outcome {
        if is_pid1 {
            pid1::explain(error);
        }
        // A parent that is not there any more learns of it by the enclave's end.
        let _ = outbox.send(Message::Failure(error.to_failure()));
    }
    outbox.close();
    parent.flushed().await;
    outcome
}

async fn boot_and_serve(
    is_pid1: bool,
    config: &Config,
    journal: &Journal,
    parent: &mut Parent,
    outbox: &Outbox,
    stop: &Stop,
) -> Result<(), BootError> {
    if is_pid1 {
        pid1::keep_house(outbox)?;
    }
    // Dropping the boot half-way is safe: the key file and the service end with the values that stand for them.
    let serving = tokio::select! {
        biased;
        cause = stop.requested() => return cause.during_boot(),
        serving = boot(is_pid1, config, journal, outbox) => serving?,
    };
    supervise::supervise(serving, parent, outbox, stop).await
}

/// The boot, step by step. The first step that fails ends it, with its reason.
async fn boot(
    is_pid1: bool,
    config: &Config,
    journal: &Journal,
    outbox: &Outbox,
) -> Result<Serving, BootError> {
    let work_dir = journal.step("prepare", async |_| key_file::prepare_work_dir(&config.work_dir)).await?;
    let nsm = journal.step("open_nsm", async |_| measure::open_nsm(&config.nsm)).await?;
    if is_pid1 {
        // Until here nothing was random that has to be: the control channel is not secret.
        journal.step("seed_entropy", async |facts| pid1::entropy::seed(&*nsm, facts)).await?;
        journal.step("set_clock", async |facts| pid1::clock::set(&*nsm, facts)).await?;
    }
    journal.step("check_pcrs", async |facts| measure::refuse_debug_mode(&*nsm, facts)).await?;

    let mut downloads = journal.step("connect", async |_| Downloads::connect(&config.parent).await).await?;
    let Boot { configuration, configuration_bytes, identity_ciphertext, credentials, bundle_size } =
        journal.step("fetch_configuration", async |_| download::fetch_boot(&mut downloads).await).await?;
    let sealed = journal
        .step("fetch_bundle", async |facts| {
            if is_pid1 {
                pid1::memory::suffices_for(bundle_size, facts)?;
            }
            download::fetch_bundle(downloads, &configuration, bundle_size, &work_dir, facts).await
        })
        .await?;
    journal
        .step("measure", async |facts| measure::extend_and_lock(&*nsm, &configuration_bytes, &sealed, facts))
        .await?;
    let sealed_sha384 = sealed.sha384;

    let recipient = journal.step("attest", async |_| unseal::attest_recipient_key(&*nsm)).await?;
    let envelope = journal
        .step("decrypt", async |facts| {
            unseal::ask_kms(config, &configuration, credentials, &identity_ciphertext, &recipient, facts)
                .await
        })
        .await?;
    let plaintext = config.plaintext(&work_dir);
    let key_file = journal
        .step("unseal", async |facts| unseal::open_bundle(recipient, &envelope, sealed, &plaintext, facts))
        .await?;
    let accounts = journal
        .step("validate", async |facts| validate::check_bundle(&key_file, configuration.epoch, facts))
        .await?;

    let service_config = ServiceConfig {
        key_share_file: key_file.path().to_owned(),
        listen: config.parent.any().port(api::ports::SIGN),
        nsm: config.nsm.clone(),
        configuration: configuration_bytes,
        sealed_bundle_sha384: sealed_sha384,
        max_sessions: configuration.max_sessions,
        session_deadline_ms: configuration.session_deadline_ms,
    };
    let (service, ready) = journal
        .step("start_service", async |_| match &config.workload {
            None => start_service(config.sign_service(), &service_config, &work_dir, outbox).await,
            Some(workload) => start_workload(is_pid1, workload, &config.parent, accounts, outbox).await,
        })
        .await?;
    let keeps_key_file = config.workload.as_ref().is_some_and(|workload| workload.keep_key_file);
    let key_file = if keeps_key_file {
        Some(key_file)
    } else {
        journal.step("remove_key_file", async |_| key_file.destroy()).await?;
        None
    };
    if is_pid1 {
        journal.step("ready", async |facts| pid1::memory::note(facts)).await?;
    }

    let spki_sha256 = ready.spki_sha256.clone();
    outbox.send(Message::Ready(Ready { sealed_bundle_sha384: sealed_sha384.to_vec(), ..ready }))?;
    Ok(Serving { service, nsm, spki_sha256, _key_file: key_file })
}

/// The signing service, which says itself what it serves.
async fn start_service(
    program: &Path,
    config: &ServiceConfig,
    work_dir: &Path,
    outbox: &Outbox,
) -> Result<(Service, Ready), BootError> {
    let config_file = config.write(work_dir)?;
    let (service, ready) = Service::start(program, &config_file, outbox.clone()).await?;
    let ServiceReady { spki_sha256, accounts, loaded_at_unix_ms, .. } = ready;
    let spki_sha256 = spki_sha256.to_vec();
    Ok((service, Ready { spki_sha256, accounts, loaded_at_unix_ms, ..Ready::default() }))
}

/// A program in its place, which has no key that could be attested.
async fn start_workload(
    is_pid1: bool,
    workload: &Workload,
    parent: &Peer,
    accounts: u64,
    outbox: &Outbox,
) -> Result<(Service, Ready), BootError> {
    if is_pid1 {
        pid1::loopback::up()
            .map_err(because(FailureReason::Internal, "cannot bring the loopback interface up"))?;
    }
    let service = workload::start(workload, parent, outbox.clone()).await?;
    Ok((service, Ready { accounts, loaded_at_unix_ms: journal::unix_milliseconds(), ..Ready::default() }))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
    };

    use super::*;
    use crate::fake_parent::{FakeParent, Serving as ServingParent};

    async fn run_process(config: Result<Config, BootError>) -> Result<(), BootError> {
        let (outbox, queue) = outbox::outbox();
        run(false, config, &Journal::new(outbox.clone()), outbox, queue).await
    }

    /// Runs the whole enclave against a fake parent that answers the heartbeat.
    async fn life(fake: &ServingParent, nsm: &str) -> Result<(), BootError> {
        let listener = UnixListener::bind(fake.sockets().of_port(api::ports::HEARTBEAT)).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let beat = stream.read_u8().await.unwrap();
            stream.write_all(&[beat]).await.unwrap();
        });
        let work_dir = tempfile::tempdir().unwrap();
        let mut config = Config::of_process(fake.peer());
        config.nsm = nsm.to_owned();
        config.work_dir = work_dir.path().join("work");
        run_process(Ok(config)).await
    }

    #[tokio::test]
    async fn a_boot_that_fails_reports_its_steps_and_then_its_reason_before_the_enclave_ends() {
        let fake = FakeParent::default().serve();
        let error = life(&fake, "no such module").await.unwrap_err();
        assert_eq!(error.reason, FailureReason::NsmFailed);

        let received = fake.received();
        let steps: Vec<_> = received
            .iter()
            .filter_map(|message| match message {
                Message::Event(event) => Some(event.step.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(steps, ["heartbeat", "attach", "prepare"]);
        let Some(Message::Failure(failure)) = received.last() else {
            panic!("the last message is not the failure: {received:?}")
        };
        assert_eq!(failure.reason(), FailureReason::NsmFailed);
        assert_eq!(failure.step, "open_nsm");
        assert!(failure.message.contains("no such module"), "{}", failure.message);
    }

    #[tokio::test]
    async fn a_process_without_a_configuration_ends_before_it_has_a_parent() {
        let error = run_process(Config::load(Path::new("/nonexistent"))).await.unwrap_err();
        assert_eq!((error.reason, error.step), (FailureReason::ConfigurationInvalid, "boot"));
    }

    #[tokio::test]
    async fn without_a_parent_the_enclave_ends_at_the_heartbeat() {
        let config = Config::of_process(crate::fake_parent::Sockets::new().peer());
        let error = run_process(Ok(config)).await.unwrap_err();
        assert_eq!((error.reason, error.step), (FailureReason::ParentUnreachable, "heartbeat"));
    }
}
