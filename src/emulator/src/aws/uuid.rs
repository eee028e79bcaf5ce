//! Names of keys and requests: version 4 UUIDs (RFC 9562).

use std::{fmt, str::FromStr};

use aws_lc_rs::rand;

use super::error::ServiceError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Uuid(pub(crate) [u8; 16]);

impl Uuid {
    pub(crate) fn random() -> Result<Self, ServiceError> {
        let mut bytes = [0; 16];
        rand::fill(&mut bytes).map_err(|_| ServiceError::failure("no random bytes"))?;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = hex::encode(self.0);
        write!(f, "{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
    }
}

impl FromStr for Uuid {
    type Err = ();

    /// In the form of [`Display`](fmt::Display) only.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text.replace('-', ""), &mut bytes).map_err(|_| ())?;
        let uuid = Self(bytes);
        if uuid.to_string() == text { Ok(uuid) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_are_one_to_one() {
        let text = "1234abcd-12ab-34cd-56ef-1234567890ab";
        assert_eq!(text.parse::<Uuid>().unwrap().to_string(), text);
        for other in ["", "1234ABCD-12ab-34cd-56ef-1234567890ab", "1234abcd12ab34cd56ef1234567890ab", "key"] {
            assert!(other.parse::<Uuid>().is_err(), "{other}");
        }
    }

    #[test]
    fn random_ones_differ_and_say_their_version() {
        let (one, other) = (Uuid::random().unwrap().to_string(), Uuid::random().unwrap().to_string());
        assert_ne!(one, other);
        assert_eq!(&one[14..15], "4");
    }
}
