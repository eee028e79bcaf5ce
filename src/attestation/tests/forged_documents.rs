//! Documents that somebody with certificates of their own could make, each with one thing wrong.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::time::{Duration, SystemTime};

use attestation::{MAX_DOCUMENT_SIZE, TrustRoot, VerifyError, spki_sha256, verify};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use ciborium::Value;
use coset::iana::Algorithm;
use coset::{CborSerializable as _, CoseSign1, CoseSign1Builder, Header, HeaderBuilder};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PublicKeyData as _, SignatureAlgorithm, date_time_ymd,
};

/// The certificates, from the root to the one that signs the document.
const NAMES: [&str; 5] = ["root", "region", "zone", "instance", "leaf"];

struct Chain {
    /// DER, in the order of [`NAMES`].
    certificates: Vec<Vec<u8>>,
    /// PKCS #8.
    leaf_key: Vec<u8>,
}

impl Chain {
    fn good() -> Self {
        Self::with(|_, _| {})
    }

    /// A chain in which the parameters of the certificate called by its name were changed.
    fn with(change: impl Fn(&str, &mut CertificateParams)) -> Self {
        Self::with_keys(change, |_| &PKCS_ECDSA_P384_SHA384)
    }

    fn with_keys(
        change: impl Fn(&str, &mut CertificateParams),
        algorithm: impl Fn(&str) -> &'static SignatureAlgorithm,
    ) -> Self {
        let mut certificates = Vec::new();
        let mut issuer: Option<Issuer<'_, KeyPair>> = None;
        let mut leaf_key = Vec::new();
        for (depth, name) in (0..).zip(NAMES) {
            let mut parameters = parameters(name, depth);
            change(name, &mut parameters);
            let key = KeyPair::generate_for(algorithm(name)).unwrap();
            let certificate = match &issuer {
                None => parameters.self_signed(&key).unwrap(),
                Some(issuer) => parameters.signed_by(&key, issuer).unwrap(),
            };
            certificates.push(certificate.der().to_vec());
            leaf_key = key.serialize_der();
            issuer = Some(Issuer::new(parameters, key));
        }
        Self { certificates, leaf_key }
    }

    fn root(&self) -> TrustRoot {
        TrustRoot::from_der(&self.certificates[0])
    }

    /// What the security module would sign.
    fn payload(&self) -> Vec<u8> {
        let (leaf, cabundle) = self.certificates.split_last().unwrap();
        let bytes = |bytes: &Vec<u8>| Value::Bytes(bytes.clone());
        let fields: [(&str, Value); 6] = [
            ("module_id", "i-0-enc0".into()),
            ("digest", "SHA384".into()),
            ("timestamp", 1_700_000_000_000_u64.into()),
            ("pcrs", Value::Map(vec![(0.into(), Value::Bytes(vec![1; 48]))])),
            ("certificate", bytes(leaf)),
            ("cabundle", Value::Array(cabundle.iter().map(bytes).collect())),
        ];
        let mut payload = Vec::new();
        let map = fields.into_iter().map(|(name, value)| (name.into(), value)).collect();
        ciborium::into_writer(&Value::Map(map), &mut payload).unwrap();
        payload
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &self.leaf_key).unwrap();
        key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    fn document(&self) -> CoseSign1 {
        self.document_with(es384(), Header::default())
    }

    fn document_with(&self, protected: Header, unprotected: Header) -> CoseSign1 {
        CoseSign1Builder::new()
            .protected(protected)
            .unprotected(unprotected)
            .payload(self.payload())
            .create_signature(&[], |message| self.sign(message))
            .build()
    }

    fn verify(&self, document: CoseSign1) -> Result<(), VerifyError> {
        verify(&document.to_vec().unwrap(), &self.root(), SystemTime::now()).map(|_| ())
    }

    fn verdict(&self) -> Result<(), VerifyError> {
        self.verify(self.document())
    }
}

fn parameters(name: &str, depth: u8) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = match name {
        "root" => IsCa::Ca(BasicConstraints::Unconstrained),
        "leaf" => IsCa::ExplicitNoCa,
        _ => IsCa::Ca(BasicConstraints::Constrained(3 - depth)),
    };
    let usage = if name == "leaf" { KeyUsagePurpose::DigitalSignature } else { KeyUsagePurpose::KeyCertSign };
    parameters.key_usages = vec![usage];
    parameters
}

fn es384() -> Header {
    HeaderBuilder::new().algorithm(Algorithm::ES384).build()
}

#[track_caller]
fn refused_certificate(verdict: Result<(), VerifyError>, name: &str, because: &str) {
    match verdict {
        Err(VerifyError::Certificate { which, reason }) => {
            assert_eq!(which, name);
            assert!(reason.contains(because), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_document_with_nothing_wrong_verifies() {
    assert_eq!(Chain::good().verdict(), Ok(()));
}

#[test]
fn a_document_under_the_wrong_root_is_refused_though_the_names_are_the_same() {
    let (mine, theirs) = (Chain::good(), Chain::good());
    let cose = mine.document().to_vec().unwrap();
    let error = VerifyError::RootNotTrusted { expected: theirs.root(), actual: mine.root() };
    assert_eq!(verify(&cose, &theirs.root(), SystemTime::now()), Err(error));
}

#[test]
fn certificates_of_another_chain_below_the_trusted_root_are_refused() {
    let (mut mine, theirs) = (Chain::good(), Chain::good());
    mine.certificates[0].clone_from(&theirs.certificates[0]);
    assert!(matches!(mine.verdict(), Err(VerifyError::Chain(_))));
}

#[test]
fn a_certificate_authority_may_not_sign_documents() {
    let chain = Chain::with(|name, parameters| {
        if name == "leaf" {
            parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
    });
    assert_eq!(chain.verdict(), Err(VerifyError::Chain(webpki::Error::CaUsedAsEndEntity)));
}

#[test]
fn a_path_length_has_no_place_in_the_certificate_of_a_document() {
    let chain = Chain::with(|name, parameters| {
        if name == "leaf" {
            // BasicConstraints with a path length, of no CA.
            let constraints = vec![0x30, 0x03, 0x02, 0x01, 0x00];
            parameters.is_ca = IsCa::NoCa;
            parameters.custom_extensions =
                vec![CustomExtension::from_oid_content(&[2, 5, 29, 19], constraints)];
        }
    });
    assert!(chain.verdict().is_err());
}

#[test]
fn only_authorities_may_issue() {
    for issuer in ["region", "zone", "instance"] {
        for not_ca in [IsCa::NoCa, IsCa::ExplicitNoCa] {
            let chain = Chain::with(|name, parameters| {
                if name == issuer {
                    parameters.is_ca = not_ca;
                }
            });
            assert_eq!(chain.verdict(), Err(VerifyError::Chain(webpki::Error::EndEntityUsedAsCa)));
        }
    }
}

#[test]
fn a_path_may_not_be_longer_than_its_authorities_allow() {
    let chain = Chain::with(|name, parameters| {
        if name == "region" {
            parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        }
    });
    assert_eq!(chain.verdict(), Err(VerifyError::Chain(webpki::Error::PathLenConstraintViolated)));
}

#[test]
fn every_issuer_needs_the_right_to_sign_certificates() {
    for (index, issuer) in NAMES[..4].iter().enumerate() {
        for usages in [vec![], vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign]] {
            let chain = Chain::with(|name, parameters| {
                if name == *issuer {
                    parameters.key_usages.clone_from(&usages);
                }
            });
            refused_certificate(chain.verdict(), &format!("cabundle[{index}]"), "keyCertSign");
        }
    }
}

#[test]
fn the_certificate_of_a_document_needs_the_right_to_sign() {
    for usages in [vec![], vec![KeyUsagePurpose::KeyAgreement, KeyUsagePurpose::KeyCertSign]] {
        let chain = Chain::with(|name, parameters| {
            if name == "leaf" {
                parameters.key_usages.clone_from(&usages);
            }
        });
        refused_certificate(chain.verdict(), "document's own", "digitalSignature");
    }
}

#[test]
fn certificates_have_to_be_valid_the_root_included() {
    let expired = |which: &'static str| {
        Chain::with(move |name, parameters| {
            if name == which {
                parameters.not_after = date_time_ymd(2024, 1, 1);
            }
        })
        .verdict()
    };
    refused_certificate(expired("root"), "cabundle[0]", "valid from");
    for which in &NAMES[1..] {
        assert!(
            matches!(expired(which), Err(VerifyError::Chain(webpki::Error::CertExpired { .. }))),
            "{which}"
        );
    }
}

#[test]
fn keys_on_another_curve_are_refused() {
    for which in NAMES {
        let algorithm =
            |name: &str| if name == which { &PKCS_ECDSA_P256_SHA256 } else { &PKCS_ECDSA_P384_SHA384 };
        let mut chain = Chain::with_keys(|_, _| {}, algorithm);
        if which == "leaf" {
            // The signature cannot be made with this key; it is not what decides.
            chain.leaf_key = Chain::good().leaf_key;
            refused_certificate(chain.verdict(), "document's own", "P-384");
        } else {
            assert!(matches!(chain.verdict(), Err(VerifyError::Chain(_))), "{which}");
        }
    }
}

#[test]
fn the_bundle_is_the_path_in_order_and_nothing_else() {
    let mut swapped = Chain::good();
    swapped.certificates.swap(1, 2);
    let mut short = Chain::good();
    short.certificates.remove(2);
    let mut twice = Chain::good();
    twice.certificates.insert(2, twice.certificates[1].clone());
    let mut foreign = Chain::good();
    foreign.certificates.insert(1, Chain::good().certificates[1].clone());
    for (chain, name) in [(swapped, "swapped"), (short, "short"), (twice, "twice"), (foreign, "foreign")] {
        assert!(matches!(chain.verdict(), Err(VerifyError::Chain(_))), "{name}: {:?}", chain.verdict());
    }
}

#[test]
fn bytes_that_are_no_certificate_are_refused() {
    for index in 1..NAMES.len() {
        let mut chain = Chain::good();
        chain.certificates[index] = vec![0x30; 100];
        assert!(matches!(chain.verdict(), Err(VerifyError::Chain(_))));
        let mut chain = Chain::good();
        chain.certificates[index].push(0);
        assert!(matches!(chain.verdict(), Err(VerifyError::Chain(_))));
    }
}

#[test]
fn a_signature_by_another_key_or_over_another_payload_is_refused() {
    let chain = Chain::good();
    let mut stolen = Chain::good();
    stolen.certificates.clone_from(&chain.certificates);
    assert_eq!(stolen.verdict(), Err(VerifyError::Signature));

    let mut changed = chain.document();
    let payload = changed.payload.as_mut().unwrap();
    let pcr = payload.windows(48).position(|window| window == [1; 48]).unwrap();
    payload[pcr] = 2;
    assert_eq!(chain.verify(changed), Err(VerifyError::Signature));
}

#[test]
fn a_signature_of_another_form_is_refused() {
    let chain = Chain::good();
    let message = chain.document().tbs_data(&[]);
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &chain.leaf_key).unwrap();
    let asn1 = key.sign(&SystemRandom::new(), &message).unwrap().as_ref().to_vec();
    let good = chain.sign(&message);
    for signature in [asn1, vec![], vec![0; 96], good[..95].to_vec(), [good.as_slice(), &[0]].concat()] {
        let document = CoseSign1 { signature, ..chain.document() };
        assert_eq!(chain.verify(document), Err(VerifyError::Signature));
    }
}

#[test]
fn headers_say_es384_and_nothing_more() {
    let chain = Chain::good();
    let protected = [
        Header::default(),
        HeaderBuilder::new().algorithm(Algorithm::ES256).build(),
        HeaderBuilder::new().algorithm(Algorithm::EdDSA).build(),
        HeaderBuilder::new().algorithm(Algorithm::ES384).key_id(vec![1]).build(),
        HeaderBuilder::new()
            .algorithm(Algorithm::ES384)
            .add_critical_label(coset::RegisteredLabelWithPrivate::Text("x".to_owned()))
            .build(),
    ];
    for header in protected {
        assert_eq!(chain.verify(chain.document_with(header, Header::default())), Err(VerifyError::Header));
    }
    for header in [es384(), HeaderBuilder::new().text_value("x".to_owned(), Value::Null).build()] {
        assert_eq!(chain.verify(chain.document_with(es384(), header)), Err(VerifyError::Header));
    }
    // The algorithm has to be where the signature covers it.
    assert_eq!(chain.verify(chain.document_with(Header::default(), es384())), Err(VerifyError::Header));
}

#[test]
fn a_document_without_a_payload_is_refused() {
    let chain = Chain::good();
    let document = CoseSign1 { payload: None, ..chain.document() };
    assert!(matches!(chain.verify(document), Err(VerifyError::Cose(_))));
}

#[test]
fn a_document_of_no_reasonable_size_is_not_read() {
    let cose = vec![0x84; MAX_DOCUMENT_SIZE + 1];
    let error = VerifyError::TooLarge { limit: MAX_DOCUMENT_SIZE, actual: MAX_DOCUMENT_SIZE + 1 };
    assert_eq!(verify(&cose, &TrustRoot::AWS_NITRO_G1, SystemTime::now()), Err(error));
}

#[test]
fn deeply_nested_cbor_is_refused_without_exhausting_the_stack() {
    for byte in [0x81, 0xd2, 0xa1, 0x9f] {
        let cose = vec![byte; MAX_DOCUMENT_SIZE];
        let verdict = verify(&cose, &TrustRoot::AWS_NITRO_G1, SystemTime::now());
        assert!(matches!(verdict, Err(VerifyError::Cose(_))), "{byte:#x}: {verdict:?}");
    }
}

#[test]
fn the_fingerprint_of_a_key_is_that_of_its_spki() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap();
    let expected = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &key.subject_public_key_info());
    assert_eq!(spki_sha256(certificate.der()).unwrap(), expected.as_ref());
    assert!(spki_sha256(&key.subject_public_key_info()).is_err());
    assert!(spki_sha256(&[]).is_err());
}

#[test]
fn the_time_of_verification_decides() {
    let chain = Chain::with(|name, parameters| {
        if name == "leaf" {
            parameters.not_before = date_time_ymd(2030, 1, 1);
            parameters.not_after = date_time_ymd(2030, 1, 2);
        }
    });
    let cose = chain.document().to_vec().unwrap();
    let midnight = u64::try_from(date_time_ymd(2030, 1, 1).unix_timestamp()).unwrap();
    let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(midnight) + Duration::from_hours(12);
    let day = Duration::from_hours(24);
    assert!(verify(&cose, &chain.root(), noon).is_ok());
    for other in [noon - day, noon + day] {
        assert!(matches!(verify(&cose, &chain.root(), other), Err(VerifyError::Chain(_))));
    }
}
