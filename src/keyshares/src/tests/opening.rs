use std::{
    io::{self, Read, Write},
    process::{Command, Stdio},
};

use aws_lc_rs::digest::{SHA256, SHA384, digest};
use secrecy::ExposeSecret as _;

use crate::{Digests, Identity, IdentityError, OpenError, SealError, open, seal};

/// Sizes around age's chunk of 64 KiB.
const LENGTHS: [usize; 9] = [0, 1, 100, 65_535, 65_536, 65_537, 131_072, 131_073, 300_000];

fn plaintext(length: usize) -> Vec<u8> {
    (0_u8..251).cycle().take(length).collect()
}

fn opened(sealed: &[u8], identity: &Identity) -> Result<Vec<u8>, OpenError> {
    let mut out = Vec::new();
    open(sealed, identity, u64::MAX, &mut out).map(|_| out)
}

fn sealed_for(identity: &Identity, length: usize) -> Vec<u8> {
    seal(&plaintext(length), &identity.recipient()).unwrap()
}

#[test]
fn what_is_sealed_opens_with_the_digests_of_both_sides() {
    let identity = Identity::generate();
    for length in LENGTHS {
        let sealed = sealed_for(&identity, length);
        let mut out = Vec::new();
        let digests = open(sealed.as_slice(), &identity, length as u64, &mut out).unwrap();
        assert_eq!(out, plaintext(length));
        let expected = Digests {
            ciphertext_sha256: digest(&SHA256, &sealed).as_ref().try_into().unwrap(),
            ciphertext_sha384: digest(&SHA384, &sealed).as_ref().try_into().unwrap(),
            plaintext_sha256: digest(&SHA256, &out).as_ref().try_into().unwrap(),
        };
        assert_eq!(digests, expected);
    }
}

#[test]
fn input_that_trickles_in_byte_by_byte_opens_alike() {
    struct Trickle<'a>(&'a [u8], bool);
    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let end = buffer.len().min(1);
            self.0.read(&mut buffer[..end])
        }
    }
    let identity = Identity::generate();
    let sealed = sealed_for(&identity, 70_000);
    let mut out = Vec::new();
    let digests = open(Trickle(&sealed, false), &identity, u64::MAX, &mut out).unwrap();
    assert_eq!(out, plaintext(70_000));
    assert_eq!(digests.ciphertext_sha256, digest(&SHA256, &sealed).as_ref());
}

#[test]
fn a_file_truncated_anywhere_is_refused() {
    let identity = Identity::generate();
    for length in [0, 100, 65_536] {
        let sealed = sealed_for(&identity, length);
        let header = sealed.windows(4).position(|window| window == b"\n---").unwrap() + 60;
        for end in (0..header).chain([sealed.len() - 17, sealed.len() - 1]) {
            let error = opened(&sealed[..end], &identity).unwrap_err();
            let not_age = end < b"age-encryption.org/v1\n".len();
            assert_eq!(matches!(error, OpenError::NotAge), not_age, "{end} of {}: {error}", sealed.len());
            assert_eq!(
                matches!(error, OpenError::Corrupt(_)),
                !not_age,
                "{end} of {}: {error}",
                sealed.len()
            );
        }
    }
}

#[test]
fn a_file_truncated_at_a_chunks_end_is_refused() {
    let identity = Identity::generate();
    let sealed = sealed_for(&identity, 131_073);
    let last_chunk = 1 + 16;
    let error = opened(&sealed[..sealed.len() - last_chunk], &identity).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt(_)), "{error}");
}

#[test]
fn anything_after_the_last_chunk_is_refused() {
    let identity = Identity::generate();
    for length in LENGTHS {
        let sealed = sealed_for(&identity, length);
        for trailing in [&[0][..], b"\n", &[0; 17], &sealed] {
            let error = opened(&[&sealed, trailing].concat(), &identity).unwrap_err();
            assert!(matches!(error, OpenError::Corrupt(_)), "{error}");
        }
    }
}

#[test]
fn an_altered_header_is_told_from_another_recipients_file() {
    let identity = Identity::generate();
    let sealed = sealed_for(&identity, 100);
    let mac = sealed.windows(4).position(|window| window == b"\n---").unwrap();
    let mut altered = sealed.clone();
    altered[mac + 6] = if altered[mac + 6] == b'A' { b'B' } else { b'A' };
    assert!(matches!(opened(&altered, &identity), Err(OpenError::Corrupt(_))));

    let error = opened(&sealed, &Identity::generate()).unwrap_err();
    assert!(matches!(error, OpenError::NotForThisIdentity), "{error}");
}

#[test]
fn what_is_no_age_file_is_refused_as_such() {
    let identity = Identity::generate();
    for junk in
        [&b""[..], b"{}", b"age-encryption.org/v2\n", b"-----BEGIN AGE ENCRYPTED FILE-----\n", &[0; 4096]]
    {
        assert!(matches!(opened(junk, &identity), Err(OpenError::NotAge)));
    }
}

#[test]
fn an_endless_header_is_refused_before_it_is_read_whole() {
    let header = b"age-encryption.org/v1\n".chain(io::repeat(b'x'));
    let error = open(header, &Identity::generate(), u64::MAX, Vec::new()).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt(_)), "{error}");
    let lines = b"age-encryption.org/v1\n".chain(io::repeat(b'\n'));
    let error = open(lines, &Identity::generate(), u64::MAX, Vec::new()).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt(_)), "{error}");
}

#[test]
fn a_file_sealed_with_a_passphrase_is_refused() {
    let mut recipient = age::scrypt::Recipient::new("passphrase".into());
    recipient.set_work_factor(2);
    let recipients = [&recipient as &dyn age::Recipient];
    let encryptor = age::Encryptor::with_recipients(recipients.into_iter()).unwrap();
    let mut writer = encryptor.wrap_output(Vec::new()).unwrap();
    writer.write_all(b"{}").unwrap();
    let sealed = writer.finish().unwrap();
    assert!(matches!(opened(&sealed, &Identity::generate()), Err(OpenError::Passphrase)));
}

#[test]
fn a_file_sealed_to_several_identities_opens_with_each() {
    let identities = [Identity::generate(), Identity::generate()];
    let recipients = identities.each_ref().map(|identity| identity.recipient().parse().unwrap());
    let recipients =
        recipients.iter().map(|recipient: &age::x25519::Recipient| recipient as &dyn age::Recipient);
    let mut writer = age::Encryptor::with_recipients(recipients).unwrap().wrap_output(Vec::new()).unwrap();
    writer.write_all(b"{}").unwrap();
    let sealed = writer.finish().unwrap();
    for identity in &identities {
        assert_eq!(opened(&sealed, identity).unwrap(), b"{}");
    }
}

#[test]
fn plaintext_over_the_limit_is_refused_and_not_written() {
    let identity = Identity::generate();
    let sealed = sealed_for(&identity, 200_000);
    for limit in [0, 1, 65_536, 199_999] {
        let mut out = Vec::new();
        let error = open(sealed.as_slice(), &identity, limit, &mut out).unwrap_err();
        assert!(matches!(error, OpenError::TooLarge { limit: named } if named == limit), "{error}");
        assert!(out.len() as u64 <= limit);
    }
    assert!(open(sealed.as_slice(), &identity, 200_000, io::sink()).is_ok());
}

#[test]
fn a_failing_input_is_told_from_a_truncated_one() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("unplugged"))
        }
    }
    let identity = Identity::generate();
    let sealed = sealed_for(&identity, 100_000);
    for end in [0, 10, 50, 300, 90_000] {
        let error = open(sealed[..end].chain(Failing), &identity, u64::MAX, io::sink()).unwrap_err();
        assert!(matches!(&error, OpenError::Reading(cause) if cause.to_string() == "unplugged"), "{error}");
    }
}

#[test]
fn a_failing_output_is_named() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let identity = Identity::generate();
    let error = open(sealed_for(&identity, 100).as_slice(), &identity, u64::MAX, Full).unwrap_err();
    assert!(matches!(error, OpenError::Writing(_)), "{error}");
}

#[test]
fn recipients_that_are_none_are_refused() {
    let identity = Identity::generate();
    let text = identity.to_text();
    for recipient in ["", "age1", "ssh-ed25519 AAAA", text.expose_secret(), &identity.recipient()[1..]] {
        let error = seal(b"{}", recipient).unwrap_err();
        assert!(matches!(error, SealError::Recipient));
        assert!(!error.to_string().contains("AGE-SECRET"));
    }
}

#[test]
fn identities_read_back_alone_or_as_age_keygen_writes_them() {
    let identity = Identity::generate();
    let text = identity.to_text();
    let key = text.expose_secret().trim_end();
    assert_eq!(text.expose_secret(), format!("{key}\n"));
    for form in [
        key.to_owned(),
        format!("{key}\n"),
        format!("{key}\r\n"),
        format!("# created: 2026-11-22T00:00:00Z\n# public key: {}\n{key}\n", identity.recipient()),
        format!("\n\n{key}\n# the end"),
    ] {
        assert_eq!(Identity::parse(form.as_bytes()).unwrap().recipient(), identity.recipient(), "{form}");
    }
}

#[test]
fn texts_that_are_not_one_identity_are_refused() {
    let text = Identity::generate().to_text();
    let key = text.expose_secret().trim_end();
    let cases = [
        (String::new(), IdentityError::NoKey),
        ("# only a comment\n".to_owned(), IdentityError::NoKey),
        (format!("{key}\n{key}\n"), IdentityError::SeveralKeys),
        (format!("# comment\n{key}x\n"), IdentityError::NotAKey { line: 2 }),
        (format!(" {key}\n"), IdentityError::NotAKey { line: 1 }),
        (Identity::generate().recipient(), IdentityError::NotAKey { line: 1 }),
        ("AGE-PLUGIN-YUBIKEY-1QQQQ".to_owned(), IdentityError::NotAKey { line: 1 }),
    ];
    for (text, expected) in cases {
        assert_eq!(Identity::parse(text.as_bytes()).err(), Some(expected));
    }
    assert_eq!(Identity::parse(&[0xff]).err(), Some(IdentityError::NotText));
}

/// Runs a program with `input`; none if it is not installed.
fn run(program: &str, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let spawned = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = spawned else {
        eprintln!("SKIPPED: the program `{program}` is not installed (Debian package `age`)");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{program} {arguments:?} failed");
    Some(output.stdout)
}

#[test]
fn the_age_program_opens_what_is_sealed_here() {
    let identity = Identity::generate();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("identity.txt");
    std::fs::write(&file, identity.to_text().expose_secret()).unwrap();
    for length in LENGTHS {
        let sealed = sealed_for(&identity, length);
        let Some(out) = run("age", &["--decrypt", "--identity", file.to_str().unwrap()], &sealed) else {
            return;
        };
        assert_eq!(out, plaintext(length));
    }
}

#[test]
fn what_the_age_programs_make_opens_here() {
    let Some(text) = run("age-keygen", &[], b"") else { return };
    let identity = Identity::parse(&text).unwrap();
    for length in LENGTHS {
        let Some(sealed) = run("age", &["--recipient", &identity.recipient()], &plaintext(length)) else {
            return;
        };
        assert_eq!(opened(&sealed, &identity).unwrap(), plaintext(length));
    }
    let Some(armored) = run("age", &["--armor", "--recipient", &identity.recipient()], b"{}") else { return };
    assert!(matches!(opened(&armored, &identity), Err(OpenError::NotAge)));
}
