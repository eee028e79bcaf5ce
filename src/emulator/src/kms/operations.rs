//! The operations of KMS: what a signed request does. Source: AWS KMS API reference.

mod cryptography;
mod management;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use attestation::TrustRoot;
use serde_json::Value;

use super::{
    envelope::Layout,
    error::ServiceError,
    keys::{Key, KeyStore},
    policy::{ConditionValues, Question},
};
use crate::aws::{
    fault::FaultFile,
    service::{self, Answer, Summary},
};

/// One account's KMS in one region.
pub(crate) struct Service {
    pub(crate) keys: KeyStore,
    pub(crate) attestation_root: TrustRoot,
    pub(crate) fault: FaultFile,
    refused_document: Option<PathBuf>,
    envelopes: AtomicU64,
}

/// One request by a known principal. What is learned about it on the way is for the log.
pub(crate) type Call<'a> = service::Call<'a, CallLog>;

/// Never has a plaintext in it.
#[derive(Default)]
pub(crate) struct CallLog {
    pub(crate) key_id: Option<String>,
    pub(crate) pcr0: Option<String>,
    pub(crate) pcr16: Option<String>,
    /// How the answer was spoiled on purpose.
    pub(crate) fault: Option<String>,
}

impl Service {
    /// `refused_document` is where documents go that are not believed.
    pub(crate) fn new(
        keys: KeyStore,
        attestation_root: TrustRoot,
        fault: FaultFile,
        refused_document: Option<PathBuf>,
    ) -> Self {
        Self { keys, attestation_root, fault, refused_document, envelopes: AtomicU64::new(0) }
    }

    /// The key a request names, for an operation that brings no condition keys.
    fn authorized_key(&self, name: &str, action: &str, call: &mut Call<'_>) -> Result<Key, ServiceError> {
        let key = self.keys.find(name)?;
        call.notes.key_id = Some(key.id.to_string());
        authorize(&key, action, &ConditionValues::default(), call)?;
        Ok(key)
    }

    /// Both layouts in turn: a client that reads one of them only will fail here, not at AWS.
    fn next_layout(&self) -> Layout {
        match self.envelopes.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => Layout::Chunks,
            _ => Layout::Primitive,
        }
    }
}

impl service::Service for Service {
    /// The name of KMS in requests is not "KMS".
    const TARGET_PREFIX: &'static str = "TrentService.";
    const MAX_BODY: usize = 1024 * 1024;
    type Notes = CallLog;

    async fn answer(&self, call: &mut Call<'_>) -> Result<Answer, ServiceError> {
        let (operation, body) = (call.operation, call.body);
        let members = match operation {
            "Decrypt" => return self.decrypt(body, call).await,
            "Encrypt" => self.encrypt(body, call)?,
            "ReEncrypt" => self.re_encrypt(body, call)?,
            "CreateKey" => self.create_key(body, call)?,
            "DescribeKey" => self.describe_key(body, call)?,
            "DisableKey" => self.disable_key(body, call)?,
            "EnableKey" => self.enable_key(body, call)?,
            "EnableKeyRotation" => self.enable_key_rotation(body, call)?,
            "GetKeyPolicy" => self.get_key_policy(body, call)?,
            "GetKeyRotationStatus" => self.get_key_rotation_status(body, call)?,
            "PutKeyPolicy" => self.put_key_policy(body, call)?,
            _ => return Err(ServiceError::unknown_operation()),
        };
        Ok(Answer::Members(members))
    }

    fn log(request: &Summary<'_>, notes: &CallLog) {
        tracing::info!(
            operation = request.operation,
            principal = request.principal,
            key_id = notes.key_id,
            request_id = request.request_id,
            outcome = request.outcome,
            error_message = request.error_message,
            pcr0 = notes.pcr0,
            pcr16 = notes.pcr16,
            fault = notes.fault,
            "request"
        );
    }
}

/// The policy comes before the state of the key: who may not use it is not told how it is.
fn authorize(key: &Key, action: &str, values: &ConditionValues, call: &Call<'_>) -> Result<(), ServiceError> {
    key.policy.authorize(&Question { principal: call.principal, action, resource: &key.arn, values })
}

fn check_enabled(key: &Key) -> Result<(), ServiceError> {
    if key.enabled { Ok(()) } else { Err(ServiceError::disabled(&key.arn)) }
}

fn no_members() -> Value {
    Value::Object(serde_json::Map::new())
}

/// Bytes of all names and values together.
const MAX_ENCRYPTION_CONTEXT: usize = 8192;

fn check_context(context: &BTreeMap<String, String>) -> Result<(), ServiceError> {
    let length: usize = context.iter().map(|(name, value)| name.len() + value.len()).sum();
    if length > MAX_ENCRYPTION_CONTEXT {
        return Err(ServiceError::validation("EncryptionContext is too long: at most 8192 bytes"));
    }
    Ok(())
}
