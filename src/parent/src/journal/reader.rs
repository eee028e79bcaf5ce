//! `journalctl` as a child process: the lines it prints.

use std::{env, io, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
    time::{Duration, timeout},
};

use super::{
    JournalConfig, JournalError,
    entry::{Entry, FIELDS},
};
use crate::backend::{Console, die_with_this_process};

/// Longest line, bytes; the rest of a longer one is dropped, and it cannot be read as an entry. This is enough for any
/// message of 1 MiB, written as an array of bytes.
const MAX_LINE: usize = 8 << 20;
/// How many of its last lines on standard error explain its end.
const LAST_WORDS: usize = 5;
/// How long its end may take once it has closed its standard output.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// All that it inherits of the environment, which may hold credentials: where programs and time zones are.
const ENVIRONMENT: [&str; 2] = ["PATH", "TZDIR"];

/// A running `journalctl`. It is killed when this is dropped, and when this process ends.
#[derive(Debug)]
pub(super) struct Reader {
    program: String,
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: Option<Console>,
    line: Vec<u8>,
    /// Cursor of the entry that is printed first, and was read before.
    seen: Option<String>,
}

impl Reader {
    /// Starts it: after the entry with this cursor, or at the journal's first entry.
    ///
    /// Without that entry, which a reboot takes from a journal in memory and rotation from any, what is after it would be
    /// a guess of `journalctl` from the clock of then, so all that is there is read.
    pub(super) async fn start(config: &JournalConfig, cursor: Option<&str>) -> Result<Self, JournalError> {
        let seen = match cursor {
            Some(cursor) if has_entry(config, cursor).await? => Some(cursor.to_owned()),
            Some(cursor) => {
                let message =
                    "the entry shipped last is not in the journal any more; shipping all that is there";
                tracing::warn!(cursor, "{message}");
                None
            }
            None => None,
        };
        let program = config.program().to_owned();
        let mut command = journalctl(config);
        command
            // `--follow` alone shows this boot's entries, and the last words before a reboot would never leave: `--merge` is
            // what undoes that in every version (systemd 252 does not let `--boot=all` do it). `--no-tail`: not the last ten
            // entries only. `--all`: messages of any length.
            .args(["--follow", "--no-tail", "--all"])
            .arg(format!("--output-fields={}", FIELDS.join(",")))
            // Not `--after-cursor`: that skips an entry without looking whether it is the one.
            .args(seen.iter().map(|cursor| format!("--cursor={cursor}")))
            .args(config.units.iter().map(|unit| format!("--unit={unit}")));
        let failed = |source| JournalError::Start { program: program.clone(), source };
        let mut child = command.spawn().map_err(failed)?;
        let stdout = child.stdout.take().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        // What it prints there is about a journal that it cannot read, or not all of it.
        let stderr = child.stderr.take().map(|output| {
            Console::read(BufReader::new(output), LAST_WORDS, |line| tracing::warn!(line, "journalctl"))
        });
        Ok(Self { program, child, stdout: BufReader::new(stdout), stderr, line: Vec::new(), seen })
    }

    /// The next line without its end, and of a longer one the first [`MAX_LINE`] bytes; `None` at the end. May be
    /// cancelled.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, JournalError> {
        let line = self.next_line().await?;
        match (&line, self.seen.take()) {
            (Some(first), Some(seen)) if is_at(first, &seen) => self.next_line().await,
            _ => Ok(line),
        }
    }

    async fn next_line(&mut self) -> Result<Option<Vec<u8>>, JournalError> {
        loop {
            let available = self.stdout.fill_buf().await.map_err(|source| JournalError::Ended {
                program: self.program.clone(),
                problem: format!("cannot be read from: {source}"),
            })?;
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            let room = MAX_LINE - self.line.len();
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            let is_end = available.is_empty();
            let consumed = part.len() + usize::from(end.is_some());
            self.stdout.consume(consumed);
            // What has no end was being written when the program ended: it is still in the journal.
            if is_end {
                return Ok(None);
            }
            if end.is_some() {
                return Ok(Some(std::mem::take(&mut self.line)));
            }
        }
    }

    /// Why it has ended, once it has.
    pub(super) async fn ended(mut self) -> JournalError {
        let how = match timeout(END_TIMEOUT, self.child.wait()).await {
            Ok(Ok(status)) => format!("ended ({status})"),
            Ok(Err(error)) => format!("ended ({error})"),
            Err(_) => "closed its standard output".to_owned(),
        };
        let last = match &mut self.stderr {
            Some(console) => console.last_lines().await,
            None => String::new(),
        };
        let problem = if last.is_empty() { how } else { format!("{how}: {last}") };
        JournalError::Ended { program: self.program, problem }
    }
}

/// The command line that the two runs have in common: entries of all boots as lines of JSON.
fn journalctl(config: &JournalConfig) -> Command {
    let mut command = Command::new(config.program());
    command
        .args(config.journalctl.iter().skip(1))
        .args(["--merge", "--output=json"])
        .env_clear()
        .envs(ENVIRONMENT.into_iter().filter_map(|name| Some((name, env::var_os(name)?))))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    die_with_this_process(&mut command);
    command
}

/// Is the entry with this cursor in the journal, of whichever unit it is? `journalctl` shows the one nearest to the cursor.
async fn has_entry(config: &JournalConfig, cursor: &str) -> Result<bool, JournalError> {
    let program = || config.program().to_owned();
    let mut command = journalctl(config);
    command.args(["--lines=1", "--output-fields=PRIORITY"]).arg(format!("--cursor={cursor}"));
    let output =
        command.output().await.map_err(|source| JournalError::Start { program: program(), source })?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let problem = format!("ended ({}): {}", output.status, telemetry::redact(words.trim()));
        return Err(JournalError::Ended { program: program(), problem });
    }
    Ok(output.stdout.split(|byte| *byte == b'\n').next().is_some_and(|line| is_at(line, cursor)))
}

/// Is this line the entry with this cursor?
fn is_at(line: &[u8], cursor: &str) -> bool {
    Entry::read(line).is_ok_and(|entry| entry.cursor == cursor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::testing::shell;

    async fn lines(reader: &mut Reader) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = reader.next().await.unwrap() {
            lines.push(String::from_utf8(line).unwrap());
        }
        lines
    }

    const CURSOR: &str = "s=1;i=2";

    /// Plays a `journalctl` that has these entries, and shows no other one for a cursor that is gone.
    fn journal(entries: &[&str]) -> String {
        let line = |cursor: &&str| format!(r#"{{"__CURSOR":"{cursor}","__REALTIME_TIMESTAMP":"1000"}}\n"#);
        let all: String = entries.iter().map(line).collect();
        let from: String = entries.iter().skip_while(|entry| **entry != CURSOR).map(line).collect();
        format!("case \"$*\" in *--cursor=*) printf '{from}' ;; *) printf '{all}' ;; esac")
    }

    #[tokio::test]
    async fn it_is_asked_for_all_entries_of_the_units() {
        let config = shell("printf '%s\\n' \"$@\"", &["a.service", "b.service"]);
        let mut reader = Reader::start(&config, None).await.unwrap();
        let expected = [
            "--merge",
            "--output=json",
            "--follow",
            "--no-tail",
            "--all",
            "--output-fields=MESSAGE,PRIORITY,SYSLOG_IDENTIFIER,_HOSTNAME,_SYSTEMD_UNIT",
            "--unit=a.service",
            "--unit=b.service",
        ];
        assert_eq!(lines(&mut reader).await, expected);
        let mut reader = Reader::start(&shell("printf '%s\\n' \"$@\"", &[]), None).await.unwrap();
        assert_eq!(lines(&mut reader).await, expected[..6]);
    }

    #[tokio::test]
    async fn it_goes_on_after_the_entry_with_the_cursor() {
        let config = shell(&journal(&["s=1;i=1", CURSOR, "s=1;i=3"]), &[]);
        let lines = lines(&mut Reader::start(&config, Some(CURSOR)).await.unwrap()).await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("s=1;i=3"), "{lines:?}");
    }

    #[tokio::test]
    async fn all_is_read_if_the_entry_with_the_cursor_is_gone() {
        let config = shell(&journal(&["s=2;i=1", "s=2;i=2"]), &[]);
        let lines = lines(&mut Reader::start(&config, Some(CURSOR)).await.unwrap()).await;
        assert_eq!(lines.len(), 2, "{lines:?}");
    }

    /// Entries of another unit than those that are asked for now.
    #[tokio::test]
    async fn nothing_is_skipped_if_the_first_entry_is_another_one() {
        let script = format!(
            "case \"$*\" in *--unit=*) {} ;; *) {} ;; esac",
            journal(&[CURSOR, "s=1;i=3"]).replace(CURSOR, "s=1;i=9"),
            journal(&[CURSOR])
        );
        let lines =
            lines(&mut Reader::start(&shell(&script, &["b.service"]), Some(CURSOR)).await.unwrap()).await;
        assert_eq!(lines.len(), 2, "{lines:?}");
    }

    #[tokio::test]
    async fn a_journal_that_cannot_be_asked_for_the_cursor_is_told_of() {
        let script = "echo 'No journal files were opened' >&2; exit 1";
        let error = Reader::start(&shell(script, &[]), Some(CURSOR)).await.unwrap_err().to_string();
        assert_eq!(error, "sh ended (exit status: 1): No journal files were opened");
    }

    #[tokio::test]
    async fn it_gets_no_variable_but_those_that_find_files() {
        let mut reader = Reader::start(&shell("env | sort", &[]), None).await.unwrap();
        let shells_own = ["PWD=", "_=", "SHLVL=", "OLDPWD="];
        for line in lines(&mut reader).await {
            let is_expected = line.starts_with("PATH=") || line.starts_with("TZDIR=");
            assert!(is_expected || shells_own.iter().any(|own| line.starts_with(own)), "{line}");
        }
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_cut_and_the_next_one_is_whole() {
        let script = "head -c 10000000 /dev/zero | tr '\\0' x; echo; echo next; printf unfinished";
        let mut reader = Reader::start(&shell(script, &[]), None).await.unwrap();
        assert!(reader.next().await.unwrap().unwrap() == vec![b'x'; MAX_LINE]);
        assert_eq!(reader.next().await.unwrap().unwrap(), b"next");
        assert_eq!(reader.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn nothing_of_a_line_is_lost_when_the_wait_for_its_end_is_given_up() {
        let mut reader =
            Reader::start(&shell("printf first; sleep 0.3; echo ' second'", &[]), None).await.unwrap();
        assert!(timeout(Duration::from_millis(100), reader.next()).await.is_err());
        assert_eq!(reader.next().await.unwrap().unwrap(), b"first second");
    }

    #[tokio::test]
    async fn an_end_is_explained_by_its_last_words() {
        let script = "echo 'Failed to seek to cursor: Invalid argument' >&2; exit 3";
        let mut reader = Reader::start(&shell(script, &[]), None).await.unwrap();
        assert_eq!(reader.next().await.unwrap(), None);
        let message = reader.ended().await.to_string();
        assert_eq!(message, "sh ended (exit status: 3): Failed to seek to cursor: Invalid argument");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let config =
            JournalConfig { journalctl: vec!["/nonexistent/journalctl".to_owned()], ..shell("", &[]) };
        let message = Reader::start(&config, None).await.unwrap_err().to_string();
        assert!(message.contains("/nonexistent/journalctl") && message.contains("`journalctl`"), "{message}");
    }

    #[tokio::test]
    async fn it_is_gone_when_the_reader_is_dropped() {
        let mut reader = Reader::start(&shell("echo $$; exec sleep 1000", &[]), None).await.unwrap();
        let pid: i32 = String::from_utf8(reader.next().await.unwrap().unwrap()).unwrap().parse().unwrap();
        drop(reader);
        let pid = nix::unistd::Pid::from_raw(pid);
        for _ in 0..100 {
            // The runtime collects it; until then it is a zombie, which can still be signalled.
            if nix::sys::signal::kill(pid, None).is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{pid} still runs");
    }
}
