use std::{
    fmt,
    time::{Duration, Instant},
};

use aws_sdk_kms::{
    Client,
    config::{
        BehaviorVersion, Region, StalledStreamProtectionConfig, retry::RetryConfig, timeout::TimeoutConfig,
    },
    operation::{RequestId as _, decrypt::DecryptOutput},
    primitives::Blob,
    types::{KeyEncryptionMechanism, RecipientInfo},
};
use rustls::RootCertStore;
use vsock::Endpoint;
use zeroize::Zeroizing;

use crate::{KmsError, connector, error::known};

/// Attempts at one operation, the first included.
const ATTEMPTS: u32 = 3;
/// Before the second attempt; doubled before the third. Times a random factor below one.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);

/// Where KMS is, and as whom to call it.
#[derive(Debug)]
pub struct Access {
    /// Such as `eu-central-1`; requests are signed for it.
    pub region: String,
    /// Name in the URL: the server's certificate has to be for it. `None`: AWS's own name for the region's endpoint,
    /// `kms.<region>.amazonaws.com`.
    pub host: Option<String>,
    /// Where to connect to in fact.
    pub dial: Endpoint,
    /// Certificate authorities the server's certificate may be under.
    pub roots: RootCertStore,
    /// Who calls.
    pub credentials: Credentials,
    /// Longest time for one operation, all attempts and the pauses between them included. One attempt may take half of
    /// it, so that a connection that hangs is given up while there is time for another.
    pub timeout: Duration,
}

/// An access key of AWS. Neither the secret nor the token is ever printed; both are wiped when dropped.
#[derive(Clone)]
pub struct Credentials {
    /// Public name of the key.
    pub access_key_id: String,
    /// What requests are signed with.
    pub secret_access_key: Zeroizing<String>,
    /// With temporary credentials, such as those of an instance's role.
    pub session_token: Option<Zeroizing<String>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl Credentials {
    fn to_sdk(&self) -> aws_sdk_kms::config::Credentials {
        let token = self.session_token.as_ref().map(|token| token.to_string());
        let secret = self.secret_access_key.to_string();
        aws_sdk_kms::config::Credentials::new(&self.access_key_id, secret, token, None, "nitro-sign")
    }
}

/// A client for KMS. Drop it to drop the credentials.
#[derive(Debug, Clone)]
pub struct Kms(Client);

/// What KMS released: still ciphertext, for [`RecipientKey::open`](crate::RecipientKey::open).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// CMS envelope for the key that the attestation document names.
    pub ciphertext_for_recipient: Vec<u8>,
    /// AWS's identifier of the request.
    pub request_id: String,
    /// From the call to the answer, all attempts included.
    pub latency: Duration,
}

impl Kms {
    /// Connects when the first operation needs it, not here.
    pub fn new(access: Access) -> Self {
        let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(FIRST_BACKOFF);
        let timeouts = TimeoutConfig::builder()
            .operation_timeout(access.timeout)
            .operation_attempt_timeout(access.timeout / 2)
            .build();
        let mut config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(access.region))
            .credentials_provider(access.credentials.to_sdk())
            .retry_config(retries)
            .timeout_config(timeouts)
            // Answers are a few kilobytes at once: the timeouts above are all the protection they need.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .http_client(connector::http_client(access.dial, access.roots));
        config.set_endpoint_url(access.host.map(|host| format!("https://{host}")));
        Self(Client::from_conf(config.build()))
    }

    /// Asks KMS to decrypt `ciphertext` for the key named in `attestation_document`, which has to be fresh: KMS takes
    /// documents of the last five minutes. `context` is the encryption context, exactly as at encryption.
    ///
    /// # Errors
    /// See [`KmsError`]. An answer with a plaintext in it is one: it means that no attestation has been checked.
    pub async fn decrypt_for_recipient(
        &self,
        key_id: &str,
        ciphertext: &[u8],
        context: &[(String, String)],
        attestation_document: &[u8],
    ) -> Result<Released, KmsError> {
        let recipient = RecipientInfo::builder()
            .key_encryption_algorithm(KeyEncryptionMechanism::RsaesOaepSha256)
            .attestation_document(Blob::new(attestation_document))
            .build();
        let request = self
            .0
            .decrypt()
            .key_id(key_id)
            .ciphertext_blob(Blob::new(ciphertext))
            .set_encryption_context(Some(context.iter().cloned().collect()))
            .recipient(recipient);
        let start = Instant::now();
        let answer = request.send().await?;
        let latency = start.elapsed();
        let request_id = known(answer.request_id());
        tracing::debug!(request_id, latency_ms = latency.as_millis(), "KMS answered Decrypt for a recipient");
        let ciphertext_for_recipient = take_recipient_ciphertext(answer, &request_id)?;
        Ok(Released { ciphertext_for_recipient, request_id, latency })
    }

    /// The SDK's client, for the operations of an operator.
    pub fn sdk(&self) -> &Client {
        &self.0
    }
}

/// `Plaintext` is null or empty in an answer for a recipient: KMS API reference, Decrypt.
fn take_recipient_ciphertext(mut answer: DecryptOutput, request_id: &str) -> Result<Vec<u8>, KmsError> {
    let plaintext = answer.plaintext.take().map(|plaintext| Zeroizing::new(plaintext.into_inner()));
    if plaintext.is_some_and(|plaintext| !plaintext.is_empty()) {
        return Err(KmsError::PlaintextAnswer { request_id: request_id.to_owned() });
    }
    let ciphertext = answer.ciphertext_for_recipient.take().map(Blob::into_inner);
    match ciphertext {
        Some(ciphertext) if !ciphertext.is_empty() => Ok(ciphertext),
        _ => Err(KmsError::NoRecipientCiphertext { request_id: request_id.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(plaintext: Option<&[u8]>, ciphertext: Option<&[u8]>) -> Result<Vec<u8>, KmsError> {
        let output = DecryptOutput::builder()
            .set_plaintext(plaintext.map(Blob::new))
            .set_ciphertext_for_recipient(ciphertext.map(Blob::new))
            .build();
        take_recipient_ciphertext(output, "id-1")
    }

    #[test]
    fn only_an_answer_for_the_recipient_alone_is_taken() {
        let plaintext_answer = Err(KmsError::PlaintextAnswer { request_id: "id-1".to_owned() });
        let nothing = Err(KmsError::NoRecipientCiphertext { request_id: "id-1".to_owned() });
        assert_eq!(answer(None, Some(b"envelope")), Ok(b"envelope".to_vec()));
        assert_eq!(answer(Some(b""), Some(b"envelope")), Ok(b"envelope".to_vec()));
        assert_eq!(answer(Some(b"secret"), None), plaintext_answer);
        assert_eq!(answer(Some(b"secret"), Some(b"envelope")), plaintext_answer);
        assert_eq!(answer(None, None), nothing);
        assert_eq!(answer(None, Some(b"")), nothing);
    }

    #[test]
    fn credentials_do_not_print_their_secrets() {
        let credentials = Credentials {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "the-secret".to_owned().into(),
            session_token: Some("the-token".to_owned().into()),
        };
        let text = format!("{credentials:?}");
        assert!(text.contains("AKIDEXAMPLE") && !text.contains("the-"), "{text}");
    }
}
