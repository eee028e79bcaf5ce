use std::collections::BTreeMap;

use frost_core::{
    SigningKey,
    keys::{IdentifierList, split},
};
use frost_secp256k1_tr::Secp256K1Sha256TR;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

use super::group::{Group, params, run, sent, to};
use crate::{Dealt, KeyMaterial, Progress, SchemeId, Session, check, deal};

fn assert_signs(group: &Group, message: &[u8], signers: &[&str]) {
    let (mut sessions, envelopes) = group.open_all(&params(message, signers));
    let signatures = run(&mut sessions, envelopes);
    assert_eq!(signatures.len(), signers.len());
    for signature in &signatures {
        assert_eq!(signature, &signatures[0], "signers ended with different signatures");
        group.assert_valid(message, signature);
    }
    for session in sessions.values() {
        assert_eq!(session.signature(), Some(signatures[0].as_slice()));
        assert!(session.is_finished());
    }
}

#[test]
fn both_of_two_sign_whatever_order_messages_come_in() {
    for scheme in SchemeId::ALL {
        let group = Group::new(scheme, 2, 2);
        for _ in 0..4 {
            assert_signs(&group, b"pay 1", &["a", "b"]);
        }
    }
}

#[test]
fn any_two_of_three_sign_and_so_do_all_three() {
    for scheme in SchemeId::ALL {
        let group = Group::new(scheme, 2, 3);
        for signers in [&["a", "b"][..], &["a", "c"], &["b", "c"], &["a", "b", "c"]] {
            assert_signs(&group, b"pay 2", signers);
        }
    }
}

#[test]
fn three_four_or_five_of_five_sign() {
    for scheme in SchemeId::ALL {
        let group = Group::new(scheme, 3, 5);
        for signers in
            [&["a", "b", "c"][..], &["e", "a", "c"], &["b", "c", "d", "e"], &["e", "d", "c", "b", "a"]]
        {
            assert_signs(&group, b"pay 3", signers);
        }
    }
}

#[test]
fn messages_of_one_byte_and_of_the_limit_are_signed() {
    for scheme in SchemeId::ALL {
        let group = Group::new(scheme, 2, 2);
        assert_signs(&group, &[0], &["a", "b"]);
        assert_signs(&group, &vec![0xa5; crate::MAX_MESSAGE_BYTES], &["a", "b"]);
    }
}

#[test]
fn the_order_in_which_signers_are_named_does_not_matter() {
    for scheme in SchemeId::ALL {
        let group = Group::new(scheme, 2, 3);
        let mut open = params(b"order", &["a", "c"]);
        let (a, mut envelopes) = group.open("a", &open);
        open.signers.reverse();
        let (c, from_c) = group.open("c", &open);
        envelopes.extend(from_c);
        let mut sessions = BTreeMap::from([("a".to_owned(), a), ("c".to_owned(), c)]);
        assert_eq!(run(&mut sessions, envelopes).len(), 2);
    }
}

#[test]
fn two_sessions_over_one_message_use_different_nonces() {
    for scheme in SchemeId::ALL {
        let group = Group::new(scheme, 2, 2);
        let mut signatures = Vec::new();
        for _ in 0..2 {
            let (mut sessions, envelopes) = group.open_all(&params(b"same", &["a", "b"]));
            signatures.extend(run(&mut sessions, envelopes));
        }
        assert_ne!(signatures[0][..32], signatures[2][..32], "the commitment R was used twice");
    }
}

#[test]
fn a_session_says_whom_it_waits_for() {
    let group = Group::new(SchemeId::FrostEd25519, 3, 3);
    let open = params(b"who", &["a", "b", "c"]);
    let (mut a, _) = group.open("a", &open);
    let (_, from_b) = group.open("b", &open);
    let (_, from_c) = group.open("c", &open);
    assert_eq!(a.waiting_for(), ["b", "c"]);
    assert_eq!(a.receive(to(&from_b, "a")), Ok(Progress::Waiting));
    assert_eq!(a.waiting_for(), ["c"]);
    let envelopes = sent(a.receive(to(&from_c, "a")).unwrap());
    assert_eq!(envelopes.iter().map(|envelope| envelope.round).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(a.waiting_for(), ["b", "c"]);
    assert_eq!(a.signature(), None);
    assert!(!a.is_finished());
}

/// A dealer that does not care about BIP340 makes keys with an odd Y coordinate half of the time.
#[test]
fn secp256k1_keys_with_an_odd_y_coordinate_sign_as_well() {
    let (shares, public) = loop {
        let key = SigningKey::<Secp256K1Sha256TR>::new(&mut OsRng);
        let (shares, public) = split(&key, 3, 2, IdentifierList::Default, &mut OsRng).unwrap();
        if public.verifying_key().serialize().unwrap()[0] == 3 {
            break (shares, public);
        }
    };
    let dealt = Dealt {
        public_key: public.verifying_key().serialize().unwrap()[1..].to_vec(),
        verifying_shares: public
            .verifying_shares()
            .values()
            .map(|share| share.serialize().unwrap())
            .collect(),
        shares: shares.values().map(|share| Zeroizing::new(share.signing_share().serialize())).collect(),
    };
    let group = Group::with_key(SchemeId::FrostSecp256k1Tr, 2, dealt);
    for party in &group.parties {
        check(&group.material(party)).unwrap();
    }
    for signers in [&["a", "b"][..], &["b", "c"], &["a", "b", "c"]] {
        assert_signs(&group, b"odd", signers);
    }
}

#[test]
fn parties_that_sort_otherwise_than_they_are_listed_keep_their_positions() {
    for scheme in SchemeId::ALL {
        let mut group = Group::new(scheme, 2, 3);
        let names = ["z", "m", "a"].map(str::to_owned);
        for (old, new) in ["a", "b", "c"].iter().zip(&names) {
            let secret = group.secrets.remove(*old).unwrap();
            group.public.remove(*old);
            group.secrets.insert(format!("{new}{new}"), secret);
            group.public.insert(format!("{new}{new}"), crate::party_public_key(&secret));
        }
        group.parties = names.iter().map(|name| format!("{name}{name}")).collect();
        for party in &group.parties {
            check(&group.material(party)).unwrap();
        }
        assert_signs(&group, b"sorted", &["zz", "aa"]);
        assert_signs(&group, b"sorted", &["aa", "mm"]);
    }
}

#[test]
fn a_session_can_move_to_another_thread() {
    fn assert_send<T: Send + 'static>() {}
    assert_send::<Session>();
    assert_send::<crate::SessionError>();
}

#[test]
fn a_hundred_parties_share_a_key() {
    for scheme in SchemeId::ALL {
        let dealt = deal(scheme, 67, 100, None, &mut OsRng).unwrap();
        let parties: Vec<String> = (0..100).map(|n| format!("p{n}")).collect();
        let material = KeyMaterial {
            scheme,
            threshold: 67,
            parties: &parties,
            own: "p99",
            public_key: &dealt.public_key,
            verifying_shares: &dealt.verifying_shares,
            share: &dealt.shares[99],
        };
        assert_eq!(check(&material), Ok(()));
    }
}
