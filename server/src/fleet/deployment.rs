//! Core: a deployment: one order for many machines, and which machines it takes. Touches `api`, `common`, `fleet::job`,
//! `fleet::machine`, `fleet::rules`.

use std::net::IpAddr;

use common::hardware::{Firmware, HardwareReport};
use common::id::{DeploymentId, ImageId};
use common::plan::Finish;
use jiff::Timestamp;

use super::job::Job;
use super::machine::{Machine, is_blank};
use super::order::CheckedOrder;
use super::provisioner::PlanRequest;
use super::rules::Rules;
use crate::api::shapes::MachineState;

/// The longest part of a hostname between dots, in characters: RFC 1123 section 2.1.
const HOSTNAME_MAX: usize = 63;

/// One order for many machines, as it was given; its progress is in its jobs.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Given once, and never to another deployment.
    pub id: DeploymentId,
    /// When it was ordered; an open deployment expires so long after this.
    pub ordered: Timestamp,
    /// The image that is written, even if its name means another image by now.
    pub image: ImageId,
    /// The image's name at that time.
    pub image_name: String,
    /// The bytes of all its chunks as sent, compressed.
    pub wire_bytes: u64,
    /// The order, after it was checked.
    pub request: CheckedOrder,
    /// Whether it still takes machines that appear and match its selectors.
    pub open: bool,
    /// Since when an admin has paused it; nothing of it begins meanwhile.
    pub paused: Option<Timestamp>,
    /// The first deployment of the order that it is part of; `None` where it is the whole order.
    pub placed_with: Option<DeploymentId>,
}

impl Deployment {
    /// Whether it takes `machine`, which has just reported, when `jobs_taken` of its jobs are given out already. A
    /// machine with data on any disk is taken only if an admin approved it: a selector does not name a machine, and the
    /// data may be somebody's.
    #[must_use]
    pub fn takes(&self, machine: &Machine, jobs_taken: usize, rules: &Rules) -> bool {
        let room = jobs_taken < self.request.room();
        let blank = machine.hardware.as_ref().is_some_and(|checked| is_blank(checked.report()));
        let state = match machine.state {
            MachineState::Approved => true,
            MachineState::Discovered | MachineState::Inspected => blank,
            _ => false,
        };
        self.open
            && self.paused.is_none()
            && room
            && state
            && machine.takes_jobs()
            && rules.fit(self.request.selectors(), machine)
    }

    /// Whether it may take machines that have not shown themselves yet, when `jobs_taken` of its jobs are given out.
    #[must_use]
    pub fn takes_strangers(&self, jobs_taken: usize) -> bool {
        self.open
            && self.paused.is_none()
            && !self.request.names_machines()
            && jobs_taken < self.request.room()
    }

    /// Whether `job`, which has no plan yet, was given out to a machine only because its disks were blank.
    #[must_use]
    pub fn took_as_blank(&self, job: &Job) -> bool {
        let unapproved = matches!(job.before, Some(MachineState::Discovered | MachineState::Inspected));
        self.request.as_ordered().open && !self.request.names_machines() && unapproved && job.attempt == 0
    }

    /// Whether its ceiling, and not its own limit, keeps an open order from taking more, when `jobs_taken` are given out.
    #[must_use]
    pub fn is_full(&self, jobs_taken: usize) -> bool {
        let limit = self.request.as_ordered().limit.map_or(usize::MAX, |limit| limit as usize);
        self.open && jobs_taken >= self.request.room() && jobs_taken < limit
    }

    /// The request to the tailor for a plan of `job`, for the machine that reported `report` and reaches the server at
    /// `server`.
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
            hooks: self.request.hook_root().cloned(),
            gather: ordered.gather.is_some(),
            finish: if report.firmware == Firmware::None {
                Finish::Exit
            } else {
                ordered.finish.unwrap_or_default()
            },
            server,
            reporter: None,
        }
    }

    /// The hostname for the installed OS on `machine`: the order's pattern filled in, and changed to what DNS allows.
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

/// `text` as a hostname: characters that RFC 1123 does not allow become dashes; `otherwise` when nothing is left.
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
            paused: None,
            placed_with: None,
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
        assert!(order(true, Some(2)).takes(&approved, 1, &Rules::default()));
        assert!(!order(true, Some(2)).takes(&approved, 2, &Rules::default()));
        assert!(!order(false, None).takes(&approved, 0, &Rules::default()));
        let mut other = approved.clone();
        other.labels.clear();
        assert!(!order(true, None).takes(&other, 0, &Rules::default()));
        let mut held = approved;
        held.held = true;
        assert!(!order(true, None).takes(&held, 0, &Rules::default()));
        for state in
            [MachineState::Rejected, MachineState::Retired, MachineState::Deployed, MachineState::Failed]
        {
            assert!(!order(true, None).takes(&machine(state), 0, &Rules::default()), "{state:?}");
        }
        assert!(
            !order(true, None).takes(&machine(MachineState::Discovered), 0, &Rules::default()),
            "its disks are not known"
        );
    }

    #[test]
    fn an_open_order_takes_strangers_up_to_its_limit() {
        assert!(order(true, None).takes_strangers(1_000) && order(true, Some(2)).takes_strangers(1));
        assert!(!order(true, Some(2)).takes_strangers(2), "it is full");
        assert!(!order(false, None).takes_strangers(0), "it is closed");
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
