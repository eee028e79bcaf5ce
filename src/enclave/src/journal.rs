use std::time::{Instant, SystemTime, UNIX_EPOCH};

use api::control::{BootEvent, enclave_message::Message};

use crate::{
    error::{BootError, Facts},
    outbox::Outbox,
};

/// Runs the steps of the boot and tells the parent of each: its name, when it ended, how long it took, and its facts.
pub(crate) struct Journal {
    outbox: Outbox,
}

impl Journal {
    pub(crate) fn new(outbox: Outbox) -> Self {
        Self { outbox }
    }

    /// Runs one step. A failure carries the step's name and whatever facts it had noted.
    pub(crate) async fn step<T>(
        &self,
        step: &'static str,
        work: impl AsyncFnOnce(&mut Facts) -> Result<T, BootError>,
    ) -> Result<T, BootError> {
        let started = Instant::now();
        let mut facts = Facts::new();
        let value = match work(&mut facts).await {
            Ok(value) => value,
            Err(error) => return Err(failed(step, error, facts)),
        };
        let duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        tracing::debug!(step, duration_us, "step done");
        let event =
            BootEvent { step: step.to_owned(), unix_ms: unix_milliseconds(), duration_us, details: facts };
        self.outbox.send(Message::Event(event)).map_err(|error| failed(step, error, Facts::new()))?;
        Ok(value)
    }
}

fn failed(step: &'static str, mut error: BootError, facts: Facts) -> BootError {
    error.step = step;
    for (name, value) in facts {
        error.details.entry(name).or_insert(value);
    }
    error
}

/// The time by this machine's clock.
pub(crate) fn unix_milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use api::control::FailureReason;

    use super::*;
    use crate::outbox::{Queue, outbox};

    fn next_event(queue: &mut Queue) -> BootEvent {
        match queue.next_now() {
            Some(Message::Event(event)) => event,
            other => panic!("expected an event, got {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_step_that_succeeds_is_an_event_with_its_facts() {
        let (outbox, mut queue) = outbox();
        let value = Journal::new(outbox)
            .step("count", async |facts| {
                facts.insert("accounts".to_owned(), "3".to_owned());
                Ok(3)
            })
            .await
            .unwrap();
        assert_eq!(value, 3);
        let event = next_event(&mut queue);
        assert_eq!(event.step, "count");
        assert_eq!(event.details.get("accounts").map(String::as_str), Some("3"));
        assert!(event.unix_ms > 1_700_000_000_000);
    }

    #[tokio::test]
    async fn a_step_that_fails_is_no_event_and_names_itself_in_the_error() {
        let (outbox, mut queue) = outbox();
        let error = Journal::new(outbox)
            .step("unseal", async |facts| {
                facts.insert("kms_request_id".to_owned(), "r-1".to_owned());
                Err::<(), _>(BootError::new(FailureReason::BundleCorrupt, "one byte differs"))
            })
            .await
            .unwrap_err();
        assert_eq!((error.step, error.reason), ("unseal", FailureReason::BundleCorrupt));
        assert_eq!(error.details.get("kms_request_id").map(String::as_str), Some("r-1"));
        assert!(queue.next_now().is_none());
    }

    #[tokio::test]
    async fn a_parent_that_is_gone_fails_the_step() {
        let (outbox, queue) = outbox();
        drop(queue);
        let error = Journal::new(outbox).step("any", async |_| Ok(())).await.unwrap_err();
        assert_eq!((error.step, error.reason), ("any", FailureReason::ParentUnreachable));
    }
}
