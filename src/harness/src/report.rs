//! `report.json`: what a run of the demo proves, in a form that other tools can check.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::VsockSocket;

/// The whole report. Hex is lower case, keys and signatures are in the schemes' standard encodings.
#[derive(Debug, Serialize)]
pub struct Report {
    /// PCR index to value, hex.
    pub pcrs: serde_json::Value,
    /// COSE_Sign1 document, Base64, that the parent verified before it opened ingress.
    pub attestation_document: String,
    /// The root the document verifies against, PEM.
    pub root_certificate: String,
    /// Of the Decrypt call that released the age identity.
    pub kms_request_id: String,
    /// SHA-256 of the bundle, hex: `ciphertext` and `plaintext`.
    pub bundle_sha256: serde_json::Value,
    /// Milliseconds each step took.
    pub timings_ms: BTreeMap<String, u64>,
    /// One a signing session.
    pub signatures: Vec<Signature>,
    /// The kernel's list of vsock sockets while the parent serves, if it meets the enclave on this machine's vsock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vsock: Option<Vec<VsockSocket>>,
}

/// One signature and everything that is needed to verify it.
#[derive(Debug, Serialize)]
pub struct Signature {
    /// The scheme's name.
    pub scheme: String,
    /// How the rounds travelled: `stream` (in-band).
    pub transport: &'static str,
    /// The account's id.
    pub account: String,
    /// Ed25519 (RFC 8032) or x-only (BIP340), 32 bytes, hex.
    pub public_key: String,
    /// What was signed, hex.
    pub message: String,
    /// 64 bytes, hex.
    pub signature: String,
}
