//! The steps of a job and their events. One type from the machine to the log; a step that this version does not know is
//! kept by its name. A new step is a line of the table here, a place in the plan (the server's `tailor`) and, where it
//! is the agent's, a file and a line in the agent's `steps`. Owns an event's text on a machine's console and in the
//! log. Touches `id`, `limits`, `text`, `trust`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::JobId;
use crate::limits::{EVENT_TEXT_MAX, cut};
use crate::text::{harmless, percent};
use crate::trust::{PublicKey, Signable};

/// Who carries out a step and reports its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The server, for a machine that it knows of or decides about.
    Server,
    /// The loader; the last of its steps is also reported by the agent that it starts.
    Loader,
    /// The agent, by its plan.
    Agent,
    /// The installed OS.
    Os,
}

/// The table of the steps: description, variant, name on the wire and in the log, and owner.
macro_rules! steps {
    ($($(#[$doc:meta])+ $step:ident, $name:literal, $owner:ident;)+) => {
        /// A unit of a job, in the order in which a machine comes to them.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Step {
            $(
                $(#[$doc])+
                #[serde(rename = $name)]
                $step,
            )+
            /// A step of a later version.
            #[serde(untagged)]
            Other(String),
        }

        impl Step {
            /// Every step of this version, in order.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$step),+];

            /// The step's name, as the log shows it.
            #[must_use]
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$step => $name,)+
                    Self::Other(name) => name,
                }
            }

            /// Its owner; none for a step of a later version.
            #[must_use]
            pub fn owner(&self) -> Option<Owner> {
                match self {
                    $(Self::$step => Some(Owner::$owner),)+
                    Self::Other(_) => None,
                }
            }
        }
    };
}

steps! {
    /// The firmware asked to network-boot.
    PowerOn, "power-on", Server;
    /// The loader runs: drivers and network, until a server answers.
    Loader, "loader", Loader;
    /// The loader reported the hardware.
    Inspect, "inspect", Loader;
    /// The server looked for an order.
    Decide, "decide", Server;
    /// The server resolved the plan and built the bundle.
    Tailor, "tailor", Server;
    /// The loader fetched, checked and started the agent.
    Agent, "agent", Loader;
    /// The agent joined the swarm.
    Join, "join", Agent;
    /// The agent waits at the gate for other machines before the transfer.
    Gather, "gather", Agent;
    /// Chunks come in, are verified and written.
    Transfer, "transfer", Agent;
    /// The disk is read back and compared with the manifest.
    Verify, "verify", Agent;
    /// The partition table for this disk, host name, keys and user-data are made.
    Personalise, "personalise", Agent;
    /// An admin's scripts run in the new root.
    Hooks, "hooks", Agent;
    /// The first MiB is written last.
    Seal, "seal", Agent;
    /// The agent serves peers until it is released.
    Linger, "linger", Agent;
    /// The agent leaves the swarm, and the machine restarts into the new OS.
    Reboot, "reboot", Agent;
    /// The installed OS called home.
    Confirm, "confirm", Os;
}

impl Step {
    /// The step of this name; one that this version does not know is kept as [`Step::Other`].
    #[must_use]
    pub fn named(name: &str) -> Self {
        name.parse().unwrap_or_else(|UnknownStep(name)| Self::Other(name))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The name of a step that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no step; the steps are {}", cut(.0, 80), Step::ALL.map(|step| step.to_string()).join(", "))]
pub struct UnknownStep(pub String);

impl std::str::FromStr for Step {
    type Err = UnknownStep;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|step| step.name() == text);
        known.ok_or_else(|| UnknownStep(text.to_owned()))
    }
}

/// The sources of one machine's image bytes, and what fetching waited for. Wire bytes for `server` and `peers`, raw
/// bytes of the image for the other sources.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Sources {
    /// Wire bytes received from the server.
    pub server: u64,
    /// Wire bytes received from peers.
    pub peers: u64,
    /// How many chunks came from the server.
    pub server_chunks: u32,
    /// How many chunks came from peers.
    pub peer_chunks: u32,
    /// Raw bytes of chunks that the disk held already.
    pub disk: u64,
    /// Raw bytes of zeros and of repeated chunks, which are never sent.
    pub unsent: u64,
    /// Wire bytes that this machine sent to peers.
    pub uploaded: u64,
    /// Milliseconds of fetching in which it waited for chunks from the network...
    pub net_ms: u64,
    /// ...for the disk...
    pub disk_ms: u64,
    /// ...and for the processor.
    pub cpu_ms: u64,
}

impl Sources {
    /// The shares of the three waits, as text; none when nothing was waited for.
    #[must_use]
    pub fn waited_for(&self) -> Option<String> {
        let parts = [("net", self.net_ms), ("disk", self.disk_ms), ("cpu", self.cpu_ms)];
        let all: u64 = parts.iter().map(|(_, millis)| millis).sum();
        let said = |(what, millis): &(&str, u64)| {
            let percent = millis * 100 / all.max(1);
            (percent > 0).then(|| format!("{what} {percent} %"))
        };
        let words: Vec<String> = parts.iter().filter_map(said).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

/// What an event reports of its step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum What {
    /// The step began.
    Started,
    /// The step's progress.
    Progress {
        /// Units that are done: bytes, or machines at the gate.
        done: u64,
        /// Units in all.
        total: u64,
    },
    /// Something that belongs in the log and is not a failure: a peer that sent wrong bytes, a disk that was not blank.
    Note {
        /// One sentence for the log.
        text: String,
    },
    /// The step succeeded.
    Done {
        /// The result, in a few words; may be empty.
        #[serde(default)]
        text: String,
    },
    /// A try of the step failed; a retry begins with a new `Started`.
    Failed {
        /// The cause, in one sentence with the causes behind it.
        cause: String,
        /// Whether the job ends with this failure.
        last: bool,
    },
}

impl What {
    /// The same, fit for the log and for a terminal: texts are cut, and without control and format characters.
    #[must_use]
    pub fn tidied(self) -> Self {
        let clean = |text: String| cut(&harmless(&text), EVENT_TEXT_MAX).to_owned();
        match self {
            Self::Note { text } => Self::Note { text: clean(text) },
            Self::Done { text } => Self::Done { text: clean(text) },
            Self::Failed { cause, last } => Self::Failed { cause: clean(cause), last },
            Self::Started | Self::Progress { .. } => self,
        }
    }

    /// The text in a line of the log, behind the step's name. A failure is in capitals: people look for it among
    /// thousands of lines.
    #[must_use]
    pub fn in_log(&self) -> String {
        match self {
            Self::Started => "started".to_owned(),
            Self::Progress { done, total } => format!("{done} of {total} ({}%)", percent(*done, *total)),
            Self::Note { text } => format!("note: {text}"),
            Self::Done { text } if text.is_empty() => "done".to_owned(),
            Self::Done { text } => format!("done: {text}"),
            Self::Failed { cause, last: false } => format!("FAILED, will be tried again: {cause}"),
            Self::Failed { cause, last: true } => format!("FAILED: {cause}"),
        }
    }
}

/// One event of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepEvent {
    /// Counts up from 1 for one boot of the machine; the server drops numbers that it has already.
    pub number: u64,
    /// Milliseconds since the program started: the machine's clock may be wrong, so the server dates events by the
    /// arrival of their batch and their age in it.
    pub at_ms: u64,
    /// The step that the event is of.
    pub step: Step,
    /// What is reported of the step: its beginning, progress or end.
    #[serde(flatten)]
    pub what: What,
    /// Where the bytes came from so far, for `transfer`, `linger` and `reboot`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Sources>,
}

impl StepEvent {
    /// The text for a person at the machine: the step, and what is reported of it.
    #[must_use]
    pub fn on_console(&self) -> String {
        let step = &self.step;
        match &self.what {
            What::Started => format!("{step}: started"),
            What::Progress { done, total } => format!("{step}: {} %", percent(*done, *total)),
            What::Note { text } => format!("{step}: {text}"),
            What::Done { text } if text.is_empty() => format!("{step}: done"),
            What::Done { text } => format!("{step}: done, {text}"),
            What::Failed { cause, last: true } => format!("{step}: failed: {cause}"),
            What::Failed { cause, last: false } => format!("{step}: failed: {cause}; trying again"),
        }
    }
}

/// A batch of events for the server, signed with the boot key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventBatch {
    /// The boot key that signs the batch.
    pub key: PublicKey,
    /// The job; none while the sender has none, as the loader.
    pub job: Option<JobId>,
    /// The attempt of the job that the events are of. One boot key serves several attempts, so the key alone does not
    /// tell a late event of an attempt that is over from one of the present attempt.
    #[serde(default)]
    pub attempt: Option<u32>,
    /// Milliseconds since the program started, at the time of sending.
    pub sent_at_ms: u64,
    /// The events, with consecutive numbers; may be empty.
    pub events: Vec<StepEvent>,
}

impl Signable for EventBatch {
    const DOMAIN: &'static str = "swarmboot events 1";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_read_as_it_is_written() {
        for step in Step::ALL {
            assert_eq!(serde_json::to_value(&step).unwrap(), step.name());
            assert_eq!(serde_json::from_value::<Step>(step.name().into()).unwrap(), step);
            assert_eq!(step.name().parse(), Ok(step));
        }
    }

    #[test]
    fn the_table_is_in_the_order_of_a_machines_way() {
        use Owner::{Agent, Loader, Os, Server};
        assert!(Step::ALL.is_sorted());
        let of = |owner| {
            let steps = Step::ALL.into_iter().filter(|step| step.owner() == Some(owner));
            steps.map(|step| step.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of(Server), "power-on decide tailor");
        assert_eq!(of(Loader), "loader inspect agent");
        assert_eq!(of(Agent), "join gather transfer verify personalise hooks seal linger reboot");
        assert_eq!(of(Os), "confirm");
        assert_eq!(Step::named("defragment").owner(), None);
    }

    #[test]
    fn an_event_reads_as_a_sentence() {
        let failed = |last| What::Failed { cause: "no answer".to_owned(), last };
        let done = |text: &str| What::Done { text: text.to_owned() };
        let note = What::Note { text: "slow".to_owned() };
        // (what is reported, on the console, in the log)
        let table = [
            (What::Started, "verify: started", "started"),
            (What::Progress { done: 3, total: 4 }, "verify: 75 %", "3 of 4 (75%)"),
            (What::Progress { done: 0, total: 0 }, "verify: 0 %", "0 of 0 (0%)"),
            (note, "verify: slow", "note: slow"),
            (done(""), "verify: done", "done"),
            (done("2 MiB"), "verify: done, 2 MiB", "done: 2 MiB"),
            (
                failed(false),
                "verify: failed: no answer; trying again",
                "FAILED, will be tried again: no answer",
            ),
            (failed(true), "verify: failed: no answer", "FAILED: no answer"),
        ];
        for (what, console, log) in table {
            assert_eq!(what.in_log(), log);
            let event = StepEvent { number: 1, at_ms: 0, step: Step::Verify, what, sources: None };
            assert_eq!(event.on_console(), console);
        }
        let large = What::Progress { done: 1 << 60, total: 1 << 61 };
        assert!(large.in_log().ends_with("(50%)"));
    }

    #[test]
    fn a_text_from_outside_is_cut_and_harmless() {
        let tidy = |text: &str| match (What::Note { text: text.to_owned() }).tidied() {
            What::Note { text } => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(tidy("a\u{1b}[2J\u{202e}b"), "a [2Jb");
        assert_eq!(tidy(&"é".repeat(EVENT_TEXT_MAX)).len(), EVENT_TEXT_MAX);
        let long = What::Failed { cause: format!("\u{1b}[2J{}", "é".repeat(EVENT_TEXT_MAX)), last: true };
        let What::Failed { cause, last: true } = long.tidied() else { panic!() };
        assert!(cause.len() <= EVENT_TEXT_MAX && cause.starts_with(" [2J"));
        // Characters that are dropped take no room from those that are kept.
        assert_eq!(tidy(&format!("{}end", "\u{200b}".repeat(EVENT_TEXT_MAX))), "end");
    }

    #[test]
    fn a_step_of_a_later_version_keeps_its_name() {
        let step: Step = serde_json::from_str("\"defragment\"").unwrap();
        assert_eq!(step, Step::Other("defragment".to_owned()));
        assert_eq!(serde_json::to_string(&step).unwrap(), "\"defragment\"");
        assert_eq!(Step::named("defragment"), step);
        assert_eq!(Step::named("seal"), Step::Seal);
    }

    #[test]
    fn what_is_no_step_is_told_the_steps() {
        let error = "Transfer".parse::<Step>().unwrap_err().to_string();
        assert!(error.contains("`Transfer`") && error.contains("join, gather, transfer, verify"), "{error}");
        assert!("x".repeat(10_000).parse::<Step>().unwrap_err().to_string().len() < 400);
    }

    #[test]
    fn what_was_waited_for_is_said_in_shares() {
        let waited =
            |net_ms, disk_ms, cpu_ms| Sources { net_ms, disk_ms, cpu_ms, ..Sources::default() }.waited_for();
        assert_eq!(waited(0, 0, 0), None);
        assert_eq!(waited(900, 100, 0).as_deref(), Some("net 90 %, disk 10 %"));
        assert_eq!(waited(0, 0, 7).as_deref(), Some("cpu 100 %"));
    }

    #[test]
    fn an_event_is_one_flat_object() {
        let event = StepEvent {
            number: 1,
            at_ms: 2,
            step: Step::Transfer,
            what: What::Progress { done: 3, total: 4 },
            sources: None,
        };
        let text = r#"{"number":1,"at_ms":2,"step":"transfer","kind":"progress","done":3,"total":4}"#;
        assert_eq!(serde_json::to_string(&event).unwrap(), text);
        assert_eq!(serde_json::from_str::<StepEvent>(text).unwrap(), event);
    }
}
