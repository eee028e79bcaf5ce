//! Writes envelopes in every layout that KMS uses, and with any part replaced.

/// One element with a definite length.
pub(crate) fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let header = match length {
        0..=0x7f => vec![tag, u8::try_from(length).unwrap()],
        0x80..=0xff => vec![tag, 0x81, u8::try_from(length).unwrap()],
        _ => [&[tag, 0x82][..], &u16::try_from(length).unwrap().to_be_bytes()].concat(),
    };
    [&header[..], contents].concat()
}

/// One element with an indefinite length.
pub(crate) fn indefinite(tag: u8, contents: &[u8]) -> Vec<u8> {
    [&[tag, 0x80][..], contents, &[0, 0]].concat()
}

pub(crate) fn oid(contents: &[u8]) -> Vec<u8> {
    element(0x06, contents)
}

/// How the lengths of the outer layers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outer {
    Definite,
    Indefinite,
}

/// How the encrypted content is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// In one primitive element.
    Primitive,
    /// OCTET STRINGs of at most so many bytes inside a constructed element, whose length is as that of the outer layers.
    Chunks(usize),
}

pub(crate) const LAYOUTS: [(Outer, Content); 6] = [
    (Outer::Indefinite, Content::Chunks(1000)),
    (Outer::Indefinite, Content::Primitive),
    (Outer::Definite, Content::Chunks(1000)),
    (Outer::Definite, Content::Primitive),
    (Outer::Indefinite, Content::Chunks(7)),
    (Outer::Definite, Content::Chunks(16)),
];

/// The parts of an envelope, encoded, each replaceable.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) outer: Outer,
    pub(crate) content_type: Vec<u8>,
    pub(crate) version: Vec<u8>,
    pub(crate) recipients: Vec<RecipientParts>,
    pub(crate) inner_content_type: Vec<u8>,
    pub(crate) content_algorithm: Vec<u8>,
    pub(crate) encrypted_content: Vec<u8>,
    /// After the encrypted content, inside of `encryptedContentInfo`.
    pub(crate) after_content: Vec<u8>,
    /// After `encryptedContentInfo`, inside of `EnvelopedData`.
    pub(crate) after_content_info: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(crate) struct RecipientParts {
    pub(crate) version: Vec<u8>,
    pub(crate) id: Vec<u8>,
    pub(crate) algorithm: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

pub(crate) const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
pub(crate) const ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03];
pub(crate) const OAEP: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07];
pub(crate) const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];
pub(crate) const SHA_256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
pub(crate) const AES_256_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a];

/// AlgorithmIdentifier of a hash with NULL parameters.
pub(crate) fn hash(identifier: &[u8]) -> Vec<u8> {
    element(0x30, &[oid(identifier), element(0x05, &[])].concat())
}

/// AlgorithmIdentifier of RSAES-OAEP with these hashes.
pub(crate) fn oaep(hash: &[u8], mask_hash: &[u8]) -> Vec<u8> {
    let mask = element(0x30, &[oid(MGF1), mask_hash.to_vec()].concat());
    let parameters = element(0x30, &[element(0xa0, hash), element(0xa1, &mask)].concat());
    element(0x30, &[oid(OAEP), parameters].concat())
}

impl Parts {
    pub(crate) fn new(
        (outer, content): (Outer, Content),
        recipient_id: &[u8],
        key: &[u8],
        initialization_vector: &[u8],
        ciphertext: &[u8],
    ) -> Self {
        let encrypted_content = match content {
            Content::Primitive => element(0x80, ciphertext),
            Content::Chunks(size) => {
                let chunks: Vec<u8> =
                    ciphertext.chunks(size).flat_map(|chunk| element(0x04, chunk)).collect();
                if outer == Outer::Definite { element(0xa0, &chunks) } else { indefinite(0xa0, &chunks) }
            }
        };
        let recipient = RecipientParts {
            version: element(0x02, &[2]),
            id: element(0x80, recipient_id),
            algorithm: oaep(&hash(SHA_256), &hash(SHA_256)),
            key: element(0x04, key),
        };
        Self {
            outer,
            content_type: oid(ENVELOPED_DATA),
            version: element(0x02, &[2]),
            recipients: vec![recipient],
            inner_content_type: oid(DATA),
            content_algorithm: element(
                0x30,
                &[oid(AES_256_CBC), element(0x04, initialization_vector)].concat(),
            ),
            encrypted_content,
            after_content: Vec::new(),
            after_content_info: Vec::new(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let outer = if self.outer == Outer::Definite { element } else { indefinite };
        let recipients: Vec<u8> = self.recipients.iter().flat_map(RecipientParts::encode).collect();
        let content_info = [
            &self.inner_content_type[..],
            &self.content_algorithm,
            &self.encrypted_content,
            &self.after_content,
        ]
        .concat();
        let enveloped_data = [
            &self.version[..],
            &element(0x31, &recipients),
            &outer(0x30, &content_info),
            &self.after_content_info,
        ]
        .concat();
        let explicit = outer(0xa0, &outer(0x30, &enveloped_data));
        outer(0x30, &[&self.content_type[..], &explicit].concat())
    }
}

impl RecipientParts {
    fn encode(&self) -> Vec<u8> {
        element(0x30, &[&self.version[..], &self.id, &self.algorithm, &self.key].concat())
    }
}
