//! Which gRPC status each refusal is.

use threshold::{ErrorKind, SessionError};
use tonic::Status;

use crate::sessions::Refusal;

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::Draining => Self::unavailable(message),
            Refusal::CapReached { .. } => Self::resource_exhausted(message),
            Refusal::IdInUse | Refusal::IdUsed => Self::already_exists(message),
        }
    }
}

/// The status of a session's error.
pub(crate) fn of_session(error: &SessionError) -> Status {
    let message = error.to_string();
    match error.kind() {
        ErrorKind::InvalidArgument => Status::invalid_argument(message),
        ErrorKind::PermissionDenied => Status::permission_denied(message),
        ErrorKind::FailedPrecondition => Status::failed_precondition(message),
        ErrorKind::ResourceExhausted => Status::resource_exhausted(message),
        ErrorKind::Aborted => Status::aborted(message),
        ErrorKind::Internal => Status::internal(message),
    }
}
