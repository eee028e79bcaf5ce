//! What CloudWatch gets for an entry: one JSON object as text.

use serde_json::{Map, Value};

use super::entry::{Entry, EntryError};

/// Longest message of an event, bytes: 1 MiB less what each event counts for besides (Amazon CloudWatch Logs API
/// reference, PutLogEvents: "Each log event can be no larger than 1 MB").
pub(super) const MAX_MESSAGE: usize = (1 << 20) - EVENT_OVERHEAD;
/// What an event counts for besides its message, bytes (the same page: "plus 26 bytes for each log event").
pub(super) const EVENT_OVERHEAD: usize = 26;
/// Longest text of an entry that is shipped whole, bytes: what CloudWatch takes whatever is in it, see below. What programs
/// write to their standard output journald cuts at 48 KiB (journald.conf(5), `LineMax=`).
const MAX_TEXT: usize = 160 << 10;
/// Longest name of a unit or host that is shipped, bytes: systemd's own are at most 255 (systemd.unit(5)), others are what
/// a program calls itself.
const MAX_NAME: usize = 256;
/// In JSON a byte takes at most six (`\u001b`), and what redaction puts in place of a shorter secret takes less than that.
/// The rest is for the two names and the keys.
const _: () = assert!(6 * (MAX_TEXT + 2 * MAX_NAME) + 1024 <= MAX_MESSAGE);

/// The keys that are added to a message.
const UNIT: &str = "unit";
const PRIORITY: &str = "priority";
const HOST: &str = "host";

/// An event as CloudWatch takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Unix time, milliseconds.
    pub(super) unix_ms: i64,
    /// UTF-8, 2 bytes to [`MAX_MESSAGE`].
    pub(super) message: String,
}

impl Event {
    /// A message that is itself a JSON object, as the log lines of this workspace's programs are, keeps its fields; any
    /// other becomes the field `message`. So does an object that has one of the keys that are added: what says where an
    /// entry is from is journald's word, not the program's.
    pub(super) fn of(entry: &Entry) -> Self {
        let mut origin = Map::new();
        let names = [(UNIT, &entry.unit), (HOST, &entry.host)];
        for (key, name) in names.into_iter().filter_map(|(key, name)| Some((key, name.as_ref()?))) {
            origin.insert(key.to_owned(), telemetry::redact(cut(name, MAX_NAME)).into());
        }
        if let Some(priority) = entry.priority {
            origin.insert(PRIORITY.to_owned(), priority.into());
        }
        Self { unix_ms: entry.unix_ms, message: render(&entry.message, origin) }
    }

    /// For a line of `journalctl` that is no entry, so that nothing is lost for its sake: but for what begins an array of
    /// bytes, as whose numbers a secret would not be seen.
    pub(super) fn unreadable(line: &[u8], why: &EntryError, unix_ms: i64) -> Self {
        let line = String::from_utf8_lossy(line);
        let mut note = Map::from_iter([("unreadable".to_owned(), why.to_string().into())]);
        let (text, array) = line.split_once("\":[").unwrap_or((&line, ""));
        if !array.is_empty() {
            note.insert("left_out_bytes".to_owned(), array.len().into());
        }
        Self { unix_ms, message: render(text, note) }
    }

    /// What it counts for in a batch, bytes.
    pub(super) fn size(&self) -> usize {
        self.message.len() + EVENT_OVERHEAD
    }
}

fn render(text: &str, mut added: Map<String, Value>) -> String {
    let whole = cut(text, MAX_TEXT);
    let is_cut = whole.len() < text.len();
    // After the cut: an unfinished secret is redacted to its end.
    let redacted = telemetry::redact(whole);
    if let Some(fields) = fields(&redacted).filter(|_| !is_cut) {
        // Not read and written again: numbers and the order of the fields stay as they are.
        let added = Value::Object(added).to_string();
        let between = if fields.is_empty() || added == "{}" { "" } else { "," };
        return ["{", fields, between, &added[1..]].concat();
    }
    if is_cut {
        added.insert("cut_from_bytes".to_owned(), text.len().into());
    }
    added.insert("message".to_owned(), redacted.into());
    Value::Object(added).to_string()
}

/// What is between the braces, if the text is a JSON object without the keys that are added.
fn fields(text: &str) -> Option<&str> {
    let text = text.trim();
    let inner = text.strip_prefix('{')?.strip_suffix('}')?.trim();
    let object: Map<String, Value> = serde_json::from_str(text).ok()?;
    [UNIT, PRIORITY, HOST].iter().all(|key| !object.contains_key(*key)).then_some(inner)
}

/// The text, or as much of it as fits.
fn cut(text: &str, length: usize) -> &str {
    &text[..text.floor_char_boundary(length)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(message: &str) -> Entry {
        Entry {
            cursor: "s=1".to_owned(),
            unix_ms: 1_789_000_000_123,
            message: message.to_owned(),
            unit: Some("nitro-sign-parent.service".to_owned()),
            priority: Some(6),
            host: Some("parent".to_owned()),
        }
    }

    fn message(text: &str) -> Value {
        let event = Event::of(&entry(text));
        assert!(event.size() <= 1 << 20, "{}", event.size());
        serde_json::from_str(&event.message).unwrap()
    }

    #[test]
    fn a_text_becomes_a_message_with_where_it_is_from() {
        let event = Event::of(&entry("Started \"it\"\n"));
        assert_eq!(event.unix_ms, 1_789_000_000_123);
        assert_eq!(
            event.message,
            r#"{"host":"parent","message":"Started \"it\"\n","priority":6,"unit":"nitro-sign-parent.service"}"#
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let entry = Entry { unit: None, priority: None, host: None, ..entry("x") };
        assert_eq!(Event::of(&entry).message, r#"{"message":"x"}"#);
        let entry = Entry { message: r#"{"a":1}"#.to_owned(), ..entry };
        assert_eq!(Event::of(&entry).message, r#"{"a":1}"#);
    }

    #[test]
    fn a_message_that_is_json_keeps_its_fields_as_they_are() {
        let line = r#" {"source":"parent","n":1.10000000000000000001,"fields":{"unit":"x"}} "#;
        assert_eq!(
            Event::of(&entry(line)).message,
            r#"{"source":"parent","n":1.10000000000000000001,"fields":{"unit":"x"},"host":"parent","priority":6,"unit":"nitro-sign-parent.service"}"#
        );
        assert_eq!(
            Event::of(&entry("{ }")).message,
            r#"{"host":"parent","priority":6,"unit":"nitro-sign-parent.service"}"#
        );
    }

    #[test]
    fn a_program_cannot_say_that_another_one_wrote_its_line() {
        for key in ["unit", "priority", "host", r"un\u0069t"] {
            let line = format!(r#"{{"{key}":"another"}}"#);
            let message = message(&line);
            assert_eq!(message["message"], line);
            assert_eq!(message["unit"], "nitro-sign-parent.service");
            assert_eq!((&message["priority"], &message["host"]), (&6.into(), &"parent".into()));
        }
    }

    #[test]
    fn json_that_is_no_object_is_a_text() {
        for line in ["", "1", "[1]", r#"{"a":1"#, r#"{"a":1} {"b":2}"#, "{\"a\":\"\u{1b}\"}", "{'a':1}", "}{"]
        {
            assert_eq!(message(line)["message"], line);
        }
    }

    #[test]
    fn secrets_are_redacted_in_every_part() {
        let secret = "AGE-SECRET-KEY-1QQPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQ";
        let wrapped = format!(r#"{{"message":"got {secret}","session_token":"abc"}}"#);
        for text in [secret, &wrapped, &format!("a\n{secret}"), "x secret_access_key=abc"] {
            let entry = Entry { unit: Some(secret.to_owned()), host: Some(secret.to_owned()), ..entry(text) };
            let message = Event::of(&entry).message;
            assert!(message.contains(telemetry::REDACTED), "{message}");
            assert!(!message.contains("SECRET-KEY-1") && !message.contains("abc"), "{message}");
            assert!(serde_json::from_str::<Value>(&message).is_ok(), "{message}");
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_at_a_character_and_says_so() {
        let long = format!("a{}", "é".repeat(MAX_TEXT));
        let message = message(&long);
        assert_eq!(message["cut_from_bytes"], 2 * MAX_TEXT + 1);
        let text = message["message"].as_str().unwrap();
        assert_eq!(text.len(), MAX_TEXT - 1);
        assert!(long.starts_with(text));
    }

    #[test]
    fn json_that_is_too_long_is_a_text_that_was_cut() {
        let long = format!(r#"{{"a":"{}"}}"#, "é".repeat(MAX_TEXT));
        let message = message(&long);
        assert_eq!(message["cut_from_bytes"], long.len());
        assert!(message["message"].as_str().unwrap().starts_with(r#"{"a":"é"#));
        assert_eq!(message["unit"], "nitro-sign-parent.service");
    }

    #[test]
    fn a_text_of_the_greatest_length_is_whole_and_fits_whatever_is_in_it() {
        for part in ["\u{1}", "\"", "é", "share=1 -----,", "\"share\":1 -----,"] {
            let text = part.repeat(MAX_TEXT / part.len());
            let message = message(&text);
            assert_eq!(message.get("cut_from_bytes"), None, "{part}");
            assert!(message["message"].as_str().unwrap().len() >= text.len(), "{part}");
        }
    }

    #[test]
    fn a_secret_that_the_cut_ends_is_redacted() {
        let text = format!("{}secret=\"{}\"", "é".repeat(MAX_TEXT / 2 - 10), "0123456789abcdef".repeat(4));
        let message = message(&text);
        assert!(message["message"].as_str().unwrap().ends_with("secret=\"[redacted]"), "{message}");
    }

    #[test]
    fn a_long_name_is_cut() {
        let entry = Entry { unit: Some("é".repeat(1000)), ..entry("x") };
        let message: Value = serde_json::from_str(&Event::of(&entry).message).unwrap();
        assert_eq!(message["unit"].as_str().unwrap().len(), MAX_NAME);
    }

    #[test]
    fn a_line_that_is_no_entry_is_shipped_with_what_is_wrong_with_it() {
        let event = Event::unreadable(b"-- Reboot \xff secret=abc --", &EntryError::NotAnObject, 7);
        assert_eq!(event.unix_ms, 7);
        assert_eq!(
            event.message,
            "{\"message\":\"-- Reboot \u{fffd} secret=[redacted] --\",\"unreadable\":\"not a JSON object\"}"
        );
    }

    #[test]
    fn bytes_of_a_line_that_was_cut_are_not_shipped_undecoded() {
        let secret: Vec<String> = b"secret=abc".iter().map(u8::to_string).collect();
        let line = format!(r#"{{"__CURSOR":"s=1","MESSAGE":[{}"#, secret.join(","));
        let event = Event::unreadable(line.as_bytes(), &EntryError::NotAnObject, 7);
        let message: Value = serde_json::from_str(&event.message).unwrap();
        assert_eq!(message["message"], "{\"__CURSOR\":\"s=1\",\"MESSAGE");
        assert_eq!(message["left_out_bytes"], secret.join(",").len());
    }
}
