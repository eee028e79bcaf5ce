use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::{Notify, oneshot},
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use crate::{Endpoint, Listener, MAX_WRITE, Stream, connect};

/// What a [`Bridge`] allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at the same time; more are closed at once.
    pub max_connections: usize,
    /// A connection without a byte in either direction is closed after this time, at the latest after twice of it.
    /// `None`: it may be silent for ever.
    pub idle_timeout: Option<Duration>,
    /// When one side has ended, the other may be silent for this time, at the latest twice of it; then the connection is
    /// closed.
    pub linger: Duration,
}

impl Default for Limits {
    /// 256 connections, no idle timeout, 30 s of silence after one side's end.
    fn default() -> Self {
        Self { max_connections: 256, idle_timeout: None, linger: Duration::from_secs(30) }
    }
}

/// A bridge's figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BridgeStats {
    /// Connections accepted since the start.
    pub connections: u64,
    /// Connections that are open now.
    pub active: u64,
    /// Bytes passed on from the clients to the upstream.
    pub bytes_in: u64,
    /// Bytes passed on from the upstream to the clients.
    pub bytes_out: u64,
    /// Connections that were refused or ended in an error.
    pub failures: u64,
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    active: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    failures: AtomicU64,
}

/// Listens at one endpoint and copies each connection to and from another. It sees bytes, never what they mean, and
/// logs none of them.
#[derive(Debug)]
pub struct Bridge {
    local: Endpoint,
    counters: Arc<Counters>,
    /// Dropping it stops the bridge.
    stop: oneshot::Sender<()>,
    task: Option<JoinHandle<io::Error>>,
}

impl Bridge {
    /// Binds `from` and starts to copy its connections to `to`. `name` appears in logs.
    pub async fn start(name: &str, from: Endpoint, to: Endpoint, limits: Limits) -> io::Result<Self> {
        let listener = Listener::bind(&from)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("bridge {name}: {error}")))?;
        Ok(Self::with_listener(name, listener, to, limits))
    }

    /// Starts to copy what is accepted at `listener`, and from whom it accepts, to `to`. `name` appears in logs.
    ///
    /// Call it inside a Tokio runtime.
    pub fn with_listener(name: &str, listener: Listener, to: Endpoint, limits: Limits) -> Self {
        let local = listener.local().clone();
        let counters = Arc::new(Counters::default());
        let (stop, stopped) = oneshot::channel();
        let route = Route { name: name.into(), to, limits, counters: Arc::clone(&counters) };
        let task = tokio::spawn(run(listener, route, stopped));
        Self { local, counters, stop, task: Some(task) }
    }

    /// Where it listens; for TCP port 0, with the port the system chose.
    pub fn local(&self) -> &Endpoint {
        &self.local
    }

    /// The figures so far.
    pub fn stats(&self) -> BridgeStats {
        let Counters { connections, active, bytes_in, bytes_out, failures } = &*self.counters;
        BridgeStats {
            connections: connections.load(Relaxed),
            active: active.load(Relaxed),
            bytes_in: bytes_in.load(Relaxed),
            bytes_out: bytes_out.load(Relaxed),
            failures: failures.load(Relaxed),
        }
    }

    /// Closes the listener and every connection, and returns when they are closed.
    pub async fn stop(self) {
        drop(self.stop);
        if let Some(task) = self.task {
            // It cannot be cancelled, and a panic has been reported by the runtime.
            let _ = task.await;
        }
    }

    /// Returns when the bridge no longer accepts, with the reason; until then, never.
    pub async fn wait(&mut self) -> io::Error {
        let Some(task) = &mut self.task else {
            return io::Error::other("the bridge has ended before");
        };
        let ended = task.await;
        self.task = None;
        ended.unwrap_or_else(io::Error::other)
    }
}

#[derive(Clone)]
struct Route {
    name: Arc<str>,
    to: Endpoint,
    limits: Limits,
    counters: Arc<Counters>,
}

async fn run(listener: Listener, route: Route, mut stopped: oneshot::Receiver<()>) -> io::Error {
    let mut connections = JoinSet::new();
    let mut was_full = false;
    let reason = loop {
        let accepted = tokio::select! {
            _ = &mut stopped => break io::Error::other("the bridge was stopped"),
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let client = match accepted {
            Ok(client) => client,
            Err(error) => break error,
        };
        let is_full = connections.len() >= route.limits.max_connections;
        if is_full {
            route.counters.failures.fetch_add(1, Relaxed);
            if !was_full {
                let limit = route.limits.max_connections;
                tracing::warn!(bridge = %route.name, limit, "refusing connections: the limit is reached");
            }
        } else {
            route.counters.connections.fetch_add(1, Relaxed);
            connections.spawn(carry(route.clone(), client));
        }
        was_full = is_full;
    };
    drop(listener);
    connections.shutdown().await;
    reason
}

/// One connection, from its accept to its end.
async fn carry(route: Route, client: Stream) {
    let _active = Active::new(Arc::clone(&route.counters));
    let upstream = match connect(&route.to).await {
        Ok(upstream) => upstream,
        Err(error) => {
            route.counters.failures.fetch_add(1, Relaxed);
            tracing::warn!(bridge = %route.name, %error, "closing a connection");
            return;
        }
    };
    if let Err(error) = copy(&route, client, upstream).await {
        route.counters.failures.fetch_add(1, Relaxed);
        // Resets are everyday: load balancers probe with them.
        tracing::debug!(bridge = %route.name, %error, "a connection broke");
    }
}

/// Counts a connection as active while it lives, however it ends.
struct Active(Arc<Counters>);

impl Active {
    fn new(counters: Arc<Counters>) -> Self {
        counters.active.fetch_add(1, Relaxed);
        Self(counters)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

/// Copies both ways until both sides have ended; when one has, the other may go on (half-close), but not be silent for
/// long: it would keep its place for ever.
async fn copy(route: &Route, client: Stream, upstream: Stream) -> io::Result<()> {
    let (client_read, client_write) = tokio::io::split(client);
    let (upstream_read, upstream_write) = tokio::io::split(upstream);
    let (moved, one_ended) = (AtomicU64::new(0), Notify::new());
    let one_way = async |from, to, count| {
        copy_one_way(from, to, count, &moved).await?;
        one_ended.notify_one();
        io::Result::Ok(())
    };
    let both_ways = async {
        tokio::try_join!(
            one_way(client_read, upstream_write, &route.counters.bytes_in),
            one_way(upstream_read, client_write, &route.counters.bytes_out),
        )
    };
    let idle_half = async {
        one_ended.notified().await;
        idle(Some(route.limits.linger), &moved).await
    };
    tokio::select! {
        result = both_ways => result.map(drop),
        error = idle(route.limits.idle_timeout, &moved) => Err(error),
        error = idle_half => Err(error),
    }
}

async fn copy_one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    count: &AtomicU64,
    moved: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; MAX_WRITE];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return match to.shutdown().await {
                // The other side has gone already.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
                result => result,
            };
        }
        to.write_all(&buffer[..length]).await?;
        count.fetch_add(length as u64, Relaxed);
        moved.fetch_add(length as u64, Relaxed);
    }
}

/// Returns once nothing has moved for a whole `timeout`.
async fn idle(timeout: Option<Duration>, moved: &AtomicU64) -> io::Error {
    let Some(timeout) = timeout else { return std::future::pending().await };
    loop {
        let before = moved.load(Relaxed);
        sleep(timeout).await;
        if moved.load(Relaxed) == before {
            let message = format!("no byte in either direction for {} ms", timeout.as_millis());
            return io::Error::new(io::ErrorKind::TimedOut, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::listener::tests::{AT_ONCE, must_destroy, must_share};

    #[tokio::test]
    async fn a_bridge_whose_listener_is_destroyed_is_told_of_at_once_and_can_be_opened_there_again() {
        let any: Endpoint = "tcp:127.0.0.1:0".parse().unwrap();
        let upstream = Listener::bind(&any).await.unwrap();
        let listener = Listener::bind(&any).await.unwrap();
        let (socket, to) = (must_share(&listener), upstream.local().clone());
        let mut bridge = Bridge::with_listener("test", listener, to.clone(), Limits::default());
        must_destroy(&socket);
        drop(socket);
        let error = timeout(AT_ONCE, bridge.wait()).await.unwrap();
        assert!(error.to_string().contains("cannot accept at tcp:127.0.0.1:"), "{error}");

        let again = Bridge::start("test", bridge.local().clone(), to, Limits::default()).await.unwrap();
        let (client, server) = tokio::join!(connect(again.local()), upstream.accept());
        client.unwrap();
        server.unwrap();
    }
}
