//! Finds what looks like a secret in a line of text.

use std::borrow::Cow;

/// What stands in place of a secret.
pub const REDACTED: &str = "[redacted]";

/// A name with one of these in it holds a secret. Compared in lower case, without `_` and `-`.
const SECRET_NAMES: [&str; 5] = ["secret", "sessiontoken", "securitytoken", "privatekey", "password"];
/// The field of a key share in a bundle: too short a word to look for inside other names.
const SHARE_NAME: &str = "share";
const AGE_IDENTITY: &[u8] = b"age-secret-key-";
const PEM_BEGIN: &[u8] = b"-----BEGIN ";
const PEM_DASHES: &[u8] = b"-----";
const PEM_PRIVATE: &[u8] = b"PRIVATE KEY";
/// After `name: ` without quotes comes prose more often than a secret; a secret is longer than a word, in characters.
const LONGEST_WORD: usize = 15;

/// Replaces secrets in `text`: age identities (any case), PEM private keys, and the values of fields whose name says
/// that they are secret, written as JSON (also JSON inside a JSON string), `name=value` or `name: value`.
///
/// A line of JSON stays JSON. The text is judged on its own: hand over whole lines.
pub fn redact(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut output = String::new();
    let (mut copied, mut at) = (0, 0);
    while at < bytes.len() {
        match secret_at(bytes, at) {
            Found::Nothing { next } => at = next,
            Found::Secret { start, end, quote } => {
                for part in [&text[copied..start], quote, REDACTED, quote] {
                    output.push_str(part);
                }
                (copied, at) = (end, end);
            }
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    output.push_str(&text[copied..]);
    Cow::Owned(output)
}

/// Offsets are in bytes, and always next to an ASCII character, so that slicing there is sound.
enum Found<'a> {
    Nothing { next: usize },
    Secret { start: usize, end: usize, quote: &'a str },
}

fn secret_at(text: &[u8], at: usize) -> Found<'static> {
    if let Some(end) = private_key_end(text, at) {
        return Found::Secret { start: at, end, quote: "" };
    }
    if !is_name(text[at]) {
        return Found::Nothing { next: at + 1 };
    }
    // A PEM header may follow a word without a gap; its dashes are a name's, too.
    let ends = |at: usize| !is_name(text[at]) || text[at..].starts_with(PEM_DASHES);
    let end = (at + 1..text.len()).find(|at| ends(*at)).unwrap_or(text.len());
    let name = text[at..end].to_ascii_lowercase();
    if let Some(offset) = find(&name, AGE_IDENTITY, 0) {
        return Found::Secret { start: at + offset, end, quote: "" };
    }
    if is_secret_name(&name) { value_after(text, end) } else { Found::Nothing { next: end } }
}

/// End of the PEM private key that starts at `at`: its end line, or as far as one string goes if that is missing.
fn private_key_end(text: &[u8], at: usize) -> Option<usize> {
    let label = at + text[at..].strip_prefix(PEM_BEGIN).map(|_| PEM_BEGIN.len())?;
    let label_end = find(text, PEM_DASHES, label)?;
    if !text[label..label_end].ends_with(PEM_PRIVATE) {
        return None;
    }
    let body = label_end + PEM_DASHES.len();
    let end_line =
        find(text, PEM_DASHES, body).and_then(|end| find(text, PEM_DASHES, end + PEM_DASHES.len()));
    let end = end_line.map_or(text.len(), |dashes| dashes + PEM_DASHES.len());
    Some(find(&text[..end], b"\"", body).unwrap_or(end))
}

fn is_secret_name(name: &[u8]) -> bool {
    let name: String =
        name.iter().filter(|byte| !matches!(byte, b'_' | b'-')).map(|byte| char::from(*byte)).collect();
    name == SHARE_NAME || SECRET_NAMES.iter().any(|secret| name.contains(secret))
}

/// The value of the field whose name ends at `at`, if there is one.
fn value_after(text: &[u8], at: usize) -> Found<'static> {
    let nothing = Found::Nothing { next: at };
    let (name_quote, after_name) = quote_at(text, at);
    let sign = skip_spaces(text, after_name);
    let is_colon = match text.get(sign) {
        Some(b':') => true,
        Some(b'=') => false,
        _ => return nothing,
    };
    let value = skip_spaces(text, sign + 1);
    if let (Some(backslashes), start) = quote_at(text, value) {
        return Found::Secret { start, end: closing_quote(text, start, backslashes), quote: "" };
    }
    let end = match text.get(value) {
        Some(b'{') => return nothing,
        Some(b'[') => find(text, b"]", value).map_or(text.len(), |bracket| bracket + 1),
        _ => value + text[value..].iter().take_while(|byte| !ends_value(**byte)).count(),
    };
    let prose =
        is_colon && name_quote.is_none() && end - value <= LONGEST_WORD && text.get(value) != Some(&b'[');
    if end == value || prose {
        return nothing;
    }
    // In JSON the replacement has to be a string, whatever the value was.
    let quote = match name_quote {
        Some(0) => "\"",
        Some(1) => "\\\"",
        _ => "",
    };
    Found::Secret { start: value, end, quote }
}

/// A quote at `at`: how many backslashes escape it, and where what follows it starts.
fn quote_at(text: &[u8], at: usize) -> (Option<usize>, usize) {
    let backslashes = text[at..].iter().take_while(|byte| **byte == b'\\').count();
    match text.get(at + backslashes) {
        Some(b'"') => (Some(backslashes), at + backslashes + 1),
        _ => (None, at),
    }
}

/// Where the string ends that a quote with so many backslashes opened. Each nesting of JSON in JSON doubles the
/// backslashes of what is inside, so those that belong to the closing quote are told from the value's by the remainder.
fn closing_quote(text: &[u8], start: usize, backslashes: usize) -> usize {
    let mut run = 0;
    for (offset, byte) in text[start..].iter().enumerate() {
        match byte {
            b'\\' => run += 1,
            b'"' if run % (2 * (backslashes + 1)) == backslashes => return start + offset - backslashes,
            _ => run = 0,
        }
    }
    text.len()
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn ends_value(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b',' | b';' | b'&' | b')' | b']' | b'}' | b'"' | b'\\')
}

fn skip_spaces(text: &[u8], at: usize) -> usize {
    at + text[at..].iter().take_while(|byte| **byte == b' ').count()
}

fn find(text: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let rest = text.get(from..)?;
    rest.windows(needle.len()).position(|window| window == needle).map(|offset| from + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: &str = "AGE-SECRET-KEY-1QQPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQ";

    #[track_caller]
    fn becomes(text: &str, expected: &str) {
        assert_eq!(redact(text), expected);
    }

    #[test]
    fn a_line_without_a_secret_is_not_even_copied() {
        assert!(matches!(redact(r#"{"level":"INFO","message":"ready"}"#), Cow::Borrowed(_)));
    }

    #[test]
    fn an_age_identity_goes_in_any_case_and_place() {
        becomes(&format!("got {IDENTITY}, stopped"), "got [redacted], stopped");
        becomes(&IDENTITY.to_lowercase(), "[redacted]");
        becomes(&format!("{{\"message\":\"# x\\n{IDENTITY}\\n\"}}"), "{\"message\":\"# x\\n[redacted]\\n\"}");
        becomes(&format!("é={IDENTITY}é"), "é=[redacted]é");
    }

    #[test]
    fn a_recipient_stays_readable() {
        let recipient = "age1qqpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszq";
        becomes(recipient, recipient);
    }

    #[test]
    fn a_private_key_goes_whole_and_a_certificate_stays() {
        let (begin, end) = ("-----BEGIN EC PRIVATE KEY-----", "-----END EC PRIVATE KEY-----");
        becomes(&format!("a\n{begin}\nMHcC\n{end}\nb"), "a\n[redacted]\nb");
        becomes(&format!("key{begin}\\nMHcC\\n{end}"), "key[redacted]");
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----";
        becomes(certificate, certificate);
        becomes(&format!("{certificate}\n{begin}\nMHcC\n{end}"), &format!("{certificate}\n[redacted]"));
    }

    #[test]
    fn a_private_key_without_an_end_goes_as_far_as_its_string() {
        becomes(
            r#"{"message":"-----BEGIN PRIVATE KEY-----\nMHcC","level":"INFO"}"#,
            r#"{"message":"[redacted]","level":"INFO"}"#,
        );
        becomes("-----BEGIN PRIVATE KEY-----\nMHcC", "[redacted]");
    }

    #[test]
    fn values_of_secret_fields_go_in_json() {
        becomes(
            r#"{"secret_access_key":"a\"b\\","session_token": "t","SecretAccessKey":"x","n":1}"#,
            r#"{"secret_access_key":"[redacted]","session_token": "[redacted]","SecretAccessKey":"[redacted]","n":1}"#,
        );
        becomes(r#"{"share":"00ff","shares":3}"#, r#"{"share":"[redacted]","shares":3}"#);
        becomes(r#"{"party_secret_key":42,"n":1}"#, r#"{"party_secret_key":"[redacted]","n":1}"#);
        becomes(r#"{"secret":[1,2,3],"n":1}"#, r#"{"secret":"[redacted]","n":1}"#);
        becomes(r#"{"secrets":{"secret":"a"}}"#, r#"{"secrets":{"secret":"[redacted]"}}"#);
    }

    #[test]
    fn values_of_secret_fields_go_in_json_inside_a_string() {
        becomes(
            r#"{"message":"{\"secret\":\"a\\\"b\",\"n\":1}"}"#,
            r#"{"message":"{\"secret\":\"[redacted]\",\"n\":1}"}"#,
        );
        becomes(r#"{"message":"{\"secret\":7}"}"#, r#"{"message":"{\"secret\":\"[redacted]\"}"}"#);
    }

    #[test]
    fn values_of_secret_fields_go_in_plain_text() {
        becomes("aws_secret_access_key = abc/def+g\nb", "aws_secret_access_key = [redacted]\nb");
        becomes("url?X-Amz-Security-Token=abc%2F&n=1", "url?X-Amz-Security-Token=[redacted]&n=1");
        becomes(r#"Credentials { secret: "a", n: 1 }"#, r#"Credentials { secret: "[redacted]", n: 1 }"#);
        becomes("secret: [1, 2], n: 1", "secret: [redacted], n: 1");
        becomes("session_token: IQoJb3JpZ2luX2VjEXAMPLE", "session_token: [redacted]");
    }

    #[test]
    fn an_unfinished_secret_goes_to_the_end() {
        becomes(r#"{"secret":"abc"#, r#"{"secret":"[redacted]"#);
        becomes("secret=", "secret=");
    }

    /// Nothing is looked for twice in the same place: each of these takes minutes otherwise.
    #[test]
    fn long_lines_are_read_in_one_pass() {
        for part in ["word ", "-----BEGIN ", "a-b\\", "{\"n\":\"a\"} ", "-", "a-----"] {
            let text = part.repeat((1 << 20) / part.len());
            assert!(matches!(redact(&text), Cow::Borrowed(_)), "{part}");
        }
        for part in ["-----BEGIN PRIVATE KEY-----", "{\"secret\":\"a\"} ", "secret=[ "] {
            let text = part.repeat((1 << 20) / part.len());
            assert!(!redact(&text).contains(part), "{part}");
        }
    }

    #[test]
    fn prose_about_a_secret_stays_readable() {
        for text in ["account a, field share: expected 64 hex digits", "the secret: nobody knows", "secrets"]
        {
            becomes(text, text);
        }
    }
}
