use super::*;
use crate::fake_nsm::FakeNsm;

const DIGESTS: [[u8; 48]; 2] = [[1; 48], [2; 48]];

#[test]
fn a_measured_image_is_accepted_and_its_registers_are_reported() {
    let mut facts = Facts::new();
    refuse_debug_mode(&FakeNsm::measured(), &mut facts).unwrap();
    assert_eq!(facts["pcr0"], Pcr::measure(&[b"image"]).to_string());
}

#[test]
fn any_register_of_the_image_that_is_zero_means_debug_mode() {
    for index in IMAGE_PCRS {
        let nsm = FakeNsm::measured();
        nsm.pcrs.lock().unwrap().insert(index, Pcr::ZERO);
        let error = refuse_debug_mode(&nsm, &mut Facts::new()).unwrap_err();
        assert_eq!(error.reason, FailureReason::DebugMode);
        assert!(error.message.contains(&format!("PCR{index}")), "{}", error.message);
    }
}

#[test]
fn configuration_and_bundle_are_extended_in_order_and_locked() {
    let nsm = FakeNsm::measured();
    let value = lock_with(&nsm, &DIGESTS).unwrap();
    assert_eq!(value, Pcr::ZERO.extend(&DIGESTS[0]).extend(&DIGESTS[1]));
    assert_eq!(nsm.describe_pcr(16).unwrap(), (true, value));
    assert!(nsm.extend_pcr(16, &[3; 48]).is_err());
}

#[test]
fn a_register_that_somebody_extended_before_is_refused() {
    let nsm = FakeNsm::measured();
    nsm.extend_pcr(16, &[9; 48]).unwrap();
    let error = lock_with(&nsm, &DIGESTS).unwrap_err();
    assert_eq!(error.reason, FailureReason::NsmFailed);
    assert!(error.message.contains(&Pcr::of_digests(&DIGESTS).to_string()), "{}", error.message);
}

#[test]
fn a_register_that_is_locked_already_is_refused() {
    let nsm = FakeNsm::measured();
    nsm.lock_pcr(16).unwrap();
    assert_eq!(lock_with(&nsm, &DIGESTS).unwrap_err().reason, FailureReason::NsmFailed);
}

#[test]
fn a_lock_that_does_not_hold_is_refused() {
    let nsm = FakeNsm { forgets_locks: true, ..FakeNsm::measured() };
    let error = lock_with(&nsm, &DIGESTS).unwrap_err();
    assert_eq!(error.reason, FailureReason::NsmFailed);
    assert!(error.message.contains("locked: false"), "{}", error.message);
}

#[test]
fn a_security_module_that_this_build_does_not_know_is_refused() {
    let error = open_nsm("carrier-pigeon").err().unwrap();
    assert_eq!(error.reason, FailureReason::NsmFailed);
    assert!(error.message.contains("carrier-pigeon"), "{}", error.message);
}
