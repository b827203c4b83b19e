//! Core, part of the fleet: an admin's orders: which machines are meant, what an order would do to each, and
//! placing it. Touches `api`, `common` and the other cores of the fleet.

use std::collections::BTreeSet;
use std::sync::Arc;

use common::hardware::CheckedHardware;
use common::id::{DeploymentId, JobId, MachineId};
use common::plan::DiskIdentity;
use common::step::{Step, What};
use common::text::some_of;
use common::wire::http::Refused;
use jiff::Timestamp;

use super::bound::{Bound, Marks, same};
use super::decide::{Fleet, Whose};
use super::deployment::Deployment;
use super::hostlist;
use super::job::{Job, JobEvent};
use super::machine::Machine;
use super::order::{CheckedOrder, refused, selectors};
use super::own::Own;
use super::plans::OWN_DISK;
use super::provisioner::{NoPlan, PlanRequest, Target};
use super::rules::why_nobody;
use super::state::Change;
use crate::api::shapes::{DeployLine, ImageShown, JobState, MachineState, Selection, Warning};
use crate::tailor::known_as;

/// How many unknown names a refusal lists.
const UNKNOWN_SHOWN: usize = 8;

/// What an order has written by one profile, or all of an order without profiles. It becomes a deployment.
#[derive(Debug, Clone)]
pub struct Part {
    /// The order, with what the profile says.
    pub order: CheckedOrder,
    /// Its image.
    pub image: ImageShown,
    /// Its machines.
    pub lines: Vec<DeployLine>,
}

impl Part {
    fn writes(&self) -> usize {
        self.lines.iter().filter(|line| line.refused.is_none()).count()
    }

    /// How many machines it writes at least if all come that it waits for: an open one has said so with its limit.
    fn least(&self) -> usize {
        let ordered = self.order.as_ordered();
        let limit = ordered.limit.filter(|_| ordered.open);
        self.writes().max(limit.map_or(0, |limit| usize::try_from(limit).unwrap_or(usize::MAX)))
    }

    /// Whether anything is left of it to be placed.
    fn is_placed(&self) -> bool {
        self.order.as_ordered().open || self.writes() > 0
    }
}

/// One machine of an order that is not placed yet.
#[derive(Debug)]
pub struct Candidate {
    /// The machine that the order would take.
    pub machine: MachineId,
    /// Its name in the answer, or its id if it has none.
    pub name: String,
    /// Why nothing can be ordered for it now; `None` if it can.
    pub refused: Option<String>,
    /// The marks of the server's own machine, whose disks are never written.
    pub own: Arc<Own>,
    /// The request to the tailor for its target disk; `None` when its hardware is not known.
    pub request: Option<(PlanRequest, Arc<CheckedHardware>)>,
    /// Warnings about the order that apply to every machine.
    pub warnings: Vec<Warning>,
    /// Names of the warnings that the order accepts.
    pub accepted: Vec<String>,
    /// The name of the profile that it is ordered by, if any.
    pub profile: Option<String>,
    /// The hostname that its OS gets by that.
    pub hostname: Option<String>,
}

impl Candidate {
    /// What the order would do to it. `target` is the tailor's answer; `None` when its hardware is not known.
    /// `accepted` are the warnings accepted besides those of the order.
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
        let Self { machine, name, profile, hostname, .. } = self;
        DeployLine { machine, name, target, disk, warnings, profile, hostname, refused }
    }
}

/// Refuses `line` when its disk is not `disk`, the one that the admin was shown (`None` if it was not known then).
pub(super) fn hold_to(line: &mut DeployLine, disk: Option<&DiskIdentity>) {
    let differs = match (disk, &line.disk) {
        (Some(shown), Some(now)) if !same(shown, now) => Some(format!(
            "it would write {} now, and not {}, which was shown",
            known_as(now),
            known_as(shown)
        )),
        (Some(shown), None) => Some(format!("{} was shown, and cannot be told any more", known_as(shown))),
        (None, Some(now)) => Some(format!(
            "it has reported its hardware since it was shown, and would write {}",
            known_as(now)
        )),
        _ => None,
    };
    line.refused = line.refused.take().or(differs);
}

impl Fleet {
    /// The machines that `selection` means, in the order of their numbers. Empty when it names and selects none.
    ///
    /// # Errors
    /// When a name is no hostlist, or names no machine or several, or a label selector is malformed.
    pub fn select(&self, selection: &Selection) -> Result<Vec<MachineId>, Refused> {
        let wanted = selectors(&selection.labels)?;
        let reach = self.reach();
        let seen = |id: &MachineId| self.state.machines.get(id).is_some_and(|machine| reach.has(machine));
        let mut chosen = BTreeSet::new();
        let mut unknown = Vec::new();
        for text in selection.machines.iter().flat_map(|text| hostlist::split(text)) {
            let names = hostlist::expand(text)
                .map_err(|error| refused(error.to_string(), "write hostlists as rack1-[01-16]"))?;
            for name in names {
                let named: Vec<MachineId> = self.state.named(&name).into_iter().filter(&seen).collect();
                match named.as_slice() {
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
        let rules = &self.settings.rules;
        let fits = |machine: &&Machine| {
            (all || chosen.contains(&machine.id)) && rules.fit(&wanted, machine) && reach.has(machine)
        };
        Ok(self.state.machines.values().filter(fits).map(|machine| machine.id).collect())
    }

    /// The refusal of a selection that means no machine: `error`, with what comes nearest to its selectors.
    pub(super) fn means_nobody(&self, error: &str, selection: &Selection) -> Refused {
        let reach = self.reach();
        let seen = self.state.machines.values().filter(|machine| reach.has(machine));
        let wanted = selectors(&selection.labels).ok();
        let cause = wanted.and_then(|wanted| why_nobody(&self.settings.rules, &wanted, seen));
        Refused { cause, ..refused(error, "`swarmboot machine list` shows machines and their labels") }
    }

    /// The machines that an order would take now. Changes nothing.
    ///
    /// # Errors
    /// When it means no machine, or another image than was shown.
    pub fn candidates(&self, order: &CheckedOrder, image: &ImageShown) -> Result<Vec<Candidate>, Refused> {
        let trial = self.deployment(order.clone(), image, Timestamp::UNIX_EPOCH);
        let ordered = order.as_ordered();
        if ordered.open {
            self.check_unscoped("an open order")?;
        }
        if let Some(shown) = &ordered.shown {
            if shown.image != image.id {
                let error =
                    format!("the image `{}` is another one than the one that was shown", ordered.image);
                return Err(refused(error, "order again, and look at what it would do"));
            }
            return Ok(shown.machines.iter().map(|line| self.shown(line.machine, &trial)).collect());
        }
        let mut chosen = self.select(&ordered.selection)?;
        if ordered.open {
            // Machines that are named are all taken; those that only match, on the terms for machines that appear.
            let limit = ordered.limit.unwrap_or(u32::MAX);
            // Where machines are named, too many of them are refused, and not left out.
            let most = if order.names_machines() { u32::MAX } else { order.most(self.settings.max_machines) };
            let room = usize::try_from(limit.min(most)).unwrap_or(usize::MAX);
            let all =
                self.state.machines.values().filter(|machine| trial.takes(machine, 0, &self.settings.rules));
            let matching = all.filter(|machine| self.free(machine.id)).map(|machine| machine.id);
            chosen = if order.names_machines() { chosen } else { matching.collect() };
            chosen.truncate(room);
        }
        if chosen.is_empty() && !ordered.open {
            let error = match &ordered.profile {
                Some(profile) => format!("no machine fits the profile `{}`", profile.name),
                None => "no machine matches the order".to_owned(),
            };
            return Err(self.means_nobody(&error, &ordered.selection));
        }
        Ok(chosen.into_iter().filter_map(|id| self.candidate(id, &trial)).collect())
    }

    /// A machine that the admin was shown; refused if it was forgotten since.
    fn shown(&self, id: MachineId, trial: &Deployment) -> Candidate {
        let gone = || Candidate {
            machine: id,
            name: id.to_string(),
            refused: Some("it was forgotten since it was shown".to_owned()),
            own: Arc::clone(&self.settings.own),
            request: None,
            warnings: vec![],
            accepted: vec![],
            profile: None,
            hostname: None,
        };
        self.candidate(id, trial).unwrap_or_else(gone)
    }

    fn candidate(&self, id: MachineId, trial: &Deployment) -> Option<Candidate> {
        let machine = self.state.machines.get(&id).filter(|machine| self.reach().has(machine))?;
        let reason = self.unavailable(machine);
        let job = Job::new(JobId(self.state.last_job + 1), trial.id, id, Timestamp::UNIX_EPOCH);
        Some(self.ask_about(machine, &job, trial, reason))
    }

    /// The candidate for a job of `order` for `machine`, without the disk that the job is bound to.
    pub(super) fn ask_about(
        &self,
        machine: &Machine,
        job: &Job,
        order: &Deployment,
        refused: Option<String>,
    ) -> Candidate {
        let request = machine.hardware.as_ref().map(|hardware| {
            // The disk that was shown before does not count: the rule chooses again.
            let request = PlanRequest { bound: None, ..order.plan_request(job, hardware.report(), None) };
            (request, Arc::clone(hardware))
        });
        let own = Arc::clone(&self.settings.own);
        let ordered = order.request.as_ordered();
        let profile = ordered.profile.as_ref().map(|profile| profile.name.clone());
        let hostname = profile.as_ref().filter(|_| !ordered.no_personalise).map(|_| order.hostname(machine));
        Candidate {
            machine: machine.id,
            name: machine.shown_name(),
            refused,
            own,
            request,
            warnings: order.request.user_data_warnings(),
            accepted: ordered.accept.clone(),
            profile,
            hostname,
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

    fn deployment(&self, order: CheckedOrder, image: &ImageShown, now: Timestamp) -> Deployment {
        Deployment {
            id: DeploymentId(self.state.last_deployment + 1),
            ordered: now,
            image: image.id,
            image_name: image.name.clone(),
            wire_bytes: image.wire_bytes,
            open: order.as_ordered().open,
            paused: None,
            placed_with: None,
            request: order,
        }
    }

    /// As [`Fleet::place_all`], for an order of one part.
    ///
    /// # Errors
    /// When nothing is left to order.
    #[cfg(test)]
    pub(crate) fn place(
        &mut self,
        order: CheckedOrder,
        image: &ImageShown,
        lines: &mut [DeployLine],
        now: Timestamp,
    ) -> Result<DeploymentId, Refused> {
        let mut parts = [Part { order, image: image.clone(), lines: lines.to_vec() }];
        let placed = self.place_all(&mut parts, now);
        lines.clone_from_slice(&parts[0].lines);
        placed.map(|placed| placed[0].unwrap())
    }

    /// Places an order for those machines of its parts that are not refused, and returns the deployment of each part;
    /// `None` where a part has no machine left.
    ///
    /// # Errors
    /// When nothing is left to order, or too much; then nothing is.
    pub fn place_all(
        &mut self,
        parts: &mut [Part],
        now: Timestamp,
    ) -> Result<Vec<Option<DeploymentId>>, Refused> {
        self.check_frozen()?;
        for line in parts.iter_mut().flat_map(|part| &mut part.lines).filter(|line| line.refused.is_none()) {
            // Checked again: an admin may have changed something while the tailor was asked.
            line.refused = match self.state.machines.get(&line.machine) {
                Some(machine) => self.unavailable(machine),
                None => Some("it was forgotten meanwhile".to_owned()),
            };
        }
        let count = parts.iter().filter(|part| part.is_placed()).count();
        if count == 0 {
            let lines = parts.iter().flat_map(|part| &part.lines);
            let reasons: Vec<_> =
                lines.filter_map(|line| Some(format!("{}: {}", line.name, line.refused.as_ref()?))).collect();
            return Err(Refused {
                error: "the order can be carried out on none of its machines".to_owned(),
                cause: Some(reasons.join("; ")),
                hint: Some("`deploy start --dry-run` shows what an order would do".to_owned()),
            });
        }
        let (ceiling, writes) = (self.settings.max_machines, parts.iter().map(Part::least).sum());
        let most = parts.iter().map(|part| part.order.most(ceiling)).min();
        self.check_ceiling(writes, most.unwrap_or(ceiling))?;
        let first = (count > 1).then_some(DeploymentId(self.state.last_deployment + 1));
        Ok(parts.iter().map(|part| part.is_placed().then(|| self.place_part(part, first, now))).collect())
    }

    fn place_part(&mut self, part: &Part, first: Option<DeploymentId>, now: Timestamp) -> DeploymentId {
        let mut deployment = self.deployment(part.order.clone(), &part.image, now);
        deployment.placed_with = first;
        // The lifetime of the settings at this time is recorded: a later change of them does not apply.
        let life = self.lifetime(&deployment).map_or(0, |life| life.unsigned_abs().as_secs());
        deployment.request.settle(life, self.settings.max_machines);
        let id = deployment.id;
        self.put(Change::Deployment(Box::new(deployment)));
        for line in part.lines.iter().filter(|line| line.refused.is_none()) {
            self.open_job(id, line.machine, line.disk.clone(), now);
        }
        self.tell_when_full(id, now);
        id
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
            // An order for a machine approves it, until the order is cancelled.
            known.state = MachineState::Approved;
            self.put_machine(known);
        }
        self.put(Change::Job(Box::new(job.clone())));
        let order = self.state.deployments.get(&deployment);
        let image = order.map_or("", |order| order.image_name.as_str());
        let profile = order.and_then(|order| order.request.as_ordered().profile.as_ref());
        let by = profile.map_or_else(String::new, |profile| format!(", by the profile {}", profile.name));
        let text = match &self.caller {
            Some(caller) => format!("{}: {image} is ordered{by}", caller.who),
            None => format!("{image} is ordered{by}"),
        };
        self.log(now, Whose::Job(&job), Step::Decide, What::Note { text });
        Some(job)
    }

    /// Opens a job for `machine` from the oldest open deployment that takes it; `None` if there is none.
    pub(super) fn take_open(&mut self, machine: MachineId, now: Timestamp) -> Option<Job> {
        let id = self.open_for(self.state.machines.get(&machine)?)?;
        let job = self.open_job(id, machine, None, now);
        self.tell_when_full(id, now);
        job
    }

    fn tell_when_full(&mut self, id: DeploymentId, now: Timestamp) {
        let taken = self.state.jobs_of(id).count();
        if self.state.deployments.get(&id).is_some_and(|order| order.is_full(taken)) {
            let text = format!(
                "it has taken {taken} machines, the most that one order may write, and takes no more: order again for \
                 further ones, with --max-machines"
            );
            self.log(now, Whose::Order(id), Step::Decide, What::Note { text });
        }
    }

    /// Refuses to write `machines` at one word when `most` may be.
    ///
    /// # Errors
    /// When it is too many.
    pub(super) fn check_ceiling(&self, machines: usize, most: u32) -> Result<(), Refused> {
        if machines <= usize::try_from(most).unwrap_or(usize::MAX) {
            return Ok(());
        }
        Err(refused(
            format!("the order is for {machines} machines, and one order may write {most} at the most"),
            &format!("if they are all meant, say so: --max-machines {machines}"),
        ))
    }

    /// The oldest open deployment that would take `machine` if it reported now.
    pub(super) fn open_for(&self, machine: &Machine) -> Option<DeploymentId> {
        if self.state.frozen.is_some() || self.unavailable(machine).is_some() {
            return None;
        }
        let had = |order: &Deployment| self.state.jobs_of(order.id).any(|job| job.machine == machine.id);
        let open =
            self.state.deployments.values().filter(|order| order.open && !order.request.names_machines());
        let taken = |order: &&Deployment| {
            order.takes(machine, self.state.jobs_of(order.id).count(), &self.settings.rules)
        };
        open.filter(taken).find(|order| !had(order)).map(|order| order.id)
    }
}

#[cfg(test)]
mod tests;
