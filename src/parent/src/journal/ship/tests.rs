use std::{
    fs,
    future::pending,
    path::PathBuf,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
};

use tokio::time::sleep;

use super::*;
use crate::journal::testing::shell;

const FLUSH: Duration = Duration::from_millis(200);

/// A put, and what the cursor file said at that time.
type Put = (Vec<Event>, Option<String>);

/// Keeps what it is sent.
#[derive(Debug, Clone)]
struct Kept {
    puts: Arc<Mutex<Vec<Put>>>,
    cursor: PathBuf,
    takes: Duration,
    refuses: bool,
}

impl Sink for Kept {
    async fn put(&self, events: Vec<Event>) -> Result<(), JournalError> {
        self.puts.lock().unwrap().push((events, fs::read_to_string(&self.cursor).ok()));
        sleep(self.takes).await;
        if self.refuses {
            return Err(JournalError::InstanceId { problem: "refused by the test".to_owned() });
        }
        Ok(())
    }
}

struct World {
    _directory: tempfile::TempDir,
    kept: Kept,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cursor = directory.path().join("cursor");
        let kept = Kept { puts: Arc::default(), cursor, takes: Duration::ZERO, refuses: false };
        Self { kept, _directory: directory }
    }

    fn cursor(&self) -> Option<String> {
        fs::read_to_string(&self.kept.cursor).ok()
    }

    /// Ships what the script prints.
    async fn run(&self, script: &str, stop: Pin<&mut dyn Future<Output = ()>>) -> Result<(), JournalError> {
        let config = shell(script, &[]);
        let (cursor_file, cursor) = CursorFile::open(&self.kept.cursor).unwrap();
        let reader = Reader::start(&config, cursor.as_deref()).await.unwrap();
        let watchdog = Watchdog::from_environment();
        Shipper::new(self.kept.clone(), reader, cursor_file, FLUSH, watchdog).run(stop).await
    }

    /// The messages of each put.
    fn puts(&self) -> Vec<Vec<String>> {
        let message = |event: &Event| {
            let message: serde_json::Value = serde_json::from_str(&event.message).unwrap();
            message["message"].as_str().unwrap().to_owned()
        };
        self.kept
            .puts
            .lock()
            .unwrap()
            .iter()
            .map(|(events, _)| events.iter().map(message).collect())
            .collect()
    }
}

/// An entry.
fn line(number: u32) -> String {
    format!(
        r#"{{"__CURSOR":"s=1;i={number}","__REALTIME_TIMESTAMP":"178900000000{number}000","MESSAGE":"m{number}"}}"#
    )
}

/// A shell command that prints an entry.
fn entry(number: u32) -> String {
    format!("echo '{}'; ", line(number))
}

#[tokio::test]
async fn entries_are_sent_together_when_the_first_has_waited_and_the_cursor_is_written_afterwards() {
    let world = World::new();
    let script = [&entry(1), &entry(2), "sleep 0.7; ", &entry(3), "sleep 1000"].concat();
    world.run(&script, pin!(sleep(Duration::from_millis(1500)))).await.unwrap();
    assert_eq!(world.puts(), [vec!["m1", "m2"], vec!["m3"]]);
    let before: Vec<_> = world.kept.puts.lock().unwrap().iter().map(|(_, cursor)| cursor.clone()).collect();
    assert_eq!(before, [None, Some("s=1;i=2\n".to_owned())]);
    assert_eq!(world.cursor().as_deref(), Some("s=1;i=3\n"));
}

#[tokio::test]
async fn the_order_to_stop_sends_what_was_written_before_it() {
    let world = World::new();
    let script = [&entry(1), "sleep 1000"].concat();
    // Before the time to flush.
    let started = Instant::now();
    world.run(&script, pin!(sleep(FLUSH / 4))).await.unwrap();
    assert_eq!(world.puts(), [vec!["m1"]]);
    assert!(started.elapsed() < LAST_READS);
    assert_eq!(world.cursor().as_deref(), Some("s=1;i=1\n"));
}

#[tokio::test]
async fn a_journal_that_never_falls_silent_does_not_delay_the_stop_for_long() {
    let world = World::new();
    let script = ["while :; do ", &entry(1), "sleep 0.01; done"].concat();
    let started = Instant::now();
    world.run(&script, pin!(sleep(Duration::from_millis(100)))).await.unwrap();
    assert!(started.elapsed() < LAST_READS + Duration::from_secs(2), "{:?}", started.elapsed());
}

/// Each batch is full, and taken slowly: there is always another line.
#[tokio::test]
async fn a_journal_that_is_longer_than_the_time_to_stop_is_left_to_the_next_start() {
    let mut world = World::new();
    world.kept.takes = LAST_READS / 2;
    let file = world.kept.cursor.with_extension("lines");
    fs::write(&file, format!("{}\n", line(1)).repeat(200_000)).unwrap();
    let script = format!("cat {}; sleep 1000", file.display());
    let stopped = timeout(Duration::from_secs(20), world.run(&script, pin!(sleep(FLUSH)))).await;
    // The batch that was on its way, two in the time for reading, the one that outlasts it, and the last one.
    let batches = world.puts().len();
    assert!(stopped.is_ok_and(|end| end.is_ok()) && batches <= 5, "it read on for {batches} batches");
}

#[tokio::test]
async fn an_end_of_journalctl_is_an_error_after_what_it_printed_was_sent() {
    let world = World::new();
    let script = [&entry(1), "echo 'No journal files were found.' >&2; exit 1"].concat();
    let error = world.run(&script, pin!(pending())).await.unwrap_err();
    assert_eq!(error.to_string(), "sh ended (exit status: 1): No journal files were found.");
    assert_eq!(world.puts(), [vec!["m1"]]);
    assert_eq!(world.cursor().as_deref(), Some("s=1;i=1\n"));
}

#[tokio::test]
async fn a_journalctl_that_was_told_to_stop_first_is_no_error() {
    let world = World::new();
    world.run(&entry(1), pin!(sleep(Duration::from_millis(500)))).await.unwrap();
    assert_eq!(world.puts(), [vec!["m1"]]);
}

#[tokio::test]
async fn what_was_not_acknowledged_is_not_behind_the_cursor() {
    let mut world = World::new();
    fs::write(&world.kept.cursor, "s=1;i=0\n").unwrap();
    world.kept.refuses = true;
    let script = format!("case \"$*\" in *--follow*) {} sleep 1000 ;; *) {} esac", entry(1), entry(0));
    let error = world.run(&script, pin!(pending())).await.unwrap_err();
    assert!(error.to_string().contains("refused by the test"), "{error}");
    assert_eq!(world.puts(), [vec!["m1"]]);
    assert_eq!(world.cursor().as_deref(), Some("s=1;i=0\n"));
}

#[tokio::test]
async fn a_line_that_is_no_entry_is_sent_and_leaves_the_cursor() {
    let world = World::new();
    let script = [&entry(1), "echo '-- Boot --'; sleep 1000"].concat();
    world.run(&script, pin!(sleep(Duration::from_millis(500)))).await.unwrap();
    assert_eq!(world.puts(), [vec!["m1", "-- Boot --"]]);
    assert_eq!(world.cursor().as_deref(), Some("s=1;i=1\n"));
}
