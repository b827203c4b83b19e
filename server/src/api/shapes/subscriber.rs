//! Those who are told of events, and how far each is. Touches nothing.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Whether a subscriber gets its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SubscriberState {
    /// It gets them as they happen.
    Working,
    /// The last try failed, and it is tried again.
    Failing,
    /// It said that it wants no more, and is tried again when the server starts.
    Stopped,
}

/// One who is told of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SubscriberShown {
    /// What it is and its name: `webhook chat`, `export file`.
    pub name: String,
    /// Where it is, without what may be secret of it.
    pub target: String,
    /// Whether it gets its events.
    pub state: SubscriberState,
    /// The number of the event up to which it has got what it wants.
    pub cursor: u64,
    /// How many events are newer than that; it may not want all of them.
    pub behind: u64,
    /// Since when it fails.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// When it is tried again.
    #[serde(default)]
    pub next: Option<Timestamp>,
    /// Why it fails or has stopped.
    #[serde(default)]
    pub cause: Option<String>,
}

impl std::fmt::Display for SubscriberShown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cause = self.cause.as_deref().unwrap_or_default();
        let behind = match self.behind {
            1 => "1 event".to_owned(),
            many => format!("{many} events"),
        };
        match (self.state, self.behind) {
            (SubscriberState::Working, 0) => f.write_str("up to date"),
            (SubscriberState::Working, _) => write!(f, "{behind} behind"),
            (SubscriberState::Failing, _) => {
                f.write_str("fails")?;
                self.since.iter().try_for_each(|since| write!(f, " since {since:.0}"))?;
                write!(f, ", up to {behind} behind: {cause}")
            }
            (SubscriberState::Stopped, _) => {
                write!(f, "stopped, up to {behind} behind: {cause}; the next start of the server tries again")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_one_is_reads_as_a_sentence() {
        let shown = |state, behind| SubscriberShown {
            name: "webhook chat".to_owned(),
            target: "https://chat.example".to_owned(),
            state,
            cursor: 7,
            behind,
            since: (state == SubscriberState::Failing).then_some(Timestamp::UNIX_EPOCH),
            next: None,
            cause: (state != SubscriberState::Working).then(|| "no answer".to_owned()),
        };
        let table = [
            (SubscriberState::Working, 0, "up to date"),
            (SubscriberState::Working, 1, "1 event behind"),
            (
                SubscriberState::Failing,
                31,
                "fails since 1970-01-01T00:00:00Z, up to 31 events behind: no answer",
            ),
            (
                SubscriberState::Stopped,
                2,
                "stopped, up to 2 events behind: no answer; the next start of the server tries again",
            ),
        ];
        for (state, behind, wanted) in table {
            assert_eq!(shown(state, behind).to_string(), wanted);
        }
    }
}
