use std::{path::Path, time::Duration};

use api::control::{Configuration, Credentials, FailureReason};
use attestation::Nsm;
use keyshares::{Digests, Identity, OpenError};
use kms::{Access, Kms, KmsError, RecipientKey};
use zeroize::Zeroizing;

use crate::{
    config::Config,
    download::SealedBundle,
    error::{BootError, Facts, because},
    key_file::KeyFile,
    measure::nsm_failed,
    scrub::on_wiped_stack,
};

/// A key for KMS to encrypt its answer to, and the document that proves whose key it is.
pub(crate) struct Recipient {
    key: RecipientKey,
    document: Vec<u8>,
}

/// Makes the key and has the NSM attest it.
pub(crate) fn attest_recipient_key(nsm: &dyn Nsm) -> Result<Recipient, BootError> {
    let key = RecipientKey::generate()
        .map_err(|error| BootError::new(FailureReason::Internal, error.to_string()))?;
    let document = nsm
        .attest(None, None, Some(key.public_key_der()))
        .map_err(nsm_failed("cannot get an attestation document for KMS"))?;
    Ok(Recipient { key, document })
}

/// Has KMS decrypt the identity for the recipient. Returns the envelope, which only the recipient's key opens.
///
/// The credentials are used for this one call and are gone when it returns.
pub(crate) async fn ask_kms(
    config: &Config,
    configuration: &Configuration,
    credentials: Credentials,
    identity_ciphertext: &[u8],
    recipient: &Recipient,
    facts: &mut Facts,
) -> Result<Vec<u8>, BootError> {
    let kms = Kms::new(Access {
        region: configuration.region.clone(),
        host: None,
        dial: config.parent.port(api::ports::KMS),
        roots: config.kms_roots()?,
        credentials: wiped_credentials(credentials),
        timeout: Duration::from_millis(configuration.kms_timeout_ms.into()),
    });
    let context = api::encryption_context(&hex::encode(&configuration.bundle_sha256), configuration.epoch);
    let released = kms
        .decrypt_for_recipient(&configuration.kms_key_id, identity_ciphertext, &context, &recipient.document)
        .await
        .map_err(|error| kms_failed(&error))?;
    facts.insert("kms_request_id".to_owned(), released.request_id);
    facts.insert("kms_latency_us".to_owned(), released.latency.as_micros().to_string());
    Ok(released.ciphertext_for_recipient)
}

fn wiped_credentials(credentials: Credentials) -> kms::Credentials {
    let Credentials { access_key_id, secret_access_key, session_token } = credentials;
    let session_token = (!session_token.is_empty()).then(|| Zeroizing::new(session_token));
    kms::Credentials { access_key_id, secret_access_key: Zeroizing::new(secret_access_key), session_token }
}

fn kms_failed(error: &KmsError) -> BootError {
    let reason = match error {
        KmsError::InvalidCiphertext { .. } => FailureReason::IdentityInvalid,
        KmsError::PlaintextAnswer { .. } | KmsError::NoRecipientCiphertext { .. } => {
            FailureReason::KmsAnswerInvalid
        }
        trouble if trouble.is_transient() => FailureReason::KmsUnreachable,
        // Whatever else KMS says, such as that the attestation document is invalid, it says no.
        _ => FailureReason::KmsDenied,
    };
    let failure = BootError::new(reason, error.to_string());
    let failure = match error.request_id() {
        Some(id) => failure.detail("kms_request_id", id),
        None => failure,
    };
    match error {
        KmsError::Denied { code, .. }
        | KmsError::InvalidCiphertext { code, .. }
        | KmsError::Other { code, .. } => failure.detail("kms_error_code", code),
        _ => failure,
    }
}

/// Opens the envelope, and with the identity in it the sealed bundle, into the key file at `plaintext`.
///
/// The recipient's key and the identity end here, on a thread whose stack is wiped.
pub(crate) fn open_bundle(
    recipient: Recipient,
    envelope: &[u8],
    sealed: SealedBundle,
    plaintext: &Path,
    facts: &mut Facts,
) -> Result<KeyFile, BootError> {
    let opened = on_wiped_stack(move || {
        let identity = open_identity(&recipient, envelope)?;
        drop(recipient);
        open_with(&identity, &sealed, plaintext)
    });
    let (key_file, digests) =
        opened.map_err(because(FailureReason::Internal, "cannot unseal on a thread of its own"))??;
    facts.insert("bundle_sha256_ciphertext".to_owned(), hex::encode(digests.ciphertext_sha256));
    facts.insert("bundle_sha256_plaintext".to_owned(), hex::encode(digests.plaintext_sha256));
    Ok(key_file)
}

fn open_identity(recipient: &Recipient, envelope: &[u8]) -> Result<Identity, BootError> {
    let text = recipient
        .key
        .open(envelope)
        .map_err(because(FailureReason::KmsAnswerInvalid, "KMS's answer cannot be opened"))?;
    Identity::parse(&text)
        .map_err(because(FailureReason::IdentityInvalid, "what KMS released is not an age identity"))
}

fn open_with(
    identity: &Identity,
    sealed: &SealedBundle,
    plaintext: &Path,
) -> Result<(KeyFile, Digests), BootError> {
    let mut key_file = KeyFile::create(plaintext).map_err(because(
        FailureReason::Internal,
        format!("cannot make the key file {}", plaintext.display()),
    ))?;
    let input =
        sealed.reader().map_err(because(FailureReason::Internal, "cannot read the sealed bundle back"))?;
    // A plaintext is shorter than its age file.
    let digests = keyshares::open(input, identity, sealed.size, &mut key_file).map_err(open_failed)?;
    if digests.ciphertext_sha256 != sealed.sha256 || digests.ciphertext_sha384 != sealed.sha384 {
        return Err(BootError::new(
            FailureReason::BundleCorrupt,
            "the sealed bundle changed after it was measured",
        ));
    }
    Ok((key_file, digests))
}

fn open_failed(error: OpenError) -> BootError {
    let reason = match error {
        OpenError::Reading(_) | OpenError::Writing(_) => FailureReason::Internal,
        _ => FailureReason::BundleCorrupt,
    };
    because(reason, "the sealed bundle cannot be opened")(error)
}

#[cfg(test)]
#[path = "unseal_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "unseal_memory_tests.rs"]
mod memory_tests;
