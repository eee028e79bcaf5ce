//! Exit codes of the program: what a service manager may do with them.
//!
//! The numbers are those of `sysexits.h`, which systemd shows by name. The unit's `RestartPreventExitStatus=` has to be
//! `64 77 78`: what stays wrong until somebody changes something is not tried again.

use std::io;

use api::control::FailureReason;

use crate::{
    Failed, Reason,
    backend::BackendError,
    config::{ConfigError, FileError, RootError},
    journal::JournalError,
    status::RuntimeDirError,
};

/// It was told to stop, and did.
pub const STOPPED: u8 = 0;
/// Something that has no code of its own.
pub const ERROR: u8 = 1;
/// The command line is wrong (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// A reason that may pass: another run may help (`EX_TEMPFAIL`).
pub const TRANSIENT: u8 = 75;
/// A reason that stays: denied, corrupt, not the pinned image, not verified (`EX_NOPERM`).
pub const TERMINAL: u8 = 77;
/// The configuration is refused, or cannot work on this machine (`EX_CONFIG`).
pub const CONFIGURATION: u8 = 78;

/// Of a run that failed for this reason.
pub fn of_reason(reason: Reason) -> u8 {
    match reason {
        Reason::Enclave(FailureReason::ConfigurationInvalid) => CONFIGURATION,
        reason if reason.is_transient() => TRANSIENT,
        _ => TERMINAL,
    }
}

/// Of an error before there was a run.
pub fn of_error(error: &(dyn std::error::Error + 'static)) -> u8 {
    if error.is::<ConfigError>() || error.is::<RootError>() || error.is::<FileError>() {
        return CONFIGURATION;
    }
    if let Some(error) = error.downcast_ref::<JournalError>() {
        return error.exit_code();
    }
    if let Some(error) = error.downcast_ref::<BackendError>() {
        return of_reason(error.reason());
    }
    if let Some(failed) = error.downcast_ref::<Failed>() {
        return of_reason(failed.reason);
    }
    match error.downcast_ref::<RuntimeDirError>() {
        // A directory in memory may be full for a time.
        Some(RuntimeDirError::Unusable { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
            TRANSIENT
        }
        Some(RuntimeDirError::Unusable { .. }) => CONFIGURATION,
        Some(RuntimeDirError::InUse { .. }) => TRANSIENT,
        None => ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_to_be_restarted_and_nothing_else() {
        for reason in [
            Reason::Enclave(FailureReason::KmsUnreachable),
            Reason::Enclave(FailureReason::ParentUnreachable),
            Reason::Enclave(FailureReason::ServiceExited),
            Reason::CiphertextUnavailable,
            Reason::CredentialsUnavailable,
            Reason::SocketUnavailable,
            Reason::LaunchFailed,
            Reason::EnclaveExited,
            Reason::ControlLost,
            Reason::VerificationUnavailable,
            Reason::Timeout,
        ] {
            assert_eq!(of_reason(reason), 75, "{reason}");
        }
        for reason in [
            Reason::Enclave(FailureReason::Unspecified),
            Reason::Enclave(FailureReason::KmsDenied),
            Reason::Enclave(FailureReason::KmsAnswerInvalid),
            Reason::Enclave(FailureReason::IdentityInvalid),
            Reason::Enclave(FailureReason::BundleCorrupt),
            Reason::Enclave(FailureReason::EpochMismatch),
            Reason::Enclave(FailureReason::SharesInvalid),
            Reason::Enclave(FailureReason::DebugMode),
            Reason::Enclave(FailureReason::NsmFailed),
            Reason::Enclave(FailureReason::Internal),
            Reason::Enclave(FailureReason::MemoryTooSmall),
            Reason::MeasurementMismatch,
            Reason::VerificationFailed,
        ] {
            assert_eq!(of_reason(reason), 77, "{reason}");
        }
        assert_eq!(of_reason(Reason::Enclave(FailureReason::ConfigurationInvalid)), 78);
    }

    #[test]
    fn a_directory_in_use_may_be_free_later_and_one_that_cannot_be_made_stays_so() {
        let directory = || "/run/nitro-sign".into();
        assert_eq!(of_error(&RuntimeDirError::InUse { directory: directory() }), 75);
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(of_error(&RuntimeDirError::Unusable { directory: directory(), source }), 78);
        let source = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(of_error(&RuntimeDirError::Unusable { directory: directory(), source }), 75);
        assert_eq!(of_error(&Failed::new(Reason::MeasurementMismatch, "another PCR0")), 77);
        assert_eq!(of_error(&Failed::new(Reason::LaunchFailed, "no program")), 75);
        assert_eq!(of_error(&io::Error::from(io::ErrorKind::NotFound)), 1);
    }
}
