//! GetLogEvents: a stream page by page.

use serde_json::{Value, json};

use crate::logs::{error::ServiceError, request::GetLogEvents, store::Event};

/// Events in one answer. CloudWatch also ends a page at 1 MB; here it does not.
const MAX_PAGE: usize = 10_000;

/// `events` are all of the stream, in chronological order. A token says in which direction and from which position
/// of the events within the times asked for; at the end of the stream it stays the same, as at AWS.
pub(super) fn page(request: &GetLogEvents, mut events: Vec<Event>) -> Result<Value, ServiceError> {
    let limit = request.limit.unwrap_or(MAX_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(ServiceError::invalid_member("limit", "have value between 1 and 10000"));
    }
    events.retain(|event| {
        request.start_time.is_none_or(|start| event.timestamp >= start)
            && request.end_time.is_none_or(|end| event.timestamp < end)
    });
    let (forward, position) = match request.next_token.as_deref() {
        Some(token) => read_token(token)?,
        None if request.start_from_head => (true, 0),
        None => (false, events.len()),
    };
    let position = position.min(events.len());
    let page = if forward {
        position..position.saturating_add(limit).min(events.len())
    } else {
        position.saturating_sub(limit)..position
    };
    let members: Vec<_> = events[page.clone()]
        .iter()
        .map(|event| {
            json!({
                "timestamp": event.timestamp,
                "message": event.message,
                "ingestionTime": event.ingestion_time,
            })
        })
        .collect();
    Ok(json!({
        "events": members,
        "nextForwardToken": format!("f/{}", page.end),
        "nextBackwardToken": format!("b/{}", page.start),
    }))
}

fn read_token(token: &str) -> Result<(bool, usize), ServiceError> {
    let read = match token.split_once('/') {
        Some(("f", position)) => position.parse().ok().map(|position| (true, position)),
        Some(("b", position)) => position.parse().ok().map(|position| (false, position)),
        _ => None,
    };
    read.ok_or_else(|| ServiceError::invalid_parameter("The specified nextToken is invalid."))
}
