//! Writing a bundle as JSON without leaving copies of secrets behind.

use std::io::{self, Write};

use serde::{Serialize, Serializer, ser::SerializeMap as _};
use zeroize::Zeroizing;

use crate::{Account, Bundle, Secret32};

pub(crate) fn bundle(bundle: &Bundle) -> Zeroizing<Vec<u8>> {
    // Measured first: a buffer that grew would leave the secrets written so far in the memory it gave back.
    let mut length = Length(0);
    let measured = serde_json::to_writer(&mut length, &Json(bundle));
    let mut text = Zeroizing::new(Vec::with_capacity(length.0));
    let written = serde_json::to_writer(&mut *text, &Json(bundle));
    debug_assert!(measured.is_ok() && written.is_ok(), "strings, integers and maps of them always serialise");
    text
}

struct Length(usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A value in its form in the bundle's JSON.
struct Json<'a, T: ?Sized>(&'a T);

impl Serialize for Json<'_, Bundle> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Bundle { epoch, party, party_secret_key, parties, client_ca, relay_ca, accounts } = self.0;
        let mut map = serializer.serialize_map(Some(8))?;
        map.serialize_entry("version", &1)?;
        map.serialize_entry("epoch", epoch)?;
        map.serialize_entry("party", party)?;
        map.serialize_entry("party_secret_key", &Json(party_secret_key))?;
        map.serialize_entry("parties", &Entries(|| parties.iter().map(|(id, key)| (id, Hex(key)))))?;
        map.serialize_entry("client_ca", client_ca)?;
        map.serialize_entry("relay_ca", relay_ca)?;
        map.serialize_entry(
            "accounts",
            &Entries(|| accounts.iter().map(|(id, account)| (id, Json(account)))),
        )?;
        map.end()
    }
}

impl Serialize for Json<'_, Account> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Account { scheme, threshold, parties, public_key, verifying_shares, share } = self.0;
        let verifying_shares: Vec<_> = verifying_shares.iter().map(|share| Hex(share)).collect();
        let mut map = serializer.serialize_map(Some(6))?;
        map.serialize_entry("scheme", scheme.name())?;
        map.serialize_entry("threshold", threshold)?;
        map.serialize_entry("parties", parties)?;
        map.serialize_entry("public_key", &Hex(public_key))?;
        map.serialize_entry("verifying_shares", &verifying_shares)?;
        map.serialize_entry("share", &Json(share))?;
        map.end()
    }
}

impl Serialize for Json<'_, Secret32> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = Zeroizing::new([0; 64]);
        hex::encode_to_slice(self.0.expose(), text.as_mut_slice()).map_err(serde::ser::Error::custom)?;
        let text = std::str::from_utf8(text.as_slice()).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(text)
    }
}

/// Public bytes as lower-case hex.
struct Hex<'a>(&'a [u8]);

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

/// A map from what an iterator yields.
struct Entries<F>(F);

impl<F, I, K, V> Serialize for Entries<F>
where
    F: Fn() -> I,
    I: Iterator<Item = (K, V)>,
    K: Serialize,
    V: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map((self.0)())
    }
}
