//! Authentic messages that are wrong: they end the session and name the culprit.

use super::group::{Group, params, sent, to};
use crate::{ErrorKind, KeyMaterial, Open, Progress, SchemeId, Session, SessionError};

fn groups() -> impl Iterator<Item = Group> {
    SchemeId::ALL.into_iter().map(|scheme| Group::new(scheme, 2, 3))
}

/// What every plaintext of round 1 begins with, taken from an honest one: there is no other way to it.
fn view(group: &Group, open: &Open, from: &str, at: &str) -> Vec<u8> {
    let (_, envelopes) = group.open(from, open);
    opened(group, open, to(&envelopes, at))[..32].to_vec()
}

fn opened(group: &Group, open: &Open, envelope: &crate::Envelope) -> Vec<u8> {
    let names: Vec<&str> = open.signers.iter().map(String::as_str).collect();
    let keys = group.keys(&envelope.receiver);
    let channel =
        crate::envelope::Channel::new(open.session_id, open.account.clone(), &keys, &names).unwrap();
    channel.open(envelope).unwrap().to_vec()
}

fn assert_ended(session: &mut Session, error: &SessionError, expected: &SessionError) {
    assert_eq!(error, expected);
    assert_eq!(error.kind(), ErrorKind::Aborted);
    assert!(session.is_finished());
    assert_eq!(session.signature(), None);
    assert!(session.waiting_for().is_empty());
}

#[test]
fn malformed_commitments_end_the_session() {
    for group in groups() {
        let open = params(b"m", &["a", "b"]);
        let view = view(&group, &open, "b", "a");
        let (_, honest) = group.open("b", &open);
        let right = opened(&group, &open, to(&honest, "a"));
        let cases = [
            vec![],
            view[..31].to_vec(),
            view.clone(),
            [view.as_slice(), &[0; 100]].concat(),
            right[..right.len() - 1].to_vec(),
            [right.as_slice(), &[0]].concat(),
        ];
        for plaintext in cases {
            let (mut a, _) = group.open("a", &open);
            let error = a.receive(&group.forge(&open, 1, "b", "a", &plaintext)).unwrap_err();
            assert_ended(&mut a, &error, &SessionError::BadMessage { round: 1, sender: "b".to_owned() });
            assert_eq!(a.receive(to(&honest, "a")), Err(SessionError::Finished));
        }
        let (mut a, _) = group.open("a", &open);
        assert!(
            a.receive(&group.forge(&open, 1, "b", "a", &right)).is_ok(),
            "the honest plaintext is accepted"
        );
    }
}

#[test]
fn a_malformed_signature_share_ends_the_session() {
    for group in groups() {
        let open = params(b"m", &["a", "b"]);
        for share in [&[][..], &[0; 31], &[0; 33], &[0xff; 32]] {
            let (mut a, from_a) = group.open("a", &open);
            let (mut b, from_b) = group.open("b", &open);
            a.receive(to(&from_b, "a")).unwrap();
            let second = sent(b.receive(to(&from_a, "b")).unwrap());
            let view = opened(&group, &open, to(&second, "a"))[..32].to_vec();
            let forged = group.forge(&open, 2, "b", "a", &[view.as_slice(), share].concat());
            let error = a.receive(&forged).unwrap_err();
            assert_ended(&mut a, &error, &SessionError::BadMessage { round: 2, sender: "b".to_owned() });
        }
    }
}

#[test]
fn a_wrong_signature_share_ends_the_session_and_names_the_cheater_among_several() {
    for group in groups() {
        let open = params(b"m", &["a", "b", "c"]);
        let (mut a, from_a) = group.open("a", &open);
        let (mut b, from_b) = group.open("b", &open);
        let (_, from_c) = group.open("c", &open);
        a.receive(to(&from_b, "a")).unwrap();
        sent(a.receive(to(&from_c, "a")).unwrap());
        b.receive(to(&from_a, "b")).unwrap();
        let second = sent(b.receive(to(&from_c, "b")).unwrap());
        assert_eq!(a.receive(to(&second, "a")), Ok(Progress::Waiting));

        // c has seen what b has seen, and makes up a share.
        let view = &opened(&group, &open, to(&second, "a"))[..32];
        let forged = group.forge(&open, 2, "c", "a", &[view, &[0; 15], &[1], &[0; 16]].concat());
        let error = a.receive(&forged).unwrap_err();
        assert_ended(&mut a, &error, &SessionError::InvalidShare { sender: "c".to_owned() });
    }
}

#[test]
fn a_party_with_a_wrong_key_share_is_named_by_the_others() {
    for group in groups() {
        let open = params(b"m", &["a", "b"]);
        let (mut a, from_a) = group.open("a", &open);
        let wrong = KeyMaterial { share: &group.dealt.shares[2], ..group.material("b") };
        let (mut b, from_b) =
            Session::open(open.clone(), &wrong, &group.keys("b"), &mut rand::rngs::OsRng).unwrap();
        a.receive(to(&from_b, "a")).unwrap();
        let second = sent(b.receive(to(&from_a, "b")).unwrap());
        let error = a.receive(to(&second, "a")).unwrap_err();
        assert_ended(&mut a, &error, &SessionError::InvalidShare { sender: "b".to_owned() });
    }
}

#[test]
fn signers_that_sign_different_messages_find_out_in_round_one() {
    for group in groups() {
        let open = params(b"pay 1", &["a", "b"]);
        let (mut a, _) = group.open("a", &open);
        let (_, from_b) = group.open("b", &Open { message: b"pay 1000".to_vec(), ..open });
        let error = a.receive(to(&from_b, "a")).unwrap_err();
        assert_ended(&mut a, &error, &SessionError::Disagreement { round: 1, sender: "b".to_owned() });
    }
}

#[test]
fn signers_that_disagree_on_who_signs_find_out_in_round_one() {
    for group in groups() {
        let open = params(b"pay 1", &["a", "b"]);
        let (mut a, _) = group.open("a", &open);
        let signers = ["a", "b", "c"].map(str::to_owned).to_vec();
        let (_, from_b) = group.open("b", &Open { signers, ..open });
        let error = a.receive(to(&from_b, "a")).unwrap_err();
        assert_ended(&mut a, &error, &SessionError::Disagreement { round: 1, sender: "b".to_owned() });
    }
}

#[test]
fn signers_that_hold_different_keys_for_one_account_find_out_in_round_one() {
    for group in groups() {
        let open = params(b"pay 1", &["a", "b"]);
        let (mut a, _) = group.open("a", &open);
        let mut other = Group::new(group.scheme, 2, 3);
        other.secrets.clone_from(&group.secrets);
        other.public.clone_from(&group.public);
        let (_, from_b) = other.open("b", &open);
        let error = a.receive(to(&from_b, "a")).unwrap_err();
        assert_ended(&mut a, &error, &SessionError::Disagreement { round: 1, sender: "b".to_owned() });
    }
}

/// Without the view in round 2, a's and b's honest shares would look wrong to each other and they would blame
/// each other.
#[test]
fn different_commitments_to_different_signers_are_found_out_in_round_two() {
    for group in groups() {
        let open = params(b"m", &["a", "b", "c"]);
        let (mut a, from_a) = group.open("a", &open);
        let (mut b, from_b) = group.open("b", &open);
        let (_, c_to_a) = group.open("c", &open);
        let (_, c_to_b) = group.open("c", &open);
        a.receive(to(&from_b, "a")).unwrap();
        sent(a.receive(to(&c_to_a, "a")).unwrap());
        b.receive(to(&from_a, "b")).unwrap();
        let second = sent(b.receive(to(&c_to_b, "b")).unwrap());
        let error = a.receive(to(&second, "a")).unwrap_err();
        assert_ended(&mut a, &error, &SessionError::Disagreement { round: 2, sender: "b".to_owned() });
    }
}
