use std::{error::Error as _, net::SocketAddr, path::PathBuf, time::Duration};

use attestation::{MismatchError, VerifyError};

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file cannot be read.
    #[error("{what} {path} cannot be read")]
    Read {
        /// What the file is, by its configuration key.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that holds a secret is open to other users.
    #[error("{what} {path} can be read by other users (mode {mode:03o}); run `chmod 600 {path}`")]
    TooOpen {
        /// What the file is, by its configuration key.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file does not hold what it should.
    #[error("{what} {path}: {problem}")]
    File {
        /// What the file is, by its configuration key.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The configuration is not TOML, or has an unknown key, a missing key, or a value of another type.
    #[error("configuration {path}: {problem}")]
    Toml {
        /// The configuration file.
        path: PathBuf,
        /// The parser's words, with line and key.
        problem: String,
    },
    /// The value of a configuration key is not allowed.
    #[error("configuration {path}: `{key}`: {problem}")]
    Key {
        /// The configuration file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The HTTP API's address cannot be bound.
    #[error("cannot listen on {address}; choose another `listen` address")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Why a node is not verified.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No TCP connection.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The node's address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// No TLS connection. A node that refuses the gateway's certificate may show up here or at the first call.
    #[error(
        "TLS handshake with {address} failed: {source}; check `tls_certificate` against the node's client CA"
    )]
    Tls {
        /// The node's address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The node speaks TLS, but not what is expected inside.
    #[error("{address} is not a signing node: {problem}")]
    Protocol {
        /// The node's address.
        address: String,
        /// What is wrong.
        problem: String,
    },
    /// A call failed before the node was verified.
    #[error("{call} failed: {}", describe(.status))]
    Call {
        /// The name of the call.
        call: &'static str,
        /// The node's answer.
        status: Box<tonic::Status>,
    },
    /// Connecting and verifying took too long.
    #[error("not connected and verified within {} ms", .after.as_millis())]
    TimedOut {
        /// The limit.
        after: Duration,
    },
    /// The attestation document is not a document of the trust root.
    #[error("attestation document refused: {0}")]
    Document(#[from] VerifyError),
    /// The document is real, but it says something else than expected.
    #[error("attestation document refused: {0}")]
    Mismatch(#[from] MismatchError),
    /// The boot configuration beside the document is malformed.
    #[error("boot configuration refused: {0}")]
    Configuration(#[from] api::ConfigurationError),
    /// The SHA-384 of the sealed bundle has another length.
    #[error("sealed_bundle_sha384 has {actual} bytes; expected 48")]
    BundleDigestLength {
        /// Its length.
        actual: usize,
    },
    /// The node has opened a bundle that is not on the list.
    #[error("the node opened the sealed bundle {actual}, which is not in `trust.bundle_sha256`")]
    Bundle {
        /// SHA-256 of the node's sealed bundle, hex.
        actual: String,
    },
    /// The node's party id is unusable.
    #[error("the node says it is party `{party}`: {problem}")]
    Party {
        /// What the node says.
        party: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The running service and the attested configuration name different epochs.
    #[error("the node serves epoch {actual}, but its attested configuration says {expected}")]
    Epoch {
        /// The attested epoch.
        expected: u64,
        /// What the service says.
        actual: u64,
    },
}

/// Why a signature was not made.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The request is malformed.
    #[error("{0}")]
    BadRequest(String),
    /// The co-signer holds no share of the account.
    #[error("account `{account}` is unknown")]
    UnknownAccount {
        /// The account asked for.
        account: String,
    },
    /// No node of that name is configured.
    #[error("node `{node}` is unknown")]
    UnknownNode {
        /// The node asked for.
        node: String,
    },
    /// The named node holds no share of the account.
    #[error("node `{node}` holds no share of account `{account}`; its party is not one of the account's")]
    NotAParty {
        /// The node asked for.
        node: String,
        /// The account asked for.
        account: String,
    },
    /// More signers are needed than this gateway brings together.
    #[error(
        "account `{account}` needs {threshold} signers; this gateway signs alone with one node, which makes 2"
    )]
    TooManySigners {
        /// The account asked for.
        account: String,
        /// Its threshold.
        threshold: u16,
    },
    /// The named node is not verified.
    #[error("node `{node}` is not verified: {reason}")]
    NodeNotVerified {
        /// The node asked for.
        node: String,
        /// Its state.
        reason: String,
    },
    /// No verified node holds a share of the account.
    #[error("no verified node holds a share of account `{account}`; see GET /v1/nodes for the reasons")]
    NoVerifiedNode {
        /// The account asked for.
        account: String,
    },
    /// Node and co-signer disagree about the account.
    #[error("node `{node}` and the co-signer disagree about `{field}` of account `{account}`")]
    AccountMismatch {
        /// The node.
        node: String,
        /// The account.
        account: String,
        /// Which public field differs.
        field: &'static str,
    },
    /// The node answered with a status.
    #[error("node `{node}`: {}", describe(.status))]
    Node {
        /// The node.
        node: String,
        /// Its answer.
        status: Box<tonic::Status>,
    },
    /// A protocol message was refused by the co-signer.
    #[error("session with node `{node}`: {source}")]
    Session {
        /// The node.
        node: String,
        /// Why.
        source: threshold::SessionError,
    },
    /// The node broke the stream's protocol.
    #[error("node `{node}` broke the protocol: {problem}")]
    Protocol {
        /// The node.
        node: String,
        /// How.
        problem: &'static str,
    },
    /// The session took too long.
    #[error("no signature within {} ms (`sign_timeout_ms`)", .after.as_millis())]
    TimedOut {
        /// The limit.
        after: Duration,
    },
}

/// A status as one line, with its causes: that of a refused client certificate is three levels down. (tonic's own
/// `Display` prints metadata and no cause.)
fn describe(status: &tonic::Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut cause = status.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
