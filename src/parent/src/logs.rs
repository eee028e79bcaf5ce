use std::io::Write as _;

use api::control::LogLine;
use serde_json::{Map, Value};

/// Writes a line of the enclave's log to stderr, as one line of JSON that names its source.
///
/// The enclave has redacted it; it is redacted again, because this is where it leaves the machine.
pub(crate) fn forward(line: &LogLine) {
    let mut text = render(line);
    text.push('\n');
    // One write, so that lines of different tasks do not mix. A closed stderr is nobody's loss.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

fn render(line: &LogLine) -> String {
    let mut object = match serde_json::from_str(&line.line) {
        Ok(Value::Object(object)) => object,
        _ => Map::from_iter([("message".to_owned(), Value::from(line.line.clone()))]),
    };
    object.insert("source".to_owned(), line.source.clone().into());
    telemetry::redact(&Value::from(object).to_string()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(line: &str) -> Value {
        let text = render(&LogLine { source: "sign-service".to_owned(), line: line.to_owned() });
        assert!(!text.contains('\n'));
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_line_of_json_keeps_its_fields_and_gets_its_source() {
        let line = rendered(r#"{"level":"INFO","message":"hello","source":"parent"}"#);
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "hello");
        assert_eq!(line["source"], "sign-service");
    }

    #[test]
    fn anything_else_becomes_one_message() {
        assert_eq!(
            rendered("panicked at\n{\"source\":\"parent\"}")["message"],
            "panicked at\n{\"source\":\"parent\"}"
        );
        assert_eq!(rendered("[1]")["message"], "[1]");
    }

    #[test]
    fn a_secret_that_slipped_through_is_redacted_here() {
        let key = format!("AGE-SECRET-KEY-1{}", "Q".repeat(58));
        let line = rendered(&format!("{{\"message\":\"identity {key}\"}}"));
        assert!(!line.to_string().contains(&key), "{line}");
    }
}
