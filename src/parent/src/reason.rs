use std::{collections::HashMap, fmt};

use api::control::FailureReason;

/// Why a run failed. Logs, alarms and documents write its [name](Reason::name).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The enclave said so, or the parent found the same before the enclave could.
    Enclave(FailureReason),
    /// A ciphertext cannot be read. Transient.
    CiphertextUnavailable,
    /// The enclave's credentials cannot be read, or are malformed. Transient.
    CredentialsUnavailable,
    /// The image to launch cannot be measured, or its PCR0 is not the pinned one.
    MeasurementMismatch,
    /// A socket cannot be listened at: it is in use, or not allowed. Transient.
    SocketUnavailable,
    /// The enclave cannot be started, or gives no sign of life. Transient.
    LaunchFailed,
    /// The enclave ended without naming a reason. Transient.
    EnclaveExited,
    /// The control channel ended, but the enclave did not. Transient.
    ControlLost,
    /// An attestation document, or the certificate that the service presents, is not what it has to be.
    VerificationFailed,
    /// The enclave cannot be verified because it does not answer. Transient.
    VerificationUnavailable,
    /// The enclave was not serving in time. Transient.
    Timeout,
}

impl Reason {
    /// The stable name, for example `KmsDenied`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enclave(reason) => reason.name(),
            Self::CiphertextUnavailable => "CiphertextUnavailable",
            Self::CredentialsUnavailable => "CredentialsUnavailable",
            Self::MeasurementMismatch => "MeasurementMismatch",
            Self::SocketUnavailable => "SocketUnavailable",
            Self::LaunchFailed => "LaunchFailed",
            Self::EnclaveExited => "EnclaveExited",
            Self::ControlLost => "ControlLost",
            Self::VerificationFailed => "VerificationFailed",
            Self::VerificationUnavailable => "VerificationUnavailable",
            Self::Timeout => "Timeout",
        }
    }

    /// Whether trying again without changing anything may help.
    pub fn is_transient(self) -> bool {
        match self {
            Self::Enclave(reason) => reason.is_transient(),
            Self::MeasurementMismatch | Self::VerificationFailed => false,
            Self::CiphertextUnavailable
            | Self::CredentialsUnavailable
            | Self::SocketUnavailable
            | Self::LaunchFailed
            | Self::EnclaveExited
            | Self::ControlLost
            | Self::VerificationUnavailable
            | Self::Timeout => true,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failed run: the reason and what to tell people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Failed {
    /// The named reason.
    pub reason: Reason,
    /// For people; holds no secret.
    pub message: String,
    /// Facts for the audit record, as the enclave reported them.
    pub details: HashMap<String, String>,
}

impl Failed {
    /// A failure without details.
    pub fn new(reason: Reason, message: impl fmt::Display) -> Self {
        Self { reason, message: message.to_string(), details: HashMap::new() }
    }
}

impl From<api::control::Failure> for Failed {
    fn from(failure: api::control::Failure) -> Self {
        let message = if failure.step.is_empty() {
            failure.message.clone()
        } else {
            format!("step \"{}\": {}", failure.step, failure.message)
        };
        let redact = |text: &str| telemetry::redact(text).to_string();
        Self {
            reason: Reason::Enclave(failure.reason()),
            message: redact(&message),
            details: failure.details.iter().map(|(key, value)| (key.clone(), redact(value))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_the_enclave_keeps_its_name_step_and_details() {
        let failed = Failed::from(api::control::Failure {
            reason: FailureReason::KmsDenied.into(),
            message: "AccessDeniedException".to_owned(),
            step: "identity".to_owned(),
            details: [("kms_request_id".to_owned(), "r-1".to_owned())].into(),
        });
        assert_eq!(failed.reason.name(), "KmsDenied");
        assert!(!failed.reason.is_transient());
        assert_eq!(failed.message, "step \"identity\": AccessDeniedException");
        assert_eq!(failed.details["kms_request_id"], "r-1");
    }

    #[test]
    fn an_unknown_reason_number_is_terminal_and_has_a_name() {
        let failed = Failed::from(api::control::Failure { reason: 4711, ..Default::default() });
        assert_eq!(failed.reason.name(), "Unspecified");
        assert!(!failed.reason.is_transient());
    }

    #[test]
    fn an_unreachable_kms_is_transient_and_a_wrong_measurement_is_not() {
        assert!(Reason::Enclave(FailureReason::KmsUnreachable).is_transient());
        assert!(!Reason::MeasurementMismatch.is_transient());
        assert!(!Reason::VerificationFailed.is_transient());
    }
}
