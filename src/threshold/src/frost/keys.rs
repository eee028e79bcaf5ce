//! An account's key material as FROST's types, and the checks of it.

use std::collections::BTreeMap;

use frost_core::{
    Element, Group, Identifier, VerifyingKey,
    keys::{KeyPackage, PublicKeyPackage, SigningShare, VerifyingShare},
};

use super::suite::Suite;
use crate::{KeyMaterial, ShareError, scheme::Position};

/// What one signer needs for one session. No `Debug`: it holds a secret.
pub(super) struct Keys<C: Suite> {
    /// Boxed, as moving it would leave copies of the share behind.
    pub(super) own: Box<KeyPackage<C>>,
    /// Of the signers only.
    pub(super) public: PublicKeyPackage<C>,
    /// The signers, the own one included.
    pub(super) signers: BTreeMap<Position, Identifier<C>>,
}

impl<C: Suite> Keys<C> {
    /// Decodes what a session among `signers` needs. Most of what [`check`] finds is not looked for again.
    pub(super) fn of(material: &KeyMaterial<'_>, signers: &[Position]) -> Result<Self, ShareError> {
        let group = group_key::<C>(material)?;
        let signers: BTreeMap<Position, Identifier<C>> = signers
            .iter()
            .map(|position| Ok((*position, identifier(*position)?)))
            .collect::<Result<_, ShareError>>()?;
        let verifying_shares: BTreeMap<_, _> = signers
            .iter()
            .map(|(position, identifier)| Ok((*identifier, verifying_share(material, *position)?)))
            .collect::<Result<_, ShareError>>()?;

        let own = identifier(material.own_position()?)?;
        let share = SigningShare::deserialize(material.share).map_err(|_| ShareError::Share)?;
        let verifying_share = *verifying_shares.get(&own).ok_or(ShareError::Mismatch)?;
        let own = Box::new(KeyPackage::new(own, share, verifying_share, group, material.threshold));
        let public = PublicKeyPackage::new(verifying_shares, group, Some(material.threshold));
        Ok(Self { own, public, signers })
    }
}

/// See [`crate::check`].
pub(super) fn check<C: Suite>(material: &KeyMaterial<'_>) -> Result<(), ShareError> {
    let points = material
        .verifying_shares
        .iter()
        .zip(material.parties)
        .map(|(bytes, party)| point::<C>(bytes, party))
        .collect::<Result<Vec<_>, _>>()?;
    let group = group_point::<C>(&points, material)?;
    check_polynomial::<C>(group, &points, material)?;
    check_own_share::<C>(material)
}

fn check_own_share<C: Suite>(material: &KeyMaterial<'_>) -> Result<(), ShareError> {
    let share = SigningShare::<C>::deserialize(material.share).map_err(|_| ShareError::Share)?;
    let public = VerifyingShare::from(share).serialize().map_err(|_| ShareError::Mismatch)?;
    let own = usize::from(material.own_position()?) - 1;
    if material.verifying_shares.get(own) != Some(&public) {
        return Err(ShareError::Mismatch);
    }
    Ok(())
}

/// Whether the points are values of one polynomial of a degree less than the threshold at 0, 1, 2, …: its
/// differences of that order are then all zero, which takes subtractions only.
fn check_polynomial<C: Suite>(
    group: Element<C>,
    points: &[Element<C>],
    material: &KeyMaterial<'_>,
) -> Result<(), ShareError> {
    let mut values = vec![group];
    values.extend_from_slice(points);
    let differences = differences::<C>(values, material.threshold);
    match differences.iter().position(|difference| *difference != C::Group::identity()) {
        None => Ok(()),
        Some(first) => {
            // The difference at index 0 ends with the point of the party at position `threshold`.
            let party = material
                .parties
                .get(first + usize::from(material.threshold) - 1)
                .cloned()
                .unwrap_or_default();
            Err(ShareError::Inconsistent { party })
        }
    }
}

/// The polynomial's value at 0 by the first `threshold` verifying shares, if it is the public key.
///
/// The X-only public keys of BIP340 do not say which of two points is meant; the shares do.
fn group_point<C: Suite>(
    points: &[Element<C>],
    material: &KeyMaterial<'_>,
) -> Result<Element<C>, ShareError> {
    let threshold = usize::from(material.threshold);
    let mut values = vec![C::Group::identity()];
    values.extend_from_slice(points.get(..threshold).ok_or(ShareError::PublicKey)?);
    // With the right value at 0 this difference would be zero; there it counts positively if the order is
    // even.
    let [difference] = differences::<C>(values, material.threshold)[..] else {
        return Err(ShareError::PublicKey);
    };
    let group = if threshold % 2 == 0 { C::Group::identity() - difference } else { difference };

    let encoded = C::Group::serialize(&group).map_err(|_| ShareError::PublicKey)?;
    if C::public_key(encoded.as_ref()) != material.public_key {
        return Err(ShareError::PublicKey);
    }
    Ok(group)
}

fn group_key<C: Suite>(material: &KeyMaterial<'_>) -> Result<VerifyingKey<C>, ShareError> {
    let points = material
        .verifying_shares
        .iter()
        .zip(material.parties)
        .take(usize::from(material.threshold))
        .map(|(bytes, party)| point::<C>(bytes, party))
        .collect::<Result<Vec<_>, _>>()?;
    let group = group_point::<C>(&points, material)?;
    let encoded = C::Group::serialize(&group).map_err(|_| ShareError::PublicKey)?;
    VerifyingKey::deserialize(encoded.as_ref()).map_err(|_| ShareError::PublicKey)
}

/// The differences of the given order of a sequence of points.
fn differences<C: Suite>(mut values: Vec<Element<C>>, order: u16) -> Vec<Element<C>> {
    for _ in 0..order {
        values = values.iter().zip(values.iter().skip(1)).map(|(this, next)| *next - *this).collect();
    }
    values
}

/// Decodes a point; frost-core refuses the identity and points outside the prime-order group. Decoders may
/// know more than one spelling of a point: only the one that encoding gives is accepted.
fn point<C: Suite>(bytes: &[u8], party: &str) -> Result<Element<C>, ShareError> {
    let refused = || ShareError::VerifyingShare { party: party.to_owned() };
    let encoded = bytes.try_into().map_err(|_| refused())?;
    let point = C::Group::deserialize(&encoded).map_err(|_| refused())?;
    let again = C::Group::serialize(&point).map_err(|_| refused())?;
    if again.as_ref() != bytes {
        return Err(refused());
    }
    Ok(point)
}

fn verifying_share<C: Suite>(
    material: &KeyMaterial<'_>,
    position: Position,
) -> Result<VerifyingShare<C>, ShareError> {
    let index = usize::from(position) - 1;
    let party = material.parties.get(index).map_or("", String::as_str);
    let bytes = material.verifying_shares.get(index).map_or(&[][..], Vec::as_slice);
    VerifyingShare::deserialize(bytes).map_err(|_| ShareError::VerifyingShare { party: party.to_owned() })
}

fn identifier<C: Suite>(position: Position) -> Result<Identifier<C>, ShareError> {
    Identifier::try_from(position).map_err(|_| ShareError::NotAParty { party: position.to_string() })
}
