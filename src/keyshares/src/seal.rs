use std::{
    io::{self, BufRead, BufReader, Read, Write},
    iter,
};

use age::DecryptError;
use aws_lc_rs::digest;
use zeroize::Zeroizing;

use crate::Identity;

/// First line of every age file (<https://c2sp.org/age>).
const MAGIC: &[u8] = b"age-encryption.org/v1\n";
/// Far above what a header for a few recipients needs; keeps a file without newlines from being read into
/// memory.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// The chunk size of age's STREAM.
const CHUNK_BYTES: usize = 64 * 1024;

/// Digests of a sealed bundle and of what was in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// SHA-256 of the age file.
    pub ciphertext_sha256: [u8; 32],
    /// SHA-384 of the age file.
    pub ciphertext_sha384: [u8; 48],
    /// SHA-256 of the plaintext.
    pub plaintext_sha256: [u8; 32],
}

/// Why a bundle could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Not an age X25519 recipient.
    #[error("the recipient is not an age X25519 public key (age1…)")]
    Recipient,
    /// age refused; unexpected with one X25519 recipient and memory to write to.
    #[error("age could not seal: {0}")]
    Age(String),
}

/// Why a sealed bundle was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The input does not begin like an age file.
    #[error(
        "not an age file: it does not begin with \"age-encryption.org/v1\" (armored files are not accepted)"
    )]
    NotAge,
    /// An age file, but truncated, extended or altered.
    #[error("the age file is truncated or altered: {0}")]
    Corrupt(&'static str),
    /// Sealed with a passphrase.
    #[error("the age file is sealed with a passphrase; seal it to the age identity's recipient")]
    Passphrase,
    /// No recipient stanza opens with the identity.
    #[error("the age file is not sealed to this identity")]
    NotForThisIdentity,
    /// More plaintext than allowed.
    #[error("the plaintext is longer than the limit of {limit} bytes")]
    TooLarge {
        /// The limit, bytes.
        limit: u64,
    },
    /// The input could not be read.
    #[error("reading the age file failed: {0}")]
    Reading(#[source] io::Error),
    /// The output could not be written.
    #[error("writing the plaintext failed: {0}")]
    Writing(#[source] io::Error),
}

/// Seals `plaintext` to one age X25519 recipient (`age1…`). The result is an ordinary binary age file.
pub fn seal(plaintext: &[u8], recipient: &str) -> Result<Vec<u8>, SealError> {
    let recipient: age::x25519::Recipient = recipient.parse().map_err(|_| SealError::Recipient)?;
    let encryptor = age::Encryptor::with_recipients(iter::once(&recipient as &dyn age::Recipient))
        .map_err(|error| SealError::Age(error.to_string()))?;
    write_sealed(encryptor, plaintext).map_err(|error| SealError::Age(error.to_string()))
}

fn write_sealed(encryptor: age::Encryptor, plaintext: &[u8]) -> io::Result<Vec<u8>> {
    let mut writer = encryptor.wrap_output(Vec::with_capacity(plaintext.len() + 4096))?;
    writer.write_all(plaintext)?;
    writer.finish()
}

/// Opens an age file sealed to `identity`, streaming: plaintext goes to `out` as each 64 KiB chunk
/// authenticates.
///
/// `Ok` means that the whole file was authentic to its last byte. After any error, what `out` got may be a
/// prefix of the plaintext and has to be wiped by the caller. At most `max_plaintext` bytes are written.
pub fn open(
    sealed: impl Read,
    identity: &Identity,
    max_plaintext: u64,
    out: impl Write,
) -> Result<Digests, OpenError> {
    let mut source = Source::new(sealed);
    let opened = open_hashed(&mut source, identity, max_plaintext, out);
    // A failing input looks like a truncated file to the parser.
    if let Some(error) = source.error.take() {
        return Err(OpenError::Reading(error));
    }
    let plaintext_sha256 = opened?;
    Ok(source.digests(plaintext_sha256))
}

fn open_hashed<R: Read>(
    source: &mut Source<R>,
    identity: &Identity,
    max_plaintext: u64,
    mut out: impl Write,
) -> Result<[u8; 32], OpenError> {
    let mut input = BufReader::new(source);
    let header = read_header(&mut input)?;
    let decryptor =
        age::Decryptor::new_buffered(header.as_slice().chain(input)).map_err(|error| header_error(&error))?;
    if decryptor.is_scrypt() {
        return Err(OpenError::Passphrase);
    }
    let mut plaintext =
        decryptor.decrypt(iter::once(identity.as_age())).map_err(|error| header_error(&error))?;

    let mut hash = digest::Context::new(&digest::SHA256);
    let mut chunk = Zeroizing::new(vec![0; CHUNK_BYTES]);
    let mut total = 0_u64;
    loop {
        let length = plaintext
            .read(&mut chunk)
            .map_err(|_| OpenError::Corrupt("its payload does not authenticate"))?;
        let Some(bytes) = chunk.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
        total = total.saturating_add(length as u64);
        if total > max_plaintext {
            return Err(OpenError::TooLarge { limit: max_plaintext });
        }
        hash.update(bytes);
        out.write_all(bytes).map_err(OpenError::Writing)?;
    }
    out.flush().map_err(OpenError::Writing)?;
    Ok(array(&hash.finish()))
}

/// Reads up to and including the line with the header's MAC.
fn read_header(input: &mut impl BufRead) -> Result<Vec<u8>, OpenError> {
    let mut header = Vec::new();
    read_line(input, MAGIC.len(), &mut header).map_err(|_| OpenError::NotAge)?;
    if header != MAGIC {
        return Err(OpenError::NotAge);
    }
    loop {
        let start = header.len();
        read_line(input, MAX_HEADER_BYTES - start, &mut header)
            .map_err(|_| OpenError::Corrupt("its header ends too early"))?;
        let line = header.get(start..).unwrap_or_default();
        if !line.ends_with(b"\n") {
            return Err(OpenError::Corrupt("its header ends too early or is longer than 64 KiB"));
        }
        if line.starts_with(b"---") {
            return Ok(header);
        }
    }
}

fn read_line(input: &mut impl BufRead, limit: usize, line: &mut Vec<u8>) -> io::Result<usize> {
    input.take(limit as u64).read_until(b'\n', line)
}

fn header_error(error: &DecryptError) -> OpenError {
    match error {
        DecryptError::NoMatchingKeys | DecryptError::KeyDecryptionFailed => OpenError::NotForThisIdentity,
        DecryptError::InvalidMac => OpenError::Corrupt("its header does not authenticate"),
        DecryptError::Io(_) => OpenError::Corrupt("it ends in its header"),
        _ => OpenError::Corrupt("its header is malformed"),
    }
}

/// The age file, hashed as it is read.
struct Source<R> {
    inner: R,
    sha256: digest::Context,
    sha384: digest::Context,
    error: Option<io::Error>,
}

impl<R> Source<R> {
    fn new(inner: R) -> Self {
        let sha256 = digest::Context::new(&digest::SHA256);
        let sha384 = digest::Context::new(&digest::SHA384);
        Self { inner, sha256, sha384, error: None }
    }

    fn digests(self, plaintext_sha256: [u8; 32]) -> Digests {
        Digests {
            ciphertext_sha256: array(&self.sha256.finish()),
            ciphertext_sha384: array(&self.sha384.finish()),
            plaintext_sha256,
        }
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = loop {
            match self.inner.read(buffer) {
                Ok(length) => break length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let kind = error.kind();
                    self.error = Some(error);
                    return Err(kind.into());
                }
            }
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        self.sha256.update(bytes);
        self.sha384.update(bytes);
        Ok(length)
    }
}

/// A digest as an array; `N` is its algorithm's output length.
fn array<const N: usize>(digest: &digest::Digest) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}
