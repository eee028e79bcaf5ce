use std::{io, path::PathBuf, sync::Arc, time::Duration};

use api::{
    control::{BootEvent, Failure, Ready},
    ports,
};
use tokio::time::{sleep, timeout};
use vsock::Peer;

use crate::{
    Failed, Reason,
    backend::{BackendError, Launched, Staged},
    bridges::{Egress, Way},
    config::Config,
    control::{Control, Event, Offer, Requests},
    heartbeat::Heartbeat,
    host::Host,
};

/// How long to wait for the rest of a story: the failure message after an exit, the exit after the stream's end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long an enclave's first sign of life may take: 2 s on an idle machine, and far more on a loaded one that emulates.
const FIRST_SIGN: Duration = Duration::from_mins(1);

/// How long an enclave may take to end when it is killed. The hypervisor gives its memory back, which takes seconds.
const KILL: Duration = Duration::from_secs(30);

/// A launched enclave and everything that serves it from outside. Dropping it kills the enclave and closes all.
pub(crate) struct Guest {
    // Dropped first: nobody is left to be served then.
    launched: Box<dyn Launched>,
    control: Control,
    heartbeat: Heartbeat,
    egress: Egress,
    /// Set when the stream from the enclave has ended: how.
    detached: Option<String>,
    host: Host,
    config: Arc<Config>,
}

/// What a living enclave tells.
#[derive(Debug)]
pub(crate) enum Progress {
    Step(BootEvent),
    Ready(Ready),
    /// Not from the enclave: one of its ways out is closed, see [`Guest::reopen`].
    BridgeDied(Way, io::Error),
}

impl Guest {
    /// Binds everything that the enclave dials, then launches it.
    pub(crate) async fn launch(
        config: Arc<Config>,
        staged: Box<dyn Staged>,
        offer: Offer,
    ) -> Result<Self, Failed> {
        let host = Host::of(&*staged);
        let heartbeat = Heartbeat::start(host.listen(ports::HEARTBEAT).await?);
        let control = Control::start(host.listen(ports::CONTROL).await?, offer);
        let egress = Egress::open(&config, &host).await?;
        let failed = |error: BackendError| Failed::new(error.reason(), error);
        let launched = staged.launch().await.map_err(failed)?;
        tracing::info!(pid = launched.pid(), "the enclave is started");
        Ok(Self { launched, control, heartbeat, egress, detached: None, host, config })
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.launched.pid()
    }

    pub(crate) fn qmp(&self) -> Option<PathBuf> {
        self.launched.qmp()
    }

    /// Where the host dials the enclave.
    pub(crate) fn peer(&self) -> Peer {
        self.launched.peer()
    }

    pub(crate) fn requests(&self) -> Requests {
        self.control.requests()
    }

    /// Returns with the enclave's first sign of life, or with the reason why there will be none.
    pub(crate) async fn alive(&mut self) -> Result<(), Failed> {
        tokio::select! {
            () = self.heartbeat.seen() => Ok(()),
            exit = self.launched.exited() => Err(last_words(&mut self.control, exit).await),
            () = sleep(FIRST_SIGN) => Err(silent()),
        }
    }

    /// What the enclave tells next, or the failure that it ended in. May be cancelled.
    pub(crate) async fn next(&mut self) -> Result<Progress, Failed> {
        loop {
            if let Some(how) = self.detached.clone() {
                return Err(self.after_detaching(how).await);
            }
            let event = tokio::select! {
                biased;
                event = self.control.next() => event,
                exit = self.launched.exited() => return Err(last_words(&mut self.control, exit).await),
                (way, error) = self.egress.died() => return Ok(Progress::BridgeDied(way, error)),
            };
            match event {
                Some(Event::Attached) => tracing::info!("the enclave is attached"),
                Some(Event::Step(step)) => return Ok(Progress::Step(step)),
                Some(Event::Ready(ready)) => return Ok(Progress::Ready(ready)),
                Some(Event::Failure(failure)) => return Err(reported(failure)),
                Some(Event::Detached(how)) => self.detached = Some(how),
                None => {
                    return Err(Failed::new(Reason::ControlLost, "the control server ended; see the log"));
                }
            }
        }
    }

    /// The stream ended: because the enclave did?
    async fn after_detaching(&mut self, how: String) -> Failed {
        if let Ok(exit) = timeout(LAST_WORDS, self.launched.exited()).await {
            return Failed::new(Reason::EnclaveExited, exit);
        }
        Failed::new(Reason::ControlLost, format!("the control channel ended, but the enclave runs on: {how}"))
    }

    /// Opens one of the enclave's ways out again.
    pub(crate) async fn reopen(&mut self, way: Way) -> Result<(), Failed> {
        self.egress.reopen(way, &self.config, &self.host).await
    }

    /// Ends the enclave and closes everything that served it; returns when that is done, or when [`KILL`] is over. The
    /// enclave has `patience` to end by itself, and is killed then.
    pub(crate) async fn end(mut self, patience: Duration) {
        if !patience.is_zero() && timeout(patience, self.run_out()).await.is_err() {
            tracing::warn!("the enclave did not end by itself; killing it");
        }
        let end = async {
            self.launched.kill().await;
            self.egress.stop().await;
        };
        if timeout(KILL, end).await.is_err() {
            tracing::error!("the enclave was killed, and has not ended {} s later", KILL.as_secs());
        }
    }

    /// Waits for the enclave's end while what it still says is read.
    async fn run_out(&mut self) {
        let read = async {
            while self.control.next().await.is_some() {}
            std::future::pending::<()>().await;
        };
        tokio::select! {
            exit = self.launched.exited() => tracing::info!(exit, "the enclave has ended"),
            () = read => {}
        }
    }
}

fn silent() -> Failed {
    let seconds = FIRST_SIGN.as_secs();
    let message = format!("the enclave runs, but sent no heartbeat for {seconds} s; its console may say why");
    Failed::new(Reason::LaunchFailed, message)
}

/// The enclave has ended; the reason it gave may still be on its way.
async fn last_words(control: &mut Control, exit: String) -> Failed {
    let failure = async {
        loop {
            match control.next().await {
                Some(Event::Failure(failure)) => return Some(failure),
                Some(Event::Detached(_)) | None => return None,
                Some(_) => {}
            }
        }
    };
    match timeout(LAST_WORDS, failure).await {
        Ok(Some(failure)) => reported(failure),
        _ => Failed::new(Reason::EnclaveExited, exit),
    }
}

fn reported(failure: Failure) -> Failed {
    let failed = Failed::from(failure);
    let (reason, why) = (failed.reason.name(), &failed.message);
    tracing::error!(reason, why, details = ?failed.details, "the enclave reported a failure");
    failed
}
