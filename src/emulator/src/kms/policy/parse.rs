//! From the text of a policy to statements that can be judged.

use super::{
    ActionPattern, PrincipalPattern, Statement,
    condition::Condition,
    text::{DocumentText, Effect, Entries, OneOrMany, PrincipalText, Scalar, StatementText},
};
use crate::kms::error::ServiceError;

pub(super) fn statements(text: &str) -> Result<Vec<Statement>, ServiceError> {
    let document: DocumentText = serde_json::from_str(text)
        .map_err(|error| malformed(format!("Policy contains what this KMS does not understand: {error}")))?;
    let statements = document.statement.into_vec();
    if statements.is_empty() {
        return Err(malformed("Policy contains no statement."));
    }
    statements.into_iter().map(statement).collect()
}

fn statement(text: StatementText) -> Result<Statement, ServiceError> {
    Ok(Statement {
        allow: text.effect == Effect::Allow,
        principals: principals(text.principal)?,
        actions: each(text.action, |name| action(&name))?,
        resources: each(text.resource, resource)?,
        conditions: conditions(text.condition)?,
    })
}

fn principals(text: PrincipalText) -> Result<Vec<PrincipalPattern>, ServiceError> {
    match text {
        PrincipalText::Text(text) if text == "*" => Ok(vec![PrincipalPattern::Anybody]),
        PrincipalText::Text(_) => Err(invalid_principal()),
        PrincipalText::Kinds(Entries(kinds)) => {
            let mut principals = Vec::new();
            for (kind, names) in kinds {
                if kind != "AWS" {
                    return Err(malformed(format!(
                        "This KMS knows principals of the kind AWS only, not {kind}."
                    )));
                }
                principals.extend(each(names, principal)?);
            }
            if principals.is_empty() { Err(invalid_principal()) } else { Ok(principals) }
        }
    }
}

fn principal(name: String) -> Result<PrincipalPattern, ServiceError> {
    if name == "*" {
        return Ok(PrincipalPattern::Anybody);
    }
    if is_account(&name) {
        return Ok(PrincipalPattern::Account(name));
    }
    match name.split(':').collect::<Vec<_>>()[..] {
        ["arn", "aws", "iam", "", account, "root"] if is_account(account) => {
            Ok(PrincipalPattern::Account(account.to_owned()))
        }
        ["arn", "aws", "iam", "", account, identity] if is_account(account) && is_identity(identity) => {
            Ok(PrincipalPattern::Arn(name))
        }
        _ => Err(invalid_principal()),
    }
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Wildcards are for whole principals only.
fn is_identity(text: &str) -> bool {
    let name = text.strip_prefix("role/").or_else(|| text.strip_prefix("user/"));
    name.is_some_and(|name| !name.is_empty() && !name.contains(['*', '?']))
}

fn action(text: &str) -> Result<ActionPattern, ServiceError> {
    let name = text.to_ascii_lowercase();
    let (name, wildcard) = name.strip_suffix('*').map_or((name.as_str(), false), |prefix| (prefix, true));
    let all = name.is_empty() && wildcard;
    if !all && !name.starts_with("kms:") || name.contains(['*', '?', '$']) {
        return Err(malformed(format!(
            "This KMS knows actions of the form kms:Name, kms:Prefix* and *, not {text}."
        )));
    }
    Ok(if wildcard {
        ActionPattern::StartsWith(name.to_owned())
    } else {
        ActionPattern::Exactly(name.to_owned())
    })
}

fn resource(text: String) -> Result<String, ServiceError> {
    let arn = text.starts_with("arn:aws:kms:") && !text.contains(['*', '?', '$']);
    if text == "*" || arn {
        return Ok(text);
    }
    Err(malformed(format!("This KMS knows resources of the form * and the ARN of a key, not {text}.")))
}

fn conditions(
    Entries(operators): Entries<Entries<OneOrMany<Scalar>>>,
) -> Result<Vec<Condition>, ServiceError> {
    let mut conditions = Vec::new();
    for (operator, Entries(keys)) in operators {
        for (key, values) in keys {
            let values = values.into_vec().into_iter().map(Scalar::into_text).collect();
            conditions.push(Condition::new(&operator, &key, values).map_err(malformed)?);
        }
    }
    Ok(conditions)
}

fn each<T, U>(
    texts: OneOrMany<T>,
    read: impl Fn(T) -> Result<U, ServiceError>,
) -> Result<Vec<U>, ServiceError> {
    let read: Vec<U> = texts.into_vec().into_iter().map(read).collect::<Result<_, _>>()?;
    if read.is_empty() { Err(malformed("Policy contains an empty list.")) } else { Ok(read) }
}

fn invalid_principal() -> ServiceError {
    malformed("Policy contains a statement with one or more invalid principals.")
}

fn malformed(message: impl Into<String>) -> ServiceError {
    ServiceError::malformed_policy(message)
}
