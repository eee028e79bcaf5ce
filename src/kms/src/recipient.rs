//! The key KMS encrypts its answer to.

use std::fmt;

use aws_lc_rs::{
    cipher::{AES_256, AES_256_KEY_LEN, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey},
    digest,
    encoding::{AsDer, PublicKeyX509Der},
    iv::FixedLength,
    rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey},
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::cms::{self, CmsError, EnvelopedData, Hex};

/// The cryptographic library could not make a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("cannot make an RSA-2048 recipient key: the random number generator or memory failed")]
pub struct RecipientKeyError;

/// An RSA-2048 key made for one request: its public half goes into the attestation document, and only who holds the
/// private half can read the answer. It cannot be copied, stored or printed. AWS-LC wipes the memory of the private
/// half when the key is dropped.
pub struct RecipientKey {
    private: OaepPrivateDecryptingKey,
    public_der: Vec<u8>,
}

impl RecipientKey {
    /// Makes a key; takes some tens of milliseconds.
    pub fn generate() -> Result<Self, RecipientKeyError> {
        let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(|_| RecipientKeyError)?;
        let public: PublicKeyX509Der<'_> = private.public_key().as_der().map_err(|_| RecipientKeyError)?;
        let public_der = public.as_ref().to_vec();
        let private = OaepPrivateDecryptingKey::new(private).map_err(|_| RecipientKeyError)?;
        Ok(Self { private, public_der })
    }

    /// DER of the SubjectPublicKeyInfo (RFC 5280): the form KMS asks for in an attestation document, where it may have
    /// 1024 bytes; it has 294.
    pub fn public_key_der(&self) -> &[u8] {
        &self.public_der
    }

    /// Opens KMS's `CiphertextForRecipient`.
    pub fn open(&self, envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, CmsError> {
        let envelope = cms::parse(envelope)?;
        let own_id = digest::digest(&digest::SHA256, &self.public_der);
        if own_id.as_ref() != envelope.recipient_id {
            return Err(CmsError::OtherRecipient {
                expected: Hex(own_id.as_ref()).to_string(),
                actual: Hex(envelope.recipient_id).to_string(),
            });
        }
        let content_key = self.content_key(&envelope)?;
        decrypt_content(&content_key, &envelope)
    }

    fn content_key(&self, envelope: &EnvelopedData<'_>) -> Result<PaddedBlockDecryptingKey, CmsError> {
        let mut buffer = Zeroizing::new(vec![0; self.private.min_output_size()]);
        let key = self
            .private
            .decrypt(&OAEP_SHA256_MGF1SHA256, envelope.encrypted_key, &mut buffer, None)
            .map_err(|_| CmsError::Undecryptable)?;
        if key.len() != AES_256_KEY_LEN {
            return Err(CmsError::Undecryptable);
        }
        let key = UnboundCipherKey::new(&AES_256, key).map_err(|_| CmsError::Undecryptable)?;
        PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(|_| CmsError::Undecryptable)
    }
}

fn decrypt_content(
    key: &PaddedBlockDecryptingKey,
    envelope: &EnvelopedData<'_>,
) -> Result<Zeroizing<Vec<u8>>, CmsError> {
    let mut buffer = Zeroizing::new(envelope.encrypted_content.to_vec());
    let context = DecryptionContext::Iv128(FixedLength::from(envelope.initialization_vector));
    let length = key.decrypt(&mut buffer, context).map_err(|_| CmsError::Undecryptable)?.len();
    // The padding that stays behind in the buffer's capacity is wiped with the rest: zeroize covers the capacity.
    buffer.truncate(length);
    Ok(buffer)
}

impl fmt::Debug for RecipientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecipientKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
