//! Secrets of accounts that exist already: `{"account id": {"scheme": "…", "secret": "64 hex digits"}}`.
//!
//! serde_json's own messages quote what they found, and here that may be a secret. Errors are made of positions,
//! account ids and fixed words instead.

use std::{cell::RefCell, collections::BTreeMap, fmt, path::Path};

use anyhow::{Result, anyhow, bail};
use keyshares::Scheme;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use zeroize::Zeroizing;

use crate::files;

/// Largest import: some 400 000 accounts.
const MAX_BYTES: u64 = 64 << 20;
const FORM: &str = r#"expected {"account id": {"scheme": "frost-ed25519", "secret": "64 hex digits"}, …}"#;

/// One account to import.
pub(crate) struct Imported {
    pub(crate) scheme: Scheme,
    /// Ed25519: RFC 8032 seed. secp256k1: secret key, big-endian.
    pub(crate) secret: Zeroizing<[u8; 32]>,
}

/// Accounts to import, by id.
pub(crate) type Import = BTreeMap<String, Imported>;

/// Reads an import from a file, or from standard input if it is `-`.
pub(crate) fn read(source: &Path) -> Result<Import> {
    let (name, content) = if source == Path::new("-") {
        let name = "standard input".to_owned();
        let content = files::read_all(std::io::stdin().lock(), &name, MAX_BYTES)?;
        (name, content)
    } else {
        (source.display().to_string(), files::read(source, MAX_BYTES)?)
    };
    parse(&content).map_err(|problem| anyhow!("import from {name}: {problem}"))
}

/// Parses an import; the error quotes account ids, but no other value.
fn parse(json: &[u8]) -> Result<Import> {
    let problem = Problem::default();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let parsed = Accounts(&problem).deserialize(&mut deserializer).and_then(|import| {
        deserializer.end()?;
        Ok(import)
    });
    match (parsed, problem.0.into_inner()) {
        (Ok(import), _) if import.is_empty() => bail!("it names no account; {FORM}"),
        (Ok(import), _) => Ok(import),
        (Err(_), Some(problem)) => bail!("{problem}"),
        (Err(error), None) => bail!("line {}, column {}: {FORM}", error.line(), error.column()),
    }
}

/// A broken rule in our own words.
#[derive(Default)]
struct Problem(RefCell<Option<String>>);

impl Problem {
    fn refuse<E: Error>(&self, problem: String) -> E {
        *self.0.borrow_mut() = Some(problem);
        E::custom("refused")
    }
}

struct Accounts<'p>(&'p Problem);

impl<'de> DeserializeSeed<'de> for Accounts<'_> {
    type Value = Import;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Import, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Accounts<'_> {
    type Value = Import;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Import, A::Error> {
        let mut import = Import::new();
        while let Some(id) = map.next_key::<String>()? {
            if !crate::accounts::is_account_id(&id) {
                let place = import.len() + 1;
                return Err(self.0.refuse(format!(
                    "the id of account number {place} is malformed; {}",
                    crate::accounts::ACCOUNT_ID_RULE
                )));
            }
            if import.contains_key(&id) {
                return Err(self.0.refuse(format!("account `{}` is given twice; remove one", shown(&id))));
            }
            let imported = map.next_value_seed(Account { problem: self.0, id: &id })?;
            import.insert(id, imported);
        }
        Ok(import)
    }
}

struct Account<'p> {
    problem: &'p Problem,
    id: &'p str,
}

impl Account<'_> {
    fn refuse<E: Error>(&self, field: &str, problem: impl fmt::Display) -> E {
        self.problem.refuse(format!("account `{}`, field `{field}`: {problem}", shown(self.id)))
    }
}

impl<'de> DeserializeSeed<'de> for Account<'_> {
    type Value = Imported;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Imported, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Account<'_> {
    type Value = Imported;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Imported, A::Error> {
        let (mut scheme, mut secret) = (None, None);
        // Text, not an enum: the message for an unknown field would quote it.
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "scheme" if scheme.is_none() => {
                    let text: String = map.next_value()?;
                    scheme = Some(text.parse::<Scheme>().map_err(|error| self.refuse("scheme", error))?);
                }
                "secret" if secret.is_none() => {
                    let parsed = map.next_value_seed(Secret)?;
                    secret = Some(parsed.map_err(|problem| self.refuse("secret", problem))?);
                }
                "scheme" | "secret" => return Err(self.refuse(&field, "is given twice")),
                _ => {
                    let id = shown(self.id);
                    let problem =
                        format!("account `{id}` has an unknown field; only scheme and secret are known");
                    return Err(self.problem.refuse(problem));
                }
            }
        }
        Ok(Imported {
            scheme: scheme.ok_or_else(|| self.refuse("scheme", "is missing"))?,
            secret: secret.ok_or_else(|| self.refuse("secret", "is missing"))?,
        })
    }
}

/// An id as errors show it: what looks like 32 bytes in hex may be a secret in an id's place.
fn shown(id: &str) -> String {
    if id.len() < 64 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return id.to_owned();
    }
    format!("{}…", &id[..8])
}

/// Hex straight into its place; the text stays in the buffer that is wiped.
struct Secret;

impl<'de> DeserializeSeed<'de> for Secret {
    type Value = Result<Zeroizing<[u8; 32]>, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Secret {
    type Value = Result<Zeroizing<[u8; 32]>, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let mut secret = Zeroizing::new([0; 32]);
        Ok(match hex::decode_to_slice(text, secret.as_mut_slice()) {
            Ok(()) => Ok(secret),
            Err(_) if text.len() == 64 => Err("expected 64 hex digits, found another character".to_owned()),
            Err(_) => Err(format!("expected 64 hex digits (32 bytes), got {} characters", text.len())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "5ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4";

    /// The message of a refusal, which must not quote the secret.
    fn refusal(json: &str) -> String {
        let error = parse(json.as_bytes()).err().map(|error| format!("{error:#} {error:?}"));
        let error = error.expect("the import must be refused");
        assert!(!error.contains(&SECRET[..12]), "the message quotes the secret: {error}");
        error
    }

    #[test]
    fn accounts_of_both_schemes_are_read() {
        let json = format!(
            r#"{{"a": {{"scheme": "frost-ed25519", "secret": "{SECRET}"}},
                "b": {{"secret": "{}", "scheme": "frost-secp256k1-tr"}}}}"#,
            "AB".repeat(32)
        );
        let import = parse(json.as_bytes()).unwrap();
        assert_eq!(import.len(), 2);
        assert_eq!(import["a"].scheme, Scheme::FrostEd25519);
        assert_eq!(hex::encode(import["a"].secret.as_slice()), SECRET);
        assert_eq!(import["b"].scheme, Scheme::FrostSecp256k1Tr);
        assert_eq!(import["b"].secret.as_slice(), [0xab; 32]);
    }

    #[test]
    fn an_account_given_twice_is_refused_by_name() {
        let account = format!(r#""treasury": {{"scheme": "frost-ed25519", "secret": "{SECRET}"}}"#);
        assert!(refusal(&format!("{{{account}, {account}}}")).contains("account `treasury` is given twice"));
    }

    #[test]
    fn a_field_given_twice_is_refused() {
        let json =
            format!(r#"{{"a": {{"scheme": "frost-ed25519", "secret": "{SECRET}", "secret": "{SECRET}"}}}}"#);
        assert!(refusal(&json).contains("field `secret`: is given twice"));
    }

    #[test]
    fn a_secret_that_is_no_hex_or_too_short_or_too_long_is_refused_without_quoting_it() {
        for (secret, problem) in [
            (SECRET[..63].to_owned() + "g", "found another character"),
            (SECRET[..62].to_owned(), "got 62 characters"),
            (SECRET.to_owned() + "00", "got 66 characters"),
            (String::new(), "got 0 characters"),
        ] {
            let error = refusal(&format!(r#"{{"a": {{"scheme": "frost-ed25519", "secret": "{secret}"}}}}"#));
            assert!(error.contains("account `a`, field `secret`") && error.contains(problem), "{error}");
        }
    }

    #[test]
    fn a_secret_in_any_wrong_place_is_not_quoted() {
        refusal(&format!(r#""{SECRET}""#));
        refusal(&format!(r#"["{SECRET}"]"#));
        refusal(&format!(r#"{{"a": "{SECRET}"}}"#));
        refusal(&format!(r#"{{"a": {{"{SECRET}": 1}}}}"#));
        refusal(&format!(r#"{{"{SECRET}": {{"scheme": "frost-ed25519"}}}}"#));
        refusal(&format!(r#"{{"a": {{"scheme": "{SECRET}", "secret": "{SECRET}"}}}}"#));
        refusal(&format!(r#"{{"a": {{"scheme": "frost-ed25519", "secret": ["{SECRET}"]}}}}"#));
        refusal(r#"{"a": {"scheme": "frost-ed25519", "secret": 544754475447544754475447}}"#);
        refusal(&format!(r#"{{"a": {{"scheme": "frost-ed25519", "secret": "{SECRET}"}}}} {SECRET}"#));
        refusal(&format!(r#"{{"a": {{"scheme": "frost-ed25519", "secret": "{SECRET}"#));
        refusal(&format!(r#"{{"bad id {SECRET}": {{"scheme": "frost-ed25519", "secret": "{SECRET}"}}}}"#));
    }

    #[test]
    fn missing_and_unknown_fields_and_schemes_are_refused() {
        assert!(refusal(r#"{"a": {"scheme": "frost-ed25519"}}"#).contains("field `secret`: is missing"));
        assert!(
            refusal(&format!(r#"{{"a": {{"secret": "{SECRET}"}}}}"#)).contains("field `scheme`: is missing")
        );
        assert!(
            refusal(&format!(r#"{{"a": {{"scheme": "rsa", "secret": "{SECRET}"}}}}"#))
                .contains("field `scheme`")
        );
        assert!(refusal(r#"{"a": {"colour": "red"}}"#).contains("unknown field"));
    }

    #[test]
    fn an_empty_or_malformed_import_is_refused_with_the_form_it_should_have() {
        assert!(refusal("{}").contains("names no account"));
        assert!(refusal("not JSON").contains(FORM));
        assert!(refusal("").contains("line 1"));
    }
}
