//! KMS as the operator uses it. Nothing here ever asks KMS to decrypt.

use std::{collections::HashMap, env, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use aws_sdk_kms::{Client, primitives::Blob};
use kms::KmsError;
use secrecy::{ExposeSecret as _, SecretString};
use vsock::Endpoint;

use crate::{KmsOptions, Usage, files};

/// For one KMS call with its retries.
const TIMEOUT: Duration = Duration::from_secs(30);
const TLS_PORT: u16 = 443;

/// The KMS of one region.
pub(crate) struct Aws {
    kms: kms::Kms,
}

/// What KMS made of a plaintext.
pub(crate) struct Encrypted {
    /// ARN of the key that was used.
    pub(crate) key_arn: String,
    pub(crate) ciphertext: Vec<u8>,
}

impl Aws {
    /// Prepares access; nothing is sent yet.
    pub(crate) fn new(options: &KmsOptions, region: &str) -> Result<Self> {
        let roots = match &options.kms_ca {
            Some(path) => kms::roots_from_pem(&files::read_text(path, 1 << 20)?)
                .with_context(|| format!("--kms-ca {}", path.display()))?,
            None => kms::default_roots(),
        };
        let dial = options
            .kms_endpoint
            .clone()
            .unwrap_or_else(|| Endpoint::Tcp { host: format!("kms.{region}.amazonaws.com"), port: TLS_PORT });
        let access = kms::Access {
            region: region.to_owned(),
            host: None,
            dial,
            roots,
            credentials: credentials()?,
            timeout: TIMEOUT,
        };
        Ok(Self { kms: kms::Kms::new(access) })
    }

    fn client(&self) -> &Client {
        self.kms.sdk()
    }

    /// Makes a symmetric key; answers its ARN.
    pub(crate) async fn create_key(&self, party: &str, policy: &str) -> Result<String> {
        let request = self.client().create_key().description(format!("nitro-sign: age identity of {party}"));
        let answer =
            request.policy(policy).send().await.map_err(KmsError::from).map_err(failed("CreateKey"))?;
        let metadata = answer.key_metadata.context("KMS CreateKey answered without key metadata")?;
        Ok(metadata.arn.unwrap_or(metadata.key_id))
    }

    /// Encrypts under an encryption context. The SDK's own copies of the plaintext are wiped by the allocator.
    pub(crate) async fn encrypt(
        &self,
        key_id: &str,
        plaintext: &SecretString,
        context: [(String, String); 2],
    ) -> Result<Encrypted> {
        let request = self.client().encrypt().key_id(key_id);
        let answer = request
            .plaintext(Blob::new(plaintext.expose_secret().as_bytes()))
            .set_encryption_context(Some(HashMap::from(context)))
            .send()
            .await
            .map_err(KmsError::from)
            .map_err(failed("Encrypt"))?;
        Ok(Encrypted {
            key_arn: answer.key_id.unwrap_or_else(|| key_id.to_owned()),
            ciphertext: ciphertext("Encrypt", answer.ciphertext_blob)?,
        })
    }

    /// Binds a ciphertext to another encryption context; its plaintext stays inside KMS.
    pub(crate) async fn rebind(
        &self,
        key_id: &str,
        old: Vec<u8>,
        from: [(String, String); 2],
        to: [(String, String); 2],
    ) -> Result<Vec<u8>> {
        let request = self.client().re_encrypt().source_key_id(key_id).destination_key_id(key_id);
        let answer = request
            .ciphertext_blob(Blob::new(old))
            .set_source_encryption_context(Some(HashMap::from(from)))
            .set_destination_encryption_context(Some(HashMap::from(to)))
            .send()
            .await
            .map_err(KmsError::from)
            .map_err(failed("ReEncrypt"))?;
        ciphertext("ReEncrypt", answer.ciphertext_blob)
    }

    /// Replaces the key's policy. KMS refuses one that would lock the caller out.
    pub(crate) async fn put_policy(&self, key_id: &str, policy: &str) -> Result<()> {
        let request = self.client().put_key_policy().key_id(key_id).policy(policy);
        request.send().await.map_err(KmsError::from).map_err(failed("PutKeyPolicy"))?;
        Ok(())
    }
}

fn credentials() -> Result<kms::Credentials> {
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let required = |name: &str| {
        variable(name).ok_or_else(|| {
            Usage(format!(
                "{name} is not set; AWS credentials come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"
            ))
        })
    };
    Ok(kms::Credentials {
        access_key_id: required("AWS_ACCESS_KEY_ID")?,
        secret_access_key: required("AWS_SECRET_ACCESS_KEY")?.into(),
        session_token: variable("AWS_SESSION_TOKEN").map(Into::into),
    })
}

fn ciphertext(operation: &str, blob: Option<Blob>) -> Result<Vec<u8>> {
    let ciphertext = blob.map(Blob::into_inner).unwrap_or_default();
    let limit = api::MAX_IDENTITY_CIPHERTEXT_BYTES;
    ensure!(
        (1..=limit).contains(&ciphertext.len()),
        "KMS {operation} answered a ciphertext of {} bytes; expected 1 to {limit}",
        ciphertext.len()
    );
    Ok(ciphertext)
}

/// What failed, and what to check.
fn failed(operation: &'static str) -> impl FnOnce(KmsError) -> anyhow::Error {
    move |error| anyhow!("KMS {operation}: {error}; {}", remedy(operation, &error))
}

fn remedy(operation: &str, error: &KmsError) -> String {
    let code = match error {
        KmsError::Unreachable(_) => {
            return "check the network, --region, --kms-endpoint and --kms-ca".to_owned();
        }
        KmsError::Denied { code, .. }
        | KmsError::InvalidCiphertext { code, .. }
        | KmsError::Other { code, .. } => code,
        _ => "",
    };
    match code {
        "AccessDeniedException" => format!("check that the key policy and IAM allow the caller kms:{operation}*"),
        "NotFoundException" => "check the key id and --region".to_owned(),
        "DisabledException" | "KMSInvalidStateException" => {
            "the key is disabled or about to be deleted: enable it, or cancel its deletion".to_owned()
        }
        "InvalidCiphertextException" | "IncorrectKeyException" => {
            "age-identity.kms is not bound to this key, epoch and bundle: restore the directory from a backup".to_owned()
        }
        "MalformedPolicyDocumentException" => {
            "check that the policy's principals exist, and that the caller is one of --admin: KMS refuses a policy \
             under which its caller could not replace it again"
                .to_owned()
        }
        "ExpiredTokenException"
        | "IncompleteSignatureException"
        | "InvalidSignatureException"
        | "MissingAuthenticationTokenException"
        | "UnrecognizedClientException" => {
            "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and this machine's clock".to_owned()
        }
        _ => format!("see the errors of {operation} in the AWS KMS API reference"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(code: &str) -> KmsError {
        KmsError::Denied { code: code.to_owned(), message: "text".to_owned(), request_id: "id-1".to_owned() }
    }

    #[test]
    fn a_failure_names_the_operation_the_code_the_request_and_what_to_check() {
        let error = format!("{:#}", failed("ReEncrypt")(denied("AccessDeniedException")));
        for part in ["KMS ReEncrypt", "AccessDeniedException", "id-1", "kms:ReEncrypt*"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn an_unreachable_kms_sends_the_operator_to_the_network() {
        let error = format!("{:#}", failed("Encrypt")(KmsError::Unreachable("timed out".to_owned())));
        assert!(error.contains("timed out") && error.contains("--kms-endpoint"), "{error}");
    }

    #[test]
    fn an_answer_without_or_with_too_large_a_ciphertext_is_refused() {
        assert!(ciphertext("Encrypt", None).is_err());
        assert!(ciphertext("Encrypt", Some(Blob::new([0; 6145]))).is_err());
        assert_eq!(ciphertext("Encrypt", Some(Blob::new([1]))).unwrap(), [1]);
    }
}
