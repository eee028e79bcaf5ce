use super::*;

/// Milliseconds since 1970: some day in 2026.
const NOW: i64 = 1_790_000_000_000;

fn event(timestamp: i64) -> InputLogEvent {
    InputLogEvent { timestamp, message: "m".to_owned() }
}

fn events(times: &[i64]) -> Vec<InputLogEvent> {
    times.iter().map(|time| event(NOW + time)).collect()
}

/// A batch of `sizes` bytes each, overhead included.
fn sized(sizes: &[usize]) -> Vec<InputLogEvent> {
    let message = |size: &usize| "m".repeat(size - EVENT_OVERHEAD);
    sizes.iter().map(|size| InputLogEvent { timestamp: NOW, message: message(size) }).collect()
}

fn rejected(too_old: usize, expired: usize, too_new: Option<usize>) -> Rejected {
    let end = |index| (index > 0).then_some(index);
    Rejected { too_old_end: end(too_old), expired_end: end(expired), too_new_start: too_new }
}

fn refusal(events: &[InputLogEvent]) -> String {
    let error = judge(events, NOW, None).unwrap_err();
    assert_eq!((error.code, error.status), ("InvalidParameterException", 400));
    error.message.unwrap()
}

#[test]
fn a_batch_of_now_is_taken_as_a_whole() {
    let judged = judge(&events(&[-1, 0, 0, 1]), NOW, Some(1)).unwrap();
    assert_eq!(judged, Judged { taken: 0..4, rejected: Rejected::default() });
    assert_eq!(judged.rejected.members(), None);
}

#[test]
fn what_is_too_old_or_too_new_is_left_out_to_the_millisecond() {
    let old = events(&[-MAX_AGE - 1, -MAX_AGE, -MAX_AGE + 1]);
    let judged = judge(&old, NOW, None).unwrap();
    assert_eq!(judged, Judged { taken: 1..3, rejected: rejected(1, 0, None) });
    let new = events(&[0, MAX_FUTURE, MAX_FUTURE + 1, MAX_FUTURE + DAY]);
    let judged = judge(&new, NOW, None).unwrap();
    assert_eq!(judged, Judged { taken: 0..2, rejected: rejected(0, 0, Some(2)) });
}

#[test]
fn what_is_past_the_retention_of_the_group_is_expired() {
    let batch = events(&[-20 * DAY, -3 * DAY - 1, -3 * DAY, -3 * DAY + 1]);
    let judged = judge(&batch, NOW, Some(3)).unwrap();
    assert_eq!(judged, Judged { taken: 2..4, rejected: rejected(1, 2, None) });
    let judged = judge(&batch, NOW, Some(30)).unwrap();
    assert_eq!(judged, Judged { taken: 1..4, rejected: rejected(1, 0, None) });
}

#[test]
fn the_indices_have_their_documented_names() {
    let judged = judge(&events(&[-20 * DAY, -2 * DAY, 0, DAY]), NOW, Some(1));
    // The two in the middle are valid but for the retention, and too far apart.
    assert!(judged.is_err());
    let judged = judge(&events(&[-20 * DAY, -2 * DAY, DAY]), NOW, Some(1)).unwrap();
    assert!(judged.taken.is_empty());
    let expected = serde_json::json!({
        "tooOldLogEventEndIndex": 1,
        "expiredLogEventEndIndex": 2,
        "tooNewLogEventStartIndex": 2,
    });
    assert_eq!(judged.rejected.members(), Some(expected));
}

#[test]
fn a_batch_without_any_valid_event_is_answered_all_the_same() {
    assert!(judge(&events(&[-30 * DAY, -15 * DAY]), NOW, None).unwrap().taken.is_empty());
    assert!(judge(&events(&[DAY, 30 * DAY]), NOW, None).unwrap().taken.is_empty());
}

#[test]
fn events_have_to_be_in_chronological_order() {
    assert!(refusal(&events(&[0, -1])).contains("chronological order"));
    assert!(refusal(&events(&[-20 * DAY, 0, -20 * DAY])).contains("chronological order"));
}

#[test]
fn valid_events_span_a_day_at_most() {
    assert!(judge(&events(&[-DAY, 0]), NOW, None).is_ok());
    assert!(refusal(&events(&[-DAY - 1, 0])).contains("24 hours"));
    // Those that are rejected do not count.
    assert!(judge(&events(&[-20 * DAY, -DAY, 0, 20 * DAY]), NOW, None).is_ok());
}

#[test]
fn a_batch_has_a_mebibyte_and_so_has_an_event() {
    assert!(judge(&sized(&[MAX_BATCH]), NOW, None).is_ok());
    assert!(judge(&sized(&[MAX_BATCH / 2, MAX_BATCH / 2]), NOW, None).is_ok());
    let text = refusal(&sized(&[MAX_EVENT + 1]));
    assert_eq!(text, "Log event too large: 1048577 bytes exceeds limit of 1048576");
    let text = refusal(&sized(&[MAX_BATCH / 2, MAX_BATCH / 2 + 1]));
    assert_eq!(text, "Upload too large: 1048577 bytes exceeds limit of 1048576");
}

#[test]
fn bytes_count_and_not_characters() {
    let message = "é".repeat((MAX_EVENT - EVENT_OVERHEAD) / 2);
    let event = |message| [InputLogEvent { timestamp: NOW, message }];
    assert!(judge(&event(message.clone()), NOW, None).is_ok());
    assert!(refusal(&event(message + "é")).contains("too large"));
}

#[test]
fn members_out_of_bounds_are_named() {
    let text = |events: &[InputLogEvent]| check_members(events).unwrap_err().message.unwrap();
    assert!(check_members(&vec![event(NOW); MAX_EVENTS]).is_ok());
    assert!(text(&vec![event(NOW); MAX_EVENTS + 1]).contains("'logEvents'"));
    assert!(text(&[]).contains("'logEvents'"));
    let empty = InputLogEvent { message: String::new(), ..event(NOW) };
    assert!(text(&[event(NOW), empty]).contains("'logEvents.2.member.message'"));
    assert!(text(&[event(-1)]).contains("'logEvents.1.member.timestamp'"));
}
