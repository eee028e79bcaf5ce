//! Operations on keys themselves.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::{Call, Service, check_enabled, no_members};
use crate::aws::uuid::Uuid;
use crate::kms::{
    blob::KeyMaterial,
    error::ServiceError,
    keys::Key,
    policy::{ConditionValues, Policy, Question},
    request::{CreateKey, EnableKeyRotation, GetKeyPolicy, KeyOnly, PutKeyPolicy, read},
};

const MAX_DESCRIPTION: usize = 8192;
const POLICY_NAME: &str = "default";
const DEFAULT_ROTATION_DAYS: u16 = 365;

impl Service {
    /// No key policy can be asked yet: IAM decides, and all principals here are administrators in IAM.
    pub(super) fn create_key(&self, body: &[u8], call: &mut Call<'_>) -> Result<Value, ServiceError> {
        let request: CreateKey = read(body)?;
        only("KeySpec", request.key_spec.as_deref(), "SYMMETRIC_DEFAULT")?;
        only("KeyUsage", request.key_usage.as_deref(), "ENCRYPT_DECRYPT")?;
        only("Origin", request.origin.as_deref(), "AWS_KMS")?;
        if request.description.len() > MAX_DESCRIPTION {
            return Err(ServiceError::constraint("description", "have length less than or equal to 8192"));
        }
        let id = Uuid::random()?;
        let arn = self.keys.arn(&id);
        let policy = match &request.policy {
            Some(text) => new_policy(text, &arn, request.bypass_policy_lockout_safety_check, call)?,
            None => Policy::default_for(self.keys.account())?,
        };
        let key = Key {
            id,
            arn,
            description: request.description,
            created: SystemTime::now(),
            enabled: true,
            rotation_days: None,
            policy: Arc::new(policy),
            material: Arc::new(KeyMaterial::generate()?),
        };
        call.notes.key_id = Some(id.to_string());
        let metadata = self.metadata(&key);
        self.keys.insert(key);
        Ok(metadata)
    }

    pub(super) fn describe_key(&self, body: &[u8], call: &mut Call<'_>) -> Result<Value, ServiceError> {
        let request: KeyOnly = read(body)?;
        Ok(self.metadata(&self.authorized_key(&request.key_id, "kms:DescribeKey", call)?))
    }

    pub(super) fn disable_key(&self, body: &[u8], call: &mut Call<'_>) -> Result<Value, ServiceError> {
        let request: KeyOnly = read(body)?;
        let key = self.authorized_key(&request.key_id, "kms:DisableKey", call)?;
        self.keys.update(&key.id, |key| key.enabled = false);
        Ok(no_members())
    }

    pub(super) fn enable_key(&self, body: &[u8], call: &mut Call<'_>) -> Result<Value, ServiceError> {
        let request: KeyOnly = read(body)?;
        let key = self.authorized_key(&request.key_id, "kms:EnableKey", call)?;
        self.keys.update(&key.id, |key| key.enabled = true);
        Ok(no_members())
    }

    pub(super) fn enable_key_rotation(
        &self,
        body: &[u8],
        call: &mut Call<'_>,
    ) -> Result<Value, ServiceError> {
        let request: EnableKeyRotation = read(body)?;
        let days = request.rotation_period_in_days.unwrap_or(DEFAULT_ROTATION_DAYS);
        if !(90..=2560).contains(&days) {
            return Err(ServiceError::constraint("rotationPeriodInDays", "be between 90 and 2560"));
        }
        let key = self.authorized_key(&request.key_id, "kms:EnableKeyRotation", call)?;
        check_enabled(&key)?;
        self.keys.update(&key.id, |key| key.rotation_days = Some(days));
        Ok(no_members())
    }

    pub(super) fn get_key_rotation_status(
        &self,
        body: &[u8],
        call: &mut Call<'_>,
    ) -> Result<Value, ServiceError> {
        let request: KeyOnly = read(body)?;
        let key = self.authorized_key(&request.key_id, "kms:GetKeyRotationStatus", call)?;
        Ok(match key.rotation_days {
            Some(days) => {
                json!({"KeyId": key.arn, "KeyRotationEnabled": true, "RotationPeriodInDays": days})
            }
            None => json!({"KeyId": key.arn, "KeyRotationEnabled": false}),
        })
    }

    pub(super) fn get_key_policy(&self, body: &[u8], call: &mut Call<'_>) -> Result<Value, ServiceError> {
        let request: GetKeyPolicy = read(body)?;
        check_policy_name(request.policy_name.as_deref())?;
        let key = self.authorized_key(&request.key_id, "kms:GetKeyPolicy", call)?;
        Ok(json!({"Policy": key.policy.text(), "PolicyName": POLICY_NAME}))
    }

    pub(super) fn put_key_policy(&self, body: &[u8], call: &mut Call<'_>) -> Result<Value, ServiceError> {
        let request: PutKeyPolicy = read(body)?;
        check_policy_name(request.policy_name.as_deref())?;
        let key = self.authorized_key(&request.key_id, "kms:PutKeyPolicy", call)?;
        let policy = new_policy(&request.policy, &key.arn, request.bypass_policy_lockout_safety_check, call)?;
        self.keys.update(&key.id, |key| key.policy = Arc::new(policy));
        Ok(no_members())
    }

    fn metadata(&self, key: &Key) -> Value {
        let created = key.created.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        json!({"KeyMetadata": {
            "AWSAccountId": self.keys.account(),
            "KeyId": key.id.to_string(),
            "Arn": key.arn,
            "CreationDate": created,
            "Enabled": key.enabled,
            "Description": key.description,
            "KeyUsage": "ENCRYPT_DECRYPT",
            "KeyState": if key.enabled { "Enabled" } else { "Disabled" },
            "Origin": "AWS_KMS",
            "KeyManager": "CUSTOMER",
            "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT",
            "KeySpec": "SYMMETRIC_DEFAULT",
            "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
            "MultiRegion": false,
        }})
    }
}

/// AWS refuses a policy after which the caller could not put another one, unless told to take it.
fn new_policy(text: &str, arn: &str, bypass: bool, call: &Call<'_>) -> Result<Policy, ServiceError> {
    let policy = Policy::parse(text)?;
    let values = ConditionValues::default();
    let next =
        Question { principal: call.principal, action: "kms:PutKeyPolicy", resource: arn, values: &values };
    if !bypass && policy.authorize(&next).is_err() {
        let message = "The new key policy will not allow you to update the key policy in the future.";
        return Err(ServiceError::malformed_policy(message));
    }
    Ok(policy)
}

fn check_policy_name(name: Option<&str>) -> Result<(), ServiceError> {
    match name {
        None | Some(POLICY_NAME) => Ok(()),
        Some(name) => Err(ServiceError::not_found(format!("No such policy exists: {name}"))),
    }
}

fn only(member: &str, value: Option<&str>, supported: &str) -> Result<(), ServiceError> {
    match value {
        Some(other) if other != supported => {
            Err(ServiceError::unsupported(format!("This KMS knows {member} {supported} only, not {other}")))
        }
        _ => Ok(()),
    }
}
