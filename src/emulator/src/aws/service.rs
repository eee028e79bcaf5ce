//! What a service does with a request whose signature was verified.

use serde_json::Value;

use super::error::ServiceError;

/// One of AWS's services, for one account in one region.
pub(crate) trait Service: Send + Sync + 'static {
    /// What is before the operation in `x-amz-target`, with the dot.
    const TARGET_PREFIX: &'static str;
    /// Bytes: many times the largest request that can succeed.
    const MAX_BODY: usize;
    /// What is learned about a request on the way, for the log.
    type Notes: Default + Send;

    fn answer(
        &self,
        call: &mut Call<'_, Self::Notes>,
    ) -> impl Future<Output = Result<Answer, ServiceError>> + Send;

    /// Writes the line about a request to the log.
    fn log(request: &Summary<'_>, notes: &Self::Notes);
}

/// One request by a known principal.
pub(crate) struct Call<'a, Notes> {
    /// The name alone, without the prefix.
    pub(crate) operation: &'a str,
    pub(crate) body: &'a [u8],
    pub(crate) principal: &'a str,
    pub(crate) notes: &'a mut Notes,
}

/// What to send.
pub(crate) enum Answer {
    Members(Value),
    /// Nothing, ever.
    Silence,
}

/// What the log says about every request, whatever the service.
pub(crate) struct Summary<'a> {
    pub(crate) operation: &'a str,
    pub(crate) principal: Option<&'a str>,
    pub(crate) request_id: &'a str,
    /// "ok", "no answer", or the code of the error.
    pub(crate) outcome: &'static str,
    pub(crate) error_message: Option<&'a str>,
}

impl<'a> Summary<'a> {
    pub(crate) fn of(
        operation: &'a str,
        principal: Option<&'a str>,
        request_id: &'a str,
        outcome: &'a Result<Answer, ServiceError>,
    ) -> Self {
        let (outcome, error_message) = match outcome {
            Ok(Answer::Members(_)) => ("ok", None),
            Ok(Answer::Silence) => ("no answer", None),
            Err(error) => (error.code, error.message.as_deref()),
        };
        Self { operation, principal, request_id, outcome, error_message }
    }
}
