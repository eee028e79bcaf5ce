use std::{fs, path::Path, process::Command};

use aws_lc_rs::{
    cipher::{EncryptionContext, PaddedBlockEncryptingKey},
    rsa::{OaepPublicEncryptingKey, PublicEncryptingKey},
};

use super::*;
use crate::test_envelope::{LAYOUTS, Parts};

const CONTENT_KEY: [u8; 32] = [7; 32];
const IV: [u8; 16] = [9; 16];

fn wrap(key: &RecipientKey, content_key: &[u8]) -> Vec<u8> {
    let public = PublicEncryptingKey::from_der(key.public_key_der()).unwrap();
    let public = OaepPublicEncryptingKey::new(public).unwrap();
    let mut wrapped = vec![0; public.ciphertext_size()];
    public.encrypt(&OAEP_SHA256_MGF1SHA256, content_key, &mut wrapped, None).unwrap();
    wrapped
}

fn encrypt(plaintext: &[u8]) -> Vec<u8> {
    let key =
        PaddedBlockEncryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, &CONTENT_KEY).unwrap()).unwrap();
    let mut buffer = plaintext.to_vec();
    key.less_safe_encrypt(&mut buffer, EncryptionContext::Iv128(FixedLength::from(&IV))).unwrap();
    buffer
}

fn id(key: &RecipientKey) -> Vec<u8> {
    digest::digest(&digest::SHA256, key.public_key_der()).as_ref().to_vec()
}

fn parts(key: &RecipientKey, plaintext: &[u8]) -> Parts {
    Parts::new(LAYOUTS[0], &id(key), &wrap(key, &CONTENT_KEY), &IV, &encrypt(plaintext))
}

#[test]
fn a_key_is_rsa_2048_and_fits_into_an_attestation_document() {
    let key = RecipientKey::generate().unwrap();
    assert_eq!(key.public_key_der().len(), 294);
    assert_eq!(PublicEncryptingKey::from_der(key.public_key_der()).unwrap().key_size_bits(), 2048);
    assert_ne!(RecipientKey::generate().unwrap().public_key_der(), key.public_key_der());
}

#[test]
fn every_layout_opens_to_the_plaintext() {
    let key = RecipientKey::generate().unwrap();
    for layout in LAYOUTS {
        for length in [0, 1, 15, 16, 17, 74, 4096] {
            let plaintext = vec![0x5a; length];
            let envelope =
                Parts::new(layout, &id(&key), &wrap(&key, &CONTENT_KEY), &IV, &encrypt(&plaintext)).encode();
            assert_eq!(*key.open(&envelope).unwrap(), plaintext, "{layout:?}, {length} bytes");
        }
    }
}

#[test]
fn an_envelope_for_another_key_is_refused_before_any_decryption() {
    let (key, other) = (RecipientKey::generate().unwrap(), RecipientKey::generate().unwrap());
    let envelope = parts(&other, b"secret").encode();
    let expected = CmsError::OtherRecipient { expected: hex(&id(&key)), actual: hex(&id(&other)) };
    assert_eq!(key.open(&envelope).unwrap_err(), expected);
}

#[test]
fn a_content_key_that_does_not_unwrap_or_is_no_aes_256_key_is_refused() {
    let (key, other) = (RecipientKey::generate().unwrap(), RecipientKey::generate().unwrap());
    let mut altered = wrap(&key, &CONTENT_KEY);
    altered[100] ^= 1;
    for wrapped in
        [altered, wrap(&other, &CONTENT_KEY), wrap(&key, &[7; 16]), wrap(&key, &[]), vec![], vec![0; 255]]
    {
        let envelope = Parts::new(LAYOUTS[0], &id(&key), &wrapped, &IV, &encrypt(b"secret")).encode();
        assert_eq!(key.open(&envelope).unwrap_err(), CmsError::Undecryptable);
    }
}

#[test]
fn content_with_wrong_padding_is_refused() {
    let key = RecipientKey::generate().unwrap();
    let mut ciphertext = encrypt(&[0; 20]);
    // The last byte of a block is xored into the last byte of the next one's plaintext: the padding becomes 12 ^ 128.
    ciphertext[15] ^= 0x80;
    let envelope = Parts::new(LAYOUTS[0], &id(&key), &wrap(&key, &CONTENT_KEY), &IV, &ciphertext).encode();
    assert_eq!(key.open(&envelope).unwrap_err(), CmsError::Undecryptable);
}

#[test]
fn an_altered_byte_never_goes_unnoticed_outside_of_the_content_and_its_initialization_vector() {
    let key = RecipientKey::generate().unwrap();
    let envelope = parts(&key, b"secret").encode();
    let open_to_alteration = |index: usize| {
        [&IV[..], &encrypt(b"secret")].iter().any(|part| {
            let start = envelope.windows(part.len()).position(|window| window == *part).unwrap();
            (start..start + part.len()).contains(&index)
        })
    };
    for index in (0..envelope.len()).filter(|index| !open_to_alteration(*index)) {
        let mut altered = envelope.clone();
        altered[index] ^= 0x04;
        assert!(key.open(&altered).is_err(), "byte {index}");
    }
}

#[test]
fn debug_shows_nothing_of_the_key() {
    assert_eq!(format!("{:?}", RecipientKey::generate().unwrap()), "RecipientKey { .. }");
}

fn hex(bytes: &[u8]) -> String {
    Hex(bytes).to_string()
}

/// OpenSSL 3 encrypts to the key, in DER and in BER with indefinite lengths: an independent implementation's envelopes.
#[test]
fn envelopes_made_by_openssl_open() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!(
            "SKIPPED: no openssl on PATH, so its envelopes are not tried; install OpenSSL 3 to run this test"
        );
        return;
    }
    let key = RecipientKey::generate().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    fs::write(at.join("recipient.der"), key.public_key_der()).unwrap();
    let secret = b"AGE-SECRET-KEY-1 and some more bytes, so that there are several blocks";
    fs::write(at.join("plaintext"), secret).unwrap();
    certificate_of_recipient(at, &hex(&id(&key)));
    for encoding in [&[][..], &["-stream"][..]] {
        openssl(
            at,
            &[
                &["cms", "-encrypt", "-binary", "-in", "plaintext", "-out", "envelope", "-outform", "DER"][..],
                &["-aes-256-cbc", "-keyid", "-recip", "recipient.pem"],
                &["-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256"][..],
                encoding,
            ]
            .concat(),
        );
        let envelope = fs::read(at.join("envelope")).unwrap();
        assert_eq!(envelope[1] == 0x80, encoding == ["-stream"], "{}", hex(&envelope));
        assert_eq!(key.open(&envelope).unwrap()[..], secret[..]);
    }
}

/// `recipient.pem`, with the key in `recipient.der` and its identifier in the extension that CMS names recipients by.
fn certificate_of_recipient(at: &Path, id: &str) {
    fs::write(at.join("extensions"), format!("subjectKeyIdentifier = {id}\n")).unwrap();
    openssl(
        at,
        &[
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=CA", "-keyout", "ca.key", "-out",
            "ca.pem",
        ],
    );
    openssl(at, &["pkey", "-pubin", "-inform", "DER", "-in", "recipient.der", "-out", "recipient.pub"]);
    openssl(
        at,
        &[
            &["x509", "-new", "-subj", "/CN=recipient", "-force_pubkey", "recipient.pub", "-CA", "ca.pem"][..],
            &["-CAkey", "ca.key", "-set_serial", "1", "-extfile", "extensions", "-out", "recipient.pem"],
        ]
        .concat(),
    );
}

fn openssl(directory: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
