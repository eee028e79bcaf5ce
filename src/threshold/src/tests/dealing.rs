use rand::rngs::OsRng;

use super::group::{Group, params, run};
use crate::{DealError, SchemeId, check, deal};

const ED25519: SchemeId = SchemeId::FrostEd25519;
const SECP256K1: SchemeId = SchemeId::FrostSecp256k1Tr;

fn bytes(hex: &str) -> [u8; 32] {
    hex::decode(hex).unwrap().try_into().unwrap()
}

#[test]
fn dealt_shares_pass_the_check() {
    for scheme in SchemeId::ALL {
        for (threshold, parties) in [(2, 2), (2, 3), (3, 3), (3, 5), (5, 5)] {
            let group = Group::new(scheme, threshold, parties);
            for party in &group.parties {
                assert_eq!(check(&group.material(party)), Ok(()), "{scheme} {threshold} of {parties}");
            }
        }
    }
}

#[test]
fn an_imported_ed25519_seed_keeps_its_public_key() {
    // RFC 8032, section 7.1, tests 1 to 3.
    let vectors = [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        ),
    ];
    for (seed, public_key) in vectors {
        let dealt = deal(ED25519, 2, 3, Some(&bytes(seed)), &mut OsRng).unwrap();
        assert_eq!(hex::encode(&dealt.public_key), public_key);
    }
}

#[test]
fn any_ed25519_seed_gives_the_public_key_ed25519_dalek_gives() {
    for n in 0..32 {
        let seed = [n; 32];
        let dealt = deal(ED25519, 2, 2, Some(&seed), &mut OsRng).unwrap();
        let expected = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key();
        assert_eq!(dealt.public_key, expected.as_bytes());
    }
}

#[test]
fn an_imported_secp256k1_key_keeps_its_x_only_public_key() {
    // BIP340, test vectors 0 to 2.
    let vectors = [
        (
            "0000000000000000000000000000000000000000000000000000000000000003",
            "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9",
        ),
        (
            "b7e151628aed2a6abf7158809cf4f3c762e7160f38b4da56a784d9045190cfef",
            "dff1d77f2a671c5f36183726db2341be58feae1da2deced843240f7b502ba659",
        ),
        (
            "c90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b14e5c9",
            "dd308afec5777e13121fa72b9cc1b7cc0139715309b086c960e18fd969774eb8",
        ),
    ];
    for (secret, public_key) in vectors {
        let dealt = deal(SECP256K1, 2, 3, Some(&bytes(secret)), &mut OsRng).unwrap();
        assert_eq!(hex::encode(&dealt.public_key), public_key);
    }
}

#[test]
fn imported_secp256k1_keys_with_even_and_odd_y_sign_under_their_public_key() {
    // 1·G has an even Y coordinate; so one of n and its neighbours has an odd one.
    let mut parities = Vec::new();
    for n in 1..=8 {
        let mut secret = [0; 32];
        secret[31] = n;
        let key = secp256k1::SecretKey::from_byte_array(secret).unwrap();
        let (expected, parity) = key.x_only_public_key(&secp256k1::Secp256k1::new());
        parities.push(parity);
        let dealt = deal(SECP256K1, 2, 2, Some(&secret), &mut OsRng).unwrap();
        assert_eq!(dealt.public_key, expected.serialize());
        let group = Group::with_key(SECP256K1, 2, dealt);
        let (mut sessions, envelopes) = group.open_all(&params(b"imported", &["a", "b"]));
        for signature in run(&mut sessions, envelopes) {
            group.assert_valid(b"imported", &signature);
        }
    }
    assert!(parities.contains(&secp256k1::Parity::Even) && parities.contains(&secp256k1::Parity::Odd));
}

#[test]
fn one_key_dealt_twice_has_other_shares() {
    for scheme in SchemeId::ALL {
        let secret = [7; 32];
        let first = deal(scheme, 2, 2, Some(&secret), &mut OsRng).unwrap();
        let second = deal(scheme, 2, 2, Some(&secret), &mut OsRng).unwrap();
        assert_eq!(first.public_key, second.public_key);
        assert_ne!(*first.shares[0], *second.shares[0]);
        assert_ne!(first.verifying_shares, second.verifying_shares);
    }
}

#[test]
fn fresh_keys_differ() {
    for scheme in SchemeId::ALL {
        let first = deal(scheme, 2, 2, None, &mut OsRng).unwrap();
        let second = deal(scheme, 2, 2, None, &mut OsRng).unwrap();
        assert_ne!(first.public_key, second.public_key);
    }
}

#[test]
fn secp256k1_keys_of_zero_and_from_the_order_on_are_refused() {
    let order = bytes("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");
    for secret in [[0; 32], order, [0xff; 32]] {
        let refused = deal(SECP256K1, 2, 2, Some(&secret), &mut OsRng).err();
        assert_eq!(refused, Some(DealError::SecretKey { scheme: SECP256K1 }));
    }
}

#[test]
fn a_threshold_below_two_or_above_the_parties_is_refused() {
    for scheme in SchemeId::ALL {
        for (threshold, parties) in [(0, 2), (1, 1), (1, 2), (3, 2), (2, 0), (2, 65_536), (2, usize::MAX)] {
            let refused = deal(scheme, threshold, parties, None, &mut OsRng).err();
            assert_eq!(refused, Some(DealError::Threshold { threshold, parties }));
        }
    }
}
