//! Conditions of a statement, and the values a request brings for them.

use std::collections::BTreeMap;

use attestation::{Document, PCR_COUNT};

const IMAGE_SHA_384: &str = "kms:recipientattestation:imagesha384";
const PCR: &str = "kms:recipientattestation:pcr";
const ENCRYPTION_CONTEXT: &str = "kms:encryptioncontext:";
const RE_ENCRYPT_ON_SAME_KEY: &str = "kms:reencryptonsamekey";

/// One condition key with its operator and the values it is compared with.
#[derive(Debug)]
pub(super) struct Condition {
    operator: Operator,
    /// In lower case: names of condition keys are not case-sensitive, those of an encryption context included.
    key: String,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
enum Operator {
    StringEquals,
    StringEqualsIgnoreCase,
    StringNotEquals,
    Bool,
    /// `true`: the key is not in the request.
    Null,
}

impl Condition {
    /// Errors say what is not understood.
    pub(super) fn new(operator: &str, key: &str, values: Vec<String>) -> Result<Self, String> {
        let operator = Operator::named(operator)
            .ok_or_else(|| format!("This KMS does not know the condition operator {operator}."))?;
        let name = key.to_ascii_lowercase();
        if !is_known(&name) {
            return Err(format!("This KMS does not know the condition key {key}."));
        }
        if values.is_empty() {
            return Err(format!("The condition on {key} has no value."));
        }
        let is_boolean = matches!(values.as_slice(), [value] if value == "true" || value == "false");
        if matches!(operator, Operator::Null | Operator::Bool) && !is_boolean {
            return Err(format!("The condition on {key} takes true or false."));
        }
        Ok(Self { operator, key: name, values })
    }

    /// A key that the request does not bring satisfies the operators that deny only.
    pub(super) fn holds(&self, request: &ConditionValues) -> bool {
        let actual = request.0.get(&self.key);
        let any = |equal: fn(&str, &str) -> bool| {
            actual.is_some_and(|actual| self.values.iter().any(|value| equal(actual, value)))
        };
        match self.operator {
            Operator::StringEquals | Operator::Bool => any(|actual, value| actual == value),
            Operator::StringEqualsIgnoreCase => any(str::eq_ignore_ascii_case),
            Operator::StringNotEquals => !any(|actual, value| actual == value),
            Operator::Null => self.values.iter().any(|value| (value == "true") == actual.is_none()),
        }
    }
}

impl Operator {
    fn named(name: &str) -> Option<Self> {
        match name {
            "StringEquals" => Some(Self::StringEquals),
            "StringEqualsIgnoreCase" => Some(Self::StringEqualsIgnoreCase),
            "StringNotEquals" => Some(Self::StringNotEquals),
            "Bool" => Some(Self::Bool),
            "Null" => Some(Self::Null),
            _ => None,
        }
    }
}

fn is_known(key: &str) -> bool {
    let pcr =
        key.strip_prefix(PCR).and_then(|index| index.parse::<u16>().ok().filter(|n| n.to_string() == index));
    key == IMAGE_SHA_384
        || key == RE_ENCRYPT_ON_SAME_KEY
        || pcr.is_some_and(|index| index < PCR_COUNT)
        || key.strip_prefix(ENCRYPTION_CONTEXT).is_some_and(|name| !name.is_empty())
}

/// The condition keys that a request brings. One it does not bring is missing, not empty.
#[derive(Debug, Default)]
pub(crate) struct ConditionValues(BTreeMap<String, String>);

impl ConditionValues {
    pub(crate) fn new(encryption_context: &BTreeMap<String, String>, document: Option<&Document>) -> Self {
        let mut values = BTreeMap::new();
        for (name, value) in encryption_context {
            values.insert(format!("{ENCRYPTION_CONTEXT}{}", name.to_ascii_lowercase()), value.clone());
        }
        for (index, pcr) in document.iter().flat_map(|document| &document.pcrs) {
            values.insert(format!("{PCR}{index}"), pcr.to_string());
        }
        if let Some(pcr0) = document.and_then(|document| document.pcr(0)) {
            values.insert(IMAGE_SHA_384.to_owned(), pcr0.to_string());
        }
        Self(values)
    }

    /// What a ReEncrypt brings beside its context.
    pub(crate) fn re_encrypt(mut self, same_key: bool) -> Self {
        self.0.insert(RE_ENCRYPT_ON_SAME_KEY.to_owned(), same_key.to_string());
        self
    }
}
