//! How the values of a bundle are read.
//!
//! serde_json's own messages quote what they found, and what they found may be a secret in the wrong place.
//! They are never passed on: a [`Trace`] remembers where the parser is and what it expects there, and errors
//! are made of that.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    fmt,
};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use crate::{BundleError, bundle::shown, secret::decode_lower_hex};

/// Where the parser is and what it expects there.
#[derive(Default)]
pub(super) struct Trace {
    account: RefCell<Option<String>>,
    field: Cell<&'static str>,
    expected: Cell<&'static str>,
    /// A broken rule that "expected …" does not describe.
    problem: RefCell<Option<String>>,
}

impl Trace {
    pub(super) fn at(&self, field: &'static str, expected: &'static str) {
        self.field.set(field);
        self.expected.set(expected);
    }

    pub(super) fn enter_account(&self, id: &str) {
        *self.account.borrow_mut() = Some(shown(id));
    }

    pub(super) fn leave_account(&self) {
        *self.account.borrow_mut() = None;
    }

    /// Refuses what is being read. The error handed to serde only stops the parser.
    pub(super) fn refuse<E: Error>(&self, problem: impl Into<String>) -> E {
        *self.problem.borrow_mut() = Some(problem.into());
        E::custom("refused")
    }

    pub(super) fn explain(self, error: &serde_json::Error) -> BundleError {
        let (line, column) = (error.line(), error.column());
        match error.classify() {
            Category::Data => {
                let problem =
                    self.problem.into_inner().unwrap_or_else(|| format!("expected {}", self.expected.get()));
                BundleError::Invalid {
                    account: self.account.into_inner(),
                    field: self.field.get().to_owned(),
                    problem: format!("{problem} (line {line}, column {column})"),
                }
            }
            Category::Eof => BundleError::NotJson { problem: "it ends too early", line, column },
            Category::Syntax | Category::Io => BundleError::NotJson { problem: "syntax error", line, column },
        }
    }
}

/// An object with a fixed set of fields, each given exactly once.
pub(super) struct Object<'t, A> {
    trace: &'t Trace,
    map: A,
    kind: &'static str,
    names: &'static [&'static str],
}

impl<'de, 't, A: MapAccess<'de>> Object<'t, A> {
    pub(super) fn new(trace: &'t Trace, map: A, kind: &'static str, names: &'static [&'static str]) -> Self {
        Self { trace, map, kind, names }
    }

    /// The next field's name, one of the object's. Of an unknown one that may be a secret only the start is shown.
    pub(super) fn next_name(&mut self) -> Result<Option<&'static str>, A::Error> {
        let Some(name) = self.map.next_key_seed(Key)? else { return Ok(None) };
        if let Some(known) = self.names.iter().find(|known| **known == name) {
            return Ok(Some(known));
        }
        self.trace.at(self.kind, "");
        let (name, known) = (shown(&name), self.names.join(", "));
        Err(self.trace.refuse(format!("has the unknown field {name}; the fields are {known}")))
    }

    /// Reads the value of the field `name` into its place.
    pub(super) fn read<S: DeserializeSeed<'de>>(
        &mut self,
        name: &'static str,
        place: &mut Option<S::Value>,
        expected: &'static str,
        seed: S,
    ) -> Result<(), A::Error> {
        self.trace.at(name, expected);
        if place.is_some() {
            return Err(self.trace.refuse("is given twice"));
        }
        *place = Some(self.map.next_value_seed(seed)?);
        Ok(())
    }

    /// The value of the field `name`, at the end.
    pub(super) fn take<T>(&self, name: &'static str, place: Option<T>) -> Result<T, A::Error> {
        self.trace.at(name, "");
        place.ok_or_else(|| self.trace.refuse("is missing"))
    }
}

/// A key of an object, as it is.
pub(super) struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// A string, and what it stands for.
#[derive(Clone, Copy)]
pub(super) struct Text<F>(pub(super) F);

impl<'de, T, F: FnOnce(&str) -> Option<T>> DeserializeSeed<'de> for Text<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<T, F: FnOnce(&str) -> Option<T>> Visitor<'_> for Text<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).ok_or_else(|| E::custom("refused"))
    }
}

/// A string written without escapes. Escapes would have the parser unescape it into a buffer that nobody
/// wipes.
#[derive(Clone, Copy)]
pub(super) struct Verbatim<F>(pub(super) F);

impl<'de, T, F: FnOnce(&str) -> Option<T>> DeserializeSeed<'de> for Verbatim<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de, T, F: FnOnce(&str) -> Option<T>> Visitor<'de> for Verbatim<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string without escapes")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<T, E> {
        (self.0)(text).ok_or_else(|| E::custom("refused"))
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<T, E> {
        Err(E::custom("refused"))
    }
}

/// A non-negative integer, and what it stands for.
pub(super) struct Integer<F>(pub(super) F);

impl<'de, T, F: FnOnce(u64) -> Option<T>> DeserializeSeed<'de> for Integer<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_u64(self)
    }
}

impl<T, F: FnOnce(u64) -> Option<T>> Visitor<'_> for Integer<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        (self.0)(value).ok_or_else(|| E::custom("refused"))
    }
}

/// An array of items read alike.
pub(super) struct List<S>(pub(super) S);

impl<'de, S: DeserializeSeed<'de> + Copy> DeserializeSeed<'de> for List<S> {
    type Value = Vec<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, S: DeserializeSeed<'de> + Copy> Visitor<'de> for List<S> {
    type Value = Vec<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element_seed(self.0)? {
            items.push(item);
        }
        items.shrink_to_fit();
        Ok(items)
    }
}

/// Public bytes of any length.
pub(super) fn lower_hex(text: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; text.len() / 2];
    decode_lower_hex(text, &mut bytes).map(|()| bytes)
}

/// 32 public bytes.
pub(super) fn hex_32(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    decode_lower_hex(text, &mut bytes).map(|()| bytes)
}
