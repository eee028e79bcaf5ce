use attestation::{
    Measurements, Nsm as _, PCR_CONFIGURATION,
    software::{SoftwareNsm, TestAuthority},
};
use vsock::Listener;

use super::*;
use crate::testing::service::FakeService;

const NONCE: [u8; NONCE_BYTES] = [5; NONCE_BYTES];
const SPKI: [u8; 32] = [6; 32];

struct Setting {
    nsm: SoftwareNsm,
    expected: Expected,
}

fn configuration() -> Configuration {
    Configuration { region: "eu-central-1".to_owned(), epoch: 1, ..Configuration::default() }
}

fn image() -> Measurements {
    Measurements::of_parts(&[], &[b"runtime"], &[b"application"])
}

/// An enclave that is as expected.
fn setting() -> Setting {
    let authority = TestAuthority::generate().unwrap();
    let nsm = SoftwareNsm::new(&authority, image()).unwrap();
    nsm.extend_pcr(PCR_CONFIGURATION, &sha384(&configuration().canonical_bytes())).unwrap();
    nsm.extend_pcr(PCR_CONFIGURATION, &sha384(b"bundle")).unwrap();
    nsm.lock_pcr(PCR_CONFIGURATION).unwrap();
    let root = TrustRoot::from_der(authority.root_der());
    Setting { nsm, expected: Expected::new(root, image().pcr0, &configuration(), sha384(b"bundle")) }
}

impl Setting {
    fn document(&self) -> Vec<u8> {
        self.nsm.attest(Some(&SPKI), Some(&NONCE), None).unwrap()
    }

    fn check(&self, cose: &[u8]) -> Result<Document, VerifyError> {
        check_document(cose, &NONCE, Some(&SPKI), &self.expected, SystemTime::now())
    }

    fn refusal(&self, cose: &[u8]) -> String {
        let error = self.check(cose).unwrap_err();
        assert_eq!(error.reason(), Reason::VerificationFailed);
        error.to_string()
    }
}

#[test]
fn the_expected_enclave_is_accepted() {
    let setting = setting();
    let document = setting.check(&setting.document()).unwrap();
    assert_eq!(document.pcr(16), Some(setting.expected.pcr16));
}

#[test]
fn another_nonce_is_refused() {
    let setting = setting();
    let cose = setting.nsm.attest(Some(&SPKI), Some(&[0; NONCE_BYTES]), None).unwrap();
    assert!(setting.refusal(&cose).contains("nonce"));
    let cose = setting.nsm.attest(Some(&SPKI), None, None).unwrap();
    assert!(setting.refusal(&cose).contains("nonce"));
}

#[test]
fn another_service_key_is_refused() {
    let setting = setting();
    let cose = setting.nsm.attest(Some(&[0; 32]), Some(&NONCE), None).unwrap();
    assert!(setting.refusal(&cose).contains("user_data"));
}

#[test]
fn another_image_is_refused() {
    let mut setting = setting();
    setting.expected.pcr0 = Pcr::measure(&[b"another"]);
    assert!(setting.refusal(&setting.document()).contains("PCR0"));
}

#[test]
fn another_configuration_or_bundle_is_refused() {
    let mut setting = setting();
    let root = setting.expected.root;
    let other = Configuration { epoch: 2, ..configuration() };
    for expected in [
        Expected::new(root, image().pcr0, &other, sha384(b"bundle")),
        Expected::new(root, image().pcr0, &configuration(), sha384(b"older bundle")),
    ] {
        setting.expected = expected;
        assert!(setting.refusal(&setting.document()).contains("PCR16"));
    }
}

#[test]
fn a_register_that_could_still_change_is_refused() {
    let setting = setting();
    let authority = TestAuthority::generate().unwrap();
    let nsm = SoftwareNsm::new(&authority, image()).unwrap();
    nsm.extend_pcr(PCR_CONFIGURATION, &sha384(&configuration().canonical_bytes())).unwrap();
    nsm.extend_pcr(PCR_CONFIGURATION, &sha384(b"bundle")).unwrap();
    let expected = Expected { root: TrustRoot::from_der(authority.root_der()), ..setting.expected };
    assert!(Setting { nsm, expected }.check_own().contains("PCR16"));
}

impl Setting {
    fn check_own(&self) -> String {
        self.refusal(&self.document())
    }
}

#[test]
fn debug_mode_is_refused() {
    let authority = TestAuthority::generate().unwrap();
    let nsm = SoftwareNsm::debug(&authority).unwrap();
    let root = TrustRoot::from_der(authority.root_der());
    let expected = Expected::new(root, Pcr::ZERO, &configuration(), sha384(b"bundle"));
    assert!(Setting { nsm, expected }.check_own().contains("debug mode"));
}

#[test]
fn another_root_is_refused() {
    let mut setting = setting();
    setting.expected.root = TrustRoot::AWS_NITRO_G1;
    assert!(setting.refusal(&setting.document()).contains("attestation_root"));
}

#[test]
fn an_altered_or_truncated_document_is_refused() {
    let setting = setting();
    let cose = setting.document();
    for position in [cose.len() / 3, cose.len() / 2, cose.len() - 1] {
        let mut altered = cose.clone();
        altered[position] ^= 1;
        setting.refusal(&altered);
    }
    setting.refusal(&cose[..cose.len() - 1]);
    setting.refusal(b"");
}

#[test]
fn a_document_from_a_while_ago_is_refused() {
    let setting = setting();
    let later = SystemTime::now() + Duration::from_mins(5);
    let error =
        check_document(&setting.document(), &NONCE, Some(&SPKI), &setting.expected, later).unwrap_err();
    assert!(matches!(error, VerifyError::Mismatch(MismatchError::Stale { .. })), "{error}");
}

#[tokio::test]
async fn the_presented_certificate_is_captured_although_we_have_none() {
    let service = FakeService::start(&"tcp:127.0.0.1:0".parse().unwrap()).await;
    for _ in 0..3 {
        assert_eq!(presented_spki(&service.at).await.unwrap(), service.spki_sha256);
    }
}

#[tokio::test]
async fn nobody_there_is_transient_and_no_tls_is_not() {
    let listener = Listener::bind(&"tcp:127.0.0.1:0".parse().unwrap()).await.unwrap();
    let at = listener.local().clone();
    let plain = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        let mut stream = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        stream
    });
    let error = presented_spki(&at).await.unwrap_err();
    assert!(matches!(error, CertificateError::Handshake(_)) && !error.is_transient(), "{error}");
    drop(plain.await.unwrap());
    let error = presented_spki(&at).await.unwrap_err();
    assert!(matches!(error, CertificateError::Connect(_)) && error.is_transient(), "{error}");
}
