//! Core: one order over many machines, and which machines it is for. Touches `api`, `common`,
//! `fleet::job`, `fleet::machine`.

use std::collections::BTreeMap;

use common::id::{DeploymentId, ImageId};
use jiff::Timestamp;

use super::job::Job;
use super::machine::{Machine, is_blank};
use crate::api::shapes::{DeployOrder, MachineState};

/// The longest hostname: RFC 1123 section 2.1 asks for 63 characters between dots.
const HOSTNAME_MAX: usize = 63;

/// A deployment.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Its number.
    pub id: DeploymentId,
    /// When it was ordered.
    pub ordered: Timestamp,
    /// The image.
    pub image: ImageId,
    /// The image's name at that time.
    pub image_name: String,
    /// Wire bytes of one copy of it.
    pub wire_bytes: u64,
    /// What was ordered, as it was ordered.
    pub request: DeployOrder,
    /// Whether it still takes machines that appear.
    pub open: bool,
}

/// A selector that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no label selector such as role=web")]
pub struct BadSelector(String);

/// The labels that `selectors` ask for.
///
/// # Errors
/// When one of them is not `key=value`.
pub fn labels(selectors: &[String]) -> Result<BTreeMap<String, String>, BadSelector> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(BadSelector(text.clone())),
    };
    selectors.iter().map(pair).collect()
}

impl Deployment {
    /// Whether it takes `machine`, which has just shown itself and has had `jobs_taken` of its jobs given
    /// out to others. Machines with anything on any disk are taken only when an admin approved them: a selector
    /// does not name a machine, and what stands on it may be somebody's.
    #[must_use]
    pub fn takes(&self, machine: &Machine, jobs_taken: usize) -> bool {
        let room =
            self.request.limit.is_none_or(|limit| jobs_taken < usize::try_from(limit).unwrap_or(usize::MAX));
        let Ok(labels) = labels(&self.request.selection.labels) else { return false };
        let blank = machine.hardware.as_ref().is_some_and(|checked| is_blank(checked.report()));
        let state = match machine.state {
            MachineState::Approved => true,
            MachineState::Discovered | MachineState::Inspected => blank,
            _ => false,
        };
        self.open && room && state && machine.takes_jobs() && machine.has_labels(&labels)
    }

    /// Whether `job`, which has no plan yet, was given out to a machine for nothing but that its disks were blank.
    #[must_use]
    pub fn took_as_blank(&self, job: &Job) -> bool {
        let unapproved = matches!(job.before, Some(MachineState::Discovered | MachineState::Inspected));
        self.request.open && self.request.selection.machines.is_empty() && unapproved && job.attempt == 0
    }

    /// The name that the installed OS is given on `machine`: the order's pattern, as DNS allows it.
    #[must_use]
    pub fn hostname(&self, machine: &Machine) -> String {
        let pattern = self.request.hostname.as_deref().unwrap_or("{name}");
        let name = machine.shown_name();
        as_hostname(
            &pattern.replace("{name}", &name).replace("{id}", &machine.id.to_string()),
            &machine.id.to_string(),
        )
    }
}

/// `text` as a hostname: what RFC 1123 does not allow becomes a dash; `otherwise` when nothing is left.
#[must_use]
pub fn as_hostname(text: &str, otherwise: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    let whole: String = text.chars().map(allowed).collect();
    let labels = whole.split('.').map(|label| {
        let label = label.trim_matches('-');
        label[..label.len().min(HOSTNAME_MAX)].trim_matches('-').to_owned()
    });
    let name = labels.filter(|label| !label.is_empty()).collect::<Vec<_>>().join(".");
    if name.is_empty() { otherwise.to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::identity::Fingerprint;
    use common::id::{Hash, MachineId};

    fn order(open: bool, limit: Option<u32>) -> Deployment {
        let order = serde_json::json!({
            "image": "debian", "selection": {"labels": ["role=web"]}, "open": open, "limit": limit,
        });
        Deployment {
            id: DeploymentId(1),
            ordered: Timestamp::UNIX_EPOCH,
            image: ImageId(Hash::of(b"")),
            image_name: "debian".to_owned(),
            wire_bytes: 1,
            request: serde_json::from_value(order).unwrap(),
            open,
        }
    }

    fn machine(state: MachineState) -> Machine {
        let mut machine =
            Machine::new(MachineId(7), Fingerprint::default(), "lab".to_owned(), Timestamp::UNIX_EPOCH);
        machine.state = state;
        machine.labels.insert("role".to_owned(), "web".to_owned());
        machine
    }

    #[test]
    fn an_open_order_takes_who_matches_up_to_its_limit() {
        let approved = machine(MachineState::Approved);
        assert!(order(true, Some(2)).takes(&approved, 1));
        assert!(!order(true, Some(2)).takes(&approved, 2));
        assert!(!order(false, None).takes(&approved, 0));
        let mut other = approved.clone();
        other.labels.clear();
        assert!(!order(true, None).takes(&other, 0));
        let mut held = approved;
        held.held = true;
        assert!(!order(true, None).takes(&held, 0));
        for state in
            [MachineState::Rejected, MachineState::Retired, MachineState::Deployed, MachineState::Failed]
        {
            assert!(!order(true, None).takes(&machine(state), 0), "{state:?}");
        }
        assert!(!order(true, None).takes(&machine(MachineState::Discovered), 0), "its disks are not known");
    }

    #[test]
    fn hostnames_are_what_dns_allows() {
        let table = [
            ("Rack1_07", "rack1-07"),
            ("a.b.example", "a.b.example"),
            ("-x-", "x"),
            ("..", "m7"),
            ("né", "n"),
            ("", "m7"),
        ];
        for (text, wanted) in table {
            assert_eq!(as_hostname(text, "m7"), wanted, "{text}");
        }
        assert_eq!(as_hostname(&"a".repeat(99), "m7").len(), HOSTNAME_MAX);
        let mut named = order(false, None);
        named.request.hostname = Some("web-{id}".to_owned());
        assert_eq!(named.hostname(&machine(MachineState::Approved)), "web-m7");
    }
}
