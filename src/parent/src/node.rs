use std::{future::Future, io, pin::pin, sync::Arc, time::Duration};

use api::{
    control::{BootEvent, Ready},
    ports,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::time::{Instant, timeout};
use vsock::{Bridge, Endpoint};

use crate::{
    Failed, Reason,
    bridges::{self, Way},
    config::Config,
    guest::{Guest, Progress},
    service_manager::{self, Watchdog},
    status::{Memory, State, StatusFile},
    verify::{Expected, Verified, verify},
};

/// How long an enclave that named its failure has to wipe and power off.
const FAILED_PATIENCE: Duration = Duration::from_secs(3);
/// How long a drained enclave has on top of its longest session.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// Not a step of the boot: the enclave warns that its memory runs out, at any time.
const MEMORY_LOW: &str = "memory_low";
/// How long to wait for the reason behind an enclave that does not answer.
const EXPLANATION: Duration = Duration::from_secs(1);

/// The enclave's signing service, as the enclave reported it.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    /// None for a workload, which has no key that a document could name.
    spki_sha256: Option<[u8; 32]>,
}

/// A living enclave, its ingress, and the status that tells of both.
pub(crate) struct Node {
    config: Arc<Config>,
    guest: Guest,
    expected: Expected,
    ingress: Option<Bridge>,
    status: StatusFile,
    watchdog: Watchdog,
}

impl Node {
    pub(crate) fn new(config: Arc<Config>, guest: Guest, expected: Expected, status: StatusFile) -> Self {
        let watchdog = Watchdog::from_environment();
        Self { config, guest, expected, ingress: None, status, watchdog }
    }

    /// Waits until the enclave has unsealed the shares and its service serves.
    pub(crate) async fn unseal(&mut self) -> Result<Service, Failed> {
        self.status.enter(State::Unsealing, |_| {});
        let started = Instant::now();
        let ready = loop {
            match self.next().await? {
                Progress::Ready(ready) => break ready,
                other => self.note(other).await?,
            }
        };
        let service = service(&ready, self.config.enclave.workload)?;
        self.status.update(|status| status.accounts = Some(ready.accounts));
        self.status.took("unseal", started.elapsed());
        Ok(service)
    }

    /// Verifies the enclave and the service as it is dialled on vsock.
    pub(crate) async fn verify_inside(&mut self, service: &Service) -> Result<(), Failed> {
        self.status.enter(State::Verifying, |_| {});
        let at = self.guest.peer().port(ports::SIGN);
        self.verify("verify", at, service).await.map(drop)
    }

    /// Opens ingress, where it was before if it was open before.
    pub(crate) async fn open_ingress(&mut self) -> Result<(), Failed> {
        let listen = match self.ingress.take() {
            Some(dead) => dead.local().clone(),
            None => self.config.ingress(),
        };
        let bridge = bridges::ingress(listen, &self.guest.peer()).await?;
        self.ingress = Some(bridge);
        Ok(())
    }

    /// Verifies the enclave and the service as clients reach it, and archives the document.
    pub(crate) async fn verify_through_ingress(&mut self, service: &Service) -> Result<(), Failed> {
        let Some(ingress) = &self.ingress else {
            return Err(Failed::new(Reason::VerificationUnavailable, "ingress is not open"));
        };
        let at = reachable(ingress.local());
        let verified = self.verify("verify_ingress", at, service).await?;
        match self.status.archive(&verified.cose) {
            Ok(path) => tracing::info!(path = %path.display(), "attestation document archived"),
            Err(error) => tracing::error!(%error, "cannot archive the attestation document"),
        }
        let pcrs = verified.document.pcrs.into_iter().filter(|(_, pcr)| !pcr.is_zero()).collect();
        self.status.update(|status| {
            status.pcrs = pcrs;
            status.spki_sha256 = service.spki_sha256.map(hex::encode);
            status.attestation_document = Some(STANDARD.encode(&verified.cose));
        });
        Ok(())
    }

    /// Records how long a step took that is not one of this type's.
    pub(crate) fn took(&mut self, step: &str, duration: Duration) {
        self.status.took(step, duration);
    }

    /// Everything is verified.
    pub(crate) fn serving(&mut self) {
        let address = self.ingress.as_ref().map(|bridge| address(bridge.local()));
        self.status.enter(State::Serving, |status| status.ingress = address);
    }

    /// Watches the enclave and the bridges, and pings the service manager's watchdog while it waits. A bridge that dies is
    /// opened again, and everything verified again; anything else that goes wrong is the end.
    pub(crate) async fn watch(&mut self, service: &Service) -> Failed {
        loop {
            if let Err(failed) = self.watch_once(service).await {
                return failed;
            }
        }
    }

    async fn watch_once(&mut self, service: &Service) -> Result<(), Failed> {
        let Self { guest, ingress, status, watchdog, .. } = self;
        let died = tokio::select! {
            progress = next(guest, status) => match progress? {
                Progress::BridgeDied(way, error) => {
                    self.reopen(way, &error).await?;
                    way.name()
                }
                other => return self.note(other).await,
            },
            () = watchdog.ping() => return Ok(()),
            error = bridges::died(ingress) => {
                tracing::error!(%error, "the ingress bridge died; opening it again");
                self.open_ingress().await?;
                "ingress"
            }
        };
        tracing::info!(bridge = died, "verifying again");
        self.verify_inside(service).await?;
        self.verify_through_ingress(service).await?;
        self.serving();
        Ok(())
    }

    /// Closes ingress, ends the enclave, and says why.
    pub(crate) async fn fail(mut self, failed: &Failed) {
        tracing::error!(reason = failed.reason.name(), why = failed.message, "failed");
        if let Some(ingress) = self.ingress.take() {
            ingress.stop().await;
        }
        let patience = match failed.reason {
            Reason::Enclave(_) => FAILED_PATIENCE,
            _ => Duration::ZERO,
        };
        self.watchdog.during(self.guest.end(patience)).await;
        self.status.fail(failed);
    }

    /// Tells the enclave to stop, lets its sessions end, and closes ingress.
    ///
    /// Ingress carries bytes until the enclave has ended: a client in the middle of a session keeps its connection, and
    /// the service itself refuses new sessions.
    pub(crate) async fn drain(mut self) {
        self.status.enter(State::Draining, |status| status.ingress = None);
        let longest_session = Duration::from_millis(self.config.limits.session_deadline_ms.into());
        let patience = longest_session + DRAIN_PATIENCE;
        service_manager::takes(patience);
        self.guest.requests().shut_down().await;
        self.watchdog.during(self.guest.end(patience)).await;
        if let Some(ingress) = self.ingress.take() {
            ingress.stop().await;
        }
        self.status.enter(State::Stopped, |_| {});
    }

    async fn verify(&mut self, step: &str, at: Endpoint, service: &Service) -> Result<Verified, Failed> {
        let started = Instant::now();
        let (requests, expected) = (self.guest.requests(), self.expected.clone());
        let spki_sha256 = service.spki_sha256;
        let work = async move { Ok(verify(&requests, &at, spki_sha256.as_ref(), &expected).await?) };
        let verified = self.meanwhile(Box::pin(work)).await?;
        self.status.took(step, started.elapsed());
        Ok(verified)
    }

    /// Does some work while the enclave is watched: its failure ends the work.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
        let mut work = pin!(work);
        loop {
            let Self { guest, status, watchdog, .. } = self;
            let progress = tokio::select! {
                done = &mut work => return match done {
                    Err(failed) if failed.reason == Reason::VerificationUnavailable => {
                        Err(self.explain(failed).await)
                    }
                    done => done,
                },
                progress = next(guest, status) => progress?,
                () = watchdog.ping() => continue,
            };
            self.note(progress).await?;
        }
    }

    /// An enclave that does not answer may be about to say why, which is the better reason.
    async fn explain(&mut self, failed: Failed) -> Failed {
        let explanation = async {
            loop {
                let noted = match self.next().await {
                    Ok(progress) => self.note(progress).await,
                    Err(reason) => Err(reason),
                };
                if let Err(reason) = noted {
                    return reason;
                }
            }
        };
        timeout(EXPLANATION, explanation).await.unwrap_or(failed)
    }

    async fn next(&mut self) -> Result<Progress, Failed> {
        next(&mut self.guest, &self.status).await
    }

    async fn note(&mut self, progress: Progress) -> Result<(), Failed> {
        match progress {
            Progress::Step(step) => self.note_step(&step),
            Progress::Ready(_) => tracing::warn!("the enclave reported twice that it is ready"),
            Progress::BridgeDied(way, error) => self.reopen(way, &error).await?,
        }
        Ok(())
    }

    async fn reopen(&mut self, way: Way, error: &io::Error) -> Result<(), Failed> {
        tracing::error!(bridge = way.name(), %error, "one of the enclave's bridges died; opening it again");
        self.guest.reopen(way).await
    }

    fn note_step(&mut self, step: &BootEvent) {
        let memory = memory(step);
        if let (MEMORY_LOW, Some(Memory { used_kib, total_kib, .. })) = (step.step.as_str(), memory) {
            tracing::warn!(
                used_kib,
                total_kib,
                "the enclave's memory is low; give it more, or fewer accounts"
            );
        } else {
            let details = serde_json::json!(step.details);
            let BootEvent { step: name, unix_ms, duration_us, .. } = step;
            tracing::info!(step = name, duration_us, unix_ms, %details, "a step of the enclave is done");
        }
        self.status.update(|status| {
            status.note(&step.details);
            status.memory = memory.or(status.memory);
            if step.step != MEMORY_LOW {
                status.timings_ms.insert(format!("enclave.{}", step.step), step.duration_us / 1000);
            }
        });
    }
}

/// What the enclave tells next. One whose memory is gone may end without another word: its warning is the explanation then.
async fn next(guest: &mut Guest, status: &StatusFile) -> Result<Progress, Failed> {
    guest.next().await.map_err(|failed| explained(failed, status.get().memory))
}

fn explained(mut failed: Failed, memory: Option<Memory>) -> Failed {
    if let (Reason::EnclaveExited, Some(Memory { used_kib, total_kib, is_low: true, .. })) =
        (failed.reason, memory)
    {
        let warning = format!(
            "; it had warned that its memory was low: {used_kib} of {total_kib} KiB in use; give it more"
        );
        failed.message.push_str(&warning);
    }
    failed
}

/// The figures, if the step reports them.
fn memory(step: &BootEvent) -> Option<Memory> {
    let kib = |name: &str| step.details.get(name)?.parse().ok();
    Some(Memory {
        used_kib: kib("memory_used_kib")?,
        total_kib: kib("memory_total_kib")?,
        is_low: step.step == MEMORY_LOW,
        unix_ms: step.unix_ms,
    })
}

fn service(ready: &Ready, is_workload: bool) -> Result<Service, Failed> {
    let refused = |message: String| Err(Failed::new(Reason::VerificationFailed, message));
    let digest = ready.spki_sha256.as_slice();
    match (is_workload, digest.len()) {
        (true, 0) => Ok(Service { spki_sha256: None }),
        (true, _) => refused(
            "the enclave's service has an attested TLS key, so it is no workload; set `enclave.workload` to false"
                .to_owned(),
        ),
        (false, 0) => refused(
            "the enclave's service has no TLS key that is attested; for an image with a program of its own in the place \
             of the signing service, set `enclave.workload` to true"
                .to_owned(),
        ),
        (false, length) => match digest.try_into() {
            Ok(digest) => Ok(Service { spki_sha256: Some(digest) }),
            Err(_) => refused(format!("the enclave reported an SPKI digest of {length} bytes, expected 32")),
        },
    }
}

/// Where to dial what listens at `listen`: every address of this machine includes the loopback.
fn reachable(listen: &Endpoint) -> Endpoint {
    match listen {
        Endpoint::Tcp { host, port } if host == "0.0.0.0" => {
            Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: *port }
        }
        Endpoint::Tcp { host, port } if host == "::" => Endpoint::Tcp { host: "::1".to_owned(), port: *port },
        other => other.clone(),
    }
}

/// `address:port`, as clients write it.
fn address(listen: &Endpoint) -> String {
    let text = listen.to_string();
    text.strip_prefix("tcp:").unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests;
