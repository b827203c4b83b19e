//! Core, part of the fleet: an admin's commands for machines: approve, reject, name, label, hold, release, merge,
//! forget. Touches `api`, `common` and the other cores of the fleet.

use common::id::MachineId;
use common::step::{Step, What};
use common::text::fits_name;
use common::wire::http::Refused;
use jiff::Timestamp;

use super::decide::{Fleet, Whose};
use super::job::{Job, JobEvent};
use super::machine::Machine;
use super::order::refused;
use super::rules::check_label;
use super::selectors::fact_names;
use super::state::Change;
use crate::api::shapes::{JobState, MachineAction, MachineChanged, MachineCommand, MachineState};

/// The longest name of a machine, in bytes.
const NAME_MAX: usize = 128;

impl Fleet {
    /// Carries out an admin's command for the machines that it selects, or with `dry_run` only says what it would do.
    ///
    /// # Errors
    /// When no machine is selected, or the command is not possible for one of them; then nothing was changed.
    pub fn command(
        &mut self,
        command: &MachineCommand,
        now: Timestamp,
    ) -> Result<Vec<MachineChanged>, Refused> {
        let chosen = self.select(&command.selection)?;
        if chosen.is_empty() {
            return Err(self.means_nobody("no machine is meant", &command.selection));
        }
        self.check_action(&command.action, &chosen)?;
        let mut changed = Vec::new();
        let mut after = Vec::new();
        for id in chosen {
            let Some(mut machine) = self.state.machines.get(&id).cloned() else { continue };
            let name = machine.shown_name();
            let busy = self.state.newest_job(id).is_some_and(Job::is_open);
            let done = match command.action {
                MachineAction::Forget | MachineAction::Inspect if busy => {
                    Err("a job is open for it; cancel that first".to_owned())
                }
                _ => machine.obey(&command.action),
            };
            let done = done.map(|text| format!("{text}{}", self.aside(id, &command.action)));
            let text = done.map_err(|why| refused(format!("{name}: {why}"), "nothing was changed"))?;
            changed.push(MachineChanged { machine: id, name, text });
            after.push(machine);
        }
        if !command.dry_run {
            for (machine, changed) in after.into_iter().zip(&changed) {
                self.carry_out(machine, &command.action, &changed.text, now);
            }
        }
        Ok(changed)
    }

    fn carry_out(&mut self, machine: Machine, action: &MachineAction, text: &str, now: Timestamp) {
        let id = machine.id;
        let text = format!("{}: {text}", self.caller_name());
        self.log(now, Whose::Machine(id), Step::Decide, What::Note { text });
        if matches!(action, MachineAction::Forget) {
            if let Some(boot) = machine.boot {
                self.after.dismissed.push((boot.key, Some("the machine was forgotten".to_owned())));
            }
            self.forget(id);
            return;
        }
        if let MachineAction::Merge { into } = action {
            if let Ok(target) = self.merge_target(id, into) {
                self.merge(&machine, target, now);
            }
            return;
        }
        let mut machine = machine;
        let before = self.state.machines.get(&id).map(|before| before.doubts.clone()).unwrap_or_default();
        if machine.doubts.is_empty() && !before.is_empty() {
            self.set_apart(&mut machine, &before);
        }
        if let MachineAction::Name(name) = action {
            self.take_name_from_claimants(name, id, now);
        }
        self.put_machine(machine);
        self.follow_up(id, action, now);
        if matches!(action, MachineAction::Approve | MachineAction::Label { .. } | MachineAction::Release) {
            // An open deployment may take the machine now.
            self.take_open(id, now);
        }
    }

    /// Whether the machine's name is only its own claim: no admin has said anything about it and no job is for it. An
    /// admin who gives that name to another machine takes it away.
    fn only_claims_its_name(&self, id: MachineId) -> bool {
        let open = self.state.newest_job(id).is_some();
        self.state.machines.get(&id).is_some_and(|other| other.state == MachineState::Discovered && !open)
    }

    fn take_name_from_claimants(&mut self, name: &str, owner: MachineId, now: Timestamp) {
        for other in self.state.named(name).into_iter().filter(|other| *other != owner) {
            let Some(mut claimant) = self.state.machines.get(&other).cloned() else { continue };
            if claimant.name.as_deref() == Some(name) && self.only_claims_its_name(other) {
                claimant.name = None;
                self.put_machine(claimant);
                let text =
                    format!("called itself {name}, which an admin has named {owner}: it has no name now");
                self.log(now, Whose::Machine(other), Step::Decide, What::Note { text });
            }
        }
    }

    /// What `action` means for the machine's open job, to be added to the reply; empty when it means nothing.
    fn aside(&self, id: MachineId, action: &MachineAction) -> String {
        let Some(job) = self.state.newest_job(id).filter(|job| job.is_open()) else { return String::new() };
        match (action, job.state) {
            (MachineAction::Reject, _) => format!("; {} of {} is cancelled", job.id, job.deployment),
            (MachineAction::Hold, JobState::Running) => format!(
                "; {} of {} is running and goes on, `swarmboot deploy cancel` stops it",
                job.id, job.deployment
            ),
            (MachineAction::Hold, JobState::Ordered) => format!("; {} of {} waits", job.id, job.deployment),
            _ => String::new(),
        }
    }

    /// What `action` does to the machine's newest job.
    fn follow_up(&mut self, id: MachineId, action: &MachineAction, now: Timestamp) {
        let Some(job) = self.state.newest_job(id) else { return };
        if matches!(action, MachineAction::Reject) {
            let job = job.id;
            self.happen(job, JobEvent::Cancelled("the machine was rejected".to_owned()), now);
        } else if let Some(before) = job.before.filter(|_| job.is_open() || job.state == JobState::Refused) {
            // The command also applies to the state that the machine gets back when the job is cancelled.
            let (mut job, Some(machine)) = (job.clone(), self.state.machines.get(&id)) else { return };
            let mut earlier = Machine { state: before, ..machine.clone() };
            if earlier.obey(action).is_ok() && earlier.state != before {
                job.before = Some(earlier.state);
                self.put(Change::Job(Box::new(job)));
            }
        }
    }

    fn check_action(&self, action: &MachineAction, chosen: &[MachineId]) -> Result<(), Refused> {
        let short =
            |text: &str| !text.is_empty() && text.len() <= NAME_MAX && !text.chars().any(char::is_control);
        match action {
            MachineAction::Name(name) => {
                if !short(name) || !name.chars().all(fits_name) || name.parse::<MachineId>().is_ok() {
                    let error = format!("`{}` cannot be a machine's name", common::limits::cut(name, 80));
                    return Err(refused(error, "letters, digits, dots and dashes; not an id such as m7"));
                }
                let [one] = chosen else {
                    return Err(refused("several machines cannot have one name", "name them one by one"));
                };
                if self
                    .state
                    .named(name)
                    .iter()
                    .any(|other| other != one && !self.only_claims_its_name(*other))
                {
                    return Err(refused(format!("another machine is called `{name}`"), "names are unique"));
                }
            }
            MachineAction::Merge { into } => {
                let [one] = chosen else {
                    return Err(refused("several machines cannot be one", "merge them one by one"));
                };
                self.merge_target(*one, into)?;
            }
            MachineAction::Label { set, .. } => {
                for (key, value) in set {
                    check_label(key, value).map_err(|why| {
                        let error = format!("the label `{}`: {why}", common::limits::cut(key, 80));
                        refused(
                            error,
                            &format!("write labels as key=value; no key is one of {}", fact_names()),
                        )
                    })?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}
