//! `CiphertextForRecipient` as AWS KMS emits it: EnvelopedData of CMS (RFC 5652 section 6) in BER, with indefinite
//! lengths in the outer layers.

use aws_lc_rs::{
    cipher::{AES_256, AES_256_KEY_LEN, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey},
    digest,
    error::Unspecified,
    iv::FixedLength,
    rand,
    rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey},
};
use zeroize::Zeroizing;

const BLOCK_LENGTH: usize = 16;
/// Bytes of an OCTET STRING of the chunked content.
const CHUNK_LENGTH: usize = 1000;

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const NULL: u8 = 0x05;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const CONTEXT_0: u8 = 0xa0;
const CONTEXT_1: u8 = 0xa1;
const CONTEXT_0_PRIMITIVE: u8 = 0x80;

/// 1.2.840.113549.1.7.3
const ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03];
/// 1.2.840.113549.1.7.1
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// 1.2.840.113549.1.1.7
const RSAES_OAEP: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07];
/// 1.2.840.113549.1.1.8
const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];
/// 2.16.840.1.101.3.4.2.1
const SHA_256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
/// 2.16.840.1.101.3.4.1.42
const AES_256_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a];

/// The two ways KMS has been seen to write the encrypted content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `[0]` of indefinite length with OCTET STRINGs inside.
    Chunks,
    /// One primitive `[0]`.
    Primitive,
}

/// A plaintext encrypted to a recipient.
pub(crate) struct Envelope {
    recipient_id: Vec<u8>,
    encrypted_key: Vec<u8>,
    initialization_vector: [u8; BLOCK_LENGTH],
    ciphertext: Vec<u8>,
}

impl Envelope {
    /// `recipient` is the DER of the recipient's SubjectPublicKeyInfo.
    pub(crate) fn seal(plaintext: &[u8], recipient: &[u8]) -> Result<Self, Unspecified> {
        let mut content_key = Zeroizing::new([0; AES_256_KEY_LEN]);
        rand::fill(&mut *content_key)?;
        let mut initialization_vector = [0; BLOCK_LENGTH];
        rand::fill(&mut initialization_vector)?;

        let cipher = PaddedBlockEncryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, &*content_key)?)?;
        let mut ciphertext = plaintext.to_vec();
        let context = EncryptionContext::Iv128(FixedLength::from(&initialization_vector));
        cipher.less_safe_encrypt(&mut ciphertext, context)?;

        let public_key = PublicEncryptingKey::from_der(recipient).map_err(|_| Unspecified)?;
        let public_key = OaepPublicEncryptingKey::new(public_key)?;
        let mut encrypted_key = vec![0; public_key.ciphertext_size()];
        public_key.encrypt(&OAEP_SHA256_MGF1SHA256, &*content_key, &mut encrypted_key, None)?;

        let recipient_id = digest::digest(&digest::SHA256, recipient).as_ref().to_vec();
        Ok(Self { recipient_id, encrypted_key, initialization_vector, ciphertext })
    }

    /// Makes the padding wrong: a bit of the block before the last, or of the initialization vector if there is one
    /// block only, turns the same bit of the last plaintext byte, which says how long the padding is (1 to 16).
    pub(crate) fn break_padding(&mut self) {
        match self.ciphertext.len().checked_sub(BLOCK_LENGTH + 1) {
            Some(index) => self.ciphertext[index] ^= 0x80,
            None => self.initialization_vector[BLOCK_LENGTH - 1] ^= 0x80,
        }
    }

    /// Turns a bit of the first plaintext byte: what CBC cannot notice.
    pub(crate) fn alter_first_byte(&mut self) {
        self.initialization_vector[0] ^= 1;
    }

    pub(crate) fn encode(&self, layout: Layout) -> Vec<u8> {
        let enveloped_data = [
            definite(INTEGER, &[2]),
            definite(SET, &self.recipient_info()),
            indefinite(SEQUENCE, &self.encrypted_content_info(layout)),
        ]
        .concat();
        let content = indefinite(CONTEXT_0, &indefinite(SEQUENCE, &enveloped_data));
        indefinite(SEQUENCE, &[definite(OBJECT_IDENTIFIER, ENVELOPED_DATA), content].concat())
    }

    fn recipient_info(&self) -> Vec<u8> {
        let parts = [
            definite(INTEGER, &[2]),
            definite(CONTEXT_0_PRIMITIVE, &self.recipient_id),
            oaep_sha_256(),
            definite(OCTET_STRING, &self.encrypted_key),
        ];
        definite(SEQUENCE, &parts.concat())
    }

    fn encrypted_content_info(&self, layout: Layout) -> Vec<u8> {
        let vector = definite(OCTET_STRING, &self.initialization_vector);
        let algorithm = [definite(OBJECT_IDENTIFIER, AES_256_CBC), vector].concat();
        let content = match layout {
            Layout::Primitive => definite(CONTEXT_0_PRIMITIVE, &self.ciphertext),
            Layout::Chunks => {
                let chunks = self.ciphertext.chunks(CHUNK_LENGTH).map(|chunk| definite(OCTET_STRING, chunk));
                indefinite(CONTEXT_0, &chunks.collect::<Vec<_>>().concat())
            }
        };
        [definite(OBJECT_IDENTIFIER, DATA), definite(SEQUENCE, &algorithm), content].concat()
    }
}

fn oaep_sha_256() -> Vec<u8> {
    let sha_256 = [definite(OBJECT_IDENTIFIER, SHA_256), definite(NULL, &[])].concat();
    let sha_256 = definite(SEQUENCE, &sha_256);
    let mask = definite(SEQUENCE, &[definite(OBJECT_IDENTIFIER, MGF1), sha_256.clone()].concat());
    let parameters = [definite(CONTEXT_0, &sha_256), definite(CONTEXT_1, &mask)].concat();
    let algorithm = [definite(OBJECT_IDENTIFIER, RSAES_OAEP), definite(SEQUENCE, &parameters)];
    definite(SEQUENCE, &algorithm.concat())
}

/// An element whose length, less than 16 MiB, is written in as few bytes as possible.
fn definite(tag: u8, contents: &[u8]) -> Vec<u8> {
    let [.., high, middle, low] = contents.len().to_be_bytes();
    let length = match (high, middle, low) {
        (0, 0, ..0x80) => vec![low],
        (0, 0, _) => vec![0x81, low],
        (0, _, _) => vec![0x82, middle, low],
        _ => vec![0x83, high, middle, low],
    };
    [&[tag][..], &length, contents].concat()
}

/// An element that ends with a marker.
fn indefinite(tag: u8, contents: &[u8]) -> Vec<u8> {
    [&[tag, 0x80][..], contents, &[0, 0]].concat()
}

#[cfg(test)]
mod tests;
