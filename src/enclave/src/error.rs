use std::collections::HashMap;

use api::control::{Failure, FailureReason};

/// Facts of a step for the audit record, as `BootEvent.details` and `Failure.details` carry them. Never a secret.
pub(crate) type Facts = HashMap<String, String>;

/// Why the enclave stops: one named reason, and what a person needs to know. Never a secret.
#[derive(Debug, thiserror::Error)]
#[error("{} in step {step}: {message}", reason.name())]
pub(crate) struct BootError {
    pub(crate) reason: FailureReason,
    /// The step that failed; the journal fills it in.
    pub(crate) step: &'static str,
    pub(crate) message: String,
    pub(crate) details: Facts,
}

impl BootError {
    pub(crate) fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        Self { reason, step: "boot", message: message.into(), details: Facts::new() }
    }

    pub(crate) fn detail(mut self, name: &str, value: impl Into<String>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// What the parent is told. The second line of redaction: messages of libraries pass through here.
    pub(crate) fn to_failure(&self) -> Failure {
        Failure {
            reason: self.reason.into(),
            message: telemetry::redact(&self.message).into_owned(),
            step: self.step.to_owned(),
            details: self
                .details
                .iter()
                .map(|(name, value)| (name.clone(), telemetry::redact(value).into_owned()))
                .collect(),
        }
    }
}

/// For `map_err`: the reason, and what was being done, before the error's own words.
pub(crate) fn because<E: std::fmt::Display>(
    reason: FailureReason,
    doing: impl std::fmt::Display,
) -> impl FnOnce(E) -> BootError {
    move |error| BootError::new(reason, format!("{doing}: {error}"))
}
