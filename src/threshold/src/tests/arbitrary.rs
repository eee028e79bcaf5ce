//! Arbitrary input: refused without a panic, and without harm if it is not authentic.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::group::{Group, params, to};
use crate::{Envelope, KeyMaterial, Open, SchemeId, SessionError, check};

static GROUPS: LazyLock<[Group; 2]> = LazyLock::new(|| SchemeId::ALL.map(|scheme| Group::new(scheme, 2, 3)));

fn opening() -> Open {
    Open { session_id: [7; 32], ..params(b"m", &["a", "b"]) }
}

/// Envelopes of which each field is right or anything.
fn envelope() -> impl Strategy<Value = Envelope> {
    let name = || prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just("c".to_owned()), ".{0,8}"];
    (
        prop_oneof![4 => Just([7; 32]), 1 => any::<[u8; 32]>()],
        prop_oneof![4 => Just("account-1".to_owned()), 1 => ".{0,16}"],
        prop_oneof![4 => Just(1), 1 => any::<u32>()],
        prop_oneof![4 => Just("b".to_owned()), 1 => name()],
        prop_oneof![4 => Just("a".to_owned()), 1 => name()],
        any::<[u8; 32]>(),
        prop::collection::vec(any::<u8>(), 0..256),
    )
        .prop_map(|(session_id, account, round, sender, receiver, encapsulated_key, ciphertext)| {
            Envelope { session_id, account, round, sender, receiver, encapsulated_key, ciphertext }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn arbitrary_envelopes_are_refused_and_do_no_harm(envelope in envelope(), index in 0..2_usize) {
        let group = &GROUPS[index];
        let (mut a, _) = group.open("a", &opening());
        prop_assert!(a.receive(&envelope).is_err());
        prop_assert_eq!(a.waiting_for(), ["b"]);
        let (_, from_b) = group.open("b", &opening());
        prop_assert!(a.receive(to(&from_b, "a")).is_ok());
    }

    #[test]
    fn arbitrary_authentic_plaintexts_end_the_session(
        plaintext in prop::collection::vec(any::<u8>(), 0..256),
        index in 0..2_usize,
    ) {
        let group = &GROUPS[index];
        let (mut a, _) = group.open("a", &opening());
        let error = a.receive(&group.forge(&opening(), 1, "b", "a", &plaintext)).unwrap_err();
        let sender = "b".to_owned();
        if plaintext.len() < 32 {
            prop_assert_eq!(error, SessionError::BadMessage { round: 1, sender });
        } else {
            prop_assert_eq!(error, SessionError::Disagreement { round: 1, sender });
        }
        prop_assert!(a.is_finished());
    }

    #[test]
    fn key_material_with_any_one_byte_altered_is_refused(
        part in 0..3_usize,
        byte in any::<prop::sample::Index>(),
        bit in 0..8_u8,
        index in 0..2_usize,
    ) {
        let group = &GROUPS[index];
        let material = group.material("b");
        let mut public_key = material.public_key.to_vec();
        let mut verifying_shares = material.verifying_shares.to_vec();
        let mut share = material.share.to_vec();
        let altered = match part {
            0 => &mut public_key,
            1 => &mut verifying_shares[usize::from(bit) % 3],
            _ => &mut share,
        };
        let at = byte.index(altered.len());
        altered[at] ^= 1 << bit;
        let altered = KeyMaterial {
            public_key: &public_key,
            verifying_shares: &verifying_shares,
            share: &share,
            ..material
        };
        prop_assert!(check(&altered).is_err());
    }

    #[test]
    fn arbitrary_key_material_is_refused_without_a_panic(
        threshold in prop_oneof![4 => 2..4_u16, 1 => any::<u16>()],
        public_key in prop::collection::vec(any::<u8>(), 0..40),
        verifying_shares in prop::collection::vec(prop::collection::vec(any::<u8>(), 31..35), 2..5),
        share in prop::collection::vec(any::<u8>(), 0..40),
        parties in prop_oneof![
            4 => Just(["a", "b", "c"].map(str::to_owned).to_vec()),
            1 => prop::collection::vec("[a-d]", 0..6),
        ],
        index in 0..2_usize,
    ) {
        let material = KeyMaterial {
            scheme: SchemeId::ALL[index],
            threshold,
            parties: &parties,
            own: "a",
            public_key: &public_key,
            verifying_shares: &verifying_shares,
            share: &share,
        };
        prop_assert!(check(&material).is_err());
    }
}
