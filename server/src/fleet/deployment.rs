//! Core: one order over many machines, and which machines it is for. Touches `api`, `common`,
//! `fleet::job`, `fleet::machine`.

use std::net::IpAddr;

use common::hardware::{Firmware, HardwareReport};
use common::id::{DeploymentId, ImageId};
use common::plan::Finish;
use jiff::Timestamp;

use super::job::Job;
use super::machine::{Machine, is_blank};
use super::order::CheckedOrder;
use super::provisioner::PlanRequest;
use crate::api::shapes::MachineState;

/// The longest hostname: RFC 1123 section 2.1 asks for 63 characters between dots.
const HOSTNAME_MAX: usize = 63;

/// One order over many machines, as it was given; how it goes on is in its jobs.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Given once, also after it was forgotten.
    pub id: DeploymentId,
    /// When it was ordered.
    pub ordered: Timestamp,
    /// What is written, even when the name means another image since.
    pub image: ImageId,
    /// The image's name at that time.
    pub image_name: String,
    /// Wire bytes of one copy of it.
    pub wire_bytes: u64,
    /// What was ordered, as it was ordered.
    pub request: CheckedOrder,
    /// Whether it still takes machines that appear.
    pub open: bool,
}

impl Deployment {
    /// Whether it takes `machine`, which has just shown itself and has had `jobs_taken` of its jobs given
    /// out to others. Machines with anything on any disk are taken only when an admin approved them: a selector
    /// does not name a machine, and what stands on it may be somebody's.
    #[must_use]
    pub fn takes(&self, machine: &Machine, jobs_taken: usize) -> bool {
        let room = self.request.has_room(jobs_taken);
        let blank = machine.hardware.as_ref().is_some_and(|checked| is_blank(checked.report()));
        let state = match machine.state {
            MachineState::Approved => true,
            MachineState::Discovered | MachineState::Inspected => blank,
            _ => false,
        };
        self.open && room && state && machine.takes_jobs() && machine.has_labels(self.request.selectors())
    }

    /// Whether `job`, which has no plan yet, was given out to a machine for nothing but that its disks were blank.
    #[must_use]
    pub fn took_as_blank(&self, job: &Job) -> bool {
        let unapproved = matches!(job.before, Some(MachineState::Discovered | MachineState::Inspected));
        self.request.as_ordered().open && !self.request.names_machines() && unapproved && job.attempt == 0
    }

    /// What the tailor is to be asked about `job` of this order, for the machine that reported `report` and reaches the
    /// server at `server`.
    #[must_use]
    pub fn plan_request(&self, job: &Job, report: &HardwareReport, server: Option<IpAddr>) -> PlanRequest {
        let ordered = self.request.as_ordered();
        PlanRequest {
            deployment: self.id,
            job: job.id,
            attempt: job.attempt_for(&report.key),
            image: self.image,
            disk: self.request.disk_rule().clone(),
            bound: job.bound.disk.clone(),
            personalise: !ordered.no_personalise,
            gather: ordered.gather.is_some(),
            finish: if report.firmware == Firmware::None { Finish::Exit } else { ordered.finish },
            server,
        }
    }

    /// The name that the installed OS is given on `machine`: the order's pattern, as DNS allows it.
    #[must_use]
    pub fn hostname(&self, machine: &Machine) -> String {
        let pattern = self.request.as_ordered().hostname.as_deref().unwrap_or("{name}");
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
        let pattern = serde_json::json!({"image": "debian", "selection": {}, "hostname": "web-{id}"});
        named.request = serde_json::from_value(pattern).unwrap();
        assert_eq!(named.hostname(&machine(MachineState::Approved)), "web-m7");
    }
}
