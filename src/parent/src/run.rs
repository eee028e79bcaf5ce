//! A run: from the ciphertexts to a verified enclave that serves, and to its end.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use api::control::FailureReason;
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use crate::{
    Ciphertexts, Credentials, Failed, Reason,
    backend::{Backend, Staged},
    ciphertexts,
    config::Config,
    control::Offer,
    exit,
    guest::Guest,
    node::Node,
    service_manager,
    stage::stage,
    status::{RuntimeDirError, State, StatusFile},
    verify::Expected,
};

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// It was told to.
    Stopped,
    /// For a reason.
    Failed(Failed),
}

impl Outcome {
    /// Exit code of the program.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Stopped => exit::STOPPED,
            Self::Failed(failed) => exit::of_reason(failed.reason),
        }
    }
}

/// Launches one enclave, opens ingress once it is verified, and watches it until `stop` is ready or something fails.
///
/// Whatever fails, the enclave is gone and ingress is closed when this returns, and `status.json` says why. Nothing is
/// launched a second time: [`exit::TRANSIENT`] tells the service manager that another run may help.
///
/// Call it on the runtime's main task: see [`crate::backend::Staged::launch`].
///
/// # Errors
/// If `runtime_dir` cannot be used: then there is no `status.json` to tell it in.
pub async fn run(
    config: Config,
    backend: Arc<dyn Backend>,
    stop: impl Future<Output = ()>,
) -> Result<Outcome, RuntimeDirError> {
    let mut status = StatusFile::create(&config.runtime_dir, backend.name())?;
    let config = Arc::new(config);
    service_manager::takes(config.boot_timeout());
    let started = Instant::now();
    let mut stop = pin!(stop);

    let launched = tokio::select! {
        launched = in_time(&config, started, launch(&config, backend, &mut status)) => launched,
        () = &mut stop => {
            status.enter(State::Stopped, |_| {});
            return Ok(Outcome::Stopped);
        }
    };
    let (guest, expected) = match launched {
        Ok(launched) => launched,
        Err(failed) => {
            tracing::error!(reason = failed.reason.name(), why = failed.message, "failed");
            status.fail(&failed);
            return Ok(Outcome::Failed(failed));
        }
    };
    let mut node = Node::new(Arc::clone(&config), guest, expected, status);
    let failed = tokio::select! {
        failed = serve(&config, started, &mut node) => Some(failed),
        () = &mut stop => None,
    };
    Ok(if let Some(failed) = failed {
        node.fail(&failed).await;
        Outcome::Failed(failed)
    } else {
        node.drain().await;
        Outcome::Stopped
    })
}

/// The steps up to an enclave that lives.
pub(crate) async fn launch(
    config: &Arc<Config>,
    backend: Arc<dyn Backend>,
    status: &mut StatusFile,
) -> Result<(Guest, Expected), Failed> {
    let started = Instant::now();
    let (ciphertexts, credentials) = fetch(Arc::clone(config)).await?;
    status.update(|status| status.bundle_sha256.ciphertext = Some(hex::encode(config.bundle.sha256)));
    status.took("fetch", started.elapsed());

    status.enter(State::Measuring, |_| {});
    let started = Instant::now();
    let (staged, expected) = measured(config, &backend, ciphertexts.bundle_sha384).await?;
    status.took("measure", started.elapsed());

    let console_log = backend.console_log().map(Into::into);
    status.enter(State::Launching, |status| status.console_log = console_log);
    let started = Instant::now();
    let offer = Offer { configuration: config.configuration(), ciphertexts, credentials };
    let mut guest = Guest::launch(Arc::clone(config), staged, offer).await?;
    status.update(|status| {
        status.enclave_pid = guest.pid();
        status.qmp = guest.qmp();
    });
    if let Err(failed) = guest.alive().await {
        guest.end(Duration::ZERO).await;
        return Err(failed);
    }
    status.took("launch", started.elapsed());
    Ok((guest, expected))
}

async fn fetch(config: Arc<Config>) -> Result<(Ciphertexts, Credentials), Failed> {
    blocking(Reason::CiphertextUnavailable, move || {
        Ok((ciphertexts::fetch(&config)?, Credentials::load(&config.kms.credentials_file)?))
    })
    .await
}

/// The image that is launched, and what the enclave's document has to say.
async fn measured(
    config: &Arc<Config>,
    backend: &Arc<dyn Backend>,
    bundle_sha384: [u8; 48],
) -> Result<(Box<dyn Staged>, Expected), Failed> {
    let (config, backend) = (Arc::clone(config), Arc::clone(backend));
    blocking(Reason::MeasurementMismatch, move || {
        let invalid = Reason::Enclave(FailureReason::ConfigurationInvalid);
        let root = config.trust_root().map_err(|error| Failed::new(invalid, error))?;
        let staged = stage(&*backend, &config.enclave.pcr0)?;
        let pcr0 = staged.measurements().pcr0;
        Ok((staged, Expected::new(root, pcr0, &config.configuration(), bundle_sha384)))
    })
    .await
}

/// Runs what blocks on another thread; `reason` is for the case that it panics.
async fn blocking<T: Send + 'static>(
    reason: Reason,
    work: impl FnOnce() -> Result<T, Failed> + Send + 'static,
) -> Result<T, Failed> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(Failed::new(reason, error)))
}

/// The steps from a living enclave to its end.
async fn serve(config: &Config, started: Instant, node: &mut Node) -> Failed {
    let boot = async {
        let service = node.unseal().await?;
        node.verify_inside(&service).await?;
        node.open_ingress().await?;
        node.verify_through_ingress(&service).await?;
        node.took("boot", started.elapsed());
        node.serving();
        Ok(service)
    };
    match in_time(config, started, boot).await {
        Ok(service) => node.watch(&service).await,
        Err(failed) => failed,
    }
}

async fn in_time<T>(
    config: &Config,
    started: Instant,
    work: impl Future<Output = Result<T, Failed>>,
) -> Result<T, Failed> {
    timeout_at(started + config.boot_timeout(), work).await.unwrap_or_else(|_| {
        let limit = config.limits.boot_timeout_ms;
        let message =
            format!("the enclave was not serving {limit} ms after the start (`limits.boot_timeout_ms`)");
        Err(Failed::new(Reason::Timeout, message))
    })
}

#[cfg(test)]
mod tests;
