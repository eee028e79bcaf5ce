//! The errors of KMS's own. Source: AWS KMS API reference.

pub(crate) use crate::aws::error::ServiceError;
use crate::aws::error::constraint_text;

impl ServiceError {
    pub(crate) fn access_denied(principal: &str, action: &str, resource: &str, explicit: bool) -> Self {
        let reason = if explicit {
            "with an explicit deny in a resource-based policy".to_owned()
        } else {
            format!("because no resource-based policy allows the {action} action")
        };
        Self::not_authorized(principal, action, resource, &reason)
    }

    pub(crate) fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }

    /// In the words AWS has for a member whose value is out of bounds.
    pub(crate) fn constraint(member: &str, constraint: &str) -> Self {
        Self::validation(constraint_text(member, constraint))
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

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self { status: 500, ..Self::new("KMSInternalException", message) }
    }
}
