//! Core: one machine as the fleet knows it, what an admin's command does to it, and what it gets when it asks to
//! network-boot. Touches `api`, `common`, `fleet::marks`, `fleet::job`, `fleet::boot_policy`.
//!
//! A machine is `discovered` when it is first seen, `inspected` once an admin has named, labelled or held it, and
//! `approved` when an admin has approved it or an order takes it. From then on its jobs change its state. Whatever its
//! state: nothing is written to it but by a job.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::hardware::{CheckedHardware, Contents, Device, Firmware, HardwareReport, List};
use common::id::MachineId;
use common::trust::PublicKey;
use jiff::Timestamp;

use super::boot_policy::{BootPolicy, IdleBoot, KnownBy};
use super::job::Job;
use super::marks::Fingerprint;
use crate::api::shapes::{Doubt, JobState, MachineAction, MachineState};

/// The machine's present boot: events are taken only under its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boot {
    /// The key that it made at this boot.
    pub key: PublicKey,
    /// The highest number of its events that was taken; events up to it are repetitions.
    pub through: u64,
    /// When that key was seen first.
    pub since: Timestamp,
}

/// A machine: its identity, what an admin decided about it, and what it last reported.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// The number that the server gave it; never given again.
    pub id: MachineId,
    /// The name that an admin, or the machine itself, gave it; `None` if neither did.
    pub name: Option<String>,
    /// Its state, set by an admin's commands and by its jobs.
    pub state: MachineState,
    /// Whether an admin holds it: no job is given to it.
    pub held: bool,
    /// The machines on record that it may be, as long as its identity is in doubt; else empty.
    pub doubts: Vec<Doubt>,
    /// The site at which it was last seen.
    pub site: String,
    /// Labels that an admin gave it, key to value; orders select machines by them.
    pub labels: BTreeMap<String, String>,
    /// The marks by which it is recognised.
    pub fingerprint: Fingerprint,
    /// What it gets when it network-boots and no job is open.
    pub idle_boot: IdleBoot,
    /// The boot of its last report; `None` while it has not reported.
    pub boot: Option<Boot>,
    /// When it first showed itself.
    pub first_seen: Timestamp,
    /// When it last showed itself.
    pub last_seen: Timestamp,
    /// The name of the image that its last completed job installed; `None` once that was overwritten.
    pub deployed_image: Option<String>,
    /// Its last report; `None` while it was only seen to ask for a boot. Shortened for a machine that nobody let in.
    pub hardware: Option<Arc<CheckedHardware>>,
}

impl Machine {
    /// A machine that was just seen for the first time.
    #[must_use]
    pub fn new(id: MachineId, fingerprint: Fingerprint, site: String, now: Timestamp) -> Self {
        Self {
            id,
            name: None,
            state: MachineState::Discovered,
            held: false,
            doubts: vec![],
            site,
            labels: BTreeMap::new(),
            fingerprint,
            idle_boot: IdleBoot::Load,
            boot: None,
            first_seen: now,
            last_seen: now,
            deployed_image: None,
            hardware: None,
        }
    }

    /// Its name, or its id if it has none.
    #[must_use]
    pub fn shown_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.id.to_string())
    }

    /// Whether it has a name, or an admin or a job has changed it: then a report that differs from it must not simply
    /// replace it.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        self.state != MachineState::Discovered || !self.labels.is_empty() || self.held || self.name.is_some()
    }

    /// Whether it is an agent that runs as an ordinary process under this name. Such an agent has no marks and is
    /// recognised by its name alone.
    #[must_use]
    pub fn is_process(&self, name: &str) -> bool {
        let is_named = |report: &HardwareReport| {
            report.firmware == Firmware::None && report.name.as_deref() == Some(name)
        };
        self.hardware.as_ref().is_some_and(|checked| is_named(checked.report()))
    }

    /// The marks by which its requests to network-boot are recognised.
    #[must_use]
    pub fn known_by(&self) -> KnownBy {
        let print = &self.fingerprint;
        KnownBy {
            machine: self.id,
            uuids: print.uuids.iter().cloned().collect(),
            serial: print.system_serial.clone(),
            own: print.own().collect(),
            weak: print.macs.intersection(&print.weak).copied().collect(),
        }
    }

    /// Whether jobs may be given out to it.
    #[must_use]
    pub fn takes_jobs(&self) -> bool {
        !self.held
            && self.doubts.is_empty()
            && !matches!(self.state, MachineState::Rejected | MachineState::Retired)
    }

    /// Whether it has a name or is approved, so that it is answered even without discovery.
    fn is_vouched_for(&self) -> bool {
        self.name.is_some() || self.state == MachineState::Approved
    }

    /// What it gets when it asks to network-boot; `job` is its newest job, `discover` whether unknown machines get the
    /// loader, `frozen` whether nothing new may begin for it.
    #[must_use]
    pub fn policy(&self, job: Option<&Job>, discover: bool, frozen: bool) -> BootPolicy {
        if self.state == MachineState::Rejected {
            return BootPolicy::Ignore;
        }
        if self.state == MachineState::Retired {
            return BootPolicy::BootDisk;
        }
        let wanted = job.is_some_and(|job| {
            let ordered = job.state == JobState::Ordered && !frozen;
            (ordered || job.state == JobState::Running) && self.takes_jobs()
        });
        match (wanted, self.idle_boot) {
            (true, _) => BootPolicy::Load,
            (false, IdleBoot::BootDisk) => BootPolicy::BootDisk,
            (false, IdleBoot::Load) if !discover && !self.is_vouched_for() => BootPolicy::Unknown,
            (false, IdleBoot::Load | IdleBoot::Stay) => BootPolicy::Load,
        }
    }

    /// Applies `action` to this record, and returns what was done in words. `Forget`, `Merge` and the effects on jobs
    /// are left to the caller.
    ///
    /// # Errors
    /// When the action is not possible in the machine's state, with the reason.
    pub fn obey(&mut self, action: &MachineAction) -> Result<String, String> {
        match action {
            MachineAction::Approve => self.approve(),
            MachineAction::Reject => {
                self.state = MachineState::Rejected;
                Ok("rejected: it will not be answered any more".to_owned())
            }
            MachineAction::Name(name) => {
                self.name = Some(name.clone());
                self.said_something();
                Ok(format!("named {name}"))
            }
            MachineAction::Label { set, remove } => {
                for key in remove {
                    self.labels.remove(key);
                }
                self.labels.extend(set.clone());
                self.said_something();
                let labels: Vec<_> = self.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
                Ok(if labels.is_empty() {
                    "has no labels".to_owned()
                } else {
                    format!("labels: {}", labels.join(" "))
                })
            }
            MachineAction::Hold => {
                self.held = true;
                self.said_something();
                Ok("held: no job is given to it until it is released".to_owned())
            }
            MachineAction::Inspect => self.inspect(),
            MachineAction::Release => Ok(self.release()),
            MachineAction::Forget => Ok("forgotten; its events stay".to_owned()),
            MachineAction::Merge { into } => Ok(format!("is {into} from now on")),
        }
    }

    fn approve(&mut self) -> Result<String, String> {
        match self.state {
            MachineState::Discovered | MachineState::Inspected | MachineState::Failed => {
                self.state = MachineState::Approved;
                Ok("approved: open deployments may take it".to_owned())
            }
            MachineState::Approved => Ok("was approved already".to_owned()),
            MachineState::Rejected | MachineState::Retired => {
                Err(format!("it is {}; release it first", self.state.name()))
            }
            MachineState::Deploying | MachineState::Deployed => {
                Err(format!("it is {} already", self.state.name()))
            }
        }
    }

    fn inspect(&mut self) -> Result<String, String> {
        if matches!(self.state, MachineState::Rejected | MachineState::Retired) {
            return Err(format!("it is {}; release it first", self.state.name()));
        }
        self.idle_boot = IdleBoot::Stay;
        self.said_something();
        Ok("stays in the loader from its next network boot on, until it is released".to_owned())
    }

    fn release(&mut self) -> String {
        let was_held = std::mem::take(&mut self.held);
        let stayed = self.idle_boot == IdleBoot::Stay;
        if stayed {
            // Its next report decides whether it boots its disk.
            self.idle_boot = IdleBoot::Load;
        }
        let others: Vec<String> =
            std::mem::take(&mut self.doubts).iter().map(|doubt| doubt.other.to_string()).collect();
        if !others.is_empty() && !matches!(self.state, MachineState::Rejected | MachineState::Retired) {
            return format!("released: it is another machine than {}", others.join(" and "));
        }
        match self.state {
            MachineState::Rejected | MachineState::Retired => {
                self.state = MachineState::Inspected;
                "released: it will be answered again".to_owned()
            }
            MachineState::Failed => {
                self.state = MachineState::Approved;
                "released: its failure is set aside".to_owned()
            }
            _ if was_held => "released: jobs are given to it again".to_owned(),
            _ if stayed => "released: it does not stay in the loader any more".to_owned(),
            _ => "was not held".to_owned(),
        }
    }

    fn said_something(&mut self) {
        if self.state == MachineState::Discovered {
            self.state = MachineState::Inspected;
        }
    }
}

/// The state of a machine whose job is cancelled: the one before the order, if that is known and still true, and never
/// approved by accident. `touched` when its disk may have been written to.
#[must_use]
pub fn restored(machine: &Machine, before: Option<MachineState>, touched: bool) -> MachineState {
    match (machine.state, before) {
        // An admin rejected it after the order.
        (state @ (MachineState::Rejected | MachineState::Retired), _) => state,
        // This or an earlier attempt may have cleared the disk.
        (_, Some(MachineState::Deployed)) if touched || machine.deployed_image.is_none() => {
            MachineState::Inspected
        }
        (_, Some(before)) if before != MachineState::Deploying => before,
        // The job is of an earlier version, which did not record the state before it.
        _ if !touched && machine.deployed_image.is_some() => MachineState::Deployed,
        _ => MachineState::Inspected,
    }
}

/// Whether a disk of the machine would boot, so that the machine can be sent to it.
#[must_use]
pub fn has_bootable_disk(report: &HardwareReport) -> bool {
    report.disks.iter().any(|disk| disk.contents.may_boot())
}

/// Whether every disk of the machine is blank. A disk that cannot be read counts as occupied, and so do disks that may
/// be hidden: those that the report has no room for, or behind a controller without a driver.
#[must_use]
pub fn is_blank(report: &HardwareReport) -> bool {
    const MASS_STORAGE: u32 = 0x01;
    let hidden = |device: &Device| device.class >> 16 == MASS_STORAGE && device.driver.is_empty();
    let whole = report.cut_of(List::Disks).or(report.cut_of(List::Devices)).is_none();
    whole
        && !report.disks.is_empty()
        && report.disks.iter().all(|disk| disk.contents == Contents::Blank)
        && !report.devices.iter().any(hidden)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::job::tests::job;

    fn machine() -> Machine {
        Machine::new(MachineId(1), Fingerprint::default(), "lab".to_owned(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn nothing_but_an_open_job_leads_a_settled_machine_to_the_loader() {
        let mut known = machine();
        known.idle_boot = IdleBoot::BootDisk;
        assert_eq!(known.policy(None, true, false), BootPolicy::BootDisk);
        for (state, wanted) in [
            (JobState::Ordered, BootPolicy::Load),
            (JobState::Running, BootPolicy::Load),
            (JobState::Refused, BootPolicy::BootDisk),
            (JobState::Written, BootPolicy::BootDisk),
            (JobState::Deployed, BootPolicy::BootDisk),
            (JobState::Failed, BootPolicy::BootDisk),
            (JobState::Cancelled, BootPolicy::BootDisk),
        ] {
            assert_eq!(known.policy(Some(&job(state)), true, false), wanted, "{state:?}");
        }
        known.held = true;
        assert_eq!(known.policy(Some(&job(JobState::Ordered)), true, false), BootPolicy::BootDisk);
        known.state = MachineState::Rejected;
        assert_eq!(known.policy(Some(&job(JobState::Ordered)), true, false), BootPolicy::Ignore);
    }

    #[test]
    fn without_discovery_only_ordered_machines_are_answered() {
        let new = machine();
        assert_eq!(new.policy(None, true, false), BootPolicy::Load);
        assert_eq!(new.policy(None, false, false), BootPolicy::Unknown);
        let named = Machine { name: Some("web1".to_owned()), ..new.clone() };
        assert_eq!(named.policy(None, false, false), BootPolicy::Load, "an admin knows it");
        let approved = Machine { state: MachineState::Approved, ..new.clone() };
        assert_eq!(approved.policy(None, false, false), BootPolicy::Load);
        assert_eq!(new.policy(Some(&job(JobState::Ordered)), false, false), BootPolicy::Load);
    }

    #[test]
    fn an_admins_word_in_every_state() {
        use MachineState as S;
        let all = [
            S::Discovered,
            S::Inspected,
            S::Approved,
            S::Deploying,
            S::Deployed,
            S::Failed,
            S::Rejected,
            S::Retired,
        ];
        let after = |state: S, action: &MachineAction| {
            let mut known = machine();
            known.state = state;
            known.obey(action).is_ok().then_some(known.state)
        };
        let approved: Vec<_> = all.iter().map(|state| after(*state, &MachineAction::Approve)).collect();
        let wanted = [
            Some(S::Approved),
            Some(S::Approved),
            Some(S::Approved),
            None,
            None,
            Some(S::Approved),
            None,
            None,
        ];
        assert_eq!(approved, wanted);
        let rejected: Vec<_> = all.iter().map(|state| after(*state, &MachineAction::Reject)).collect();
        assert!(rejected.iter().all(|state| *state == Some(S::Rejected)));
        let held: Vec<_> = all.iter().map(|state| after(*state, &MachineAction::Hold)).collect();
        assert_eq!(held[0], Some(S::Inspected));
        assert_eq!(held[1..], all[1..].iter().map(|state| Some(*state)).collect::<Vec<_>>());
        let released: Vec<_> = all.iter().map(|state| after(*state, &MachineAction::Release)).collect();
        assert_eq!(released[5..], [Some(S::Approved), Some(S::Inspected), Some(S::Inspected)]);
    }

    #[test]
    fn a_cancel_gives_back_what_was_before() {
        use MachineState as S;
        let table = [
            (S::Approved, Some(S::Discovered), false, S::Discovered),
            (S::Approved, Some(S::Inspected), false, S::Inspected),
            (S::Approved, Some(S::Approved), false, S::Approved),
            (S::Deployed, Some(S::Deployed), false, S::Deployed),
            (S::Deploying, Some(S::Deployed), true, S::Inspected),
            (S::Deploying, Some(S::Approved), true, S::Approved),
            (S::Failed, Some(S::Failed), false, S::Failed),
            (S::Rejected, Some(S::Approved), true, S::Rejected),
            (S::Retired, Some(S::Approved), false, S::Retired),
            // Jobs of an earlier version.
            (S::Approved, None, false, S::Inspected),
            (S::Deploying, None, true, S::Inspected),
        ];
        for (now, before, touched, wanted) in table {
            let mut known = machine();
            (known.state, known.deployed_image) = (now, before.map(|_| "debian".to_owned()));
            assert_eq!(restored(&known, before, touched), wanted, "{now:?} {before:?} {touched}");
        }
        let cleared = machine();
        assert_eq!(restored(&cleared, Some(S::Deployed), false), S::Inspected, "its OS is gone");
        let mut deployed = machine();
        (deployed.state, deployed.deployed_image) = (S::Approved, Some("debian".to_owned()));
        assert_eq!(restored(&deployed, None, false), S::Deployed);
    }
}
