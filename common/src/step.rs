//! What happened on the way: the steps of a job and their events. One type from the machine to the log; a
//! step that this version does not know is kept by its name. Touches `id`, `limits`, `trust`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::JobId;
use crate::limits::cut;
use crate::trust::{PublicKey, Signable};

/// A unit of a job, in the order of a machine's way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The firmware asked to network-boot.
    PowerOn,
    /// Network boot program, kernel and loader.
    Loader,
    /// The loader reported the hardware.
    Inspect,
    /// The server looked for an order.
    Decide,
    /// The server resolved the plan and built the bundle.
    Tailor,
    /// The loader fetched, checked and started the agent.
    Agent,
    /// The agent joined the swarm.
    Join,
    /// Waiting for others before the transfer.
    Gather,
    /// Chunks come in, are checked and written.
    Transfer,
    /// The disk is read back and compared.
    Verify,
    /// Backup GPT moved, hostname, keys and user-data given.
    Personalise,
    /// The first MiB is written last.
    Seal,
    /// Serving peers.
    Linger,
    /// Restarting into the new OS.
    Reboot,
    /// The installed OS called home.
    Confirm,
    /// A step of a later version.
    #[serde(untagged)]
    Other(String),
}

impl Step {
    /// Every step of this version, in order.
    pub const ALL: [Self; 15] = [
        Self::PowerOn,
        Self::Loader,
        Self::Inspect,
        Self::Decide,
        Self::Tailor,
        Self::Agent,
        Self::Join,
        Self::Gather,
        Self::Transfer,
        Self::Verify,
        Self::Personalise,
        Self::Seal,
        Self::Linger,
        Self::Reboot,
        Self::Confirm,
    ];

    /// The step of this name; one of a later version is kept by it.
    #[must_use]
    pub fn named(name: &str) -> Self {
        name.parse().unwrap_or_else(|UnknownStep(name)| Self::Other(name))
    }

    /// The step's name, as the log shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::PowerOn => "power-on",
            Self::Loader => "loader",
            Self::Inspect => "inspect",
            Self::Decide => "decide",
            Self::Tailor => "tailor",
            Self::Agent => "agent",
            Self::Join => "join",
            Self::Gather => "gather",
            Self::Transfer => "transfer",
            Self::Verify => "verify",
            Self::Personalise => "personalise",
            Self::Seal => "seal",
            Self::Linger => "linger",
            Self::Reboot => "reboot",
            Self::Confirm => "confirm",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// No step of this version.
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

/// Where the bytes of an image came from, for one machine, and what it waited for. Wire bytes for `server` and
/// `peers`, raw bytes of the image for the other sources.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sources {
    /// Wire bytes from the server.
    pub server: u64,
    /// Wire bytes from peers.
    pub peers: u64,
    /// Chunks from the server.
    pub server_chunks: u32,
    /// Chunks from peers.
    pub peer_chunks: u32,
    /// Raw bytes that the disk already held.
    pub disk: u64,
    /// Raw bytes that are zeros or repeated chunks: never sent.
    pub unsent: u64,
    /// Wire bytes that this machine sent to others.
    pub uploaded: u64,
    /// Milliseconds of fetching in which chunks from the network were what it waited for...
    pub net_ms: u64,
    /// ...in which it was the disk...
    pub disk_ms: u64,
    /// ...and in which it was the processor.
    pub cpu_ms: u64,
}

impl Sources {
    /// What fetching waited for, in words; none when it did not take long enough to tell.
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

/// What is told of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum What {
    /// It began.
    Started,
    /// It is so far.
    Progress {
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
    },
    /// Something worth knowing that is no failure: a peer that sent wrong bytes, a disk that was not blank.
    Note {
        /// One sentence for the log.
        text: String,
    },
    /// It ended well.
    Done {
        /// What came of it, in a few words; may be empty.
        #[serde(default)]
        text: String,
    },
    /// It failed; where that helps it will be tried again, which a new `Started` shows.
    Failed {
        /// Why, in one sentence with its causes.
        cause: String,
        /// Whether the job ends with it.
        last: bool,
    },
}

/// One event of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepEvent {
    /// Counts up from 1 for one boot of the machine; the server drops what it has already.
    pub number: u64,
    /// Milliseconds since the program started: the machine's clock may be wrong, so the server dates events
    /// by their arrival and their distance to the newest in the batch.
    pub at_ms: u64,
    /// The step.
    pub step: Step,
    /// What is told of the step: that it began, how far it is, how it ended.
    #[serde(flatten)]
    pub what: What,
    /// Where the bytes came from so far, for `transfer`, `linger` and `reboot`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Sources>,
}

/// Events on their way to the server, signed by the machine's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventBatch {
    /// The machine's key of this boot.
    pub key: PublicKey,
    /// The job, when the sender has one; the loader has none yet.
    pub job: Option<JobId>,
    /// The attempt of the job that the events are of. One key lives over several attempts of a boot, so the key
    /// alone does not tell a late word of an attempt that is over from one of the present attempt.
    #[serde(default)]
    pub attempt: Option<u32>,
    /// Milliseconds since the program started, when the batch was sent.
    pub sent_at_ms: u64,
    /// Consecutive events.
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
