//! The JSON of a policy, strictly: no unknown elements, no element twice.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct DocumentText {
    #[serde(rename = "Version")]
    pub(super) _version: Version,
    #[serde(rename = "Id")]
    pub(super) _id: Option<String>,
    pub(super) statement: OneOrMany<StatementText>,
}

/// Both versions mean the same for what is understood here: they differ in policy variables.
#[derive(Deserialize)]
pub(super) enum Version {
    #[serde(rename = "2008-10-17")]
    V2008,
    #[serde(rename = "2012-10-17")]
    V2012,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct StatementText {
    #[serde(rename = "Sid")]
    pub(super) _sid: Option<String>,
    pub(super) effect: Effect,
    pub(super) principal: PrincipalText,
    pub(super) action: OneOrMany<String>,
    pub(super) resource: OneOrMany<String>,
    #[serde(default)]
    pub(super) condition: Entries<Entries<OneOrMany<Scalar>>>,
}

#[derive(Deserialize, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum PrincipalText {
    Text(String),
    Kinds(Entries<OneOrMany<String>>),
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    pub(super) fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// IAM takes `true` and `"true"` for the same.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Scalar {
    Text(String),
    Boolean(bool),
}

impl Scalar {
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Boolean(value) => value.to_string(),
        }
    }
}

/// A JSON object in which no name is twice.
pub(super) struct Entries<V>(pub(super) Vec<(String, V)>);

impl<V> Default for Entries<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Entries<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for EntriesVisitor<V> {
            type Value = Entries<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries: Vec<(String, V)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, V>()? {
                    if entries.iter().any(|(seen, _)| *seen == name) {
                        return Err(A::Error::custom(format!("{name} is there twice")));
                    }
                    entries.push((name, value));
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(EntriesVisitor(PhantomData))
    }
}
