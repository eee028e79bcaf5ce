//! What a service answers when it does not do what it was asked to, in AWS's names and, where they are known, AWS's words.
//! Here is what all services share; the errors of one service are with it.
//!
//! Source: "Common Error Types" of the API references.

use serde_json::{Value, json};

/// An answer of AWS JSON 1.1 with a status other than 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceError {
    pub(crate) code: &'static str,
    /// Some errors come without a text; KMS's, so as to tell nothing about ciphertexts.
    pub(crate) message: Option<String>,
    /// HTTP status: 400, or 500 and above for trouble of the service's own.
    pub(crate) status: u16,
}

impl ServiceError {
    /// A refusal: status 400.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: Some(message.into()), status: 400 }
    }

    pub(crate) fn body(&self) -> Value {
        match &self.message {
            Some(message) => json!({"__type": self.code, "message": message}),
            None => json!({"__type": self.code}),
        }
    }

    /// `reason` says which policy is in the way.
    pub(crate) fn not_authorized(principal: &str, action: &str, resource: &str, reason: &str) -> Self {
        let message = format!(
            "User: {principal} is not authorized to perform: {action} on resource: {resource} {reason}"
        );
        Self::new("AccessDeniedException", message)
    }

    pub(crate) fn serialization(message: impl Into<String>) -> Self {
        Self::new("SerializationException", message)
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

    /// Trouble of the service's own.
    pub(crate) fn failure(message: impl Into<String>) -> Self {
        Self { status: 500, ..Self::new("InternalFailure", message) }
    }
}

/// AWS's words for a member whose value is out of bounds.
pub(crate) fn constraint_text(member: &str, constraint: &str) -> String {
    format!(
        "1 validation error detected: Value at '{member}' failed to satisfy constraint: Member must {constraint}"
    )
}
