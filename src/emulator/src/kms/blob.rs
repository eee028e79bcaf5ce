//! Ciphertexts of a KMS key: `version ‖ key id ‖ nonce ‖ AES-256-GCM`. The header and the encryption context are
//! authenticated with it, as with AWS; the layout is this emulator's own, since AWS's is not published.

use std::collections::BTreeMap;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand,
};

use super::error::ServiceError;
use crate::aws::uuid::Uuid;

const VERSION: u8 = 1;
const KEY_ID: std::ops::Range<usize> = 1..17;
const HEADER_LENGTH: usize = 17;
const KEY_LENGTH: usize = 32;

/// Name and value of each pair; no order, so this order.
pub(crate) type EncryptionContext = BTreeMap<String, String>;

/// What a key encrypts with. It lives as long as this process.
pub(crate) struct KeyMaterial(LessSafeKey);

impl KeyMaterial {
    pub(crate) fn generate() -> Result<Self, ServiceError> {
        let mut bytes = zeroize::Zeroizing::new([0; KEY_LENGTH]);
        rand::fill(&mut *bytes).map_err(|_| failed())?;
        Ok(Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*bytes).map_err(|_| failed())?)))
    }

    pub(crate) fn encrypt(
        &self,
        key_id: &Uuid,
        plaintext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Vec<u8>, ServiceError> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| failed())?;
        let header = [&[VERSION][..], &key_id.0].concat();
        let aad = Aad::from(additional_data(&header, context));
        let mut sealed = plaintext.to_vec();
        let nonce_of_key = Nonce::assume_unique_for_key(nonce);
        self.0.seal_in_place_append_tag(nonce_of_key, aad, &mut sealed).map_err(|_| failed())?;
        Ok([&header[..], &nonce, &sealed].concat())
    }

    pub(crate) fn decrypt(&self, blob: &[u8], context: &EncryptionContext) -> Result<Vec<u8>, ServiceError> {
        let invalid = ServiceError::invalid_ciphertext;
        let (header, rest) = blob.split_at_checked(HEADER_LENGTH).ok_or_else(invalid)?;
        let (nonce, sealed) = rest.split_first_chunk().ok_or_else(invalid)?;
        let aad = Aad::from(additional_data(header, context));
        let mut buffer = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.0.open_in_place(nonce, aad, &mut buffer).map_err(|_| invalid())?.len();
        buffer.truncate(length);
        Ok(buffer)
    }
}

/// The key that a ciphertext says it is under.
pub(crate) fn key_id(blob: &[u8]) -> Result<Uuid, ServiceError> {
    let id = blob.get(KEY_ID).filter(|_| blob[0] == VERSION).and_then(|id| id.try_into().ok());
    id.map(Uuid).ok_or_else(ServiceError::invalid_ciphertext)
}

/// Each part with its length before it, so that no two contexts have the same bytes.
fn additional_data(header: &[u8], context: &EncryptionContext) -> Vec<u8> {
    let mut data = header.to_vec();
    for part in context.iter().flat_map(|(name, value)| [name, value]) {
        data.extend_from_slice(&(part.len() as u64).to_be_bytes());
        data.extend_from_slice(part.as_bytes());
    }
    data
}

fn failed() -> ServiceError {
    ServiceError::internal("the cryptographic library failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn only_the_same_key_and_context_open_a_ciphertext() {
        let (material, other) = (KeyMaterial::generate().unwrap(), KeyMaterial::generate().unwrap());
        let id = Uuid::random().unwrap();
        let right = context(&[("bundle", "ab"), ("epoch", "1")]);
        let blob = material.encrypt(&id, b"secret", &right).unwrap();
        assert_eq!(key_id(&blob), Ok(id));
        assert_eq!(material.decrypt(&blob, &right).unwrap(), b"secret");
        assert!(other.decrypt(&blob, &right).is_err());
        for wrong in [
            context(&[]),
            context(&[("bundle", "ab"), ("epoch", "2")]),
            context(&[("bundle", "abepoch1")]),
            context(&[("bundle", "ab"), ("epoch", "1"), ("more", "")]),
        ] {
            assert_eq!(material.decrypt(&blob, &wrong), Err(ServiceError::invalid_ciphertext()));
        }
    }

    #[test]
    fn an_altered_or_cut_ciphertext_does_not_open() {
        let material = KeyMaterial::generate().unwrap();
        let blob = material.encrypt(&Uuid::random().unwrap(), b"secret", &context(&[])).unwrap();
        for index in 0..blob.len() {
            let mut altered = blob.clone();
            altered[index] ^= 1;
            assert!(material.decrypt(&altered, &context(&[])).is_err(), "byte {index}");
            assert!(material.decrypt(&blob[..index], &context(&[])).is_err(), "{index} bytes");
        }
        assert!(key_id(&[]).is_err() && key_id(&[1; 16]).is_err() && key_id(&[2; 60]).is_err());
    }
}
