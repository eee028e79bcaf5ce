use super::group::Group;
use crate::{KeyMaterial, SchemeId, ShareError, check};

fn groups() -> impl Iterator<Item = Group> {
    SchemeId::ALL.into_iter().map(|scheme| Group::new(scheme, 2, 3))
}

#[test]
fn a_share_of_another_party_is_refused() {
    for group in groups() {
        let material = KeyMaterial { share: &group.dealt.shares[1], ..group.material("a") };
        assert_eq!(check(&material), Err(ShareError::Mismatch));
    }
}

#[test]
fn a_share_of_another_key_is_refused() {
    for group in groups() {
        let other = Group::new(group.scheme, 2, 3);
        let material = KeyMaterial { share: &other.dealt.shares[0], ..group.material("a") };
        assert_eq!(check(&material), Err(ShareError::Mismatch));
    }
}

#[test]
fn a_share_of_zero_is_refused() {
    for group in groups() {
        let material = KeyMaterial { share: &[0; 32], ..group.material("a") };
        assert_eq!(check(&material), Err(ShareError::Mismatch));
    }
}

#[test]
fn a_share_that_is_not_a_canonical_scalar_is_refused() {
    for group in groups() {
        for share in [&[][..], &[1; 31], &[1; 33], &[0xff; 32]] {
            let material = KeyMaterial { share, ..group.material("a") };
            assert_eq!(check(&material), Err(ShareError::Share), "{} bytes", share.len());
        }
    }
}

#[test]
fn a_public_key_of_another_key_is_refused() {
    for group in groups() {
        let other = Group::new(group.scheme, 2, 3);
        for public_key in [other.dealt.public_key.as_slice(), &[0; 32], &[], &group.dealt.public_key[1..]] {
            let material = KeyMaterial { public_key, ..group.material("a") };
            assert_eq!(check(&material), Err(ShareError::PublicKey));
        }
    }
}

#[test]
fn a_threshold_lower_than_the_polynomials_degree_needs_is_refused() {
    for scheme in SchemeId::ALL {
        let group = Group::new(scheme, 3, 5);
        let material = KeyMaterial { threshold: 2, ..group.material("a") };
        assert_eq!(check(&material), Err(ShareError::PublicKey));
    }
}

#[test]
fn a_verifying_share_beyond_the_threshold_that_does_not_fit_is_refused_by_name() {
    for scheme in SchemeId::ALL {
        let mut group = Group::new(scheme, 2, 5);
        let other = Group::new(scheme, 2, 5);
        for (index, party) in [(2, "c"), (3, "d"), (4, "e")] {
            let right = group.dealt.verifying_shares[index].clone();
            group.dealt.verifying_shares[index].clone_from(&other.dealt.verifying_shares[index]);
            let refused = Err(ShareError::Inconsistent { party: party.to_owned() });
            assert_eq!(check(&group.material("a")), refused);
            group.dealt.verifying_shares[index] = right;
        }
        assert_eq!(check(&group.material("a")), Ok(()));
    }
}

#[test]
fn verifying_shares_in_another_order_are_refused() {
    for mut group in groups() {
        group.dealt.verifying_shares.swap(0, 1);
        group.dealt.shares.swap(0, 1);
        assert_eq!(check(&group.material("a")), Err(ShareError::PublicKey));
    }
}

#[test]
fn a_verifying_share_that_is_not_a_point_is_refused_by_name() {
    for group in groups() {
        let length = group.dealt.verifying_shares[0].len();
        let refused = Err(ShareError::VerifyingShare { party: "b".to_owned() });
        for wrong in [vec![], vec![0; length], vec![0xff; length], vec![2; length - 1], vec![2; length + 1]] {
            let mut verifying_shares = group.dealt.verifying_shares.clone();
            verifying_shares[1] = wrong;
            let material = KeyMaterial { verifying_shares: &verifying_shares, ..group.material("a") };
            assert_eq!(check(&material), refused);
        }
    }
}

#[test]
fn ed25519_points_of_small_and_of_mixed_order_are_refused() {
    use curve25519_dalek::{constants::EIGHT_TORSION, edwards::CompressedEdwardsY};

    let group = Group::new(SchemeId::FrostEd25519, 2, 3);
    let right =
        CompressedEdwardsY::from_slice(&group.dealt.verifying_shares[1]).unwrap().decompress().unwrap();
    let mixed = EIGHT_TORSION.iter().skip(1).map(|torsion| right + torsion);
    for point in EIGHT_TORSION.into_iter().chain(mixed) {
        let mut verifying_shares = group.dealt.verifying_shares.clone();
        verifying_shares[1] = point.compress().to_bytes().to_vec();
        let material = KeyMaterial { verifying_shares: &verifying_shares, ..group.material("a") };
        assert_eq!(check(&material), Err(ShareError::VerifyingShare { party: "b".to_owned() }));
    }
}

#[test]
fn other_spellings_of_a_secp256k1_point_are_refused() {
    let group = Group::new(SchemeId::FrostSecp256k1Tr, 2, 3);
    let right = &group.dealt.verifying_shares[1];
    // SEC1's other tags; 5 is a compact form some decoders know.
    for tag in [0, 1, 4, 5, 6, 7] {
        let mut verifying_shares = group.dealt.verifying_shares.clone();
        verifying_shares[1] = [&[tag], &right[1..]].concat();
        let material = KeyMaterial { verifying_shares: &verifying_shares, ..group.material("a") };
        assert_eq!(check(&material), Err(ShareError::VerifyingShare { party: "b".to_owned() }));
    }
}

#[test]
fn a_secp256k1_verifying_share_with_the_other_y_coordinate_is_refused() {
    let mut group = Group::new(SchemeId::FrostSecp256k1Tr, 2, 3);
    group.dealt.verifying_shares[1][0] ^= 1;
    assert_eq!(check(&group.material("a")), Err(ShareError::PublicKey));
}

#[test]
fn thresholds_of_zero_one_and_more_than_the_parties_are_refused() {
    for group in groups() {
        for threshold in [0, 1, 4, u16::MAX] {
            let material = KeyMaterial { threshold, ..group.material("a") };
            assert_eq!(check(&material), Err(ShareError::Threshold { threshold, parties: 3 }));
        }
    }
}

#[test]
fn lists_of_parties_that_make_no_sense_are_refused() {
    for group in groups() {
        let material = group.material("a");
        let stranger = KeyMaterial { own: "x", ..material };
        assert_eq!(check(&stranger), Err(ShareError::NotAParty { party: "x".to_owned() }));

        let twice = ["a", "b", "a"].map(str::to_owned);
        let refused = Err(ShareError::DuplicateParty { party: "a".to_owned() });
        assert_eq!(check(&KeyMaterial { parties: &twice, ..material }), refused);

        let few = KeyMaterial { verifying_shares: &group.dealt.verifying_shares[..2], ..material };
        assert_eq!(check(&few), Err(ShareError::VerifyingShareCount { expected: 3, actual: 2 }));

        let crowd: Vec<String> = (0..65_536).map(|n| n.to_string()).collect();
        let refused = Err(ShareError::TooManyParties { parties: 65_536 });
        assert_eq!(check(&KeyMaterial { parties: &crowd, ..material }), refused);
    }
}
