//! What the enclave told its parent during a boot, out of the parent's log.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::World;

/// What the parent writes for each.
const MESSAGE: &str = "a step of the enclave is done";

/// A step of a boot that is done.
#[derive(Debug, Clone)]
pub struct Event {
    /// For example `check_pcrs`.
    pub step: String,
    /// When it ended, Unix time in milliseconds by the enclave's clock.
    pub unix_ms: u64,
    /// How long it took.
    pub duration: Duration,
    /// For example `pcr0`.
    pub details: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Line {
    message: String,
    #[serde(flatten)]
    fields: serde_json::Value,
}

#[derive(Deserialize)]
struct Fields {
    step: String,
    unix_ms: u64,
    duration_us: u64,
    details: String,
}

impl Event {
    /// A fact that has to be there.
    pub fn detail(&self, name: &str) -> Result<&str> {
        let value = self.details.get(name);
        Ok(value.with_context(|| format!("the step {} told no {name}: {:?}", self.step, self.details))?)
    }
}

/// The steps of the last boot of a world's parent, by name.
pub fn last_boot(world: &World) -> Result<BTreeMap<String, Event>> {
    let path = world.path("logs/parent.log");
    let log = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&log)
}

/// Of several boots in one log, the steps of the last one stay.
fn parse(log: &str) -> Result<BTreeMap<String, Event>> {
    let mut events = BTreeMap::new();
    for line in log.lines() {
        // The log also has what others print.
        let Ok(Line { message, fields }) = serde_json::from_str(line) else { continue };
        if message != MESSAGE {
            continue;
        }
        let Fields { step, unix_ms, duration_us, details } =
            serde_json::from_value(fields).with_context(|| format!("an event of another form: {line}"))?;
        let details =
            serde_json::from_str(&details).with_context(|| format!("details of another form: {line}"))?;
        let duration = Duration::from_micros(duration_us);
        events.insert(step.clone(), Event { step, unix_ms, duration, details });
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_among_other_lines_and_the_last_boot_counts() {
        let event = |duration: u64| {
            format!(
                r#"{{"message":"{MESSAGE}","step":"check_pcrs","duration_us":{duration},"unix_ms":7,"details":"{{\"pcr0\":\"ab\"}}","level":"INFO"}}"#
            )
        };
        let log = format!("SeaBIOS\n{{\"message\":\"another\"}}\n{}\n[ 0.1]\n{}\n", event(5), event(6000));
        let events = parse(&log).unwrap();
        assert_eq!(events.len(), 1);
        let event = &events["check_pcrs"];
        assert_eq!((event.unix_ms, event.duration), (7, Duration::from_millis(6)));
        assert_eq!(event.detail("pcr0").unwrap(), "ab");
        assert!(event.detail("pcr1").unwrap_err().to_string().contains("check_pcrs told no pcr1"));
    }

    #[test]
    fn an_event_of_another_form_is_not_passed_over() {
        assert!(parse(&format!(r#"{{"message":"{MESSAGE}","step":"ready"}}"#)).is_err());
    }
}
