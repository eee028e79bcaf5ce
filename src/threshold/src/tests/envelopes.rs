use super::group::{Group, params, to};
use crate::{Envelope, SchemeId, generate_party_key, party_public_key};

#[test]
fn a_partys_public_key_is_the_x25519_public_key() {
    // RFC 7748, section 6.1.
    let vectors = [
        (
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
            "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
        ),
        (
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
            "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        ),
    ];
    for (secret, public) in vectors {
        let secret = hex::decode(secret).unwrap().try_into().unwrap();
        assert_eq!(hex::encode(party_public_key(&secret)), public);
    }
}

#[test]
fn generated_party_keys_differ() {
    assert_ne!(*generate_party_key(), *generate_party_key());
}

#[test]
fn there_is_one_envelope_for_each_other_signer_and_its_fields_say_so() {
    let group = Group::new(SchemeId::FrostEd25519, 2, 3);
    let open = params(b"m", &["c", "a", "b"]);
    let (_, envelopes) = group.open("b", &open);
    let receivers: Vec<&str> = envelopes.iter().map(|envelope| envelope.receiver.as_str()).collect();
    assert_eq!(receivers, ["a", "c"]);
    for Envelope { session_id, account, round, sender, .. } in &envelopes {
        assert_eq!((session_id, account, round), (&open.session_id, &open.account, &1));
        assert_eq!(sender, "b");
    }
    assert_ne!(to(&envelopes, "a").encapsulated_key, to(&envelopes, "c").encapsulated_key);
}

#[test]
fn envelopes_of_round_one_have_a_known_size() {
    // View 32, frost-core header 5, two commitments, tag 16.
    for (scheme, point) in [(SchemeId::FrostEd25519, 32), (SchemeId::FrostSecp256k1Tr, 33)] {
        let group = Group::new(scheme, 2, 2);
        let (_, envelopes) = group.open("a", &params(b"m", &["a", "b"]));
        assert_eq!(envelopes[0].ciphertext.len(), 32 + 5 + 2 * point + 16);
    }
}
