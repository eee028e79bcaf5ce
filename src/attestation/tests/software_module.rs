//! The software security module, through the same trait, socket and verifier as everything else.
#![cfg(feature = "software-nsm")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use attestation::software::{SoftwareError, SoftwareNsm, TestAuthority, serve};
use attestation::{
    Document, ErrorCode, Expected, Freshness, Measurements, MismatchError, Nsm, NsmError, Pcr, TrustRoot,
    VerifyError, open, verify,
};

fn measurements() -> Measurements {
    Measurements::of_parts(&[b"kernel"], &[b"runtime"], &[b"application"])
}

fn launched() -> (TrustRoot, SoftwareNsm) {
    let authority = TestAuthority::generate().unwrap();
    let nsm = SoftwareNsm::new(&authority, measurements()).unwrap();
    (TrustRoot::from_der(authority.root_der()), nsm)
}

fn document(root: &TrustRoot, nsm: &dyn Nsm) -> Document {
    verify(&nsm.attest(None, None, None).unwrap(), root, SystemTime::now()).unwrap()
}

/// Serves a module on a socket in `directory` and gives its location.
fn served(directory: &Path, nsm: SoftwareNsm) -> String {
    let path = directory.join("nsm.sock");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || serve(listener, Arc::new(nsm)));
    format!("unix:{}", path.display())
}

macro_rules! assert_refused {
    ($result:expr, $code:ident) => {
        assert!(matches!($result, Err(NsmError::Refused { code: ErrorCode::$code, .. })))
    };
}

#[test]
fn a_document_says_what_it_was_given_and_verifies() {
    let (root, nsm) = launched();
    let cose = nsm.attest(Some(b"user"), Some(b"nonce"), Some(b"key")).unwrap();
    let document = verify(&cose, &root, SystemTime::now()).unwrap();
    let expected = Expected {
        nonce: Some(b"nonce"),
        user_data: Some(b"user"),
        public_key: Some(b"key"),
        pcr0: &[measurements().pcr0],
        pcr16: None,
        freshness: Some(Freshness { now: SystemTime::now(), max_age: Duration::ZERO }),
    };
    assert_eq!(document.check(&expected), Ok(()));
    assert_eq!(document.module_id, nsm.describe().unwrap().module_id);
    assert_eq!((document.pcr(1), document.pcr(2)), (Some(measurements().pcr1), Some(measurements().pcr2)));
    assert_eq!(document.cabundle.len(), 4);
    assert!(verify(&cose, &TrustRoot::AWS_NITRO_G1, SystemTime::now()).is_err());
}

#[test]
fn a_document_is_encoded_as_the_real_module_does() {
    let (_, nsm) = launched();
    let cose = nsm.attest(None, None, None).unwrap();
    // Untagged array of four; protected header {1: -35}; no unprotected header; payload with a two-byte length, a map
    // of nine whose first name is module_id.
    assert_eq!(cose[..8], [0x84, 0x44, 0xa1, 0x01, 0x38, 0x22, 0xa0, 0x59]);
    assert_eq!(cose[10..21], *b"\xa9\x69module_id");
    let nulls = [&b"\x6apublic_key\xf6\x69user_data\xf6\x65nonce\xf6"[..], &[0x58, 0x60]].concat();
    assert_eq!(cose[cose.len() - 96 - nulls.len()..cose.len() - 96], nulls);
    let names = ["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle", "public_key"];
    let positions = names.map(|name| cose.windows(name.len()).position(|window| window == name.as_bytes()));
    assert!(positions.is_sorted() && positions[0].is_some(), "{positions:?}");
}

#[test]
fn a_leaf_is_valid_for_three_hours() {
    let (root, nsm) = launched();
    let cose = nsm.attest(None, None, None).unwrap();
    let hours = |hours: u64| SystemTime::now() + Duration::from_hours(hours);
    assert!(verify(&cose, &root, hours(2)).is_ok());
    assert!(matches!(
        verify(&cose, &root, hours(4)),
        Err(VerifyError::Chain(webpki::Error::CertExpired { .. }))
    ));
}

#[test]
fn the_registers_of_the_hypervisor_are_locked_from_the_start() {
    let (_, nsm) = launched();
    let description = nsm.describe().unwrap();
    assert_eq!(description.max_pcrs, 32);
    assert!(description.locked_pcrs.iter().copied().eq(0..16));
    for index in 0..16 {
        assert_refused!(nsm.extend_pcr(index, b"data"), ReadOnlyIndex);
        assert_refused!(nsm.lock_pcr(index), ReadOnlyIndex);
    }
    assert_eq!(nsm.describe_pcr(0).unwrap(), (true, measurements().pcr0));
    assert!(!nsm.describe_pcr(4).unwrap().1.is_zero());
    assert_eq!(nsm.describe_pcr(15).unwrap(), (true, Pcr::ZERO));
}

#[test]
fn a_register_can_be_extended_until_it_is_locked_and_is_in_documents_from_then_on() {
    let (root, nsm) = launched();
    assert_eq!(nsm.describe_pcr(16).unwrap(), (false, Pcr::ZERO));
    let digests = [[1; 48], [2; 48]];
    for digest in &digests {
        nsm.extend_pcr(16, digest).unwrap();
    }
    let value = Pcr::of_digests(&digests);
    assert_eq!(nsm.describe_pcr(16).unwrap(), (false, value));
    assert_eq!(document(&root, &nsm).pcr(16), None);

    nsm.lock_pcr(16).unwrap();
    assert_refused!(nsm.extend_pcr(16, b"more"), ReadOnlyIndex);
    assert_refused!(nsm.lock_pcr(16), ReadOnlyIndex);
    assert_eq!(nsm.describe_pcr(16).unwrap(), (true, value));
    let document = document(&root, &nsm);
    assert!(document.pcrs.keys().copied().eq(0..17));
    let expected = Expected { pcr0: &[measurements().pcr0], pcr16: Some(value), ..Expected::default() };
    assert_eq!(document.check(&expected), Ok(()));
}

#[test]
fn extending_gives_the_new_value() {
    let (_, nsm) = launched();
    assert_eq!(nsm.extend_pcr(31, b"a").unwrap(), Pcr::ZERO.extend(b"a"));
    assert_eq!(nsm.extend_pcr(31, b"").unwrap(), Pcr::ZERO.extend(b"a").extend(b""));
}

#[test]
fn a_range_of_registers_is_locked_from_zero() {
    let (_, nsm) = launched();
    nsm.lock_pcrs(18).unwrap();
    assert!(nsm.describe().unwrap().locked_pcrs.iter().copied().eq(0..18));
    assert_refused!(nsm.extend_pcr(17, b"data"), ReadOnlyIndex);
    nsm.extend_pcr(18, b"data").unwrap();
    nsm.lock_pcrs(32).unwrap();
    assert_refused!(nsm.lock_pcrs(33), InvalidIndex);
}

#[test]
fn registers_that_do_not_exist_are_refused() {
    let (_, nsm) = launched();
    assert_refused!(nsm.describe_pcr(32), InvalidIndex);
    assert_refused!(nsm.extend_pcr(32, b"data"), InvalidIndex);
    assert_refused!(nsm.lock_pcr(u16::MAX), InvalidIndex);
}

#[test]
fn fields_of_a_document_have_limits() {
    let (_, nsm) = launched();
    let bytes = [0; 1025];
    assert!(nsm.attest(Some(&bytes[..512]), Some(&bytes[..512]), Some(&bytes[..1024])).is_ok());
    assert_refused!(nsm.attest(Some(&bytes[..513]), None, None), InputTooLarge);
    assert_refused!(nsm.attest(None, Some(&bytes[..513]), None), InputTooLarge);
    assert_refused!(nsm.attest(None, None, Some(&bytes)), InputTooLarge);
}

#[test]
fn random_bytes_are_256_and_never_the_same() {
    let (_, nsm) = launched();
    let (first, second) = (nsm.random().unwrap(), nsm.random().unwrap());
    assert_eq!((first.len(), second.len()), (256, 256));
    assert_ne!(first, second);
}

#[test]
fn debug_mode_has_zeros_and_is_refused() {
    let authority = TestAuthority::generate().unwrap();
    let nsm = SoftwareNsm::debug(&authority).unwrap();
    let document = document(&TrustRoot::from_der(authority.root_der()), &nsm);
    assert!(document.pcrs.values().all(Pcr::is_zero));
    let expected = Expected { pcr0: &[Pcr::ZERO], ..Expected::default() };
    assert_eq!(document.check(&expected), Err(MismatchError::DebugMode));
}

#[test]
fn each_launch_has_its_own_registers_and_id() {
    let authority = TestAuthority::generate().unwrap();
    let [first, second] = [0; 2].map(|_| SoftwareNsm::new(&authority, measurements()).unwrap());
    first.extend_pcr(16, b"data").unwrap();
    assert_eq!(second.describe_pcr(16).unwrap(), (false, Pcr::ZERO));
    assert_ne!(first.describe().unwrap().module_id, second.describe().unwrap().module_id);
}

#[test]
fn an_authority_is_kept_in_files_that_only_its_owner_can_read() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("authority");
    let authority = TestAuthority::generate().unwrap();
    authority.save(&directory).unwrap();
    let mode = fs::metadata(directory.join("root.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let loaded = TestAuthority::load(&directory).unwrap();
    assert_eq!((loaded.root_pem(), loaded.root_der()), (authority.root_pem(), authority.root_der()));
    let root = TrustRoot::from_pem(authority.root_pem()).unwrap();
    document(&root, &SoftwareNsm::new(&loaded, measurements()).unwrap());

    assert!(matches!(TestAuthority::generate().unwrap().save(&directory), Err(SoftwareError::File { .. })));
}

#[test]
fn files_of_two_authorities_are_not_mixed() {
    let directory = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| directory.path().join(name));
    for path in [&one, &other] {
        TestAuthority::generate().unwrap().save(path).unwrap();
    }
    fs::copy(one.join("root.pem"), other.join("root.pem")).unwrap();
    assert!(matches!(TestAuthority::load(&other), Err(SoftwareError::Mismatch(_))));
    fs::remove_file(one.join("root.key")).unwrap();
    assert!(matches!(TestAuthority::load(&one), Err(SoftwareError::File { .. })));
}

#[test]
fn the_module_answers_over_a_socket_as_it_does_in_process() {
    let directory = tempfile::tempdir().unwrap();
    let (root, nsm) = launched();
    let module_id = nsm.describe().unwrap().module_id;
    let location = served(directory.path(), nsm);
    let nsm = open(&location).unwrap();

    assert_eq!(nsm.describe().unwrap().module_id, module_id);
    assert_eq!(nsm.random().unwrap().len(), 256);
    let value = nsm.extend_pcr(16, b"data").unwrap();
    assert_eq!(value, Pcr::ZERO.extend(b"data"));
    nsm.lock_pcr(16).unwrap();
    assert_refused!(nsm.lock_pcr(16), ReadOnlyIndex);
    // A second client sees the same module.
    let second = open(&location).unwrap();
    assert_eq!(second.describe_pcr(16).unwrap(), (true, value));
    second.lock_pcrs(20).unwrap();
    let cose = nsm.attest(Some(&[7; 512]), Some(b"nonce"), None).unwrap();
    let document = verify(&cose, &root, SystemTime::now()).unwrap();
    assert_eq!(document.user_data, Some(vec![7; 512]));
    assert!(document.pcrs.keys().copied().eq(0..20));
}

#[test]
fn nonsense_on_the_socket_is_refused_and_the_module_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let location = served(directory.path(), launched().1);
    let connect = || UnixStream::connect(location.strip_prefix("unix:").unwrap()).unwrap();

    // {"Error": "InvalidOperation"}
    let mut stream = connect();
    stream.write_all(&[0, 0, 0, 3, 0xff, 0xff, 0xff]).unwrap();
    let mut answer = [0; 28];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer[..4], [0, 0, 0, 24]);
    assert_eq!(&answer[4..], b"\xa1\x65Error\x70InvalidOperation");
    // A frame that will not be read.
    let mut stream = connect();
    stream.write_all(&[0xff; 4]).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    // Half a frame.
    connect().write_all(&[0, 0, 0, 9, 1]).unwrap();

    assert!(open(&location).unwrap().random().is_ok());
}

#[test]
fn a_request_of_no_reasonable_size_is_refused_over_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let nsm = open(&served(directory.path(), launched().1)).unwrap();
    assert_refused!(nsm.extend_pcr(16, &[0; 0x1000]), InputTooLarge);
    assert!(matches!(nsm.extend_pcr(16, &[0; 0x4000]), Err(NsmError::Socket { .. })));
    assert_eq!(nsm.describe_pcr(16).unwrap(), (false, Pcr::ZERO));
}

#[test]
fn a_location_that_names_nothing_is_refused() {
    for location in ["", "unix", "tcp:localhost:1", "/dev/nsm"] {
        assert!(matches!(open(location), Err(NsmError::Location(_))), "{location}");
    }
    let error = open("unix:/nowhere/nsm.sock").err().unwrap();
    assert!(error.to_string().contains("/nowhere/nsm.sock"), "{error}");
}
