use api::control::{AttestationReply, enclave_message::Message};
use attestation::Nsm;

use crate::{
    error::BootError, key_file::KeyFile, outbox::Outbox, parent::Parent, service::Service, stop::Stop,
};

/// What an attestation nonce may have, bytes.
const NONCE_BYTES: std::ops::RangeInclusive<usize> = 16..=512;

/// An enclave that signs.
pub(crate) struct Serving {
    pub(crate) service: Service,
    pub(crate) nsm: Box<dyn Nsm>,
    /// SHA-256 of the service certificate's SubjectPublicKeyInfo; empty for a workload, which has not told one.
    pub(crate) spki_sha256: Vec<u8>,
    /// The plaintext, for a workload that keeps it. Destroyed at the end.
    pub(crate) _key_file: Option<KeyFile>,
}

/// Answers the parent and watches the service, until either ends.
pub(crate) async fn supervise(
    mut serving: Serving,
    parent: &mut Parent,
    outbox: &Outbox,
    stop: &Stop,
) -> Result<(), BootError> {
    loop {
        tokio::select! {
            biased;
            cause = stop.requested() => {
                tracing::info!(?cause, "stopping");
                serving.service.stop().await;
                return Ok(());
            }
            mut error = serving.service.ended() => {
                error.step = "serve";
                return Err(error);
            }
            Some(request) = parent.next_request() => {
                let reply = attest(&*serving.nsm, &serving.spki_sha256, request.nonce);
                outbox.send(Message::Attestation(reply))?;
            }
        }
    }
}

/// A document that names the service's key, if it has one that can be named, over the parent's nonce.
fn attest(nsm: &dyn Nsm, spki_sha256: &[u8], nonce: Vec<u8>) -> AttestationReply {
    let user_data = (!spki_sha256.is_empty()).then_some(spki_sha256);
    let document = if NONCE_BYTES.contains(&nonce.len()) {
        nsm.attest(user_data, Some(&nonce), None).map_err(|error| error.to_string())
    } else {
        Err(format!("a nonce has {} to {} bytes", NONCE_BYTES.start(), NONCE_BYTES.end()))
    };
    match document {
        Ok(document) => AttestationReply { nonce, document, error: String::new() },
        Err(error) => AttestationReply { nonce, document: Vec::new(), error },
    }
}

#[cfg(test)]
#[path = "supervise_tests.rs"]
mod tests;
