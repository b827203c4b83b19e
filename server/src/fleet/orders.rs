//! Core: an admin's orders. Which machines are meant, what an order would do to each, placing it, and taking
//! it back. Part of the fleet. Touches `api`, `common` and the other cores of the fleet.

use std::collections::BTreeSet;
use std::sync::Arc;

use common::hardware::CheckedHardware;
use common::id::{DeploymentId, JobId, MachineId};
use common::limits::{GATHER_SECONDS_MAX, USER_DATA_BYTES_MAX};
use common::plan::DiskIdentity;
use common::step::{Step, What};
use common::text::{fits_name, some_of};
use common::user_data::UserData;
use common::wire::http::Refused;
use jiff::Timestamp;

use super::bound::{Bound, Marks, same, words};
use super::decide::{Fleet, Whose};
use super::deployment::{Deployment, labels};
use super::hostlist;
use super::job::{Job, JobEvent};
use super::machine::Machine;
use super::own::Own;
use super::provisioner::{NoPlan, PlanRequest, Target};
use super::reports::OWN_DISK;
use super::state::Change;
use super::user_data;
use crate::api::shapes::{
    ACCEPTABLE, Cancel, DeployLine, DeployOrder, ImageShown, JobState, MachineAction, MachineChanged,
    MachineCommand, MachineState, Selection, Warning,
};

/// The most SSH keys of one order.
const SSH_KEYS_MAX: usize = 256;
/// The longest SSH key; an RSA key of 16,384 bits has about 2,800 characters.
const SSH_KEY_MAX: usize = 16 << 10;
/// How many names that are nobody's are said.
const UNKNOWN_SHOWN: usize = 8;
/// The longest name of a machine, label or value.
const NAME_MAX: usize = 128;

/// One machine of an order, before anything is done.
#[derive(Debug)]
pub struct Candidate {
    /// The machine.
    pub machine: MachineId,
    /// Its name.
    pub name: String,
    /// Why it takes no order now.
    pub refused: Option<String>,
    /// The machine that the server runs on.
    pub own: Arc<Own>,
    /// What the tailor is to be asked, when its hardware is known.
    pub request: Option<(PlanRequest, Arc<CheckedHardware>)>,
    /// What is to be known of the order, whatever the machine.
    pub warnings: Vec<Warning>,
    /// What the order accepts.
    pub accepted: Vec<String>,
}

impl Candidate {
    /// What the order means for it. `target` is what the tailor said; none when it could not be asked.
    #[must_use]
    pub fn line(self, target: Option<Result<Target, NoPlan>>, accepted: &[String]) -> DeployLine {
        let (target, unfit) = match target {
            Some(Ok(target)) if self.own.has(&target.disk) => (Some(target), Some(OWN_DISK.to_owned())),
            Some(Ok(target)) => (Some(target), None),
            Some(Err(reason)) => (None, Some(common::causes::with_causes(&reason))),
            None => (None, None),
        };
        let mut warnings = target.as_ref().map(|target| target.warnings.clone()).unwrap_or_default();
        warnings.extend(self.warnings);
        let accepted = [accepted, &self.accepted].concat();
        if self.request.is_none() {
            warnings.push(Warning::HardwareUnknown);
        }
        let refused = self.refused.or(unfit).or_else(|| Warning::refusal(&warnings, &accepted));
        let (disk, target) = target.map(|target| (target.disk, target.words)).unzip();
        DeployLine { machine: self.machine, name: self.name, target, disk, warnings, refused }
    }
}

/// Refuses `line` when it is not what was shown: `disk` was, or none where it could not be told.
pub(super) fn hold_to(line: &mut DeployLine, disk: Option<&DiskIdentity>) {
    let differs = match (disk, &line.disk) {
        (Some(shown), Some(now)) if !same(shown, now) => {
            Some(format!("it would write {} now, and not {}, which was shown", words(now), words(shown)))
        }
        (Some(shown), None) => Some(format!("{} was shown, and cannot be told any more", words(shown))),
        (None, Some(now)) => {
            Some(format!("it has reported its hardware since it was shown, and would write {}", words(now)))
        }
        _ => None,
    };
    line.refused = line.refused.take().or(differs);
}

/// A refusal with its cause and hint.
pub(super) fn refused(error: impl Into<String>, hint: &str) -> Refused {
    Refused { error: error.into(), cause: None, hint: Some(hint.to_owned()) }
}

impl Fleet {
    /// The machines that `selection` means, in order. Empty when it says nothing.
    ///
    /// # Errors
    /// When a name is no hostlist, or names no machine or several.
    pub fn select(&self, selection: &Selection) -> Result<Vec<MachineId>, Refused> {
        let wanted = labels(&selection.labels)
            .map_err(|error| refused(error.to_string(), "write labels as key=value"))?;
        let mut chosen = BTreeSet::new();
        let mut unknown = Vec::new();
        for text in selection.machines.iter().flat_map(|text| hostlist::split(text)) {
            let names = hostlist::expand(text)
                .map_err(|error| refused(error.to_string(), "write hostlists as rack1-[01-16]"))?;
            for name in names {
                match self.state.named(&name).as_slice() {
                    [] => unknown.push(name),
                    [one] => drop(chosen.insert(*one)),
                    several => {
                        let ids: Vec<_> = several.iter().map(ToString::to_string).collect();
                        let error = format!("`{name}` names {} machines: {}", ids.len(), ids.join(", "));
                        return Err(refused(error, "name the machine by its id"));
                    }
                }
            }
        }
        if !unknown.is_empty() {
            let error = format!("no machine is known as {}", some_of(unknown.iter(), UNKNOWN_SHOWN, ", "));
            return Err(refused(
                error,
                "`swarmboot machine list` shows who is known; machines that have not shown themselves yet are taken by `deploy start --open`",
            ));
        }
        let all = selection.machines.is_empty() && !wanted.is_empty();
        let fits = |machine: &&Machine| (all || chosen.contains(&machine.id)) && machine.has_labels(&wanted);
        Ok(self.state.machines.values().filter(fits).map(|machine| machine.id).collect())
    }

    /// What an order means for each machine that is there already. Changes nothing.
    ///
    /// # Errors
    /// When the order itself makes no sense.
    pub fn candidates(&self, order: &DeployOrder, image: &ImageShown) -> Result<Vec<Candidate>, Refused> {
        check(order)?;
        let selection = &order.selection;
        if selection.machines.is_empty() && selection.labels.is_empty() && !order.open {
            return Err(refused(
                "the order names no machine",
                "name machines with --machines or -l, or take those that appear with --open",
            ));
        }
        let trial = self.deployment(order.clone(), image, Timestamp::UNIX_EPOCH);
        if let Some(shown) = &order.shown {
            if shown.image != image.id {
                let error = format!("the image `{}` is another one than the one that was shown", order.image);
                return Err(refused(error, "order again, and look at what it would do"));
            }
            return Ok(shown.machines.iter().map(|line| self.shown(line.machine, &trial)).collect());
        }
        let mut chosen = self.select(selection)?;
        if order.open {
            // Who is named is ordered for; who only matches is taken as if it had just appeared.
            let named = !selection.machines.is_empty();
            let room = order.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
            let all = self.state.machines.values().filter(|machine| trial.takes(machine, 0));
            let matching = all.filter(|machine| self.free(machine.id)).map(|machine| machine.id);
            chosen = if named { chosen } else { matching.collect() };
            chosen.truncate(room);
        }
        if chosen.is_empty() && !order.open {
            return Err(refused(
                "no machine matches the order",
                "`swarmboot machine list` shows machines and their labels",
            ));
        }
        Ok(chosen.into_iter().filter_map(|id| self.candidate(id, &trial)).collect())
    }

    /// A machine that was shown; it may be gone since.
    fn shown(&self, id: MachineId, trial: &Deployment) -> Candidate {
        let gone = || Candidate {
            machine: id,
            name: id.to_string(),
            refused: Some("it was forgotten since it was shown".to_owned()),
            own: Arc::clone(&self.settings.own),
            request: None,
            warnings: vec![],
            accepted: vec![],
        };
        self.candidate(id, trial).unwrap_or_else(gone)
    }

    fn candidate(&self, id: MachineId, trial: &Deployment) -> Option<Candidate> {
        let machine = self.state.machines.get(&id)?;
        let reason = self.unavailable(machine);
        let job = Job::new(JobId(self.state.last_job + 1), trial.id, id, Timestamp::UNIX_EPOCH);
        Some(self.ask_about(machine, &job, trial, reason))
    }

    /// What the tailor is to be asked about a job of `order` for `machine`, as if nothing had been shown yet.
    pub(super) fn ask_about(
        &self,
        machine: &Machine,
        job: &Job,
        order: &Deployment,
        refused: Option<String>,
    ) -> Candidate {
        let request = machine.hardware.as_ref().map(|hardware| {
            let request = self.request(job, hardware.report(), None);
            let request = PlanRequest {
                image: order.image,
                disk: order.request.disk.clone(),
                bound: None,
                personalise: !order.request.no_personalise,
                ..request
            };
            (request, Arc::clone(hardware))
        });
        let own = Arc::clone(&self.settings.own);
        Candidate {
            machine: machine.id,
            name: machine.shown_name(),
            refused,
            own,
            request,
            warnings: of_user_data(&order.request),
            accepted: order.request.accept.clone(),
        }
    }

    /// Why nothing can be ordered for `machine` now.
    pub(super) fn unavailable(&self, machine: &Machine) -> Option<String> {
        let busy = self.state.newest_job(machine.id).filter(|job| job.is_open());
        let busy = busy.map(|job| {
            let (id, deployment, state) = (job.id, job.deployment, job.state.name());
            format!("it is busy with job {id} of deployment {deployment} ({state}); cancel that first")
        });
        self.bar(machine).map(|bar| bar.to_string()).or(busy)
    }

    pub(super) fn free(&self, id: MachineId) -> bool {
        self.state.newest_job(id).is_none_or(|job| !job.is_open())
    }

    fn deployment(&self, order: DeployOrder, image: &ImageShown, now: Timestamp) -> Deployment {
        Deployment {
            id: DeploymentId(self.state.last_deployment + 1),
            ordered: now,
            image: image.id,
            image_name: image.name.clone(),
            wire_bytes: image.wire_bytes,
            open: order.open,
            request: order,
        }
    }

    /// Places an order for those of `lines` that are not refused.
    ///
    /// # Errors
    /// When nothing is left to order.
    pub fn place(
        &mut self,
        order: DeployOrder,
        image: &ImageShown,
        lines: &mut [DeployLine],
        now: Timestamp,
    ) -> Result<DeploymentId, Refused> {
        self.check_frozen()?;
        for line in lines.iter_mut().filter(|line| line.refused.is_none()) {
            // Between asking the tailor and now, an admin may have said something else.
            line.refused = match self.state.machines.get(&line.machine) {
                Some(machine) => self.unavailable(machine),
                None => Some("it was forgotten meanwhile".to_owned()),
            };
        }
        if !order.open && lines.iter().all(|line| line.refused.is_some()) {
            let reasons: Vec<_> = lines
                .iter()
                .filter_map(|line| Some(format!("{}: {}", line.name, line.refused.as_ref()?)))
                .collect();
            return Err(Refused {
                error: "the order can be carried out on none of its machines".to_owned(),
                cause: Some(reasons.join("; ")),
                hint: Some("`deploy start --dry-run` shows what an order would do".to_owned()),
            });
        }
        let mut deployment = self.deployment(order, image, now);
        // Kept with each job. The lifetime is the one that held when it was ordered.
        deployment.request.shown = None;
        let life = self.lifetime(&deployment).map_or(0, |life| life.unsigned_abs().as_secs());
        deployment.request.expires_seconds = Some(life);
        let id = deployment.id;
        self.put(Change::Deployment(Box::new(deployment)));
        for line in lines.iter().filter(|line| line.refused.is_none()) {
            self.open_job(id, line.machine, line.disk.clone(), now);
        }
        Ok(id)
    }

    fn open_job(
        &mut self,
        deployment: DeploymentId,
        machine: MachineId,
        disk: Option<DiskIdentity>,
        now: Timestamp,
    ) -> Option<Job> {
        let mut known = self.state.machines.get(&machine)?.clone();
        if self.unavailable(&known).is_some() {
            return None;
        }
        if let Some(stale) = self.state.newest_job(machine).filter(|job| job.state == JobState::Refused) {
            let stale = stale.id;
            self.happen(stale, JobEvent::Cancelled(format!("deployment {deployment} takes its place")), now);
            known = self.state.machines.get(&machine)?.clone();
        }
        let mut job = Job::new(JobId(self.state.last_job + 1), deployment, machine, now);
        job.before = Some(known.state);
        job.bound = Bound { marks: Some(Marks::of(&known.fingerprint)), disk };
        if known.state != MachineState::Deployed {
            // An order that names a machine says that it may be deployed, for as long as the order stands.
            known.state = MachineState::Approved;
            self.put_machine(known);
        }
        self.put(Change::Job(Box::new(job.clone())));
        let image = self.state.deployments.get(&deployment).map_or("", |order| order.image_name.as_str());
        let text = format!("{image} is ordered");
        self.log(now, Whose::Job(&job), Step::Decide, What::Note { text });
        Some(job)
    }

    /// A job for `machine` from the oldest open order that takes it.
    pub(super) fn take_open(&mut self, machine: MachineId, now: Timestamp) -> Option<Job> {
        let known = self.state.machines.get(&machine)?;
        if self.state.frozen.is_some() || self.unavailable(known).is_some() {
            return None;
        }
        let had = |order: &Deployment| self.state.jobs_of(order.id).any(|job| job.machine == machine);
        let open = self
            .state
            .deployments
            .values()
            .filter(|order| order.open && order.request.selection.machines.is_empty());
        let taken = |order: &&Deployment| order.takes(known, self.state.jobs_of(order.id).count());
        let id = open.filter(taken).find(|order| !had(order))?.id;
        self.open_job(id, machine, None, now)
    }

    /// Takes back an order, or its part for some machines.
    ///
    /// # Errors
    /// When there is no such deployment, or the selection makes no sense.
    pub fn cancel(&mut self, id: DeploymentId, cancel: &Cancel, now: Timestamp) -> Result<(), Refused> {
        let hint = "`swarmboot deploy list` shows the deployments";
        let Some(mut order) = self.state.deployments.get(&id).cloned() else {
            return Err(refused(format!("there is no deployment {id}"), hint));
        };
        let everyone = cancel.selection.machines.is_empty() && cancel.selection.labels.is_empty();
        let chosen = self.select(&cancel.selection)?;
        if everyone && order.open {
            order.open = false;
            self.put(Change::Deployment(Box::new(order)));
        }
        let reason = cancel.reason.clone().unwrap_or_else(|| "an admin cancelled it".to_owned());
        let jobs: Vec<JobId> = self
            .state
            .jobs_of(id)
            .filter(|job| everyone || chosen.contains(&job.machine))
            .map(|job| job.id)
            .collect();
        for job in jobs {
            self.happen(job, JobEvent::Cancelled(reason.clone()), now);
        }
        Ok(())
    }

    /// Does what an admin wants with machines.
    ///
    /// # Errors
    /// When no machine is meant, or the command makes no sense for one of them; then nothing was done.
    pub fn command(
        &mut self,
        command: &MachineCommand,
        now: Timestamp,
    ) -> Result<Vec<MachineChanged>, Refused> {
        let chosen = self.select(&command.selection)?;
        if chosen.is_empty() {
            return Err(refused("no machine is meant", "name machines, or select them with -l"));
        }
        self.check_action(&command.action, &chosen)?;
        let mut changed = Vec::new();
        let mut after = Vec::new();
        for id in chosen {
            let Some(mut machine) = self.state.machines.get(&id).cloned() else { continue };
            let name = machine.shown_name();
            let busy = self.state.newest_job(id).is_some_and(Job::is_open);
            let done = match command.action {
                MachineAction::Forget if busy => Err("a job is open for it; cancel that first".to_owned()),
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
        self.log(now, Whose::Machine(id), Step::Decide, What::Note { text: format!("an admin: {text}") });
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
            // An open order may have waited for just this.
            self.take_open(id, now);
        }
    }

    /// Whether a machine that nobody has said anything about gave itself its name: an admin's word for another
    /// machine takes it away.
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

    /// What an action means for a job that is open, in words behind what it does.
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

    /// What an action means for the job that the machine has.
    fn follow_up(&mut self, id: MachineId, action: &MachineAction, now: Timestamp) {
        let Some(job) = self.state.newest_job(id) else { return };
        if matches!(action, MachineAction::Reject) {
            let job = job.id;
            self.happen(job, JobEvent::Cancelled("the machine was rejected".to_owned()), now);
        } else if let Some(before) = job.before.filter(|_| job.is_open() || job.state == JobState::Refused) {
            // What is said of a machine while an order stands holds when the order is taken back.
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
            MachineAction::Label { set, .. }
                if !set
                    .iter()
                    .all(|(key, value)| short(key) && !key.contains(['=', ',']) && short(value)) =>
            {
                return Err(refused(
                    "a label is empty, too long, or holds control characters",
                    "write labels as key=value",
                ));
            }
            _ => {}
        }
        Ok(())
    }
}

/// What cloud-init will make of the order's user-data.
fn of_user_data(order: &DeployOrder) -> Vec<Warning> {
    let waits = !order.no_confirm && !order.no_personalise;
    order.user_data.as_ref().map(|data| user_data::warnings(&data.0, waits)).unwrap_or_default()
}

/// Whether an order is within its bounds.
fn check(order: &DeployOrder) -> Result<(), Refused> {
    let bytes = order.user_data.as_ref().map_or(0, UserData::len);
    if bytes > USER_DATA_BYTES_MAX {
        let error = format!("user-data of {bytes} bytes, more than {USER_DATA_BYTES_MAX}");
        return Err(refused(error, "let the user-data fetch what is large"));
    }
    // An open order has no machine to be refused for yet.
    if let Some(why) = Warning::refusal(&of_user_data(order), &order.accept) {
        return Err(refused(why, "with --no-confirm, machines are deployed as soon as their disk is whole"));
    }
    let key =
        |key: &String| key.len() <= SSH_KEY_MAX && !key.chars().any(char::is_control) && key.contains(' ');
    if order.ssh_keys.len() > SSH_KEYS_MAX || !order.ssh_keys.iter().all(key) {
        return Err(refused(
            "an SSH key is no line such as `ssh-ed25519 AAAA… name`",
            "give public keys, one a line",
        ));
    }
    if order.hostname.as_ref().is_some_and(|name| name.len() > NAME_MAX || name.chars().any(char::is_control))
    {
        return Err(refused(
            "the hostname pattern is too long or holds control characters",
            "such as web-{id}",
        ));
    }
    if order.gather_seconds.is_some_and(|seconds| seconds > GATHER_SECONDS_MAX) {
        return Err(refused(
            format!("a gate cannot hold machines for longer than {GATHER_SECONDS_MAX} seconds, a day"),
            "order when they are there, or leave --gather out: whoever comes later just joins",
        ));
    }
    if order.limit == Some(0) || order.gather == Some(0) {
        return Err(refused("a limit or gate of 0 machines", "leave it out, or give a number from 1"));
    }
    if order.limit.is_some() && !order.open {
        return Err(refused(
            "--limit without --open",
            "a limit bounds how many machines an open order takes",
        ));
    }
    if order.no_personalise
        && (order.user_data.is_some() || !order.ssh_keys.is_empty() || order.hostname.is_some())
    {
        return Err(refused(
            "the order gives the OS something and forbids to personalise it",
            "leave out one of the two",
        ));
    }
    if let Some(word) = order.accept.iter().find(|word| !ACCEPTABLE.contains(&word.as_str())) {
        let error = format!("`{}` is nothing that can be accepted", common::limits::cut(word, 80));
        return Err(refused(error, "`deploy start --dry-run` names what it would take"));
    }
    labels(&order.selection.labels)
        .map_err(|error| refused(error.to_string(), "write labels as key=value"))?;
    Ok(())
}

#[cfg(test)]
mod tests;
