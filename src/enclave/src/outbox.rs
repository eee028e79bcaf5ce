use api::control::{EnclaveMessage, FailureReason, LogLine, enclave_message::Message};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};

use crate::error::BootError;

/// Messages that may wait for the parent to read them.
const CAPACITY: usize = 1024;
/// Part of them that log lines may not take.
const RESERVED: usize = 256;
/// Longest log line, bytes; longer ones are cut.
const MAX_LINE_BYTES: usize = 8 << 10;

/// What goes up to the parent. Nothing here ever waits for the parent: one that does not read loses log lines first, and
/// then its enclave.
#[derive(Clone)]
pub(crate) struct Outbox(mpsc::Sender<Option<EnclaveMessage>>);

/// The other end of the [`Outbox`]: what the control channel sends.
pub(crate) struct Queue(mpsc::Receiver<Option<EnclaveMessage>>);

/// A new outbox and its queue. Messages can be put in before the parent is connected.
pub(crate) fn outbox() -> (Outbox, Queue) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    (Outbox(sender), Queue(receiver))
}

impl Outbox {
    pub(crate) fn send(&self, message: Message) -> Result<(), BootError> {
        self.0.try_send(Some(EnclaveMessage { message: Some(message) })).map_err(|error| {
            let problem = match error {
                mpsc::error::TrySendError::Full(_) => "the parent does not read the control channel",
                mpsc::error::TrySendError::Closed(_) => "the control channel is closed",
            };
            BootError::new(FailureReason::ParentUnreachable, problem)
        })
    }

    /// Sends one line of a log, redacted, if there is room.
    pub(crate) fn log(&self, source: &str, line: &str) {
        if self.0.capacity() <= RESERVED {
            return;
        }
        let line = telemetry::redact(cut(line)).into_owned();
        // A log line that cannot be sent has nowhere else to go.
        let _ = self.send(Message::Log(LogLine { source: source.to_owned(), line }));
    }

    /// Ends the stream to the parent after what is already queued.
    pub(crate) fn close(&self) {
        // Fails only if the stream is already closed, or so full that the parent is not reading anyway.
        let _ = self.0.try_send(None);
    }
}

impl Queue {
    /// The messages in order, up to [`Outbox::close`].
    pub(crate) fn into_stream(self) -> impl Stream<Item = EnclaveMessage> + Send + 'static {
        ReceiverStream::new(self.0).map_while(|message| message)
    }

    #[cfg(test)]
    pub(crate) fn next_now(&mut self) -> Option<Message> {
        self.0.try_recv().ok().flatten()?.message
    }
}

fn cut(line: &str) -> &str {
    &line[..line.floor_char_boundary(MAX_LINE_BYTES)]
}

#[cfg(test)]
mod tests {
    use api::control::Ready;

    use super::*;

    #[test]
    fn log_lines_leave_room_for_what_matters() {
        let (outbox, _queue) = outbox();
        for _ in 0..CAPACITY * 2 {
            outbox.log("enclave", "line");
        }
        for _ in 0..RESERVED {
            outbox.send(Message::Ready(Ready::default())).unwrap();
        }
        let error = outbox.send(Message::Ready(Ready::default())).unwrap_err();
        assert_eq!(error.reason, FailureReason::ParentUnreachable);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let (outbox, mut queue) = outbox();
        outbox.log("sign-service", &"é".repeat(MAX_LINE_BYTES));
        match queue.next_now() {
            Some(Message::Log(log)) => {
                assert_eq!(log.source, "sign-service");
                assert!(log.line.chars().all(|c| c == 'é') && log.line.len() == MAX_LINE_BYTES);
            }
            other => panic!("expected a log line, got {other:?}"),
        }
    }

    #[tokio::test]
    async fn the_stream_ends_after_what_was_queued_before_closing() {
        let (outbox, queue) = outbox();
        outbox.send(Message::Ready(Ready::default())).unwrap();
        outbox.close();
        assert_eq!(queue.into_stream().collect::<Vec<_>>().await.len(), 1);
    }
}
