//! AWS JSON 1.1 over HTTP/1.1 over TLS.

use std::{
    convert::Infallible,
    future,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE, request::Parts};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{
    error::ServiceError,
    operations::{Answer, Call, CallLog, Service},
    sigv4::Verifier,
    tls::Tls,
    uuid::Uuid,
};

/// The name of KMS in requests, which is not "KMS".
const TARGET_PREFIX: &str = "TrentService.";
const CONTENT_TYPE_JSON: &str = "application/x-amz-json-1.1";
/// Bytes: many times the largest request that can succeed.
const MAX_BODY: usize = 1024 * 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A KMS that listens.
pub(crate) struct Server {
    listener: TcpListener,
    tls: Tls,
    kms: Arc<Kms>,
}

/// What every connection shares.
pub(crate) struct Kms {
    pub(crate) service: Service,
    pub(crate) verifier: Verifier,
}

impl Server {
    pub(crate) fn new(listener: TcpListener, tls: Tls, kms: Kms) -> Self {
        Self { listener, tls, kms: Arc::new(kms) }
    }

    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub(crate) fn ca_pem(&self) -> &str {
        &self.tls.ca_pem
    }

    /// Serves until accepting fails.
    pub(crate) async fn serve(self) -> std::io::Result<()> {
        let tls = TlsAcceptor::from(self.tls.server);
        loop {
            let (stream, peer) = self.listener.accept().await?;
            tokio::spawn(connection(stream, peer, tls.clone(), self.kms.clone()));
        }
    }
}

/// One connection; how it ends is the client's affair.
async fn connection(stream: TcpStream, peer: SocketAddr, tls: TlsAcceptor, kms: Arc<Kms>) {
    let stream = match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::warn!(%peer, %error, "no TLS"),
        Err(_) => return tracing::warn!(%peer, "no TLS in time"),
    };
    let service = service_fn(move |request| {
        let kms = kms.clone();
        async move { Ok::<_, Infallible>(kms.respond(request).await) }
    });
    let served =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

impl Kms {
    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let request_id = Uuid::random().map_or_else(|_| String::new(), |id| id.to_string());
        let (head, body) = request.into_parts();
        let operation = operation(&head).unwrap_or_default().to_owned();
        let mut log = CallLog::default();
        let mut principal = None;
        let outcome = self.answer(&head, body, &operation, &mut principal, &mut log).await;
        write_log(&operation, principal, &request_id, &log, &outcome);
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
        log: &mut CallLog,
    ) -> Result<Answer, ServiceError> {
        let json = head.headers.get(CONTENT_TYPE).is_some_and(|value| value == CONTENT_TYPE_JSON);
        if head.method != Method::POST || head.uri != "/" || !json || operation.is_empty() {
            return Err(ServiceError::unknown_operation());
        }
        let body = Limited::new(body, MAX_BODY).collect().await;
        let body = body.map_err(|error| ServiceError::serialization(error.to_string()))?.to_bytes();
        let caller = self.verifier.verify(head, &body, SystemTime::now())?;
        *principal = Some(&caller.arn);
        self.service.answer(operation, &body, &mut Call { principal: &caller.arn, log }).await
    }
}

fn operation(head: &Parts) -> Option<&str> {
    head.headers.get("x-amz-target")?.to_str().ok()?.strip_prefix(TARGET_PREFIX)
}

fn write_log(
    operation: &str,
    principal: Option<&str>,
    request_id: &str,
    log: &CallLog,
    outcome: &Result<Answer, ServiceError>,
) {
    let (outcome, message) = match outcome {
        Ok(Answer::Members(_)) => ("ok", None),
        Ok(Answer::Silence) => ("no answer", None),
        Err(error) => (error.code, error.message.as_deref()),
    };
    tracing::info!(
        operation,
        principal,
        key_id = log.key_id,
        request_id,
        outcome,
        error_message = message,
        pcr0 = log.pcr0,
        pcr16 = log.pcr16,
        fault = log.fault,
        "request"
    );
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
