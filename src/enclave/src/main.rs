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
mod scrub;
mod service;
mod stop;
mod supervise;
mod unseal;
mod validate;

use std::{alloc::System, path::PathBuf, process::ExitCode};

use api::control::{FailureReason, Ready, enclave_message::Message};
use nix::sys::resource::{Resource, setrlimit};
use zeroizing_alloc::ZeroAlloc;

use crate::{
    config::Config,
    download::{Boot, Downloads},
    error::{BootError, because},
    journal::Journal,
    outbox::{Outbox, Queue},
    parent::Parent,
    service::{Service, ServiceConfig},
    stop::Stop,
    supervise::Serving,
};

/// Whatever is freed is overwritten, also by libraries that do not think of it.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    let (outbox, queue) = outbox::outbox();
    logging::start(outbox.clone());
    match start(outbox, queue) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the enclave stops");
            ExitCode::FAILURE
        }
    }
}

fn start(outbox: Outbox, queue: Queue) -> Result<(), BootError> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)
        .map_err(because(FailureReason::Internal, "cannot forbid core dumps"))?;
    let path = std::env::args_os().nth(1).map_or_else(|| config::DEFAULT_PATH.into(), PathBuf::from);
    let config = Config::load(&path)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(because(FailureReason::Internal, "cannot start the async runtime"))?;
    // On this thread, which lives as long as the process: the service dies with the thread that starts it.
    runtime.block_on(run(&config, outbox, queue))
}

/// The enclave's life: meet the parent, boot, serve, and tell the parent why it ends.
async fn run(config: &Config, outbox: Outbox, queue: Queue) -> Result<(), BootError> {
    let stop = Stop::on_sigterm().map_err(because(FailureReason::Internal, "cannot listen for SIGTERM"))?;
    let journal = Journal::new(outbox.clone());
    journal.step("heartbeat", async |_| heartbeat::beat(&config.parent).await).await?;
    let mut parent =
        journal.step("attach", async |_| Parent::attach(&config.parent, queue, stop.clone()).await).await?;

    let outcome = boot_and_serve(config, &journal, &mut parent, &outbox, &stop).await;
    if let Err(error) = &outcome {
        // A parent that is not there any more learns of it by the enclave's end.
        let _ = outbox.send(Message::Failure(error.to_failure()));
    }
    outbox.close();
    parent.flushed().await;
    outcome
}

async fn boot_and_serve(
    config: &Config,
    journal: &Journal,
    parent: &mut Parent,
    outbox: &Outbox,
    stop: &Stop,
) -> Result<(), BootError> {
    // Dropping the boot half-way is safe: the key file and the service end with the values that stand for them.
    let serving = tokio::select! {
        biased;
        cause = stop.requested() => return cause.during_boot(),
        serving = boot(config, journal, outbox) => serving?,
    };
    supervise::supervise(serving, parent, outbox, stop).await
}

/// The boot, step by step. The first step that fails ends it, with its reason.
async fn boot(config: &Config, journal: &Journal, outbox: &Outbox) -> Result<Serving, BootError> {
    let work_dir = journal.step("prepare", async |_| key_file::prepare_work_dir(&config.work_dir)).await?;
    let nsm = journal.step("open_nsm", async |_| measure::open_nsm(&config.nsm)).await?;
    journal.step("check_pcrs", async |facts| measure::refuse_debug_mode(&*nsm, facts)).await?;

    let mut downloads = journal.step("connect", async |_| Downloads::connect(&config.parent).await).await?;
    let Boot { configuration, configuration_bytes, identity_ciphertext, credentials, bundle_size } =
        journal.step("fetch_configuration", async |_| download::fetch_boot(&mut downloads).await).await?;
    let sealed = journal
        .step("fetch_bundle", async |facts| {
            download::fetch_bundle(downloads, &configuration, bundle_size, &work_dir, facts).await
        })
        .await?;
    journal
        .step("measure", async |facts| measure::extend_and_lock(&*nsm, &configuration_bytes, &sealed, facts))
        .await?;
    let sealed_bundle_sha384 = sealed.sha384;

    let recipient = journal.step("attest", async |_| unseal::attest_recipient_key(&*nsm)).await?;
    let envelope = journal
        .step("decrypt", async |facts| {
            unseal::ask_kms(config, &configuration, credentials, &identity_ciphertext, &recipient, facts)
                .await
        })
        .await?;
    let key_file = journal
        .step("unseal", async |facts| unseal::open_bundle(recipient, &envelope, sealed, &work_dir, facts))
        .await?;
    journal
        .step("validate", async |facts| validate::check_bundle(&key_file, configuration.epoch, facts))
        .await?;

    let service_config = ServiceConfig {
        key_share_file: key_file.path().to_owned(),
        listen: config.parent.any().port(api::ports::SIGN),
        nsm: config.nsm.clone(),
        configuration: configuration_bytes,
        sealed_bundle_sha384,
        max_sessions: configuration.max_sessions,
        session_deadline_ms: configuration.session_deadline_ms,
    };
    let (service, ready) = journal
        .step("start_service", async |_| {
            let config_file = service_config.write(&work_dir)?;
            Service::start(&config.sign_service, &config_file, outbox.clone()).await
        })
        .await?;
    journal.step("remove_key_file", async |_| key_file.destroy()).await?;

    outbox.send(Message::Ready(Ready {
        spki_sha256: ready.spki_sha256.to_vec(),
        accounts: ready.accounts,
        loaded_at_unix_ms: ready.loaded_at_unix_ms,
        sealed_bundle_sha384: sealed_bundle_sha384.to_vec(),
    }))?;
    Ok(Serving { service, nsm, spki_sha256: ready.spki_sha256 })
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
    };

    use super::*;
    use crate::fake_parent::{FakeParent, Serving as ServingParent};

    /// Runs the whole enclave against a fake parent that answers the heartbeat.
    async fn life(fake: &ServingParent, nsm: &str) -> Result<(), BootError> {
        let listener = UnixListener::bind(fake.sockets().of_port(api::ports::HEARTBEAT)).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let beat = stream.read_u8().await.unwrap();
            stream.write_all(&[beat]).await.unwrap();
        });
        let work_dir = tempfile::tempdir().unwrap();
        let config = Config {
            parent: fake.peer(),
            nsm: nsm.to_owned(),
            sign_service: "/nonexistent".into(),
            work_dir: work_dir.path().join("work"),
            kms_roots_pem: None,
        };
        let (outbox, queue) = outbox::outbox();
        run(&config, outbox, queue).await
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
    async fn without_a_parent_the_enclave_ends_at_the_heartbeat() {
        let config = Config {
            parent: crate::fake_parent::Sockets::new().peer(),
            nsm: "device".to_owned(),
            sign_service: "/nonexistent".into(),
            work_dir: "/nonexistent".into(),
            kms_roots_pem: None,
        };
        let (outbox, queue) = outbox::outbox();
        let error = run(&config, outbox, queue).await.unwrap_err();
        assert_eq!((error.reason, error.step), (FailureReason::ParentUnreachable, "heartbeat"));
    }
}
