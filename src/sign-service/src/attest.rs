use std::sync::Arc;

use attestation::Nsm;
use tokio::sync::Semaphore;
use tonic::Status;

/// Documents made at the same time. The NSM serves one request after another anyway; this keeps the callers that wait
/// from taking all blocking threads.
const MAX_AT_ONCE: usize = 2;

/// Makes attestation documents that name the service's TLS key.
pub(crate) struct Attestor {
    nsm: Arc<dyn Nsm>,
    spki_sha256: [u8; 32],
    slots: Semaphore,
}

impl Attestor {
    pub(crate) fn new(nsm: Arc<dyn Nsm>, spki_sha256: [u8; 32]) -> Self {
        Self { nsm, spki_sha256, slots: Semaphore::new(MAX_AT_ONCE) }
    }

    /// A document with `nonce` and, as user data, the SHA-256 of the service certificate's SubjectPublicKeyInfo.
    pub(crate) async fn document(&self, nonce: Vec<u8>) -> Result<Vec<u8>, Status> {
        let _slot = self.slots.acquire().await.map_err(|_| failed(&"the service is stopping"))?;
        let (nsm, user_data) = (Arc::clone(&self.nsm), self.spki_sha256);
        // The NSM is a blocking device that takes milliseconds.
        let attesting = tokio::task::spawn_blocking(move || nsm.attest(Some(&user_data), Some(&nonce), None));
        match attesting.await {
            Ok(Ok(document)) => Ok(document),
            Ok(Err(error)) => Err(failed(&error)),
            Err(error) => Err(failed(&error)),
        }
    }
}

fn failed(error: &dyn std::fmt::Display) -> Status {
    tracing::error!(%error, "the NSM made no attestation document");
    Status::internal("the NSM made no attestation document; see the enclave's log")
}
