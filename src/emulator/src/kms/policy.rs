//! Key policies: the language of IAM as far as key policies for enclaves need it.
//!
//! What is not understood is refused when the policy is put, never passed over when it is asked: a condition that does
//! nothing here would decide something at AWS.
//!
//! Sources: IAM User Guide, "IAM JSON policy elements reference" and "Policy evaluation logic"; AWS KMS Developer Guide,
//! "Key policies" and "AWS KMS condition keys".

mod condition;
mod parse;
mod text;

use condition::Condition;
pub(crate) use condition::ConditionValues;

use super::error::ServiceError;

/// Bytes of the longest policy: KMS API reference, PutKeyPolicy.
pub(crate) const MAX_LENGTH: usize = 32_768;

/// A key policy in force, with the text it was read from.
#[derive(Debug)]
pub(crate) struct Policy {
    text: String,
    statements: Vec<Statement>,
}

#[derive(Debug)]
struct Statement {
    allow: bool,
    principals: Vec<PrincipalPattern>,
    actions: Vec<ActionPattern>,
    /// `*` or the ARN of a key.
    resources: Vec<String>,
    /// All of them have to hold.
    conditions: Vec<Condition>,
}

#[derive(Debug)]
enum PrincipalPattern {
    Anybody,
    /// The account delegates to its own IAM policies. There are none here: all its principals are administrators.
    Account(String),
    Arn(String),
}

/// `kms:Decrypt`, or the beginning of it for a pattern that ends in `*`. Case does not matter.
#[derive(Debug)]
enum ActionPattern {
    Exactly(String),
    StartsWith(String),
}

/// May this principal do this with this key?
#[derive(Debug)]
pub(crate) struct Question<'a> {
    pub(crate) principal: &'a str,
    pub(crate) action: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) values: &'a ConditionValues,
}

impl Policy {
    pub(crate) fn parse(text: &str) -> Result<Self, ServiceError> {
        if text.is_empty() || text.len() > MAX_LENGTH {
            return Err(ServiceError::constraint("policy", "have length between 1 and 32768"));
        }
        Ok(Self { text: text.to_owned(), statements: parse::statements(text)? })
    }

    /// What KMS gives a key that is created without a policy: the account, and through it its IAM policies, may do
    /// everything.
    pub(crate) fn default_for(account: &str) -> Result<Self, ServiceError> {
        Self::parse(&format!(
            r#"{{
  "Version" : "2012-10-17",
  "Id" : "key-default-1",
  "Statement" : [ {{
    "Sid" : "Enable IAM User Permissions",
    "Effect" : "Allow",
    "Principal" : {{
      "AWS" : "arn:aws:iam::{account}:root"
    }},
    "Action" : "kms:*",
    "Resource" : "*"
  }} ]
}}"#
        ))
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// A statement that denies beats all that allow; nothing said is no.
    pub(crate) fn authorize(&self, question: &Question<'_>) -> Result<(), ServiceError> {
        let mut allowed = false;
        for statement in self.statements.iter().filter(|statement| statement.applies(question)) {
            if !statement.allow {
                return Err(question.denied(true));
            }
            allowed = true;
        }
        if allowed { Ok(()) } else { Err(question.denied(false)) }
    }
}

impl Question<'_> {
    fn denied(&self, explicit: bool) -> ServiceError {
        ServiceError::access_denied(self.principal, self.action, self.resource, explicit)
    }
}

impl Statement {
    fn applies(&self, question: &Question<'_>) -> bool {
        self.principals.iter().any(|pattern| pattern.matches(question.principal))
            && self.actions.iter().any(|pattern| pattern.matches(question.action))
            && self.resources.iter().any(|resource| resource == "*" || resource == question.resource)
            && self.conditions.iter().all(|condition| condition.holds(question.values))
    }
}

impl PrincipalPattern {
    fn matches(&self, principal: &str) -> bool {
        match self {
            Self::Anybody => true,
            Self::Account(account) => principal.split(':').nth(4) == Some(account),
            Self::Arn(arn) => principal == arn,
        }
    }
}

impl ActionPattern {
    fn matches(&self, action: &str) -> bool {
        let action = action.to_ascii_lowercase();
        match self {
            Self::Exactly(name) => action == *name,
            Self::StartsWith(prefix) => action.starts_with(prefix),
        }
    }
}

#[cfg(test)]
mod tests;
