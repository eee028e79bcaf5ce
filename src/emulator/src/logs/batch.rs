//! What a batch of events has to be like, and which of its events are taken.
//!
//! Source: CloudWatch Logs API reference, PutLogEvents and RejectedLogEventsInfo.

use std::ops::Range;

use serde_json::{Map, Value};

use super::{error::ServiceError, request::InputLogEvent};

/// Bytes: of all messages in UTF-8 and [`EVENT_OVERHEAD`] for each event.
const MAX_BATCH: usize = 1_048_576;
/// Bytes, overhead included.
const MAX_EVENT: usize = 1_048_576;
const EVENT_OVERHEAD: usize = 26;
const MAX_EVENTS: usize = 10_000;

/// Milliseconds, as everything about time here.
const HOUR: i64 = 60 * 60 * 1000;
const DAY: i64 = 24 * HOUR;
const MAX_AGE: i64 = 14 * DAY;
const MAX_FUTURE: i64 = 2 * HOUR;
const MAX_SPAN: i64 = DAY;

/// Events in order are too old, then taken, then too new.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) taken: Range<usize>,
    pub(crate) rejected: Rejected,
}

/// `rejectedLogEventsInfo`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rejected {
    /// Of the last event older than 14 days, exclusive.
    too_old_end: Option<usize>,
    /// Of the last event older than the group's retention, exclusive.
    expired_end: Option<usize>,
    /// Of the first event more than 2 hours ahead, inclusive.
    too_new_start: Option<usize>,
}

impl Rejected {
    /// Nothing if no event was rejected.
    pub(crate) fn members(&self) -> Option<Value> {
        let indices = [
            ("tooOldLogEventEndIndex", self.too_old_end),
            ("expiredLogEventEndIndex", self.expired_end),
            ("tooNewLogEventStartIndex", self.too_new_start),
        ];
        let members: Map<_, _> = indices
            .into_iter()
            .filter_map(|(name, index)| index.map(|index| (name.to_owned(), index.into())))
            .collect();
        (!members.is_empty()).then_some(members.into())
    }
}

/// What can be said about the members without knowing the log group.
pub(crate) fn check_members(events: &[InputLogEvent]) -> Result<(), ServiceError> {
    if !(1..=MAX_EVENTS).contains(&events.len()) {
        return Err(ServiceError::invalid_member("logEvents", "have length between 1 and 10000"));
    }
    for (number, event) in (1..).zip(events) {
        let problem = |member: &str, constraint: &str| {
            Err(ServiceError::invalid_member(&format!("logEvents.{number}.member.{member}"), constraint))
        };
        if event.message.is_empty() {
            return problem("message", "have length greater than or equal to 1");
        }
        if event.timestamp < 0 {
            return problem("timestamp", "have value greater than or equal to 0");
        }
    }
    Ok(())
}

/// `now` is in milliseconds since 1970, `retention` in days.
pub(crate) fn judge(
    events: &[InputLogEvent],
    now: i64,
    retention: Option<u32>,
) -> Result<Judged, ServiceError> {
    check_sizes(events)?;
    if !events.is_sorted_by_key(|event| event.timestamp) {
        return Err(ServiceError::invalid_parameter(
            "Log events in a single PutLogEvents request must be in chronological order.",
        ));
    }
    let before = |time: i64| events.partition_point(|event| event.timestamp < time);
    let too_old = before(now - MAX_AGE);
    let expired = retention.map_or(0, |days| before(now - i64::from(days) * DAY));
    let new_enough = events.partition_point(|event| event.timestamp <= now + MAX_FUTURE);
    check_span(&events[too_old..new_enough])?;
    Ok(Judged {
        taken: too_old.max(expired).min(new_enough)..new_enough,
        rejected: Rejected {
            too_old_end: (too_old > 0).then_some(too_old),
            expired_end: (expired > 0).then_some(expired),
            too_new_start: (new_enough < events.len()).then_some(new_enough),
        },
    })
}

fn check_sizes(events: &[InputLogEvent]) -> Result<(), ServiceError> {
    let mut total = 0;
    for event in events {
        let size = event.message.len() + EVENT_OVERHEAD;
        if size > MAX_EVENT {
            return Err(ServiceError::invalid_parameter(format!(
                "Log event too large: {size} bytes exceeds limit of {MAX_EVENT}"
            )));
        }
        total += size;
    }
    if total > MAX_BATCH {
        return Err(ServiceError::invalid_parameter(format!(
            "Upload too large: {total} bytes exceeds limit of {MAX_BATCH}"
        )));
    }
    Ok(())
}

/// `valid` events are those "within 14 days in the past to 2 hours in future".
fn check_span(valid: &[InputLogEvent]) -> Result<(), ServiceError> {
    match valid {
        [first, .., last] if last.timestamp - first.timestamp > MAX_SPAN => {
            Err(ServiceError::invalid_parameter(
                "The batch of log events in a single PutLogEvents request cannot span more than 24 hours.",
            ))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
