//! Groups events into batches that CloudWatch Logs takes.
//!
//! The limits are those of the Amazon CloudWatch Logs API reference, PutLogEvents.

use std::mem;

use super::event::Event;

/// Bytes of a batch, each event counted as [`Event::size`]: "The maximum batch size is 1,048,576 bytes."
const MAX_BYTES: usize = 1_048_576;
/// Events of a batch: "The maximum number of log events in a batch is 10,000."
const MAX_EVENTS: usize = 10_000;
/// Milliseconds between the earliest and the latest event: "the time span in a single batch cannot exceed 24 hours".
const MAX_SPAN_MS: i64 = 24 * 60 * 60 * 1000;

/// Events that are sent together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// In chronological order ("Otherwise, the operation fails"), and in the journal's where times are the same.
    pub(super) events: Vec<Event>,
    /// Of the last entry, if any has one: when the batch is acknowledged, everything up to there is.
    pub(super) cursor: Option<String>,
}

/// The batch that is being filled.
///
/// The journal's order is not quite that of time: when the clock is set back, so is the time of the entries that follow. A
/// batch is consecutive entries of the journal, sorted by time: CloudWatch shows events by time in any case, and a
/// batch for each step back would cost a request each.
#[derive(Debug, Default)]
pub(super) struct Batcher {
    batch: Batch,
    bytes: usize,
    /// Earliest and latest time of `batch.events`, Unix time in milliseconds.
    span: Option<(i64, i64)>,
}

impl Batcher {
    /// Adds an event, with the cursor of its entry. Returns the batch before it if there is no room for it there.
    pub(super) fn add(&mut self, event: Event, cursor: Option<String>) -> Option<Batch> {
        let full = if self.has_room_for(&event) { None } else { self.take() };
        let (earliest, latest) = self.span.unwrap_or((event.unix_ms, event.unix_ms));
        self.span = Some((earliest.min(event.unix_ms), latest.max(event.unix_ms)));
        self.bytes += event.size();
        self.batch.events.push(event);
        if cursor.is_some() {
            self.batch.cursor = cursor;
        }
        full
    }

    /// What there is, if anything.
    pub(super) fn take(&mut self) -> Option<Batch> {
        let mut batch = mem::take(self).batch;
        batch.events.sort_by_key(|event| event.unix_ms);
        (!batch.events.is_empty()).then_some(batch)
    }

    fn has_room_for(&self, event: &Event) -> bool {
        let is_near = self.span.is_none_or(|(earliest, latest)| {
            latest.max(event.unix_ms).saturating_sub(earliest.min(event.unix_ms)) <= MAX_SPAN_MS
        });
        is_near && self.batch.events.len() < MAX_EVENTS && self.bytes + event.size() <= MAX_BYTES
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::event::MAX_MESSAGE;

    fn event(unix_ms: i64, message: impl Into<String>) -> Event {
        Event { unix_ms, message: message.into() }
    }

    fn batches(events: impl IntoIterator<Item = Event>) -> Vec<Batch> {
        let mut batcher = Batcher::default();
        let mut batches = Vec::new();
        for (index, event) in events.into_iter().enumerate() {
            batches.extend(batcher.add(event, Some(format!("i={index:x}"))));
        }
        batches.extend(batcher.take());
        assert_eq!(batcher.take(), None);
        batches
    }

    fn counts(events: impl IntoIterator<Item = Event>) -> Vec<usize> {
        batches(events).iter().map(|batch| batch.events.len()).collect()
    }

    #[test]
    fn the_event_after_the_ten_thousandth_is_in_the_next_batch() {
        assert_eq!(counts((0..10_000).map(|n| event(n, "x"))), [10_000]);
        assert_eq!(counts((0..10_001).map(|n| event(n, "x"))), [10_000, 1]);
    }

    #[test]
    fn a_batch_has_a_mebibyte_with_26_bytes_for_each_event() {
        let half = || event(0, "x".repeat((1 << 19) - 26));
        assert_eq!(counts([half(), half()]), [2]);
        assert_eq!(counts([half(), event(0, "x".repeat((1 << 19) - 25))]), [1, 1]);
        assert_eq!(counts([event(0, "x".repeat(MAX_MESSAGE)), event(0, "x")]), [1, 1]);
    }

    #[test]
    fn a_batch_spans_a_day_and_not_more_in_either_direction() {
        assert_eq!(counts([event(0, "x"), event(86_400_000, "x")]), [2]);
        assert_eq!(counts([event(0, "x"), event(86_400_001, "x")]), [1, 1]);
        assert_eq!(counts([event(86_400_001, "x"), event(0, "x")]), [1, 1]);
        assert_eq!(counts([event(0, "x"), event(43_200_000, "x"), event(86_400_001, "x")]), [2, 1]);
        assert_eq!(counts([event(i64::MIN, "x"), event(i64::MAX, "x")]), [1, 1]);
    }

    #[test]
    fn a_clock_that_is_set_back_gives_one_batch_in_order_of_time() {
        let batches = batches([event(3, "a"), event(1, "b"), event(3, "c"), event(1, "d"), event(2, "e")]);
        let [batch] = &batches[..] else { panic!("{batches:?}") };
        let order: String = batch.events.iter().map(|event| event.message.as_str()).collect();
        assert_eq!(order, "bdeac");
        assert_eq!(batch.cursor.as_deref(), Some("i=4"), "of the last entry, not of the latest time");
    }

    #[test]
    fn an_event_without_a_cursor_leaves_the_one_before_it() {
        let mut batcher = Batcher::default();
        batcher.add(event(0, "a"), Some("i=1".to_owned()));
        batcher.add(event(0, "b"), None);
        assert_eq!(batcher.take().unwrap().cursor.as_deref(), Some("i=1"));
        batcher.add(event(0, "c"), None);
        assert_eq!(batcher.take().unwrap().cursor, None);
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        // Few letters stand for sizes at which the limits are met with few events, times for steps in both directions.
        let message = prop_oneof![
            4 => 0..200_usize,
            2 => 200_000..600_000_usize,
            1 => Just(MAX_MESSAGE),
        ]
        .prop_map(|length| "x".repeat(length));
        let time = prop_oneof![4 => 0..1000_i64, 1 => 0..2 * MAX_SPAN_MS];
        prop::collection::vec((time, message).prop_map(|(time, message)| event(time, message)), 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_batch_breaks_a_limit_nothing_is_lost_and_the_order_is_kept(events in events()) {
            let mut rest = &events[..];
            for batch in batches(events.clone()) {
                prop_assert!(!batch.events.is_empty() && batch.events.len() <= 10_000);
                let bytes: usize = batch.events.iter().map(|event| event.message.len() + 26).sum();
                prop_assert!(bytes <= 1_048_576);
                prop_assert!(batch.events.is_sorted_by_key(|event| event.unix_ms));
                let (first, last) = (&batch.events[0], &batch.events[batch.events.len() - 1]);
                prop_assert!(last.unix_ms - first.unix_ms <= 86_400_000);

                let (own, others) = rest.split_at(batch.events.len());
                let mut own = own.to_vec();
                own.sort_by_key(|event| event.unix_ms);
                prop_assert!(own == batch.events);
                let last = events.len() - others.len() - 1;
                prop_assert_eq!(batch.cursor, Some(format!("i={last:x}")));
                rest = others;
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn many_small_events_keep_the_limits_too(times in prop::collection::vec(0..5_i64, 9_990..20_010)) {
            let batches = batches(times.iter().map(|time| event(*time, "x")));
            let sizes: Vec<_> = batches.iter().map(|batch| batch.events.len()).collect();
            prop_assert!(sizes.iter().all(|size| *size <= 10_000));
            prop_assert_eq!(sizes.iter().sum::<usize>(), times.len());
            prop_assert_eq!(sizes.len(), times.len().div_ceil(10_000));
        }
    }
}
