//! The envelope in which KMS answers an attested request: `EnvelopedData` of CMS (RFC 5652 section 6).
//!
//! KMS writes BER with indefinite lengths in the outer layers, so a DER parser fails on every answer. What is read here
//! is exactly what KMS emits, and nothing else that CMS allows:
//!
//! ```text
//! ContentInfo { envelopedData, [0] EnvelopedData {
//!     version 2,
//!     SET OF one KeyTransRecipientInfo {
//!         version 2,
//!         [0] subjectKeyIdentifier: SHA-256 of the recipient's SubjectPublicKeyInfo, 32 bytes,
//!         RSAES-OAEP { [0] SHA-256, [1] MGF1 with SHA-256 },
//!         encrypted AES key },
//!     EncryptedContentInfo { data, AES-256-CBC { IV of 16 bytes },
//!         [0] encrypted content: OCTET STRINGs inside a constructed element, or primitive } } }
//! ```
//!
//! The content is not authenticated: that it is what KMS sent rests on TLS to KMS.

use std::{borrow::Cow, fmt};

use thiserror::Error;

use crate::ber::{
    BerError, CONTEXT_0, CONTEXT_0_PRIMITIVE, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, Reader, SEQUENCE, SET,
};

/// Bytes of the longest envelope: KMS API reference, Decrypt, `CiphertextForRecipient`.
pub const MAX_LENGTH: usize = 6144;
/// Bytes of the identifier of a recipient: a SHA-256.
pub const RECIPIENT_ID_LENGTH: usize = 32;
/// Bytes of the initialization vector and of a block of AES.
pub const BLOCK_LENGTH: usize = 16;

/// 1.2.840.113549.1.7.3, RFC 5652 section 6.1.
const ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03];
/// 1.2.840.113549.1.7.1, RFC 5652 section 4.
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// `RSAES-OAEP { hashAlgorithm [0] SHA-256, maskGenAlgorithm [1] MGF1 with SHA-256 }`, RFC 8017 appendix A.2.1: the
/// object identifier and its parameters, in DER. Parameters left out would mean SHA-1. SHA-256 itself has NULL
/// parameters, as KMS writes it.
#[rustfmt::skip]
const RSAES_OAEP_SHA_256: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07, // RSAES-OAEP
    0x30, 0x2f,
        0xa0, 0x0f, 0x30, 0x0d,
            0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, // SHA-256, NULL
        0xa1, 0x1c, 0x30, 0x1a,
            0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08, // MGF1
            0x30, 0x0d,
                0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, // SHA-256, NULL
];
/// The same with no parameters of SHA-256, which means the same and has to be accepted (RFC 8017 appendix B.1). OpenSSL
/// writes it so.
#[rustfmt::skip]
const RSAES_OAEP_SHA_256_WITHOUT_NULL: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07,
    0x30, 0x2b,
        0xa0, 0x0d, 0x30, 0x0b,
            0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01,
        0xa1, 0x1a, 0x30, 0x18,
            0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08,
            0x30, 0x0b,
                0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01,
];
/// 2.16.840.1.101.3.4.1.42, RFC 3565 section 4.1.
const AES_256_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a];
/// Both versions: a recipient named by a key identifier asks for 2, RFC 5652 section 6.2.1.
const VERSION: &[u8] = &[2];

/// Why an envelope was refused. Nothing secret is in it: the values named here travel in the clear inside of TLS.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CmsError {
    /// Longer than KMS may answer.
    #[error("the CMS envelope has {actual} bytes, at most {MAX_LENGTH} are accepted")]
    TooLong {
        /// Bytes.
        actual: usize,
    },
    /// An element is not well-formed.
    #[error("the CMS envelope is malformed at {element}: {problem}")]
    Malformed {
        /// Name of the element in RFC 5652.
        element: &'static str,
        /// What is wrong with it.
        problem: BerError,
    },
    /// An element is well-formed but does not say what KMS says.
    #[error("the CMS envelope has an unexpected {element}: {actual}")]
    Unexpected {
        /// Name of the element in RFC 5652.
        element: &'static str,
        /// Its value, as hexadecimal, or its length.
        actual: String,
    },
    /// Encrypted to another key: the answer belongs to another request.
    #[error("the CMS envelope is for the recipient {actual}, this key is {expected}")]
    OtherRecipient {
        /// SHA-256 of this key's SubjectPublicKeyInfo, hexadecimal.
        expected: String,
        /// Identifier in the envelope, hexadecimal.
        actual: String,
    },
    /// The key or the content cannot be decrypted. Which of the two is not told.
    #[error("the CMS envelope cannot be decrypted with this recipient key")]
    Undecryptable,
}

/// What an envelope holds. All of it is ciphertext or public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopedData<'a> {
    /// SHA-256 of the DER of the recipient's SubjectPublicKeyInfo.
    pub recipient_id: &'a [u8; RECIPIENT_ID_LENGTH],
    /// AES-256 key under RSAES-OAEP; as long as the recipient's modulus, which is not checked here.
    pub encrypted_key: &'a [u8],
    /// Initialization vector of AES-256-CBC.
    pub initialization_vector: &'a [u8; BLOCK_LENGTH],
    /// AES-256-CBC with PKCS#7 padding: one block or more.
    pub encrypted_content: Cow<'a, [u8]>,
}

/// Reads an envelope. Total: any input is either an envelope or an error.
pub fn parse(input: &[u8]) -> Result<EnvelopedData<'_>, CmsError> {
    if input.len() > MAX_LENGTH {
        return Err(CmsError::TooLong { actual: input.len() });
    }
    let mut outermost = Walker::new(input);
    let mut content_info = outermost.enter(SEQUENCE, "ContentInfo")?;
    outermost.end()?;
    content_info.constant(OBJECT_IDENTIFIER, ENVELOPED_DATA, "contentType")?;
    let mut explicit = content_info.enter(CONTEXT_0, "content")?;
    content_info.end()?;
    let enveloped_data = explicit.enter(SEQUENCE, "EnvelopedData")?;
    explicit.end()?;
    read_enveloped_data(enveloped_data)
}

fn read_enveloped_data(mut enveloped_data: Walker<'_>) -> Result<EnvelopedData<'_>, CmsError> {
    enveloped_data.constant(INTEGER, VERSION, "EnvelopedData version")?;
    let mut recipients = enveloped_data.enter(SET, "recipientInfos")?;
    let (recipient_id, encrypted_key) = read_recipient(recipients.enter(SEQUENCE, "KeyTransRecipientInfo")?)?;
    recipients.end()?;
    let (initialization_vector, encrypted_content) =
        read_content(enveloped_data.enter(SEQUENCE, "encryptedContentInfo")?)?;
    enveloped_data.end()?;
    Ok(EnvelopedData { recipient_id, encrypted_key, initialization_vector, encrypted_content })
}

fn read_recipient(mut recipient: Walker<'_>) -> Result<(&[u8; RECIPIENT_ID_LENGTH], &[u8]), CmsError> {
    recipient.constant(INTEGER, VERSION, "KeyTransRecipientInfo version")?;
    let id = recipient.array(CONTEXT_0_PRIMITIVE, "subjectKeyIdentifier")?;
    let algorithm = [RSAES_OAEP_SHA_256, RSAES_OAEP_SHA_256_WITHOUT_NULL];
    recipient.one_of(SEQUENCE, &algorithm, "keyEncryptionAlgorithm")?;
    let key = recipient.contents(OCTET_STRING, "encryptedKey")?;
    recipient.end()?;
    Ok((id, key))
}

fn read_content(mut content: Walker<'_>) -> Result<(&[u8; BLOCK_LENGTH], Cow<'_, [u8]>), CmsError> {
    content.constant(OBJECT_IDENTIFIER, DATA, "contentType of encryptedContentInfo")?;
    let mut algorithm = content.enter(SEQUENCE, "contentEncryptionAlgorithm")?;
    algorithm.constant(OBJECT_IDENTIFIER, AES_256_CBC, "contentEncryptionAlgorithm")?;
    let initialization_vector = algorithm.array(OCTET_STRING, "initialization vector")?;
    algorithm.end()?;
    let encrypted = match content.peek() {
        Some(CONTEXT_0) => Cow::Owned(read_chunks(content.enter(CONTEXT_0, "encryptedContent")?)?),
        _ => Cow::Borrowed(content.contents(CONTEXT_0_PRIMITIVE, "encryptedContent")?),
    };
    content.end()?;
    if encrypted.is_empty() || !encrypted.len().is_multiple_of(BLOCK_LENGTH) {
        let actual = format!("{} bytes, not one block of {BLOCK_LENGTH} or more", encrypted.len());
        return Err(CmsError::Unexpected { element: "encryptedContent", actual });
    }
    Ok((initialization_vector, encrypted))
}

fn read_chunks(mut chunks: Walker<'_>) -> Result<Vec<u8>, CmsError> {
    let mut content = Vec::new();
    while chunks.peek().is_some() {
        content.extend_from_slice(chunks.contents(OCTET_STRING, "encryptedContent")?);
    }
    Ok(content)
}

/// A [`Reader`] that knows the name of the element it is in, for errors.
struct Walker<'a> {
    reader: Reader<'a>,
    element: &'static str,
}

impl<'a> Walker<'a> {
    fn new(input: &'a [u8]) -> Self {
        Self { reader: Reader::new(input), element: "ContentInfo" }
    }

    fn peek(&self) -> Option<u8> {
        self.reader.peek()
    }

    fn enter(&mut self, tag: u8, element: &'static str) -> Result<Self, CmsError> {
        let reader = self.reader.enter(tag).map_err(malformed(element))?;
        Ok(Self { reader, element })
    }

    fn contents(&mut self, tag: u8, element: &'static str) -> Result<&'a [u8], CmsError> {
        self.reader.contents(tag).map_err(malformed(element))
    }

    fn array<const N: usize>(&mut self, tag: u8, element: &'static str) -> Result<&'a [u8; N], CmsError> {
        let contents = self.contents(tag, element)?;
        contents.try_into().map_err(|_| CmsError::Unexpected {
            element,
            actual: format!("{} bytes instead of {N}", contents.len()),
        })
    }

    fn constant(&mut self, tag: u8, expected: &[u8], element: &'static str) -> Result<(), CmsError> {
        self.one_of(tag, &[expected], element)
    }

    fn one_of(&mut self, tag: u8, expected: &[&[u8]], element: &'static str) -> Result<(), CmsError> {
        let actual = self.contents(tag, element)?;
        if expected.contains(&actual) {
            return Ok(());
        }
        Err(CmsError::Unexpected { element, actual: Hex(actual).to_string() })
    }

    fn end(self) -> Result<(), CmsError> {
        self.reader.end().map_err(malformed(self.element))
    }
}

fn malformed(element: &'static str) -> impl Fn(BerError) -> CmsError {
    move |problem| CmsError::Malformed { element, problem }
}

/// Lower-case hexadecimal of at most the first [`Hex::SHOWN`] bytes: an error must not repeat a whole input.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl Hex<'_> {
    const SHOWN: usize = 32;
}

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.iter().take(Self::SHOWN) {
            write!(f, "{byte:02x}")?;
        }
        if self.0.len() > Self::SHOWN { write!(f, "… ({} bytes)", self.0.len()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
