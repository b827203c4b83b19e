//! Core: an event as a message of syslog (RFC 5424) and as fields of the journal's own protocol. Whatever a machine calls
//! itself cannot end a message or a field and begin another one: in syslog control and format characters are removed, in
//! the journal each value has its length before it. Touches `api`, `common`.

use std::fmt::Write as _;

use common::limits::cut;
use common::text::harmless;
use jiff::Timestamp;

use super::form::{Item, outcome, step_word};
use super::wants::Level;

/// The facility `daemon`.
const FACILITY: u8 = 3;
/// The longest value of a name in a message, in bytes.
const VALUE_MAX: usize = 256;
/// The longest text of a message, in bytes: above that of any event that the log takes.
const TEXT_MAX: usize = 4096;
/// The number under which the structured data stands. It is the one that RFC 5612 leaves to whoever has none.
const DATA: &str = "swarmboot@32473";

/// One event in parts: the values that both kinds of messages have.
struct Parts {
    level: Level,
    at: Timestamp,
    /// The step's name, or `gap`.
    about: String,
    text: String,
    values: Vec<(&'static str, String)>,
}

fn parts(item: &Item) -> Parts {
    let event = match item {
        Item::Event(event) => event,
        Item::Gap(gap) => {
            return Parts {
                level: Level::Warning,
                at: gap.at,
                about: "gap".to_owned(),
                text: gap.words(),
                values: vec![("event", item.id())],
            };
        }
    };
    let plain = |text: &str, most| cut(&harmless(text), most).to_owned();
    let (name, step) = (plain(&event.name, VALUE_MAX), step_word(&event.step));
    let mut values = vec![
        ("event", event.id.to_string()),
        ("step", step.clone()),
        ("outcome", outcome(&event.what).to_owned()),
        ("name", name.clone()),
    ];
    let numbers = [
        ("machine", event.machine.map(|id| id.to_string())),
        ("deployment", event.deployment.map(|id| id.to_string())),
        ("job", event.job.map(|id| id.to_string())),
        ("attempt", event.attempt.map(|attempt| attempt.to_string())),
        ("by", event.by.as_deref().map(|by| plain(by, VALUE_MAX))),
    ];
    values.extend(numbers.into_iter().filter_map(|(key, value)| Some((key, value?))));
    let text = format!("{name} {step} {}", plain(&event.what.in_log(), TEXT_MAX));
    Parts {
        level: Level::of(&event.what),
        at: event.at,
        about: step,
        text: text.trim_start().to_owned(),
        values,
    }
}

/// An item as a message of RFC 5424, without a frame around it; `host` is this host's name.
pub(super) fn syslog(item: &Item, host: &str) -> String {
    let Parts { level, at, about, text, values } = parts(item);
    let host: String = host.chars().filter(char::is_ascii_graphic).take(255).collect();
    let host = if host.is_empty() { "-" } else { &host };
    let priority = FACILITY * 8 + level.severity();
    let mut message = format!("<{priority}>1 {at:.3} {host} swarmboot - {} [{DATA}", cut(&about, 32));
    for (key, value) in values {
        let _ = write!(message, " {key}=\"");
        for c in value.chars() {
            // The three that the standard wants escaped.
            if matches!(c, '"' | '\\' | ']') {
                message.push('\\');
            }
            message.push(c);
        }
        message.push('"');
    }
    message.push_str("] ");
    message.push_str(&text);
    message
}

/// An item in the journal's own protocol: a datagram of fields.
pub(super) fn journald(item: &Item) -> Vec<u8> {
    let Parts { level, about: _, at, text, values } = parts(item);
    let mut datagram = vec![];
    let mut field = |key: &str, value: &str| {
        datagram.extend_from_slice(key.as_bytes());
        datagram.push(b'\n');
        datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
        datagram.extend_from_slice(value.as_bytes());
        datagram.push(b'\n');
    };
    field("MESSAGE", &text);
    field("PRIORITY", &level.severity().to_string());
    field("SYSLOG_IDENTIFIER", "swarmboot");
    // The event may be much older than the message.
    field("SWARMBOOT_AT", &at.to_string());
    for (key, value) in values {
        field(&format!("SWARMBOOT_{}", key.to_uppercase()), &value);
    }
    datagram
}

#[cfg(test)]
mod tests {
    use common::step::{Step, What};

    use super::super::form::Gap;
    use super::super::tests::{event, hostile};
    use super::*;

    fn failed() -> Item {
        let mut told = event(17, What::Failed { cause: "no disk of \"4T\"".to_owned(), last: true });
        told.machine = Some(common::id::MachineId(7));
        told.by = Some("a]b\\c\"d".to_owned());
        Item::Event(Box::new(told))
    }

    #[test]
    fn a_message_of_syslog_is_what_the_standard_says() {
        assert_eq!(
            syslog(&failed(), "seed"),
            "<27>1 1970-01-01T00:00:17.000Z seed swarmboot - transfer [swarmboot@32473 event=\"17\" step=\"transfer\" \
             outcome=\"failed\" name=\"web1\" machine=\"m7\" by=\"a\\]b\\\\c\\\"d\"] web1 transfer FAILED: no disk of \"4T\""
        );
        let gap = Item::Gap(Gap { from: 1, to: 2, at: Timestamp::UNIX_EPOCH });
        assert_eq!(
            syslog(&gap, "a b\n"),
            "<28>1 1970-01-01T00:00:00.000Z ab swarmboot - gap [swarmboot@32473 event=\"gap-1-2\"] events 1 to 2 were \
             deleted from the log before they could be delivered here"
        );
        assert!(syslog(&gap, "").contains("Z - swarmboot"), "a host without a name");
    }

    /// Takes a datagram apart as the journal does.
    fn fields(mut datagram: &[u8]) -> Vec<(String, String)> {
        let mut fields = vec![];
        while !datagram.is_empty() {
            let end = datagram.iter().position(|&byte| byte == b'\n').unwrap();
            let key = String::from_utf8(datagram[..end].to_vec()).unwrap();
            let (length, rest) = datagram[end + 1..].split_first_chunk::<8>().unwrap();
            let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
            fields.push((key, String::from_utf8(rest[..length].to_vec()).unwrap()));
            assert_eq!(rest[length], b'\n');
            datagram = &rest[length + 1..];
        }
        fields
    }

    #[test]
    fn journald_gets_fields() {
        let fields = fields(&journald(&failed()));
        let of = |key: &str| fields.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        assert_eq!(of("MESSAGE"), Some("web1 transfer FAILED: no disk of \"4T\""));
        assert_eq!((of("PRIORITY"), of("SWARMBOOT_EVENT")), (Some("3"), Some("17")));
        assert_eq!((of("SWARMBOOT_MACHINE"), of("SWARMBOOT_OUTCOME")), (Some("m7"), Some("failed")));
        assert_eq!(of("SWARMBOOT_AT"), Some("1970-01-01T00:00:17Z"));
    }

    #[test]
    fn no_string_of_a_machine_forges_a_message() {
        for name in hostile() {
            let mut told = event(3, What::Note { text: name.clone() });
            told.name.clone_from(&name);
            told.by = Some(name.clone());
            told.step = Step::Other(name.clone());
            let item = Item::Event(Box::new(told));
            let message = syslog(&item, &name);
            assert!(!message.chars().any(|c| c.is_control() || common::text::is_format(c)), "{message:?}");
            assert!(message.len() < 8192, "{}", message.len());
            // The head has its seven parts, and the structured data ends once.
            assert_eq!(message.split(' ').nth(6).map(|part| part.starts_with('[')), Some(true), "{message}");
            let fields = fields(&journald(&item));
            assert!(fields.len() <= 13 && fields.iter().filter(|(key, _)| key == "MESSAGE").count() == 1);
            assert!(fields.iter().all(|(_, value)| !value.contains('\n')));
        }
    }
}
