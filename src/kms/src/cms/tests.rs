use proptest::prelude::*;

use super::*;
use crate::test_envelope::{
    self as write, Content, LAYOUTS, Outer, Parts, element, hash, indefinite, oaep, oid,
};

const RECIPIENT_ID: [u8; 32] = [0x11; 32];
const KEY: [u8; 256] = [0x22; 256];
const IV: [u8; 16] = [0x33; 16];

fn parts(layout: (Outer, Content)) -> Parts {
    Parts::new(layout, &RECIPIENT_ID, &KEY, &IV, &[0x44; 48])
}

fn refusal(change: impl Fn(&mut Parts)) -> CmsError {
    let mut parts = parts(LAYOUTS[0]);
    change(&mut parts);
    parse(&parts.encode()).unwrap_err()
}

fn unexpected(change: impl Fn(&mut Parts)) -> &'static str {
    match refusal(change) {
        CmsError::Unexpected { element, .. } => element,
        other => panic!("{other}"),
    }
}

fn malformed_at(change: impl Fn(&mut Parts)) -> (&'static str, BerError) {
    match refusal(change) {
        CmsError::Malformed { element, problem } => (element, problem),
        other => panic!("{other}"),
    }
}

#[test]
fn every_layout_that_kms_uses_is_read() {
    for layout in LAYOUTS {
        for ciphertext in [vec![0x44; 16], (0..=255).cycle().take(4112).collect::<Vec<u8>>()] {
            let envelope = Parts::new(layout, &RECIPIENT_ID, &KEY, &IV, &ciphertext).encode();
            let read = parse(&envelope).unwrap_or_else(|error| panic!("{layout:?}: {error}"));
            assert_eq!(read.recipient_id, &RECIPIENT_ID);
            assert_eq!(read.encrypted_key, KEY);
            assert_eq!(read.initialization_vector, &IV);
            assert_eq!(read.encrypted_content, ciphertext);
        }
    }
}

#[test]
fn the_layout_written_here_begins_as_the_answers_of_kms_do() {
    // Base64 of a real answer begins with MIAGCSqGSIb3DQEHA6CAMIACAQIxggFrMIIBZwIBAoAg, then the recipient's identifier.
    let begin = [
        0x30, 0x80, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03, 0xa0, 0x80, 0x30, 0x80,
        0x02, 0x01, 0x02, 0x31, 0x82, 0x01, 0x6b, 0x30, 0x82, 0x01, 0x67, 0x02, 0x01, 0x02, 0x80, 0x20,
    ];
    assert!(parts(LAYOUTS[0]).encode().starts_with(&begin));
}

#[test]
fn oaep_with_hashes_that_have_no_parameters_is_read() {
    let plain = element(0x30, &oid(write::SHA_256));
    let mut parts = parts(LAYOUTS[0]);
    parts.recipients[0].algorithm = oaep(&plain, &plain);
    assert!(parse(&parts.encode()).is_ok());
}

#[test]
fn other_object_identifiers_are_refused_by_name() {
    let sha_1 = hash(&[0x2b, 0x0e, 0x03, 0x02, 0x1a]); // 1.3.14.3.2.26
    let sha_256 = hash(write::SHA_256);
    let aes_128_cbc = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x02];
    let rsa_pkcs1 = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    assert_eq!(unexpected(|parts| parts.content_type = oid(DATA)), "contentType");
    assert_eq!(
        unexpected(|parts| parts.inner_content_type = oid(ENVELOPED_DATA)),
        "contentType of encryptedContentInfo"
    );
    assert_eq!(
        unexpected(|parts| {
            let parameters = [oid(&aes_128_cbc), element(0x04, &IV)].concat();
            parts.content_algorithm = element(0x30, &parameters);
        }),
        "contentEncryptionAlgorithm"
    );
    let pkcs1 = element(0x30, &[oid(&rsa_pkcs1), element(0x05, &[])].concat());
    for algorithm in [pkcs1, oaep(&sha_1, &sha_1), oaep(&sha_1, &sha_256), oaep(&sha_256, &sha_1)] {
        assert_eq!(
            unexpected(|parts| parts.recipients[0].algorithm.clone_from(&algorithm)),
            "keyEncryptionAlgorithm"
        );
    }
}

#[test]
fn oaep_parameters_that_are_left_out_or_added_are_refused() {
    let sha_256 = hash(write::SHA_256);
    let mask = element(0x30, &[oid(write::MGF1), sha_256.clone()].concat());
    let label = element(0x30, &[oid(write::DATA), element(0x04, b"label")].concat());
    let both = [element(0xa0, &sha_256), element(0xa1, &mask)].concat();
    let with_label = [&both[..], &element(0xa2, &label)].concat();
    for parameters in [vec![], element(0xa0, &sha_256), element(0xa1, &mask), with_label] {
        let algorithm = element(0x30, &[oid(write::OAEP), element(0x30, &parameters)].concat());
        assert_eq!(
            unexpected(|parts| parts.recipients[0].algorithm.clone_from(&algorithm)),
            "keyEncryptionAlgorithm"
        );
    }
}

#[test]
fn other_versions_are_refused() {
    assert_eq!(unexpected(|parts| parts.version = element(0x02, &[0])), "EnvelopedData version");
    assert_eq!(
        unexpected(|parts| parts.recipients[0].version = element(0x02, &[0])),
        "KeyTransRecipientInfo version"
    );
    assert_eq!(unexpected(|parts| parts.version = element(0x02, &[0, 2])), "EnvelopedData version");
}

#[test]
fn no_recipient_two_recipients_and_recipients_of_another_kind_are_refused() {
    assert_eq!(
        malformed_at(|parts| parts.recipients.clear()),
        ("KeyTransRecipientInfo", BerError::Truncated)
    );
    let (element_name, problem) = malformed_at(|parts| parts.recipients.push(parts.recipients[0].clone()));
    assert_eq!(element_name, "recipientInfos");
    assert!(matches!(problem, BerError::Trailing(_)));
    // issuerAndSerialNumber, which LocalStack's stand-in for KMS sends
    let (element_name, _) = malformed_at(|parts| parts.recipients[0].id = element(0x30, &[]));
    assert_eq!(element_name, "subjectKeyIdentifier");
    assert_eq!(
        unexpected(|parts| parts.recipients[0].id = element(0x80, &[0x11; 20])),
        "subjectKeyIdentifier"
    );
}

#[test]
fn an_initialization_vector_of_another_length_is_refused() {
    let of = |length| element(0x30, &[oid(write::AES_256_CBC), element(0x04, &vec![0; length])].concat());
    assert_eq!(unexpected(|parts| parts.content_algorithm = of(12)), "initialization vector");
    assert_eq!(unexpected(|parts| parts.content_algorithm = of(17)), "initialization vector");
}

#[test]
fn content_that_is_no_whole_number_of_blocks_is_refused() {
    assert_eq!(unexpected(|parts| parts.encrypted_content = element(0x80, &[])), "encryptedContent");
    assert_eq!(unexpected(|parts| parts.encrypted_content = element(0x80, &[0; 15])), "encryptedContent");
    assert_eq!(unexpected(|parts| parts.encrypted_content = indefinite(0xa0, &[])), "encryptedContent");
    let odd = element(0x04, &[0; 17]);
    assert_eq!(unexpected(|parts| parts.encrypted_content = indefinite(0xa0, &odd)), "encryptedContent");
    let nested = element(0x24, &element(0x04, &[0; 16]));
    let (place, _) = malformed_at(|parts| parts.encrypted_content = indefinite(0xa0, &nested));
    assert_eq!(place, "encryptedContent");
    let (place, _) = malformed_at(|parts| parts.encrypted_content.clear());
    assert_eq!(place, "encryptedContent");
}

#[test]
fn nothing_may_follow_at_any_level() {
    let extra = || element(0x05, &[]);
    assert_eq!(malformed_at(|parts| parts.after_content = extra()).0, "encryptedContentInfo");
    // unprotectedAttrs are not authenticated either, and KMS sends none
    assert_eq!(malformed_at(|parts| parts.after_content_info = element(0xa1, &[])).0, "EnvelopedData");
    for layout in LAYOUTS {
        let mut envelope = parts(layout).encode();
        envelope.push(0);
        let expected = CmsError::Malformed { element: "ContentInfo", problem: BerError::Trailing(1) };
        assert_eq!(parse(&envelope), Err(expected), "{layout:?}");
    }
}

#[test]
fn every_truncation_is_refused() {
    for layout in LAYOUTS {
        let envelope = parts(layout).encode();
        for length in 0..envelope.len() {
            assert!(parse(&envelope[..length]).is_err(), "{layout:?} cut to {length} bytes");
        }
    }
}

#[test]
fn an_envelope_longer_than_kms_may_send_is_refused_unread() {
    assert_eq!(parse(&[0; MAX_LENGTH + 1]), Err(CmsError::TooLong { actual: MAX_LENGTH + 1 }));
}

#[test]
fn errors_do_not_repeat_the_input() {
    let long = refusal(|parts| parts.content_type = oid(&[0x55; 100])).to_string();
    assert!(long.contains("(100 bytes)") && long.len() < 200, "{long}");
}

/// What an independent implementation reads: recipient identifier, encrypted key, initialization vector with its
/// header, content.
fn read_with_rasn(envelope: &[u8]) -> Option<[Vec<u8>; 4]> {
    let info: rasn_cms::ContentInfo = rasn::ber::decode(envelope).ok()?;
    let data: rasn_cms::EnvelopedData = rasn::ber::decode(info.content.as_bytes()).ok()?;
    let recipients = data.recipient_infos.to_vec();
    let [rasn_cms::RecipientInfo::KeyTransRecipientInfo(recipient)] = recipients.as_slice() else {
        return None;
    };
    let rasn_cms::RecipientIdentifier::SubjectKeyIdentifier(id) = &recipient.rid else { return None };
    let content = data.encrypted_content_info;
    let parameters = content.content_encryption_algorithm.parameters?;
    Some([
        id.to_vec(),
        recipient.encrypted_key.to_vec(),
        parameters.as_bytes().to_vec(),
        content.encrypted_content?.to_vec(),
    ])
}

#[test]
fn an_independent_implementation_reads_the_same() {
    for layout in LAYOUTS {
        let envelope = parts(layout).encode();
        let ours = parse(&envelope).unwrap();
        let [id, key, parameters, content] =
            read_with_rasn(&envelope).unwrap_or_else(|| panic!("{layout:?}"));
        assert_eq!(ours.recipient_id[..], id, "{layout:?}");
        assert_eq!(ours.encrypted_key, key, "{layout:?}");
        assert_eq!(element(0x04, ours.initialization_vector), parameters, "{layout:?}");
        assert_eq!(ours.encrypted_content[..], content, "{layout:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(input in proptest::collection::vec(any::<u8>(), 0..MAX_LENGTH + 2)) {
        let _ = parse(&input);
    }

    #[test]
    fn bytes_that_look_like_elements_are_read_or_refused(
        input in proptest::collection::vec(
            prop::sample::select(vec![0x00u8, 0x02, 0x04, 0x05, 0x06, 0x24, 0x30, 0x31, 0x80, 0x81, 0x82, 0x83, 0xa0, 0xa1]),
            0..2000,
        )
    ) {
        let _ = parse(&input);
    }

    #[test]
    fn any_content_in_any_layout_is_read_back(
        blocks in 1usize..250,
        chunk in 1usize..2000,
        constructed: bool,
        definite: bool,
        fill: u8,
    ) {
        let outer = if definite { Outer::Definite } else { Outer::Indefinite };
        let content = if constructed { Content::Chunks(chunk.max(8)) } else { Content::Primitive };
        let ciphertext = vec![fill; blocks * BLOCK_LENGTH];
        let envelope = Parts::new((outer, content), &RECIPIENT_ID, &KEY, &IV, &ciphertext).encode();
        prop_assume!(envelope.len() <= MAX_LENGTH);
        prop_assert_eq!(&parse(&envelope).unwrap().encrypted_content[..], &ciphertext[..]);
    }

    /// Whatever is taken is what an independent implementation takes it for.
    #[test]
    fn what_a_mutation_leaves_readable_means_the_same_to_an_independent_implementation(
        layout in prop::sample::select(LAYOUTS.to_vec()),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut envelope = parts(layout).encode();
        for (index, value) in changes {
            let index = index.index(envelope.len());
            envelope[index] = value;
        }
        if let Ok(ours) = parse(&envelope) {
            let [id, key, parameters, content] = read_with_rasn(&envelope).expect("read by this parser alone");
            prop_assert_eq!(&ours.recipient_id[..], &id[..]);
            prop_assert_eq!(ours.encrypted_key, &key[..]);
            prop_assert_eq!(element(0x04, ours.initialization_vector), parameters);
            prop_assert_eq!(&ours.encrypted_content[..], &content[..]);
        }
    }
}
