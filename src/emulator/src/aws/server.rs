//! AWS JSON 1.1 over HTTP/1.1 over TLS.

use std::{
    convert::Infallible,
    fs, future,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE, request::Parts};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{
    error::ServiceError,
    service::{Answer, Call, Service, Summary},
    sigv4::Verifier,
    tls::Tls,
    uuid::Uuid,
};

const CONTENT_TYPE_JSON: &str = "application/x-amz-json-1.1";
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A service that listens.
pub(crate) struct Server<S> {
    listener: TcpListener,
    tls: Tls,
    shared: Arc<Shared<S>>,
}

/// What every connection shares.
struct Shared<S> {
    service: S,
    verifier: Verifier,
}

impl<S: Service> Server<S> {
    pub(crate) async fn bind(
        address: SocketAddr,
        tls: Tls,
        service: S,
        verifier: Verifier,
    ) -> anyhow::Result<Self> {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        Ok(Self { listener, tls, shared: Arc::new(Shared { service, verifier }) })
    }

    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    #[cfg(test)]
    pub(crate) fn ca_pem(&self) -> &str {
        &self.tls.ca_pem
    }

    /// Writes to `state_dir` what to trust, says on stdout where it listens, and serves until the process ends.
    pub(crate) async fn run(self, state_dir: &Path) -> anyhow::Result<()> {
        let ca = state_dir.join(self.tls.ca_file);
        fs::write(&ca, &self.tls.ca_pem).with_context(|| format!("cannot write {}", ca.display()))?;
        println!("{}", json!({"address": self.address()?.to_string(), "ca": ca}));
        self.serve().await.context("cannot accept connections")
    }

    /// Serves until accepting fails.
    pub(crate) async fn serve(self) -> std::io::Result<()> {
        let tls = TlsAcceptor::from(self.tls.server);
        loop {
            let (stream, peer) = self.listener.accept().await?;
            tokio::spawn(connection(stream, peer, tls.clone(), self.shared.clone()));
        }
    }
}

/// One connection; how it ends is the client's affair.
async fn connection<S: Service>(
    stream: TcpStream,
    peer: SocketAddr,
    tls: TlsAcceptor,
    shared: Arc<Shared<S>>,
) {
    let stream = match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::warn!(%peer, %error, "no TLS"),
        Err(_) => return tracing::warn!(%peer, "no TLS in time"),
    };
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(shared.respond(request).await) }
    });
    let served =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

impl<S: Service> Shared<S> {
    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let request_id = Uuid::random().map_or_else(|_| String::new(), |id| id.to_string());
        let (head, body) = request.into_parts();
        let operation = operation::<S>(&head).unwrap_or_default().to_owned();
        let mut notes = S::Notes::default();
        let mut principal = None;
        let outcome = self.answer(&head, body, &operation, &mut principal, &mut notes).await;
        let summary = Summary::of(&operation, principal, &request_id, &outcome);
        S::log(&summary, &notes);
        match outcome {
            Ok(Answer::Members(members)) => response(StatusCode::OK, &members, &request_id),
            Ok(Answer::Silence) => future::pending().await,
            Err(error) => {
                let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                response(status, &error.body(), &request_id)
            }
        }
    }

    async fn answer<'a>(
        &'a self,
        head: &Parts,
        body: Incoming,
        operation: &str,
        principal: &mut Option<&'a str>,
        notes: &mut S::Notes,
    ) -> Result<Answer, ServiceError> {
        let json = head.headers.get(CONTENT_TYPE).is_some_and(|value| value == CONTENT_TYPE_JSON);
        if head.method != Method::POST || head.uri != "/" || !json || operation.is_empty() {
            return Err(ServiceError::unknown_operation());
        }
        let body = Limited::new(body, S::MAX_BODY).collect().await;
        let body = body.map_err(|error| ServiceError::serialization(error.to_string()))?.to_bytes();
        let caller = self.verifier.verify(head, &body, SystemTime::now())?;
        *principal = Some(&caller.arn);
        self.service.answer(&mut Call { operation, body: &body, principal: &caller.arn, notes }).await
    }
}

fn operation<S: Service>(head: &Parts) -> Option<&str> {
    head.headers.get("x-amz-target")?.to_str().ok()?.strip_prefix(S::TARGET_PREFIX)
}

fn response(status: StatusCode, members: &Value, request_id: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(members.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_JSON));
    if let Ok(request_id) = HeaderValue::from_str(request_id) {
        headers.insert("x-amzn-requestid", request_id);
    }
    response
}
