use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use vsock::Listener;

use crate::MAX_CONNECTIONS;

/// How long a client may take for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection whose client has shown a certificate of the client CA. It holds one of [`MAX_CONNECTIONS`] places.
pub(crate) struct Connection {
    tls: TlsStream<vsock::Stream>,
    _place: OwnedSemaphorePermit,
}

/// The connections that pass the handshake. Dropping the stream closes the listener.
pub(crate) fn connections(listener: Listener, tls: ServerConfig) -> ReceiverStream<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(1);
    tokio::spawn(accept_all(listener, TlsAcceptor::from(Arc::new(tls)), ready));
    ReceiverStream::new(connections)
}

async fn accept_all(listener: Listener, acceptor: TlsAcceptor, ready: mpsc::Sender<io::Result<Connection>>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Handshakes run beside each other, so that a slow client delays nobody.
    let mut handshakes = JoinSet::new();
    let mut was_full = false;
    loop {
        let accepted = tokio::select! {
            () = ready.closed() => return,
            Some(_) = handshakes.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::error!(%error, "the service no longer accepts connections");
                return;
            }
        };
        let place = Arc::clone(&places).try_acquire_owned().ok();
        if place.is_none() && !was_full {
            tracing::warn!(limit = MAX_CONNECTIONS, "refusing connections: the limit is reached");
        }
        was_full = place.is_none();
        if let Some(place) = place {
            handshakes.spawn(shake_hands(acceptor.clone(), stream, place, ready.clone()));
        }
    }
}

async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: vsock::Stream,
    place: OwnedSemaphorePermit,
    ready: mpsc::Sender<io::Result<Connection>>,
) {
    match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        // The receiver is gone only when the service stops.
        Ok(Ok(tls)) => drop(ready.send(Ok(Connection { tls, _place: place })).await),
        Ok(Err(error)) => tracing::info!(%error, "refused a client at the TLS handshake"),
        Err(_) => tracing::info!("refused a client: its TLS handshake took too long"),
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
