//! Core, part of the fleet: which machine a report is from, machines whose identity is in doubt, and how an admin
//! settles that: two records are one machine (`merge`), or they are two (`release`). Touches `api`, `common` and the
//! other cores of the fleet.

use common::hardware::{Firmware, HardwareReport};
use common::id::MachineId;
use common::step::{Step, What};
use common::wire::http::Refused;
use jiff::Timestamp;

use super::super::bound::Marks;
use super::super::identity::{Candidate, Fingerprint, Who, recognise};
use super::super::job::Job;
use super::super::machine::Machine;
use super::super::order::refused;
use super::super::state::Change;
use super::{Fleet, Whose};
use crate::api::shapes::{Doubt, JobState};

impl Fleet {
    /// Which machine `report` is from; `shown` are its marks.
    pub(in super::super) fn who(&self, report: &HardwareReport, shown: &Fingerprint) -> Who {
        if report.firmware == Firmware::None {
            return self.which_process(report);
        }
        let machines: Vec<&Machine> =
            self.state.sharing(shown).iter().filter_map(|id| self.state.machines.get(id)).collect();
        let candidates: Vec<Candidate<'_>> =
            machines.into_iter().map(|machine| self.as_candidate(machine)).collect();
        let boot = self.state.by_key(&report.key).map(|machine| self.as_candidate(machine));
        recognise(shown, report, &candidates, boot)
    }

    fn as_candidate<'a>(&self, machine: &'a Machine) -> Candidate<'a> {
        Candidate {
            id: machine.id,
            print: &machine.fingerprint,
            hardware: machine.hardware.as_ref().map(|checked| checked.report()),
            doubted: !machine.doubts.is_empty(),
            claimed: self.is_claimed(machine.id),
        }
    }

    /// Which agent that runs as an ordinary process `report` is from. It is recognised by its name, and compared only
    /// with other such agents: it chooses its name itself, and that may be another machine's id, address or serial
    /// number.
    fn which_process(&self, report: &HardwareReport) -> Who {
        let known = |machine| Who::Known { machine, absorbs: vec![], doubts: vec![] };
        let is_process = |machine: &Machine| {
            let reported = machine.hardware.as_ref();
            reported.is_some_and(|checked| checked.report().firmware == Firmware::None)
        };
        match self.state.by_key(&report.key) {
            Some(machine) if is_process(machine) => return known(machine.id),
            Some(machine) => return Who::NotItsBoot(machine.id),
            None => {}
        }
        let name = report.name.as_deref().unwrap_or_default();
        let named = |machine: &&Machine| !name.is_empty() && machine.is_process(name);
        let found = self.state.machines.values().find(named);
        found.map_or(Who::New { doubts: vec![] }, |machine| known(machine.id))
    }

    /// Logs the doubts about a machine, each once.
    pub(in super::super) fn tell_doubts(&mut self, id: MachineId, doubts: &[Doubt], now: Timestamp) {
        for doubt in doubts {
            let text = format!(
                "in doubt: {doubt}; it gets no plan until `swarmboot machine merge {id} --into {}` or \
                 `swarmboot machine release {id}`",
                doubt.other
            );
            self.log_once(now, Whose::Machine(id), Step::Inspect, What::Note { text });
        }
    }

    /// An admin decided that `machine` is another than those of `doubts`: the addresses that they share become weak.
    pub(in super::super) fn set_apart(&mut self, machine: &mut Machine, doubts: &[Doubt]) {
        for doubt in doubts {
            let Some(mut other) = self.state.machines.get(&doubt.other).cloned() else { continue };
            other.fingerprint.weaken(|mac| machine.fingerprint.macs.contains(&mac));
            machine.fingerprint.weaken(|mac| other.fingerprint.macs.contains(&mac));
            self.put_machine(other);
        }
    }

    /// The machine that `machine` is to be merged into.
    ///
    /// # Errors
    /// When `into` does not name exactly one other machine, or one of the two has a job that is under way.
    pub(in super::super) fn merge_target(
        &self,
        machine: MachineId,
        into: &str,
    ) -> Result<MachineId, Refused> {
        let mut named = self.state.named(into);
        named.retain(|id| self.may_see(*id));
        let [target] = named.as_slice() else {
            let error = format!("`{into}` names {} machines", named.len());
            return Err(refused(error, "name the one machine that it is, by its id"));
        };
        if *target == machine {
            return Err(refused("a machine is itself already", "name another machine with --into"));
        }
        let hint = "`swarmboot deploy cancel` ends its job";
        if self.state.newest_job(machine).is_some_and(Job::is_open) {
            return Err(refused(format!("a job is open for {machine}; cancel that first"), hint));
        }
        let runs = |job: &Job| matches!(job.state, JobState::Running | JobState::Written);
        if self.state.newest_job(*target).is_some_and(runs) {
            return Err(refused(format!("a job of {target} is under way; cancel that first"), hint));
        }
        Ok(*target)
    }

    /// Merges `machine` into `target`, which keeps its name, labels and orders, and is from now on recognised by the
    /// marks of `machine`.
    pub(in super::super) fn merge(&mut self, machine: &Machine, target: MachineId, now: Timestamp) {
        let Some(mut known) = self.state.machines.get(&target).cloned() else { return };
        self.forget(machine.id);
        known.fingerprint = match &machine.hardware {
            // The marks of the old hardware are dropped: its parts may be built into another machine one day.
            Some(checked) => {
                let own = Fingerprint::of(checked.report());
                let mut print = machine.fingerprint.clone();
                print.weak.retain(|mac| !own.owns(*mac));
                print
            }
            None => {
                let mut print = known.fingerprint;
                print.macs.extend(&machine.fingerprint.macs);
                print
            }
        };
        let foreign = |mac| self.is_anothers(mac, target);
        known.fingerprint.weaken(foreign);
        known.doubts.retain(|doubt| doubt.other != machine.id);
        if machine.hardware.is_some() {
            (known.boot, known.idle_boot) = (machine.boot, machine.idle_boot);
            known.site.clone_from(&machine.site);
        }
        known.last_seen = known.last_seen.max(machine.last_seen);
        // Its waiting job is bound to the new marks; the disk stays the one that the admin was shown.
        let ordered = self.state.newest_job(target).filter(|job| job.wants_plan()).cloned();
        if let Some(mut job) = ordered {
            job.bound.marks = Some(Marks::of(&known.fingerprint));
            self.put(Change::Job(Box::new(job)));
        }
        self.put_machine(known);
        if let Some(hardware) = &machine.hardware {
            self.put(Change::Hardware(target, std::sync::Arc::clone(hardware)));
        }
        let text = format!("{}: {} is this machine", self.caller_name(), machine.shown_name());
        self.log(now, Whose::Machine(target), Step::Inspect, What::Note { text });
    }

    /// Removes a machine, and the doubts of others about it.
    pub(in super::super) fn forget(&mut self, id: MachineId) {
        self.put(Change::Forget(id));
        let about = |machine: &&Machine| machine.doubts.iter().any(|doubt| doubt.other == id);
        let others: Vec<Machine> = self.state.machines.values().filter(about).cloned().collect();
        for mut other in others {
            other.doubts.retain(|doubt| doubt.other != id);
            self.put_machine(other);
        }
    }
}
