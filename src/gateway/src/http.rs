//! The HTTP API: the demonstration's own front door.
//!
//! It does not authenticate its callers, which is why it listens on loopback unless told otherwise.
//!
//! `POST /v1/sign` takes `{"account": id, "message": hex, "node"?: name}`, at most 256 KiB, and answers
//! `{"account", "scheme", "public_key", "signature", "node", "session_id", "duration_ms"}`, hex in lower case.
//!
//! `GET /v1/nodes` answers a list of `{"name", "address", "state": "verified" | "unverified" | "failed"}`, with
//! `"reason"` unless verified, and with what the node has proven if it is: `"party"`, `"epoch"`, `"accounts"` (how
//! many), `"pcrs"` (by index), `"spki_sha256"`, `"bundle_sha256"`, `"verified_at_unix_ms"`, `"last_ping_unix_ms"` and
//! `"last_ping_ms"` (its round trip).
//!
//! Errors are `{"error": code, "detail": text}` with the HTTP status that fits.
//!
//! Requests of web pages (they carry `Origin`) are refused: a page that somebody on this machine looks at could reach
//! a loopback address, and must not get signatures.

use std::{
    error::Error as _,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Request, State, rejection::BytesRejection},
    http::{StatusCode, header::ORIGIN},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use threshold::ErrorKind;
use tonic::Code;

use crate::{
    SignError,
    connection::Link,
    cosigner::CoSigner,
    node::{self, Node},
    pool::Pool,
    sign::{self, Signed},
};

/// Largest request body, bytes.
const MAX_BODY_BYTES: usize = 256 * 1024;
/// Longest account id and node name, bytes.
const MAX_ACCOUNT_BYTES: usize = 128;
const MAX_NODE_BYTES: usize = 64;

/// What the handlers need.
pub struct App {
    /// The gateway's own share of every account.
    pub cosigner: Arc<CoSigner>,
    /// The nodes.
    pub pool: Pool,
    /// Time a signature may take.
    pub sign_timeout: Duration,
}

/// The HTTP API's routes.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/sign", post(sign))
        .route("/v1/nodes", get(nodes))
        .fallback(async || Refusal::new(StatusCode::NOT_FOUND, "not_found", "no such path"))
        .method_not_allowed_fallback(async || {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "no such method on this path")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(refuse_web_pages))
        .with_state(app)
}

async fn refuse_web_pages(request: Request, next: Next) -> Response {
    if request.headers().contains_key(ORIGIN) {
        let detail = "this API does not serve web pages; send the request without `Origin`";
        return Refusal::new(StatusCode::FORBIDDEN, "web_page", detail).into_response();
    }
    next.run(request).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignBody {
    account: String,
    message: String,
    node: Option<String>,
}

async fn sign(
    State(app): State<Arc<App>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Refusal> {
    let started = Instant::now();
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    let body: SignBody =
        serde_json::from_slice(&body).map_err(|error| SignError::BadRequest(format!("body: {error}")))?;
    let message = hex::decode(&body.message)
        .map_err(|error| SignError::BadRequest(format!("`message` is not hex: {error}")))?;
    check_length("account", &body.account, MAX_ACCOUNT_BYTES)?;
    let node = body.node.as_deref();
    check_length("node", node.unwrap_or_default(), MAX_NODE_BYTES)?;
    let signed = sign::sign(&app.pool, &app.cosigner, &body.account, message, node, app.sign_timeout).await;
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    record(&body.account, &signed, duration_ms);
    let signed = signed?;
    Ok(Json(json!({
        "account": body.account,
        "scheme": signed.scheme,
        "public_key": hex::encode(&signed.public_key),
        "signature": hex::encode(&signed.signature),
        "node": signed.node,
        "session_id": hex::encode(signed.session_id),
        "duration_ms": duration_ms,
    })))
}

/// Names come back in answers and logs, so that their length is limited.
fn check_length(field: &str, value: &str, limit: usize) -> Result<(), SignError> {
    if value.len() <= limit {
        return Ok(());
    }
    let problem = format!("`{field}`: {} bytes is too long; the limit is {limit}", value.len());
    Err(SignError::BadRequest(problem))
}

fn record(account: &str, signed: &Result<Signed, SignError>, duration_ms: u64) {
    match signed {
        Ok(signed) => {
            let session_id = hex::encode(signed.session_id);
            tracing::info!(account, node = signed.node, session_id, duration_ms, "signed");
        }
        Err(error) => tracing::warn!(account, duration_ms, %error, "not signed"),
    }
}

fn unreadable(rejection: &BytesRejection) -> Refusal {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let detail = format!("the body is larger than {MAX_BODY_BYTES} bytes");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
        }
        status => Refusal::new(status, "bad_request", rejection.body_text()),
    }
}

async fn nodes(State(app): State<Arc<App>>) -> Json<Value> {
    app.pool.nodes().iter().map(|node| describe(node)).collect::<Value>().into()
}

fn describe(node: &Node) -> Value {
    let (name, address) = (node.name(), node.address());
    match node.state() {
        node::State::Unverified { reason } => {
            json!({"name": name, "address": address, "state": "unverified", "reason": reason})
        }
        node::State::Failed { reason } => {
            json!({"name": name, "address": address, "state": "failed", "reason": reason})
        }
        node::State::Verified(link) => describe_verified(name, address, &link),
    }
}

fn describe_verified(name: &str, address: &str, link: &Link) -> Value {
    let pcrs: serde_json::Map<String, Value> =
        link.attested.pcrs.iter().map(|(index, pcr)| (index.to_string(), pcr.to_string().into())).collect();
    let ping = link.last_ping();
    json!({
        "name": name,
        "address": address,
        "state": "verified",
        "party": link.party,
        "epoch": link.attested.configuration.epoch,
        "accounts": link.accounts,
        "pcrs": pcrs,
        "spki_sha256": hex::encode(link.attested.spki_sha256),
        "bundle_sha256": hex::encode(&link.attested.configuration.bundle_sha256),
        "verified_at_unix_ms": unix_ms(link.verified_at),
        "last_ping_unix_ms": unix_ms(ping.at),
        "last_ping_ms": ping.round_trip.as_secs_f64() * 1000.0,
    })
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// An answer that is not a success.
struct Refusal {
    status: StatusCode,
    error: &'static str,
    detail: String,
}

impl Refusal {
    fn new(status: StatusCode, error: &'static str, detail: impl Into<String>) -> Self {
        Self { status, error, detail: detail.into() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"error": self.error, "detail": self.detail}))).into_response()
    }
}

impl From<SignError> for Refusal {
    fn from(error: SignError) -> Self {
        let (status, code) = match &error {
            SignError::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            SignError::UnknownAccount { .. } => (StatusCode::NOT_FOUND, "unknown_account"),
            SignError::UnknownNode { .. } => (StatusCode::NOT_FOUND, "unknown_node"),
            SignError::NotAParty { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "not_a_party"),
            SignError::TooManySigners { .. } => (StatusCode::NOT_IMPLEMENTED, "too_many_signers"),
            SignError::NodeNotVerified { .. } => (StatusCode::SERVICE_UNAVAILABLE, "node_not_verified"),
            SignError::NoVerifiedNode { .. } => (StatusCode::SERVICE_UNAVAILABLE, "no_verified_node"),
            SignError::AccountMismatch { .. } => (StatusCode::BAD_GATEWAY, "account_mismatch"),
            SignError::Session { source, .. } => of_session(source.kind()),
            SignError::Protocol { .. } => (StatusCode::BAD_GATEWAY, "node_broke_protocol"),
            SignError::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, "timed_out"),
            SignError::Node { status, .. } => of_node(status),
        };
        Self::new(status, code, error.to_string())
    }
}

/// The HTTP status for an error of the co-signer's own side of the session.
fn of_session(kind: ErrorKind) -> (StatusCode, &'static str) {
    match kind {
        ErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "cosigner_failed"),
        _ => (StatusCode::BAD_GATEWAY, "session_failed"),
    }
}

/// The HTTP status for a node's gRPC status.
fn of_node(status: &tonic::Status) -> (StatusCode, &'static str) {
    let unavailable = (StatusCode::SERVICE_UNAVAILABLE, "node_unavailable");
    // The node has not said anything: the connection broke.
    if status.source().is_some_and(<dyn std::error::Error>::is::<tonic::transport::Error>) {
        return unavailable;
    }
    match status.code() {
        Code::NotFound => (StatusCode::NOT_FOUND, "unknown_account"),
        Code::InvalidArgument => (StatusCode::BAD_REQUEST, "bad_request"),
        Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "too_many_sessions"),
        Code::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "timed_out"),
        Code::Unavailable => unavailable,
        _ => (StatusCode::BAD_GATEWAY, "node_refused"),
    }
}
