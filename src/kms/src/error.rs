use std::error::Error;

use aws_sdk_kms::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
};
use thiserror::Error;

/// Why KMS did not release anything. Each variant says whether trying again can help: see
/// [`is_transient`](Self::is_transient).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KmsError {
    /// The key policy, the key's state, or the credentials do not allow it.
    #[error("KMS denied the request: {code}: {message} (request id {request_id})")]
    Denied {
        /// AWS's name of the error, such as `AccessDeniedException`.
        code: String,
        /// AWS's text.
        message: String,
        /// AWS's identifier of the request, to look it up in CloudTrail.
        request_id: String,
    },
    /// The ciphertext is damaged, or is for another key or another encryption context.
    #[error(
        "KMS cannot decrypt the ciphertext with this key and encryption context: {code}: {message} \
         (request id {request_id})"
    )]
    InvalidCiphertext {
        /// AWS's name of the error: `InvalidCiphertextException` or `IncorrectKeyException`.
        code: String,
        /// AWS's text; KMS leaves it empty for a ciphertext that fails authentication.
        message: String,
        /// AWS's identifier of the request.
        request_id: String,
    },
    /// No answer: connection, TLS, or time. The text says what was tried.
    #[error("KMS cannot be reached: {0}")]
    Unreachable(String),
    /// KMS ignored the recipient and answered with the plaintext in the clear (inside of TLS). It has been wiped.
    #[error(
        "KMS answered with a plaintext although a recipient was named; what answers is not AWS KMS \
         (request id {request_id})"
    )]
    PlaintextAnswer {
        /// Identifier of the request.
        request_id: String,
    },
    /// KMS answered without anything for the recipient.
    #[error("KMS answered without a ciphertext for the recipient (request id {request_id})")]
    NoRecipientCiphertext {
        /// Identifier of the request.
        request_id: String,
    },
    /// Any other refusal, by AWS's name.
    #[error("KMS failed: {code}: {message} (request id {request_id})")]
    Other {
        /// AWS's name of the error, such as `ThrottlingException`.
        code: String,
        /// AWS's text.
        message: String,
        /// AWS's identifier of the request.
        request_id: String,
    },
}

/// Refusals that a changed key policy, key or credential lifts, and nothing else.
const DENIALS: &[&str] = &[
    "AccessDeniedException",
    "DisabledException",
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "KMSInvalidStateException",
    "MissingAuthenticationTokenException",
    "NotFoundException",
    "UnrecognizedClientException",
];
const CIPHERTEXT_ERRORS: &[&str] = &["IncorrectKeyException", "InvalidCiphertextException"];
/// What KMS says when it is the one in trouble: AWS KMS API reference, "Common errors" and Decrypt.
const TROUBLES_OF_KMS: &[&str] = &[
    "DependencyTimeoutException",
    "InternalFailure",
    "KMSInternalException",
    "KeyUnavailableException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "ThrottlingException",
];

impl KmsError {
    /// The same request may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Other { code, .. } => TROUBLES_OF_KMS.contains(&code.as_str()),
            Self::Denied { .. }
            | Self::InvalidCiphertext { .. }
            | Self::PlaintextAnswer { .. }
            | Self::NoRecipientCiphertext { .. } => false,
        }
    }

    /// AWS's identifier of the request, if KMS answered at all.
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Unreachable(_) => None,
            Self::Denied { request_id, .. }
            | Self::InvalidCiphertext { request_id, .. }
            | Self::PlaintextAnswer { request_id }
            | Self::NoRecipientCiphertext { request_id }
            | Self::Other { request_id, .. } => Some(request_id),
        }
    }

    fn refusal(code: String, message: String, request_id: String) -> Self {
        if DENIALS.contains(&code.as_str()) {
            Self::Denied { code, message, request_id }
        } else if CIPHERTEXT_ERRORS.contains(&code.as_str()) {
            Self::InvalidCiphertext { code, message, request_id }
        } else {
            Self::Other { code, message, request_id }
        }
    }
}

/// For every operation of the SDK.
impl<E> From<SdkError<E, HttpResponse>> for KmsError
where
    E: ProvideErrorMetadata + RequestId + Error + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        match &error {
            SdkError::ServiceError(service) => {
                let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
                let code = service.err().code().unwrap_or("an error without a name").to_owned();
                Self::refusal(code, text(service.err().message()), known(error.request_id()))
            }
            SdkError::ConstructionFailure(_) => Self::Other {
                code: "ConstructionFailure".to_owned(),
                message: with_causes(&error),
                request_id: known(None),
            },
            // Time, connection, TLS, and answers that are cut short or are not KMS's.
            _ => Self::Unreachable(with_causes(&error)),
        }
    }
}

/// A request identifier to print: whatever stands between may have answered without one.
pub(crate) fn known(request_id: Option<&str>) -> String {
    request_id.unwrap_or("unknown").to_owned()
}

/// The error and its causes in one line, without repetitions.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: &str) -> KmsError {
        KmsError::refusal(code.to_owned(), "text".to_owned(), "id-1".to_owned())
    }

    #[test]
    fn refusals_are_told_apart_by_their_names() {
        assert!(matches!(refusal("AccessDeniedException"), KmsError::Denied { .. }));
        assert!(matches!(refusal("KMSInvalidStateException"), KmsError::Denied { .. }));
        assert!(matches!(refusal("InvalidCiphertextException"), KmsError::InvalidCiphertext { .. }));
        assert!(matches!(refusal("ValidationException"), KmsError::Other { .. }));
    }

    #[test]
    fn only_what_may_pass_by_itself_is_transient() {
        assert!(KmsError::Unreachable(String::new()).is_transient());
        assert!(refusal("ThrottlingException").is_transient());
        assert!(refusal("KMSInternalException").is_transient());
        for code in ["AccessDeniedException", "InvalidCiphertextException", "ValidationException"] {
            assert!(!refusal(code).is_transient(), "{code}");
        }
    }

    #[test]
    fn messages_name_the_error_and_the_request() {
        let message = refusal("AccessDeniedException").to_string();
        assert!(message.contains("AccessDeniedException") && message.contains("id-1"), "{message}");
        assert_eq!(refusal("AccessDeniedException").request_id(), Some("id-1"));
    }
}
