//! Members of requests and what is counted on them.

use serde::Deserialize;

use super::error::ServiceError;
use crate::aws::json;

/// Reads the members of a request.
pub(crate) fn read<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, ServiceError> {
    json::read(body, ServiceError::invalid_parameter)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CreateLogGroup {
    pub(crate) log_group_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PutRetentionPolicy {
    pub(crate) log_group_name: String,
    pub(crate) retention_in_days: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CreateLogStream {
    pub(crate) log_group_name: String,
    pub(crate) log_stream_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PutLogEvents {
    pub(crate) log_group_name: String,
    pub(crate) log_stream_name: String,
    pub(crate) log_events: Vec<InputLogEvent>,
    /// "The sequence token is now ignored": API reference, PutLogEvents.
    #[serde(rename = "sequenceToken")]
    _sequence_token: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct InputLogEvent {
    /// Milliseconds since 1970.
    pub(crate) timestamp: i64,
    pub(crate) message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GetLogEvents {
    pub(crate) log_group_name: String,
    pub(crate) log_stream_name: String,
    /// Milliseconds since 1970, inclusive.
    pub(crate) start_time: Option<i64>,
    /// Milliseconds since 1970, exclusive.
    pub(crate) end_time: Option<i64>,
    pub(crate) limit: Option<usize>,
    pub(crate) next_token: Option<String>,
    #[serde(default)]
    pub(crate) start_from_head: bool,
}
