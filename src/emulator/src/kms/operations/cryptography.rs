//! Operations that use a key.

use std::{fs, time::SystemTime};

use attestation::PCR_CONFIGURATION;
use serde_json::{Value, json};
use tokio::time::sleep;
use zeroize::Zeroizing;

use super::{Call, Service, authorize, check_context, check_enabled};
use crate::aws::service::Answer;
use crate::kms::{
    blob::{self as ciphertexts, EncryptionContext},
    envelope::Envelope,
    error::ServiceError,
    fault::{Fault, Mode},
    keys::Key,
    policy::ConditionValues,
    recipient::Recipient,
    request::{Decrypt, Encrypt, ReEncrypt, blob, read},
};

/// Bytes: KMS API reference, Encrypt and Decrypt.
const MAX_PLAINTEXT: usize = 4096;
const MAX_CIPHERTEXT: usize = 6144;
const ALGORITHM: &str = "SYMMETRIC_DEFAULT";

impl Service {
    pub(super) fn encrypt(&self, body: &[u8], call: &mut Call<'_>) -> Result<Value, ServiceError> {
        let request: Encrypt = read(body)?;
        let plaintext = Zeroizing::new(request.plaintext.0);
        if plaintext.is_empty() || plaintext.len() > MAX_PLAINTEXT {
            return Err(ServiceError::constraint("plaintext", "have length between 1 and 4096"));
        }
        check_algorithm(request.encryption_algorithm.as_deref())?;
        let key = self.keys.find(&request.key_id)?;
        call.notes.key_id = Some(key.id.to_string());
        let context = &request.encryption_context;
        let values = ConditionValues::new(context, None);
        let ciphertext = encrypt(&key, "kms:Encrypt", &plaintext, context, &values, call)?;
        Ok(json!({
            "CiphertextBlob": blob(&ciphertext),
            "KeyId": key.arn,
            "EncryptionAlgorithm": ALGORITHM,
        }))
    }

    pub(super) async fn decrypt(&self, body: &[u8], call: &mut Call<'_>) -> Result<Answer, ServiceError> {
        let request: Decrypt = read(body)?;
        check_algorithm(request.encryption_algorithm.as_deref())?;
        let Some(info) = &request.recipient else {
            let (key, plaintext) = self.open(&request, None, call)?;
            return Ok(Answer::Members(plaintext_answer(&key, &plaintext)));
        };
        let recipient = Recipient::new(info, &self.attestation_root, SystemTime::now())
            .inspect_err(|_| self.keep_refused(info.document()))?;
        call.notes.pcr0 = recipient.document.pcr(0).map(|pcr| pcr.to_string());
        call.notes.pcr16 = recipient.document.pcr(PCR_CONFIGURATION).map(|pcr| pcr.to_string());
        let (key, plaintext) = self.open(&request, Some(&recipient), call)?;
        let fault = Fault::read(&self.fault)?;
        sleep(fault.delay()).await;
        self.answer_recipient(&key, &plaintext, &recipient, fault, call)
    }

    /// For whoever wants to know what was wrong with it.
    fn keep_refused(&self, document: &[u8]) {
        let Some(file) = &self.refused_document else { return };
        if let Err(error) = fs::write(file, document) {
            tracing::error!(file = %file.display(), %error, "cannot keep the refused document");
        }
    }

    pub(super) fn re_encrypt(&self, body: &[u8], call: &mut Call<'_>) -> Result<Value, ServiceError> {
        let request: ReEncrypt = read(body)?;
        check_algorithm(request.source_encryption_algorithm.as_deref())?;
        check_algorithm(request.destination_encryption_algorithm.as_deref())?;
        let source = self.key_of(&request.ciphertext_blob.0, request.source_key_id.as_deref(), call)?;
        let destination = self.keys.find(&request.destination_key_id)?;
        let same_key = source.id == destination.id;
        let context = &request.source_encryption_context;
        let values = ConditionValues::new(context, None).re_encrypt(same_key);
        let plaintext =
            decrypt(&source, "kms:ReEncryptFrom", &request.ciphertext_blob.0, context, &values, call)?;
        let context = &request.destination_encryption_context;
        let values = ConditionValues::new(context, None).re_encrypt(same_key);
        let ciphertext = encrypt(&destination, "kms:ReEncryptTo", &plaintext, context, &values, call)?;
        Ok(json!({
            "CiphertextBlob": blob(&ciphertext),
            "SourceKeyId": source.arn,
            "KeyId": destination.arn,
            "SourceEncryptionAlgorithm": ALGORITHM,
            "DestinationEncryptionAlgorithm": ALGORITHM,
        }))
    }

    fn open(
        &self,
        request: &Decrypt,
        recipient: Option<&Recipient>,
        call: &mut Call<'_>,
    ) -> Result<(Key, Zeroizing<Vec<u8>>), ServiceError> {
        let ciphertext = &request.ciphertext_blob.0;
        let context = &request.encryption_context;
        let key = self.key_of(ciphertext, request.key_id.as_deref(), call)?;
        let values = ConditionValues::new(context, recipient.map(|recipient| &recipient.document));
        let plaintext = decrypt(&key, "kms:Decrypt", ciphertext, context, &values, call)?;
        Ok((key, plaintext))
    }

    /// The key a ciphertext is under. A request may name it, and then it has to be that one.
    fn key_of(
        &self,
        ciphertext: &[u8],
        name: Option<&str>,
        call: &mut Call<'_>,
    ) -> Result<Key, ServiceError> {
        if ciphertext.is_empty() || ciphertext.len() > MAX_CIPHERTEXT {
            return Err(ServiceError::constraint("ciphertextBlob", "have length between 1 and 6144"));
        }
        let named = name.map(|name| self.keys.find(name)).transpose()?;
        if let Some(key) = &named {
            call.notes.key_id = Some(key.id.to_string());
        }
        let id = ciphertexts::key_id(ciphertext)?;
        let key = match named {
            Some(key) if key.id == id => key,
            Some(_) => return Err(ServiceError::incorrect_key()),
            None => self.keys.get(&id)?,
        };
        call.notes.key_id = Some(key.id.to_string());
        Ok(key)
    }

    fn answer_recipient(
        &self,
        key: &Key,
        plaintext: &[u8],
        recipient: &Recipient,
        fault: Fault,
        call: &mut Call<'_>,
    ) -> Result<Answer, ServiceError> {
        if fault.mode != Mode::None {
            call.notes.fault = Some(format!("{:?}", fault.mode));
        }
        match fault.mode {
            Mode::Hang => return Ok(Answer::Silence),
            Mode::Deny => {
                return Err(ServiceError::access_denied(call.principal, "kms:Decrypt", &key.arn, false));
            }
            Mode::InternalError => return Err(ServiceError::internal("injected by the fault file")),
            Mode::Plaintext => return Ok(Answer::Members(plaintext_answer(key, plaintext))),
            _ => {}
        }
        let envelope = self.envelope(plaintext, recipient, fault.mode)?;
        Ok(Answer::Members(json!({
            "KeyId": key.arn,
            "EncryptionAlgorithm": ALGORITHM,
            "CiphertextForRecipient": blob(&envelope),
        })))
    }

    fn envelope(&self, plaintext: &[u8], recipient: &Recipient, mode: Mode) -> Result<Vec<u8>, ServiceError> {
        let mut envelope = Envelope::seal(plaintext, &recipient.public_key)
            .map_err(|_| ServiceError::internal("cannot encrypt to the recipient"))?;
        match mode {
            Mode::AlterCmsContent => envelope.break_padding(),
            Mode::AlterCmsPlaintext => envelope.alter_first_byte(),
            _ => {}
        }
        let mut bytes = envelope.encode(self.next_layout());
        match mode {
            Mode::TruncateCms => bytes.truncate(bytes.len() / 3 * 2),
            Mode::AlterCms => alter_structure(&mut bytes),
            _ => {}
        }
        Ok(bytes)
    }
}

/// Turns the last bit of the outermost object identifier, so that the envelope says it is signed data.
fn alter_structure(envelope: &mut [u8]) {
    const LAST_OF_CONTENT_TYPE: usize = 12;
    if let Some(byte) = envelope.get_mut(LAST_OF_CONTENT_TYPE) {
        *byte ^= 1;
    }
}

fn encrypt(
    key: &Key,
    action: &str,
    plaintext: &[u8],
    context: &EncryptionContext,
    values: &ConditionValues,
    call: &Call<'_>,
) -> Result<Vec<u8>, ServiceError> {
    check_context(context)?;
    authorize(key, action, values, call)?;
    check_enabled(key)?;
    key.material.encrypt(&key.id, plaintext, context)
}

fn decrypt(
    key: &Key,
    action: &str,
    ciphertext: &[u8],
    context: &EncryptionContext,
    values: &ConditionValues,
    call: &Call<'_>,
) -> Result<Zeroizing<Vec<u8>>, ServiceError> {
    check_context(context)?;
    authorize(key, action, values, call)?;
    check_enabled(key)?;
    key.material.decrypt(ciphertext, context).map(Zeroizing::new)
}

fn plaintext_answer(key: &Key, plaintext: &[u8]) -> Value {
    json!({"KeyId": key.arn, "EncryptionAlgorithm": ALGORITHM, "Plaintext": blob(plaintext)})
}

fn check_algorithm(algorithm: Option<&str>) -> Result<(), ServiceError> {
    match algorithm {
        None | Some(ALGORITHM) => Ok(()),
        Some(other) => {
            Err(ServiceError::unsupported(format!("This KMS knows {ALGORITHM} keys only, not {other}")))
        }
    }
}
