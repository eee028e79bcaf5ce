//! Arbitrary input is refused without a panic.

use proptest::prelude::*;

use super::sample::sample;
use crate::{Bundle, Identity, OpenError, open, seal};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn arbitrary_bytes_are_no_bundle(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(Bundle::from_json(&bytes).is_err());
    }

    #[test]
    fn a_bundle_with_any_byte_altered_is_refused_or_reads_back(
        index in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut text = sample().to_string().into_bytes();
        let index = index.index(text.len());
        text[index] = byte;
        if let Ok(bundle) = Bundle::from_json(&text) {
            prop_assert!(Bundle::from_json(&bundle.to_json()).is_ok());
        }
    }

    #[test]
    fn a_truncated_bundle_is_refused(end in any::<prop::sample::Index>()) {
        let text = sample().to_string();
        prop_assert!(Bundle::from_json(&text.as_bytes()[..end.index(text.len())]).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_no_identity(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
        prop_assert!(Identity::parse(&bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_no_sealed_bundle(
        bytes in prop::collection::vec(any::<u8>(), 0..512),
        magic in any::<bool>(),
    ) {
        let prefix: &[u8] = if magic { b"age-encryption.org/v1\n" } else { b"" };
        let sealed = [prefix, &bytes].concat();
        prop_assert!(open(sealed.as_slice(), &Identity::generate(), 1024, Vec::new()).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn a_sealed_bundle_altered_anywhere_is_refused(
        length in 0..200_000_usize,
        index in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let identity = Identity::generate();
        let mut sealed = seal(&vec![7; length], &identity.recipient()).unwrap();
        let index = index.index(sealed.len());
        sealed[index] ^= 1 << bit;
        let refused = open(sealed.as_slice(), &identity, u64::MAX, Vec::new());
        prop_assert!(matches!(
            refused,
            Err(OpenError::Corrupt(_) | OpenError::NotAge | OpenError::NotForThisIdentity | OpenError::Passphrase)
        ));
    }
}
