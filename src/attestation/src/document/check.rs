//! Is it the expected enclave, and now?

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};

use super::Document;
use crate::{MismatchError, PCR_CONFIGURATION, Pcr};

/// How far the clocks of verifier and hypervisor may be apart.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_mins(1);

/// Longest value that is shown in full in an error, in bytes.
const LONGEST_SHOWN: usize = 64;

/// What a document has to say. `None` asks nothing, except that the enclave is not in debug mode.
#[derive(Clone, Debug, Default)]
pub struct Expected<'a> {
    /// The nonce the verifier sent.
    pub nonce: Option<&'a [u8]>,
    /// What the enclave says, such as the fingerprint of its TLS key.
    pub user_data: Option<&'a [u8]>,
    /// What the enclave wants to be encrypted to.
    pub public_key: Option<&'a [u8]>,
    /// Images that are accepted. An empty list accepts none.
    pub pcr0: &'a [Pcr],
    /// What names configuration and bundle.
    pub pcr16: Option<Pcr>,
    /// How old the document may be. With a fresh nonce this is implied; without one, ask for it.
    pub freshness: Option<Freshness>,
}

/// Bounds a document's age, give or take [`MAX_CLOCK_SKEW`].
#[derive(Clone, Copy, Debug)]
pub struct Freshness {
    /// The time of the check.
    pub now: SystemTime,
    /// Greatest age.
    pub max_age: Duration,
}

impl Document {
    /// Compares a verified document with what is expected; the error says what differs first.
    pub fn check(&self, expected: &Expected<'_>) -> Result<(), MismatchError> {
        // PCR0 is always in the documents of the hypervisor: one without it is as bad as a zero.
        if self.pcr(0).is_none_or(|pcr| pcr.is_zero()) {
            return Err(MismatchError::DebugMode);
        }
        self.check_pcr(0, expected.pcr0)?;
        if let Some(pcr16) = expected.pcr16 {
            self.check_pcr(PCR_CONFIGURATION, &[pcr16])?;
        }
        check_field("nonce", expected.nonce, self.nonce.as_deref())?;
        check_field("user_data", expected.user_data, self.user_data.as_deref())?;
        check_field("public_key", expected.public_key, self.public_key.as_deref())?;
        expected.freshness.map_or(Ok(()), |freshness| self.check_freshness(freshness))
    }

    fn check_pcr(&self, index: u16, accepted: &[Pcr]) -> Result<(), MismatchError> {
        let actual = self.pcr(index);
        if actual.is_some_and(|pcr| accepted.contains(&pcr)) {
            return Ok(());
        }
        Err(MismatchError::Pcr { index, expected: accepted.to_vec(), actual })
    }

    fn check_freshness(&self, Freshness { now, max_age }: Freshness) -> Result<(), MismatchError> {
        let made = self.timestamp();
        let fresh = match now.duration_since(made) {
            Ok(age) => age <= max_age + MAX_CLOCK_SKEW,
            Err(ahead) => ahead.duration() <= MAX_CLOCK_SKEW,
        };
        if fresh {
            return Ok(());
        }
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Err(MismatchError::Stale {
            timestamp_ms: self.timestamp_ms,
            now_ms: milliseconds(now),
            max_age_ms: milliseconds(max_age),
        })
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn check_field(
    field: &'static str,
    expected: Option<&[u8]>,
    actual: Option<&[u8]>,
) -> Result<(), MismatchError> {
    if expected.is_none() || expected == actual {
        return Ok(());
    }
    Err(MismatchError::Field { field, expected: show(expected), actual: show(actual) })
}

fn show(value: Option<&[u8]>) -> String {
    match value {
        None => "absent".to_owned(),
        Some(value) if value.len() <= LONGEST_SHOWN => hex::encode(value),
        Some(value) => format!("sha256:{}", hex::encode(digest(&SHA256, value))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: Pcr = Pcr::from_bytes([1; 48]);
    const OTHER: Pcr = Pcr::from_bytes([2; 48]);

    fn document() -> Document {
        Document {
            module_id: "i-0-enc0".to_owned(),
            timestamp_ms: 1_700_000_000_000,
            digest: "SHA384".to_owned(),
            pcrs: [(0, IMAGE), (16, OTHER)].into(),
            public_key: Some(vec![3; 100]),
            user_data: Some(b"user".to_vec()),
            nonce: None,
            certificate: vec![],
            cabundle: vec![],
        }
    }

    fn check(expected: &Expected<'_>) -> Result<(), MismatchError> {
        document().check(&Expected { pcr0: &[OTHER, IMAGE], ..expected.clone() })
    }

    #[test]
    fn what_is_expected_is_accepted() {
        let key = [3; 100];
        let expected = Expected {
            user_data: Some(b"user"),
            public_key: Some(&key),
            pcr16: Some(OTHER),
            ..Expected::default()
        };
        assert_eq!(check(&expected), Ok(()));
    }

    #[test]
    fn an_image_that_is_not_listed_is_refused() {
        let error = document().check(&Expected { pcr0: &[OTHER], ..Expected::default() });
        assert_eq!(error, Err(MismatchError::Pcr { index: 0, expected: vec![OTHER], actual: Some(IMAGE) }));
    }

    #[test]
    fn an_empty_list_of_images_accepts_none() {
        let error = document().check(&Expected::default()).unwrap_err();
        assert_eq!(error, MismatchError::Pcr { index: 0, expected: vec![], actual: Some(IMAGE) });
        assert!(error.to_string().ends_with("expected is absent"), "{error}");
    }

    #[test]
    fn debug_mode_is_refused_even_if_its_pcr0_is_listed() {
        for pcr0 in [Some(Pcr::ZERO), None] {
            let mut document = document();
            document.pcrs.remove(&0);
            document.pcrs.extend(pcr0.map(|pcr| (0, pcr)));
            let expected = Expected { pcr0: &[Pcr::ZERO], ..Expected::default() };
            assert_eq!(document.check(&expected), Err(MismatchError::DebugMode));
        }
    }

    #[test]
    fn another_configuration_is_refused() {
        let error = check(&Expected { pcr16: Some(IMAGE), ..Expected::default() });
        assert_eq!(error, Err(MismatchError::Pcr { index: 16, expected: vec![IMAGE], actual: Some(OTHER) }));
    }

    #[test]
    fn a_configuration_register_that_is_not_locked_is_refused() {
        let mut document = document();
        document.pcrs.remove(&16);
        let error = document.check(&Expected { pcr0: &[IMAGE], pcr16: Some(OTHER), ..Expected::default() });
        assert_eq!(error, Err(MismatchError::Pcr { index: 16, expected: vec![OTHER], actual: None }));
    }

    #[test]
    fn fields_that_differ_are_refused_and_shown() {
        let field = |expected, field| match check(&expected) {
            Err(MismatchError::Field { field: actual, .. }) => assert_eq!(actual, field),
            other => panic!("{other:?}"),
        };
        field(Expected { nonce: Some(b"n"), ..Expected::default() }, "nonce");
        field(Expected { user_data: Some(b""), ..Expected::default() }, "user_data");
        field(Expected { public_key: Some(b"user"), ..Expected::default() }, "public_key");

        let error = check(&Expected { nonce: Some(b"n"), ..Expected::default() }).unwrap_err();
        assert_eq!(error.to_string(), "nonce is absent, expected is 6e");
    }

    #[test]
    fn age_is_bounded_on_both_sides() {
        let made = document().timestamp();
        let max_age = Duration::from_mins(5);
        let at =
            |now| check(&Expected { freshness: Some(Freshness { now, max_age }), ..Expected::default() });
        let millisecond = Duration::from_millis(1);
        assert_eq!(at(made + max_age + MAX_CLOCK_SKEW), Ok(()));
        assert_eq!(at(made - MAX_CLOCK_SKEW), Ok(()));
        for now in [made + max_age + MAX_CLOCK_SKEW + millisecond, made - MAX_CLOCK_SKEW - millisecond] {
            assert!(matches!(at(now), Err(MismatchError::Stale { max_age_ms: 300_000, .. })));
        }
    }
}
