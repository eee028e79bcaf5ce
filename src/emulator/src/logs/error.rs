//! The errors of CloudWatch Logs' own. Source: Amazon CloudWatch Logs API reference.

pub(crate) use crate::aws::error::ServiceError;
use crate::aws::error::constraint_text;

impl ServiceError {
    pub(crate) fn invalid_parameter(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterException", message)
    }

    /// In the words AWS has for a member whose value is out of bounds.
    pub(crate) fn invalid_member(member: &str, constraint: &str) -> Self {
        Self::invalid_parameter(constraint_text(member, constraint))
    }

    /// `what` is "log group" or "log stream".
    pub(crate) fn resource_not_found(what: &str) -> Self {
        Self::new("ResourceNotFoundException", format!("The specified {what} does not exist."))
    }

    /// `what` is "log group" or "log stream".
    pub(crate) fn resource_exists(what: &str) -> Self {
        Self::new("ResourceAlreadyExistsException", format!("The specified {what} already exists"))
    }

    pub(crate) fn throttled() -> Self {
        Self::new("ThrottlingException", "Rate exceeded")
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self { status: 500, ..Self::new("ServiceUnavailableException", message) }
    }
}
