//! Members of requests, in AWS JSON 1.1.

use serde::Deserialize;

use super::error::ServiceError;

/// Reads the members of a request; `invalid` makes the service's own error for members that are not what they should be.
/// AWS passes over members it does not know; here they are refused, because a test that uses one would be taken in.
pub(crate) fn read<'de, T: Deserialize<'de>>(
    body: &'de [u8],
    invalid: impl FnOnce(String) -> ServiceError,
) -> Result<T, ServiceError> {
    serde_json::from_slice(body).map_err(|error| {
        if error.is_data() {
            invalid(format!("1 validation error detected: {error}"))
        } else {
            ServiceError::serialization(error.to_string())
        }
    })
}
