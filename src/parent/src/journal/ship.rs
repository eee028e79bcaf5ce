//! The loop: lines in, batches out, the cursor behind them.

use std::{
    mem,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sd_notify::NotifyState;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::{
    JournalError,
    batch::{Batch, Batcher},
    cursor::CursorFile,
    entry::Entry,
    event::Event,
    reader::Reader,
};
use crate::service_manager::{self, Watchdog};

/// After the order to stop: how long nothing has to come until what was written so far is read. journald tells readers of new
/// entries up to 250 ms late (`POST_CHANGE_TIMER_INTERVAL_USEC` in its source).
const QUIET: Duration = Duration::from_millis(750);
/// After the order to stop: how long is read at most.
const LAST_READS: Duration = Duration::from_secs(2);
/// A service manager tells all processes of a unit to end: `journalctl` may be faster. This long after its end the
/// order is waited for.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Takes batches.
pub(super) trait Sink {
    /// Returns when they are kept for good.
    async fn put(&self, events: Vec<Event>) -> Result<(), JournalError>;
}

/// Between the reader and the sink.
#[derive(Debug)]
pub(super) struct Shipper<S> {
    sink: S,
    reader: Reader,
    cursor_file: CursorFile,
    flush: Duration,
    batcher: Batcher,
    /// When the oldest event of the batch has waited long enough; `None` if there is no event.
    due: Option<Instant>,
    watchdog: Watchdog,
    /// Of the entry before, Unix time in milliseconds.
    last_time: Option<i64>,
}

impl<S: Sink> Shipper<S> {
    pub(super) fn new(
        sink: S,
        reader: Reader,
        cursor_file: CursorFile,
        flush: Duration,
        watchdog: Watchdog,
    ) -> Self {
        let batcher = Batcher::default();
        Self { sink, reader, cursor_file, flush, batcher, due: None, watchdog, last_time: None }
    }

    /// Until `stop`, or until something fails.
    pub(super) async fn run(
        mut self,
        mut stop: impl Future<Output = ()> + Unpin,
    ) -> Result<(), JournalError> {
        loop {
            let due = self.due;
            tokio::select! {
                biased;
                // Before a line: there may be lines for as long as it takes to send them.
                () = &mut stop => break,
                () = self.watchdog.ping() => {}
                line = self.reader.next() => match line? {
                    Some(line) => self.take(&line).await?,
                    None if timeout(STOP_GRACE, &mut stop).await.is_ok() => break,
                    None => {
                        self.flush().await?;
                        return Err(self.reader.ended().await);
                    }
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.flush().await?,
            }
        }
        service_manager::tell(&[NotifyState::Stopping]);
        let end = Instant::now() + LAST_READS;
        // The first condition is not idle: a wait whose time is over still returns a line that is there.
        while Instant::now() < end
            && let Ok(Ok(Some(line))) = timeout_at(end.min(Instant::now() + QUIET), self.reader.next()).await
        {
            self.take(&line).await?;
        }
        self.flush().await
    }

    async fn take(&mut self, line: &[u8]) -> Result<(), JournalError> {
        let (event, cursor) = match Entry::read(line) {
            Ok(entry) => (Event::of(&entry), Some(entry.cursor)),
            // Beside its neighbours, as far as there are any.
            Err(error) => (Event::unreadable(line, &error, self.last_time.unwrap_or_else(unix_ms)), None),
        };
        self.last_time = Some(event.unix_ms);
        if let Some(full) = self.batcher.add(event, cursor) {
            self.due = None;
            self.send(full).await?;
        }
        self.due.get_or_insert_with(|| Instant::now() + self.flush);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), JournalError> {
        self.due = None;
        match self.batcher.take() {
            Some(batch) => self.send(batch).await,
            None => Ok(()),
        }
    }

    /// The cursor is written when the batch is acknowledged, not before: what is sent twice does less harm than what is
    /// never sent.
    async fn send(&mut self, mut batch: Batch) -> Result<(), JournalError> {
        self.watchdog.during(self.sink.put(mem::take(&mut batch.events))).await?;
        match &batch.cursor {
            Some(cursor) => self.cursor_file.write(cursor),
            None => Ok(()),
        }
    }
}

/// Now, Unix time in milliseconds.
fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
