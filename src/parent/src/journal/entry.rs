//! One line of `journalctl --output=json` (systemd.io/JOURNAL_EXPORT_FORMATS, "Journal JSON Format").

use serde_json::{Map, Value};

/// What is shipped of an entry: the fields that `journalctl` is asked for. Cursor and time it always prints.
pub(super) const FIELDS: [&str; 5] =
    ["MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "_HOSTNAME", "_SYSTEMD_UNIT"];

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where in the journal it is.
    pub(super) cursor: String,
    /// When journald took it, Unix time, milliseconds.
    pub(super) unix_ms: i64,
    /// Its text; empty if it has none.
    pub(super) message: String,
    /// The systemd unit it is from, or what its sender calls itself (the kernel has no unit).
    pub(super) unit: Option<String>,
    /// As of syslog: 0 (emergency) to 7 (debug).
    pub(super) priority: Option<u8>,
    /// Name of the machine.
    pub(super) host: Option<String>,
}

/// Why a line is no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum EntryError {
    /// Not JSON, or not an object.
    #[error("not a JSON object")]
    NotAnObject,
    /// Every entry has these.
    #[error("no usable {0}")]
    Missing(&'static str),
}

impl Entry {
    /// Reads a line, which need not be UTF-8.
    pub(super) fn read(line: &[u8]) -> Result<Self, EntryError> {
        let fields: Map<String, Value> = serde_json::from_slice(line).map_err(|_| EntryError::NotAnObject)?;
        let text = |name: &str| fields.get(name).and_then(text).filter(|text| !text.is_empty());
        let cursor = text("__CURSOR").filter(|cursor| super::cursor::is_cursor(cursor));
        let realtime = text("__REALTIME_TIMESTAMP").and_then(|micros| micros.parse::<i64>().ok());
        Ok(Self {
            cursor: cursor.ok_or(EntryError::Missing("__CURSOR"))?,
            unix_ms: realtime
                .filter(|micros| *micros >= 0)
                .ok_or(EntryError::Missing("__REALTIME_TIMESTAMP"))?
                / 1000,
            message: text("MESSAGE").unwrap_or_default(),
            unit: text("_SYSTEMD_UNIT").or_else(|| text("SYSLOG_IDENTIFIER")),
            priority: text("PRIORITY").and_then(|number| number.parse().ok()).filter(|number| *number <= 7),
            host: text("_HOSTNAME"),
        })
    }
}

/// The text of a field. It is a string; or `null` if journalctl left it out for its length; or an array: of its bytes if
/// they are not printable UTF-8 (a colour code is enough), otherwise of the values of a field that occurs several times.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Array(values) => match bytes(values) {
            Some(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            None => Some(values.iter().filter_map(text).collect::<Vec<_>>().join("\n")),
        },
        Value::Null | Value::Bool(_) | Value::Object(_) => None,
    }
}

fn bytes(values: &[Value]) -> Option<Vec<u8>> {
    values.iter().map(|value| value.as_u64().and_then(|byte| u8::try_from(byte).ok())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURSOR: &str = "s=06;i=1;b=8a;m=5a;t=5f;x=bf";

    fn read(fields: &str) -> Entry {
        let line = format!(r#"{{"__CURSOR":"{CURSOR}","__REALTIME_TIMESTAMP":"1789000000123456",{fields}}}"#);
        Entry::read(line.as_bytes()).unwrap()
    }

    #[test]
    fn an_entry_of_a_unit_is_read_with_its_time_in_milliseconds() {
        let entry = read(
            r#""MESSAGE":"ready","PRIORITY":"6","_HOSTNAME":"parent","_SYSTEMD_UNIT":"a.service","SYSLOG_IDENTIFIER":"b""#,
        );
        let expected = Entry {
            cursor: CURSOR.to_owned(),
            unix_ms: 1_789_000_000_123,
            message: "ready".to_owned(),
            unit: Some("a.service".to_owned()),
            priority: Some(6),
            host: Some("parent".to_owned()),
        };
        assert_eq!(entry, expected);
    }

    #[test]
    fn what_has_no_unit_is_named_by_its_syslog_identifier() {
        let entry = read(r#""MESSAGE":"Linux version","SYSLOG_IDENTIFIER":"kernel","_TRANSPORT":"kernel""#);
        assert_eq!(entry.unit.as_deref(), Some("kernel"));
        assert_eq!((entry.priority, entry.host), (None, None));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced_and_the_rest_is_kept() {
        assert_eq!(read(r#""MESSAGE":[27,91,49,109,104,105,255]"#).message, "\u{1b}[1mhi\u{fffd}");
    }

    #[test]
    fn a_field_that_occurs_several_times_has_a_line_for_each() {
        assert_eq!(read(r#""MESSAGE":["one",[116,119,111,255],null]"#).message, "one\ntwo\u{fffd}");
    }

    #[test]
    fn a_message_that_is_missing_null_or_empty_is_empty() {
        for fields in [r#""PRIORITY":"6""#, r#""MESSAGE":null"#, r#""MESSAGE":"""#, r#""MESSAGE":[]"#] {
            assert_eq!(read(fields).message, "", "{fields}");
        }
    }

    #[test]
    fn a_priority_that_syslog_does_not_know_is_none() {
        for priority in [r#""8""#, r#""-1""#, r#""info""#, "null", r#""""#] {
            assert_eq!(read(&format!(r#""PRIORITY":{priority}"#)).priority, None, "{priority}");
        }
    }

    #[test]
    fn a_line_that_is_no_entry_is_refused_with_what_it_lacks() {
        let refused = |line: &str| Entry::read(line.as_bytes()).unwrap_err();
        for line in ["", "-- No entries --", "[]", "{", r#"{"a":1"#] {
            assert_eq!(refused(line), EntryError::NotAnObject, "{line}");
        }
        assert_eq!(refused(r#"{"__REALTIME_TIMESTAMP":"1"}"#), EntryError::Missing("__CURSOR"));
        let nonsense = r#"{"__CURSOR":"--file=x","__REALTIME_TIMESTAMP":"1"}"#;
        assert_eq!(refused(nonsense), EntryError::Missing("__CURSOR"));
        for time in ["-1", "soon", "99999999999999999999"] {
            let line = format!(r#"{{"__CURSOR":"{CURSOR}","__REALTIME_TIMESTAMP":"{time}"}}"#);
            assert_eq!(refused(&line), EntryError::Missing("__REALTIME_TIMESTAMP"), "{time}");
        }
        assert_eq!(Entry::read(b"\xff"), Err(EntryError::NotAnObject));
    }
}
