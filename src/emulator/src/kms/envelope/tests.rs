use std::{fs, path::Path, process::Command};

use kms::{CmsError, RecipientKey, cms};

use super::*;

const LAYOUTS: [Layout; 2] = [Layout::Chunks, Layout::Primitive];

#[test]
fn lengths_are_written_in_as_few_bytes_as_possible() {
    for (length, header) in [
        (0, &[4, 0][..]),
        (0x7f, &[4, 0x7f]),
        (0x80, &[4, 0x81, 0x80]),
        (0xff, &[4, 0x81, 0xff]),
        (0x100, &[4, 0x82, 1, 0]),
        (0x1_0000, &[4, 0x83, 1, 0, 0]),
    ] {
        let element = definite(4, &vec![7; length]);
        assert_eq!(&element[..header.len()], header);
        assert_eq!(element.len(), header.len() + length);
    }
}

#[test]
fn the_recipient_opens_every_layout_and_length() {
    let key = RecipientKey::generate().unwrap();
    for layout in LAYOUTS {
        for length in [1, 15, 16, 74, 999, 1000, 4096] {
            let plaintext = vec![0x5a; length];
            let envelope = Envelope::seal(&plaintext, key.public_key_der()).unwrap().encode(layout);
            assert_eq!(*key.open(&envelope).unwrap(), plaintext, "{layout:?}, {length} bytes");
        }
    }
}

#[test]
fn the_bytes_around_the_secrets_are_those_of_real_answers() {
    let key = RecipientKey::generate().unwrap();
    let envelope = Envelope::seal(&[7; 32], key.public_key_der()).unwrap().encode(Layout::Chunks);
    // Base64 of a real answer for a plaintext of 32 bytes: MIAGCSqGSIb3DQEHA6CAMIACAQIxggFrMIIBZwIBAoAg, identifier,
    // MDwGCSqGSIb3DQEBBzAvoA8wDQYJYIZIAWUDBAIBBQChHDAaBgkqhkiG9w0BAQgwDQYJYIZIAWUDBAIBBQAEggEA, key, and so on.
    let begin = "308006092a864886f70d010703a08030800201023182016b308201670201028020";
    let oaep = "303c06092a864886f70d010107302fa00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06\
                09608648016503040201050004820100";
    let content = "308006092a864886f70d010701301d060960864801650304012a0410";
    let text = hex::encode(&envelope);
    assert!(text.starts_with(begin));
    assert_eq!(text[begin.len() + 64..][..oaep.len()], *oaep);
    assert_eq!(text[begin.len() + 64 + oaep.len() + 512..][..content.len()], *content);
    assert_eq!(text[begin.len() + 64 + oaep.len() + 512 + content.len() + 32..][..8], *"a0800430");
    assert!(text.ends_with(&"0000".repeat(5)));
    assert_eq!(envelope.len(), 493);
}

#[test]
fn independent_implementations_read_the_same() {
    let key = RecipientKey::generate().unwrap();
    for layout in LAYOUTS {
        let envelope = Envelope::seal(&[7; 2500], key.public_key_der()).unwrap();
        let bytes = envelope.encode(layout);
        let info: rasn_cms::ContentInfo = rasn::ber::decode(&bytes).unwrap();
        let data: rasn_cms::EnvelopedData = rasn::ber::decode(info.content.as_bytes()).unwrap();
        let content = data.encrypted_content_info.encrypted_content.unwrap();
        assert_eq!(content[..], envelope.ciphertext, "{layout:?}");
        let ours = cms::parse(&bytes).unwrap();
        assert_eq!(ours.encrypted_content[..], envelope.ciphertext);
        assert_eq!(ours.encrypted_key, envelope.encrypted_key);
    }
}

#[test]
fn broken_padding_is_always_noticed_and_an_altered_byte_never() {
    let key = RecipientKey::generate().unwrap();
    for length in [1, 15, 16, 17, 74] {
        let plaintext = vec![0x5a; length];
        let mut envelope = Envelope::seal(&plaintext, key.public_key_der()).unwrap();
        envelope.break_padding();
        assert_eq!(
            key.open(&envelope.encode(Layout::Chunks)).unwrap_err(),
            CmsError::Undecryptable,
            "{length}"
        );
        let mut envelope = Envelope::seal(&plaintext, key.public_key_der()).unwrap();
        envelope.alter_first_byte();
        let altered = [&[0x5b], &plaintext[1..]].concat();
        assert_eq!(*key.open(&envelope.encode(Layout::Chunks)).unwrap(), altered);
    }
}

#[test]
fn a_recipient_that_is_no_rsa_key_is_refused() {
    assert!(Envelope::seal(b"secret", b"no key").is_err());
}

/// OpenSSL makes the key and opens the envelope: an independent recipient.
#[test]
fn openssl_opens_every_layout() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!(
            "SKIPPED: no openssl on PATH, so it cannot open an envelope; install OpenSSL 3 to run this test"
        );
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    openssl(at, &["genrsa", "-out", "key.pem", "2048"]);
    openssl(at, &["rsa", "-in", "key.pem", "-pubout", "-outform", "DER", "-out", "public.der"]);
    let public_key = fs::read(at.join("public.der")).unwrap();
    for layout in LAYOUTS {
        let plaintext: Vec<u8> = (0..=255).cycle().take(2500).collect();
        let envelope = Envelope::seal(&plaintext, &public_key).unwrap().encode(layout);
        fs::write(at.join("envelope"), envelope).unwrap();
        let input = ["cms", "-decrypt", "-binary", "-inform", "DER", "-in", "envelope"];
        openssl(at, &[&input[..], &["-inkey", "key.pem", "-out", "plaintext"]].concat());
        assert_eq!(fs::read(at.join("plaintext")).unwrap(), plaintext, "{layout:?}");
    }
}

fn openssl(directory: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
