//! Core: what subscribers are sent: events as CloudEvents 1.0 and as lines of JSON, and the gap where events are missing.
//! Whatever a machine calls itself stays inside of its string: control and format characters are written as `\u….`, so
//! that a terminal or a reader of lines takes nothing of them for its own. Touches `api`, `common`.

use std::fmt::Write as _;

use common::step::{Step, What};
use common::text::{harmless, is_format};
use jiff::Timestamp;
use serde::Serialize;

use crate::api::shapes::LogEvent;

/// The longest name of a step in a type, in bytes: a later version's agent may send any.
const STEP_MAX: usize = 64;
/// The longest subject, in bytes.
const SUBJECT_MAX: usize = 256;

/// One thing that a subscriber is sent.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// An event of the log.
    Event(Box<LogEvent>),
    /// Events that the log does not have any more, and that were not delivered before.
    Gap(Gap),
}

/// Events that were deleted, because the log was too old or too large, before they could be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Gap {
    /// The number of the first of them...
    pub(super) from: u64,
    /// ...and of the last. Some numbers between belong to events that nobody wanted, or to progress.
    pub(super) to: u64,
    /// When it was noticed.
    pub(super) at: Timestamp,
}

impl Item {
    /// The event's number: by it a receiver knows what it has got already.
    pub(super) fn id(&self) -> String {
        match self {
            Self::Event(event) => event.id.to_string(),
            Self::Gap(gap) => format!("gap-{}-{}", gap.from, gap.to),
        }
    }

    /// The cursor once it is delivered.
    pub(super) fn reaches(&self) -> u64 {
        match self {
            Self::Event(event) => event.id,
            Self::Gap(gap) => gap.to,
        }
    }
}

impl Gap {
    /// The gap in words.
    pub(super) fn words(&self) -> String {
        format!(
            "events {} to {} were deleted from the log before they could be delivered here",
            self.from, self.to
        )
    }
}

/// The word for how a step went, in types and messages; of failures only the last is one.
pub(super) fn outcome(what: &What) -> &'static str {
    match what {
        What::Started => "started",
        What::Progress { .. } => "progress",
        What::Note { .. } => "note",
        What::Done { .. } => "done",
        What::Failed { last: false, .. } => "retried",
        What::Failed { last: true, .. } => "failed",
    }
}

/// The step's name, of letters, digits and dashes only.
pub(super) fn step_word(step: &Step) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' };
    let word: String = step.name().chars().take(STEP_MAX).map(plain).collect();
    if word.is_empty() { "unknown".to_owned() } else { word }
}

#[derive(Serialize)]
struct CloudEvent<'a, T> {
    specversion: &'static str,
    id: String,
    source: &'a str,
    #[serde(rename = "type")]
    kind: String,
    time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    datacontenttype: &'static str,
    data: &'a T,
}

/// An item as a CloudEvent of the server `source`, in structured JSON.
pub(super) fn cloud_event(item: &Item, source: &str) -> String {
    let (specversion, datacontenttype, id) = ("1.0", "application/json", item.id());
    match item {
        Item::Event(event) => escaped(&CloudEvent {
            specversion,
            id,
            source,
            kind: format!("swarmboot.step.{}.{}", step_word(&event.step), outcome(&event.what)),
            time: event.at,
            subject: subject(event),
            datacontenttype,
            data: event,
        }),
        Item::Gap(gap) => escaped(&CloudEvent {
            specversion,
            id,
            source,
            kind: "swarmboot.gap".to_owned(),
            time: gap.at,
            subject: None,
            datacontenttype,
            data: gap,
        }),
    }
}

/// The machine's number, which never changes; where there is none, what the log calls it. A subject is never empty.
fn subject(event: &LogEvent) -> Option<String> {
    let name = || common::limits::cut(harmless(&event.name).trim(), SUBJECT_MAX).to_owned();
    let subject = event.machine.map_or_else(name, |machine| machine.to_string());
    (!subject.is_empty()).then_some(subject)
}

#[derive(Serialize)]
struct GapLine<'a> {
    kind: &'static str,
    #[serde(flatten)]
    gap: &'a Gap,
}

/// An item as one line of JSON with its end, as `logs -o json` prints events.
pub(super) fn line(item: &Item) -> String {
    let mut line = match item {
        Item::Event(event) => escaped(event),
        Item::Gap(gap) => escaped(&GapLine { kind: "gap", gap }),
    };
    line.push('\n');
    line
}

/// `value` as JSON, in which control and format characters are escaped: they can stand in strings only.
fn escaped(value: &impl Serialize) -> String {
    // Nothing here has keys that are no strings, so that it can always be written.
    let json = serde_json::to_string(value).unwrap_or_default();
    if !json.chars().any(is_sly) {
        return json;
    }
    let mut safe = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_sly(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

fn is_sly(c: char) -> bool {
    c.is_control() || is_format(c)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::tests::{event, hostile};
    use super::*;

    #[test]
    fn an_event_is_a_cloud_event() {
        let mut told = event(17, What::Failed { cause: "no disk".to_owned(), last: true });
        told.machine = Some(common::id::MachineId(7));
        let text = cloud_event(&Item::Event(Box::new(told.clone())), "/swarmboot/key");
        let value: Value = serde_json::from_str(&text).unwrap();
        let mut wanted = serde_json::json!({
            "specversion": "1.0", "id": "17", "source": "/swarmboot/key",
            "type": "swarmboot.step.transfer.failed", "time": "1970-01-01T00:00:17Z", "subject": "m7",
            "datacontenttype": "application/json",
        });
        wanted["data"] = serde_json::to_value(&told).unwrap();
        assert_eq!(value, wanted);
        let gap = Gap { from: 3, to: 9, at: Timestamp::UNIX_EPOCH };
        let value: Value = serde_json::from_str(&cloud_event(&Item::Gap(gap), "/s")).unwrap();
        assert_eq!((value["type"].as_str(), value["id"].as_str()), (Some("swarmboot.gap"), Some("gap-3-9")));
        assert_eq!((value["data"]["from"].as_u64(), value["data"]["to"].as_u64()), (Some(3), Some(9)));
        assert_eq!(value.get("subject"), None, "a subject is not empty");
        assert_eq!(Item::Gap(gap).reaches(), 9);
    }

    #[test]
    fn each_outcome_has_its_type() {
        let failed = |last| What::Failed { cause: String::new(), last };
        let table = [
            (What::Started, "started"),
            (What::Note { text: String::new() }, "note"),
            (What::Done { text: String::new() }, "done"),
            (failed(false), "retried"),
            (failed(true), "failed"),
        ];
        for (what, word) in table {
            assert_eq!(outcome(&what), word);
        }
        assert_eq!(step_word(&Step::Other("a.b\n\u{1b}c".to_owned() + &"x".repeat(200))).len(), STEP_MAX);
        assert!(
            step_word(&Step::Other("a.b\n\u{1b}c".to_owned())).chars().all(|c| c != '.' && !c.is_control())
        );
    }

    #[test]
    fn no_string_of_a_machine_forges_a_line() {
        for name in hostile() {
            let mut told = event(3, What::Note { text: name.clone() });
            told.name.clone_from(&name);
            told.step = Step::Other(name.clone());
            let item = Item::Event(Box::new(told));
            let (line, cloud) = (line(&item), cloud_event(&item, "/s"));
            assert_eq!(line.matches('\n').count(), 1, "{name:?}");
            assert!(line.ends_with('\n'));
            for text in [line.trim_end_matches('\n'), &cloud] {
                assert!(!text.contains(|c: char| c.is_control() || is_format(c)), "{text:?}");
                // What was said is still all there.
                let value: Value = serde_json::from_str(text).unwrap();
                let data = value.get("data").unwrap_or(&value);
                assert_eq!(data["name"].as_str(), Some(name.as_str()));
            }
        }
        let gap = Gap { from: 1, to: 2, at: Timestamp::UNIX_EPOCH };
        assert_eq!(
            line(&Item::Gap(gap)),
            "{\"kind\":\"gap\",\"from\":1,\"to\":2,\"at\":\"1970-01-01T00:00:00Z\"}\n"
        );
    }
}
