use super::group::{Group, params, run, sent, to};
use crate::{
    Envelope, ErrorKind, MAX_CIPHERTEXT_BYTES, MAX_MESSAGE_BYTES, Open, SchemeId, Session, SessionError,
    ShareError,
};

fn refused_open(group: &Group, party: &str, open: Open) -> SessionError {
    group.try_open(party, open).err().unwrap()
}

#[test]
fn an_empty_message_is_refused() {
    let group = Group::new(SchemeId::FrostEd25519, 2, 3);
    let error = refused_open(&group, "a", params(b"", &["a", "b"]));
    assert_eq!(error, SessionError::EmptyMessage);
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_message_over_the_limit_is_refused_with_the_limit() {
    let group = Group::new(SchemeId::FrostEd25519, 2, 3);
    let error = refused_open(&group, "a", params(&vec![0; MAX_MESSAGE_BYTES + 1], &["a", "b"]));
    assert_eq!(error, SessionError::MessageTooLong { limit: 65_536, actual: 65_537 });
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
    assert!(error.to_string().contains("65536"));
}

#[test]
fn signer_lists_that_make_no_sense_are_refused() {
    let group = Group::new(SchemeId::FrostEd25519, 2, 3);
    let cases = [
        (&["a", "x"][..], SessionError::UnknownSigner { signer: "x".to_owned() }),
        (&["a", "b", "a"], SessionError::DuplicateSigner { signer: "a".to_owned() }),
        (&["b", "c"], SessionError::OwnMissing { own: "a".to_owned() }),
        (&[], SessionError::OwnMissing { own: "a".to_owned() }),
        (&["a"], SessionError::NotEnoughSigners { threshold: 2, actual: 1 }),
    ];
    for (signers, expected) in cases {
        let error = refused_open(&group, "a", params(b"m", signers));
        assert_eq!(error, expected);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}

#[test]
fn a_signer_without_a_party_key_is_refused() {
    let mut group = Group::new(SchemeId::FrostEd25519, 2, 3);
    group.public.remove("b");
    let error = refused_open(&group, "a", params(b"m", &["a", "b"]));
    assert_eq!(error, SessionError::NoPartyKey { party: "b".to_owned() });
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[test]
fn a_party_key_to_which_nothing_can_be_sealed_is_refused() {
    let mut group = Group::new(SchemeId::FrostEd25519, 2, 3);
    group.public.insert("b".to_owned(), [0; 32]);
    let error = refused_open(&group, "a", params(b"m", &["a", "b"]));
    assert_eq!(error, SessionError::NoPartyKey { party: "b".to_owned() });
}

#[test]
fn keys_of_another_party_are_refused() {
    let group = Group::new(SchemeId::FrostEd25519, 2, 3);
    let refused = Session::open(
        params(b"m", &["a", "b"]),
        &group.material("a"),
        &group.keys("b"),
        &mut rand::rngs::OsRng,
    );
    assert_eq!(refused.err(), Some(SessionError::NoPartyKey { party: "a".to_owned() }));
}

#[test]
fn unusable_key_material_is_refused() {
    for scheme in SchemeId::ALL {
        let mut group = Group::new(scheme, 2, 3);
        group.dealt.public_key[5] ^= 1;
        let error = refused_open(&group, "a", params(b"m", &["a", "b"]));
        assert_eq!(error, SessionError::KeyMaterial(ShareError::PublicKey));
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}

/// A session at `a`, and what the others sent it.
struct Opened {
    group: Group,
    open: Open,
    a: Session,
    b: Session,
    from_a: Vec<Envelope>,
    from_b: Vec<Envelope>,
}

fn opened() -> Opened {
    let group = Group::new(SchemeId::FrostEd25519, 2, 3);
    let open = params(b"m", &["a", "b"]);
    let (a, from_a) = group.open("a", &open);
    let (b, from_b) = group.open("b", &open);
    Opened { group, open, a, b, from_a, from_b }
}

/// Refuses what `alter` makes of b's message, and then finishes the session all the same.
fn assert_refused_and_unharmed(alter: impl Fn(&mut Envelope), expected: &SessionError, kind: ErrorKind) {
    let Opened { group, open, mut a, b, from_a, from_b } = opened();
    let mut altered = to(&from_b, "a").clone();
    alter(&mut altered);
    let error = a.receive(&altered).unwrap_err();
    assert_eq!(&error, expected);
    assert_eq!(error.kind(), kind);

    let mut sessions = [("a".to_owned(), a), ("b".to_owned(), b)].into();
    let signatures = run(&mut sessions, [from_a, from_b].concat());
    group.assert_valid(&open.message, &signatures[0]);
}

#[test]
fn a_message_of_another_session_is_refused() {
    let alter = |envelope: &mut Envelope| envelope.session_id[31] ^= 1;
    assert_refused_and_unharmed(alter, &SessionError::WrongSession, ErrorKind::InvalidArgument);
}

#[test]
fn a_message_for_another_account_is_refused() {
    let expected =
        SessionError::WrongAccount { expected: "account-1".to_owned(), actual: "account-2".to_owned() };
    let alter = |envelope: &mut Envelope| envelope.account = "account-2".to_owned();
    assert_refused_and_unharmed(alter, &expected, ErrorKind::InvalidArgument);
}

#[test]
fn a_message_for_another_party_is_refused() {
    let expected = SessionError::WrongReceiver { expected: "a".to_owned(), actual: "c".to_owned() };
    let alter = |envelope: &mut Envelope| envelope.receiver = "c".to_owned();
    assert_refused_and_unharmed(alter, &expected, ErrorKind::InvalidArgument);
}

#[test]
fn a_message_from_a_party_that_does_not_sign_from_a_stranger_or_from_oneself_is_refused() {
    for sender in ["c", "x", "", "a"] {
        let expected = SessionError::NotInSession { sender: sender.to_owned() };
        let alter = |envelope: &mut Envelope| envelope.sender = sender.to_owned();
        assert_refused_and_unharmed(alter, &expected, ErrorKind::PermissionDenied);
    }
}

#[test]
fn a_message_of_a_round_that_does_not_exist_is_refused() {
    for round in [0, 2, 3, u32::MAX] {
        let expected = SessionError::WrongRound { expected: 1, actual: round };
        let alter = |envelope: &mut Envelope| envelope.round = round;
        assert_refused_and_unharmed(alter, &expected, ErrorKind::FailedPrecondition);
    }
}

#[test]
fn a_ciphertext_over_the_limit_is_refused_with_the_limit() {
    let expected = SessionError::TooLarge { limit: 65_536, actual: 65_537 };
    assert!(expected.to_string().contains("65536"));
    let alter = |envelope: &mut Envelope| envelope.ciphertext = vec![0; MAX_CIPHERTEXT_BYTES + 1];
    assert_refused_and_unharmed(alter, &expected, ErrorKind::ResourceExhausted);
}

#[test]
fn a_message_altered_in_any_byte_is_not_authentic() {
    let expected = SessionError::NotAuthentic { sender: "b".to_owned() };
    let length = to(&opened().from_b, "a").ciphertext.len();
    let Opened { mut a, from_b, .. } = opened();
    let right = to(&from_b, "a");
    for index in 0..length {
        let mut altered = right.clone();
        altered.ciphertext[index] ^= 1;
        assert_eq!(a.receive(&altered), Err(expected.clone()));
    }
    for index in 0..32 {
        let mut altered = right.clone();
        altered.encapsulated_key[index] ^= 1;
        assert_eq!(a.receive(&altered), Err(expected.clone()));
    }
    for ciphertext in
        [vec![], right.ciphertext[..length - 1].to_vec(), [right.ciphertext.as_slice(), &[0]].concat()]
    {
        assert_eq!(a.receive(&Envelope { ciphertext, ..right.clone() }), Err(expected.clone()));
    }
    assert!(a.receive(right).is_ok());
}

#[test]
fn an_encapsulated_key_of_small_order_is_not_authentic() {
    let expected = SessionError::NotAuthentic { sender: "b".to_owned() };
    let alter = |envelope: &mut Envelope| envelope.encapsulated_key = [0; 32];
    assert_refused_and_unharmed(alter, &expected, ErrorKind::PermissionDenied);
}

#[test]
fn a_message_that_another_party_sealed_is_not_authentic() {
    let Opened { group, open, mut a, from_b, .. } = opened();
    let mut forged = group.forge(&open, 1, "c", "a", b"anything");
    forged.sender = "b".to_owned();
    assert_eq!(a.receive(&forged), Err(SessionError::NotAuthentic { sender: "b".to_owned() }));
    assert!(a.receive(to(&from_b, "a")).is_ok());
}

#[test]
fn a_message_sealed_for_another_round_session_or_account_is_not_authentic() {
    let Opened { group, open, mut a, from_b, .. } = opened();
    let mut round = group.forge(&open, 2, "b", "a", b"anything");
    round.round = 1;
    let mut session = group.forge(&params(b"m", &["a", "b"]), 1, "b", "a", b"anything");
    session.session_id = open.session_id;
    let other = Open { account: "account-2".to_owned(), ..open.clone() };
    let mut account = group.forge(&other, 1, "b", "a", b"anything");
    account.account.clone_from(&open.account);
    for envelope in [round, session, account] {
        assert_eq!(a.receive(&envelope), Err(SessionError::NotAuthentic { sender: "b".to_owned() }));
    }
    assert!(a.receive(to(&from_b, "a")).is_ok());
}

#[test]
fn a_repeated_message_is_refused_in_its_round_and_after_it() {
    let group = Group::new(SchemeId::FrostEd25519, 2, 3);
    let open = params(b"m", &["a", "b", "c"]);
    let (mut a, from_a) = group.open("a", &open);
    let (b, from_b) = group.open("b", &open);
    let (c, from_c) = group.open("c", &open);
    let repeated = SessionError::Repeated { round: 1, sender: "b".to_owned() };
    assert_eq!(repeated.kind(), ErrorKind::FailedPrecondition);

    a.receive(to(&from_b, "a")).unwrap();
    assert_eq!(a.receive(to(&from_b, "a")), Err(repeated.clone()));
    let second = sent(a.receive(to(&from_c, "a")).unwrap());
    assert_eq!(a.receive(to(&from_b, "a")), Err(repeated));

    let mut sessions = [("a".to_owned(), a), ("b".to_owned(), b), ("c".to_owned(), c)].into();
    let rest = [from_b, from_c].concat().into_iter().filter(|envelope| envelope.receiver != "a").collect();
    assert_eq!(run(&mut sessions, [from_a, second, rest].concat()).len(), 3);
}

#[test]
fn another_message_from_a_sender_already_heard_is_refused() {
    let group = Group::new(SchemeId::FrostEd25519, 2, 3);
    let open = params(b"m", &["a", "b", "c"]);
    let (mut a, _) = group.open("a", &open);
    let (_, first) = group.open("b", &open);
    let (_, second) = group.open("b", &open);
    a.receive(to(&first, "a")).unwrap();
    let repeated = SessionError::Repeated { round: 1, sender: "b".to_owned() };
    assert_eq!(a.receive(to(&second, "a")), Err(repeated));
    assert_eq!(a.waiting_for(), ["c"]);
}

#[test]
fn a_finished_session_accepts_nothing() {
    let Opened { mut a, mut b, from_a, from_b, .. } = opened();
    let second = sent(b.receive(to(&from_a, "b")).unwrap());
    sent(a.receive(to(&from_b, "a")).unwrap());
    a.receive(to(&second, "a")).unwrap();
    let error = a.receive(to(&second, "a")).unwrap_err();
    assert_eq!(error, SessionError::Finished);
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(a.signature().is_some());
}
