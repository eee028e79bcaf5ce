use std::{
    fs, io,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::errno::Errno;
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    sync::{Mutex, Semaphore, mpsc},
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tokio_vsock::{VsockAddr, VsockListener};

use crate::{Endpoint, Stream, caller::Admission, dial::socket_of_port, hybrid};

/// Hybrid vsock handshakes a guest listener runs at the same time; more hosts wait in the socket's backlog.
const MAX_HANDSHAKES: usize = 64;
/// Accepts that may fail, for a reason that may pass, one after another before the listener counts as broken.
const MAX_ACCEPT_FAILURES: u32 = 100;
/// Pause after a failed accept, which is most often a want of file descriptors.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Accepts connections at one endpoint, from anybody or [from one context id](Self::only_from).
///
/// A socket file left by a process that is gone is removed before binding; one that is still listened at is not
/// touched. Dropping the listener removes its socket file.
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
    local: Endpoint,
    admission: Admission,
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Kind {
    Vsock(VsockListener),
    Unix(UnixListener),
    Tcp(TcpListener),
    Guest(Guest),
}

impl Listener {
    /// Listens at `endpoint`. Errors name it.
    pub async fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        Self::bind_unnamed(endpoint)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen at {endpoint}: {error}")))
    }

    async fn bind_unnamed(endpoint: &Endpoint) -> io::Result<Self> {
        let mut local = endpoint.clone();
        let (kind, file) = match endpoint {
            Endpoint::Vsock { cid, port } => {
                (Kind::Vsock(VsockListener::bind(VsockAddr::new(*cid, *port))?), None)
            }
            Endpoint::Unix { path, port } => {
                let (listener, file) = SocketFile::bind(socket_of_port(path, *port)).await?;
                (Kind::Unix(listener), Some(file))
            }
            Endpoint::UnixGuest { path, port } => {
                let (listener, file) = SocketFile::bind(path.clone()).await?;
                (Kind::Guest(Guest::start(listener, endpoint.clone(), *port)), Some(file))
            }
            Endpoint::Tcp { host, port } => {
                let listener = TcpListener::bind((host.as_str(), *port)).await?;
                local = Endpoint::Tcp { host: host.clone(), port: listener.local_addr()?.port() };
                (Kind::Tcp(listener), None)
            }
        };
        Ok(Self { kind, local, admission: Admission::default(), _file: file })
    }

    /// Accepts from this context id only. Other connections are closed at once, and logged with theirs.
    ///
    /// Connections over Unix sockets and TCP have no context id: such a listener then refuses everybody.
    #[must_use]
    pub fn only_from(self, cid: u32) -> Self {
        Self { admission: Admission::only(cid), ..self }
    }

    /// Where it listens; for TCP port 0, with the port the system chose.
    pub fn local(&self) -> &Endpoint {
        &self.local
    }

    /// The next connection. Cancelling it loses none.
    ///
    /// A client that fails its handshake or is not allowed, and an accept that fails for a while (out of file
    /// descriptors), are logged and skipped. An error means that the listener is broken for good.
    pub async fn accept(&self) -> io::Result<Stream> {
        let mut failures = 0;
        loop {
            match self.accept_once().await {
                Ok((stream, caller)) if self.admission.admits(&self.local, caller) => return Ok(stream),
                Ok(_) => failures = 0,
                Err(error) => pause_or_give_up(&self.local, &mut failures, error).await?,
            }
        }
    }

    /// A connection, and the context id that it is from if it has one.
    async fn accept_once(&self) -> io::Result<(Stream, Option<u32>)> {
        let stream = match &self.kind {
            Kind::Vsock(listener) => {
                let (stream, caller) = listener.accept().await?;
                return Ok((stream.into(), Some(caller.cid())));
            }
            Kind::Unix(listener) => listener.accept().await?.0.into(),
            Kind::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // A client that is gone already is no failure of the listener; whoever reads notices.
                let _ = stream.set_nodelay(true);
                stream.into()
            }
            Kind::Guest(guest) => guest.accept().await?,
        };
        Ok((stream, None))
    }
}

async fn pause_or_give_up(local: &Endpoint, failures: &mut u32, error: io::Error) -> io::Result<()> {
    *failures += 1;
    if is_broken(&error) || *failures >= MAX_ACCEPT_FAILURES {
        return Err(io::Error::new(error.kind(), format!("cannot accept at {local}: {error}")));
    }
    tracing::warn!(%local, %error, "cannot accept a connection");
    sleep(PAUSE_AFTER_FAILURE).await;
    Ok(())
}

/// Whether accepting fails for ever: the socket no longer listens, because somebody shut it down or destroyed it
/// (`ss --kill`), or the descriptor is not the listener's.
///
/// Source: accept(2). Every other error there is about one connection, or about resources that may come back.
fn is_broken(error: &io::Error) -> bool {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(errno) => matches!(errno, Errno::EINVAL | Errno::EBADF | Errno::ENOTSOCK),
        // Not of accept(2) itself: the task is gone that accepts for a guest.
        None => error.kind() == io::ErrorKind::BrokenPipe,
    }
}

/// The guest's side of a hybrid vsock: handshakes run beside each other, so that a slow host delays nobody.
#[derive(Debug)]
struct Guest {
    ready: Mutex<mpsc::Receiver<Stream>>,
    task: JoinHandle<()>,
}

impl Guest {
    fn start(listener: UnixListener, local: Endpoint, port: u32) -> Self {
        let (sender, ready) = mpsc::channel(1);
        let task = tokio::spawn(run_guest(listener, local, port, sender));
        Self { ready: Mutex::new(ready), task }
    }

    async fn accept(&self) -> io::Result<Stream> {
        let next = self.ready.lock().await.recv().await;
        next.ok_or_else(|| io::Error::new(io::ErrorKind::BrokenPipe, "the socket cannot be accepted from"))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run_guest(listener: UnixListener, local: Endpoint, port: u32, ready: mpsc::Sender<Stream>) {
    let slots = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let mut handshakes = JoinSet::new();
    let mut failures = 0;
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        while handshakes.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                failures = 0;
                let (local, ready) = (local.clone(), ready.clone());
                handshakes.spawn(async move {
                    greet(stream, &local, port, ready).await;
                    drop(slot);
                });
            }
            Err(error) => {
                if let Err(error) = pause_or_give_up(&local, &mut failures, error).await {
                    tracing::error!(%error, "the listener is broken");
                    return;
                }
            }
        }
    }
}

async fn greet(mut stream: UnixStream, local: &Endpoint, port: u32, ready: mpsc::Sender<Stream>) {
    match hybrid::answer(&mut stream, port).await {
        // The receiver is gone only when the listener is.
        Ok(()) => drop(ready.send(stream.into()).await),
        Err(error) => tracing::warn!(%local, %error, "refused a connection"),
    }
}

/// A socket's file, removed with the listener.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl SocketFile {
    async fn bind(path: PathBuf) -> io::Result<(UnixListener, Self)> {
        remove_stale(&path).await?;
        let listener = UnixListener::bind(&path)?;
        Ok((listener, Self(path)))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nothing to do about a failure: the next bind removes it.
        let _ = fs::remove_file(&self.0);
    }
}

async fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        let message = format!("{} exists and is not a socket; remove it", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    if UnixStream::connect(path).await.is_ok() {
        let message = format!("{} is in use by a running process; stop it first", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
    }
    fs::remove_file(path)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use nix::sys::socket::{Shutdown, shutdown};
    use tokio::time::timeout;

    use super::*;

    /// Less than a listener has that cannot accept for a reason that may pass.
    pub(crate) const AT_ONCE: Duration = Duration::from_secs(3);

    /// Another descriptor of the socket of a TCP listener.
    pub(crate) fn must_share(listener: &Listener) -> OwnedFd {
        let Kind::Tcp(listener) = &listener.kind else { panic!("not TCP") };
        listener.as_fd().try_clone_to_owned().unwrap()
    }

    /// Leaves a listening socket as `ss --kill` does: it no longer listens, and its descriptors stay open.
    pub(crate) fn must_destroy(socket: &OwnedFd) {
        use std::os::fd::AsRawFd as _;
        shutdown(socket.as_raw_fd(), Shutdown::Both).unwrap();
    }

    #[test]
    fn a_socket_that_is_none_any_more_is_broken_and_a_want_of_resources_is_not() {
        for errno in [Errno::EINVAL, Errno::EBADF, Errno::ENOTSOCK] {
            assert!(is_broken(&errno.into()), "{errno}");
        }
        for errno in [
            Errno::EMFILE,
            Errno::ENFILE,
            Errno::ENOBUFS,
            Errno::ENOMEM,
            Errno::ECONNABORTED,
            Errno::EPROTO,
            Errno::EPERM,
            Errno::EOPNOTSUPP,
            Errno::ENETDOWN,
            Errno::EHOSTUNREACH,
            Errno::ENETUNREACH,
        ] {
            assert!(!is_broken(&errno.into()), "{errno}");
        }
    }

    #[tokio::test]
    async fn a_listener_whose_socket_is_destroyed_is_broken_at_once() {
        let listener = Listener::bind(&"tcp:127.0.0.1:0".parse().unwrap()).await.unwrap();
        let socket = must_share(&listener);
        let destroy = async {
            sleep(Duration::from_millis(50)).await;
            must_destroy(&socket);
        };
        let (accepted, ()) =
            timeout(AT_ONCE, async { tokio::join!(listener.accept(), destroy) }).await.unwrap();
        let error = accepted.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&format!("cannot accept at {}", listener.local())), "{error}");
    }

    #[tokio::test]
    async fn a_guest_that_no_longer_accepts_is_broken_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let local = Endpoint::UnixGuest { path: directory.path().join("vm.vsock"), port: 7 };
        let listener = Listener::bind(&local).await.unwrap();
        let Kind::Guest(guest) = &listener.kind else { panic!("no guest") };
        guest.task.abort();
        let accepted = timeout(AT_ONCE, listener.accept()).await.unwrap();
        assert!(accepted.err().unwrap().to_string().contains("cannot accept at unix-guest:"));
    }
}
