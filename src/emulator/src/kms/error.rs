//! What KMS answers when it does not do what it was asked to, in AWS's names and, where they are known, AWS's words.

use serde_json::{Value, json};

/// An answer of AWS JSON 1.1 with a status other than 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceError {
    pub(crate) code: &'static str,
    /// KMS sends no text with some errors, so as to tell nothing about ciphertexts.
    pub(crate) message: Option<String>,
    /// HTTP status: 400, or 500 for trouble of KMS's own.
    pub(crate) status: u16,
}

impl ServiceError {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: Some(message.into()), status: 400 }
    }

    pub(crate) fn body(&self) -> Value {
        match &self.message {
            Some(message) => json!({"__type": self.code, "message": message}),
            None => json!({"__type": self.code}),
        }
    }

    pub(crate) fn access_denied(principal: &str, action: &str, resource: &str, explicit: bool) -> Self {
        let reason = if explicit {
            "with an explicit deny in a resource-based policy".to_owned()
        } else {
            format!("because no resource-based policy allows the {action} action")
        };
        let message = format!(
            "User: {principal} is not authorized to perform: {action} on resource: {resource} {reason}"
        );
        Self::new("AccessDeniedException", message)
    }

    pub(crate) fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }

    /// In the words AWS has for a member whose value is out of bounds.
    pub(crate) fn constraint(member: &str, constraint: &str) -> Self {
        Self::validation(format!(
            "1 validation error detected: Value at '{member}' failed to satisfy constraint: Member must {constraint}"
        ))
    }

    pub(crate) fn serialization(message: impl Into<String>) -> Self {
        Self::new("SerializationException", message)
    }

    pub(crate) fn malformed_policy(message: impl Into<String>) -> Self {
        Self::new("MalformedPolicyDocumentException", message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new("NotFoundException", message)
    }

    pub(crate) fn disabled(arn: &str) -> Self {
        Self::new("DisabledException", format!("{arn} is disabled."))
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new("UnsupportedOperationException", message)
    }

    pub(crate) fn incorrect_key() -> Self {
        Self::new(
            "IncorrectKeyException",
            "The key ID in the request does not identify a CMK that can perform this operation.",
        )
    }

    pub(crate) fn invalid_ciphertext() -> Self {
        Self { code: "InvalidCiphertextException", message: None, status: 400 }
    }

    pub(crate) fn unknown_operation() -> Self {
        Self { code: "UnknownOperationException", message: None, status: 400 }
    }

    pub(crate) fn missing_authentication() -> Self {
        Self::new("MissingAuthenticationTokenException", "Missing Authentication Token")
    }

    pub(crate) fn incomplete_signature(message: impl Into<String>) -> Self {
        Self::new("IncompleteSignatureException", message)
    }

    pub(crate) fn unrecognized_client() -> Self {
        Self::new("UnrecognizedClientException", "The security token included in the request is invalid.")
    }

    pub(crate) fn invalid_signature(message: impl Into<String>) -> Self {
        Self::new("InvalidSignatureException", message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self { code: "KMSInternalException", message: Some(message.into()), status: 500 }
    }
}
