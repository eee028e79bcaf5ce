//! Platform configuration registers: values that can be extended, never set.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA384};
use serde::{Deserialize, Serialize};

use crate::TextError;

const SIZE: usize = 48;

/// The PCR that names the configuration and the sealed bundle an enclave was given at its start.
pub const PCR_CONFIGURATION: u16 = 16;

/// How many PCRs there are: indexes are 0..=31.
pub const PCR_COUNT: u16 = 32;

/// SHA-384 of `data`.
pub fn sha384(data: &[u8]) -> [u8; 48] {
    hash(&[data])
}

fn hash(parts: &[&[u8]]) -> [u8; SIZE] {
    let mut context = Context::new(&SHA384);
    for part in parts {
        context.update(part);
    }
    let mut digest = [0; SIZE];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// The value of a PCR: 48 bytes, as the Nitro security module always uses SHA-384. As text: 96 lower-case hexadecimal
/// digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pcr([u8; SIZE]);

impl Pcr {
    /// The value nothing was extended into; PCR0 of an enclave in debug mode.
    pub const ZERO: Self = Self([0; SIZE]);

    /// The value `bytes`.
    pub const fn from_bytes(bytes: [u8; 48]) -> Self {
        Self(bytes)
    }

    /// The 48 bytes.
    pub const fn as_bytes(&self) -> &[u8; 48] {
        &self.0
    }

    /// Whether all bytes are zero.
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    /// SHA-384(self ‖ data): what the security module's ExtendPCR does, with `data` as given.
    #[must_use]
    pub fn extend(&self, data: &[u8]) -> Self {
        Self(hash(&[&self.0, data]))
    }

    /// SHA-384(48 zero bytes ‖ SHA-384(contents)): how the hypervisor measures an image. The parts of `contents` are
    /// hashed one after the other, without separators.
    pub fn measure(contents: &[&[u8]]) -> Self {
        Self::ZERO.extend(&hash(contents))
    }

    /// The value after each digest was extended in order, from zero.
    pub fn of_digests(digests: &[[u8; 48]]) -> Self {
        digests.iter().fold(Self::ZERO, |pcr, digest| pcr.extend(digest))
    }
}

impl fmt::Display for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pcr {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let mut bytes = [0; SIZE];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| TextError::Pcr(text.to_owned()))?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Pcr {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        text.parse()
    }
}

impl From<Pcr> for String {
    fn from(pcr: Pcr) -> Self {
        pcr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha384_is_that_of_fips_180_4() {
        let abc = "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
                   8086072ba1e7cc2358baeca134c825a7";
        assert_eq!(hex::encode(sha384(b"abc")), abc);
    }

    #[test]
    fn extending_hashes_the_old_value_and_the_data_as_given() {
        let once = Pcr::ZERO.extend(b"abc");
        assert_eq!(once.as_bytes(), &sha384(&[&[0; 48], b"abc".as_slice()].concat()));
        assert_eq!(once.extend(b"").as_bytes(), &sha384(once.as_bytes()));
    }

    #[test]
    fn measuring_extends_the_digest_of_all_parts_in_order() {
        let measured = Pcr::measure(&[b"kernel", b"ramdisk"]);
        assert_eq!(measured, Pcr::ZERO.extend(&sha384(b"kernelramdisk")));
        assert_ne!(measured, Pcr::measure(&[b"ramdisk", b"kernel"]));
    }

    #[test]
    fn digests_are_extended_in_order() {
        let (a, b) = (sha384(b"a"), sha384(b"b"));
        assert_eq!(Pcr::of_digests(&[a, b]), Pcr::ZERO.extend(&a).extend(&b));
        assert_ne!(Pcr::of_digests(&[a, b]), Pcr::of_digests(&[b, a]));
        assert_eq!(Pcr::of_digests(&[]), Pcr::ZERO);
    }

    #[test]
    fn text_is_96_hexadecimal_digits_and_nothing_else() {
        let pcr = Pcr::measure(&[b"x"]);
        assert_eq!(pcr.to_string().parse(), Ok(pcr));
        assert_eq!(pcr.to_string().to_uppercase().parse(), Ok(pcr));
        for bad in ["", "00", &pcr.to_string()[1..], &format!("{pcr}00"), &"g".repeat(96)] {
            assert_eq!(bad.parse::<Pcr>(), Err(TextError::Pcr(bad.to_owned())));
        }
    }
}
