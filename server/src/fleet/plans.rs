//! Core, part of the fleet: takes the tailor's result for a job: the machine gets its plan and its admission to the
//! swarm, or is refused. Touches `api`, `common`, the swarm's admissions, and the other cores of the fleet.

use common::causes::with_causes;
use common::hardware::{Contents, Firmware, HardwareReport};
use common::hooks::Hooks;
use common::id::{JobId, Mac};
use common::plan::{Finish, Instruction};
use common::step::{Step, What};
use common::trust::PublicKey;
use common::wire::swarm::Personality;
use jiff::Timestamp;

use super::bound::Marks;
use super::decide::{Fleet, Whose};
use super::job::{Confirm, Job, JobEvent};
use super::machine::{Machine, is_blank};
use super::provisioner::{NoPlan, Provision};
use super::reports::REFUSED_POLL_SECONDS;
use crate::api::shapes::Warning;
use crate::swarm::{Admission, Gather, MachinePart, Part};

/// How long a gate waits, in seconds, when the order does not say.
const GATE_SECONDS: u64 = 600;

/// The refusal of a machine that nobody approved and that is not blank any more.
const NOT_BLANK: &str = "an open order took it because its disks were blank, and they are not any more; approve it if that is meant";

/// The refusal of a target that is a disk of the server.
pub(super) const OWN_DISK: &str = "the disk is one of this server's own";

impl Fleet {
    /// Takes the tailor's `result` for `job`, for the boot with `key`: returns the instruction for the machine, and its
    /// admission to the swarm if it gets a plan.
    pub fn tailored(
        &mut self,
        job: JobId,
        key: PublicKey,
        result: Result<Provision, NoPlan>,
        now: Timestamp,
    ) -> (Instruction, Option<Admission>) {
        let over = || Instruction::Wait { seconds: 1, reason: "the order has just changed".to_owned() };
        let Some(known) = self.state.jobs.get(&job).filter(|job| job.wants_plan()).cloned() else {
            return (over(), None);
        };
        let Some(machine) = self.state.machines.get(&known.machine) else { return (over(), None) };
        if machine.boot.is_none_or(|boot| boot.key != key) {
            return (over(), None);
        }
        // Checked again: an admin may have changed something while the tailor worked.
        if let Some(bar) = self.bar_plan(machine, &key) {
            return (Instruction::Wait { seconds: REFUSED_POLL_SECONDS, reason: bar.to_string() }, None);
        }
        let marks = Marks::of(&machine.fingerprint);
        let is_still_blank = machine.hardware.as_ref().is_some_and(|checked| is_blank(checked.report()));
        let order = self.state.deployments.get(&known.deployment);
        // Who an open order takes is blank, or an admin has approved it: that is the word for what is on its disks.
        let is_named =
            order.is_none_or(|order| !order.request.as_ordered().open || order.request.names_machines());
        let took_as_blank = order.is_some_and(|order| order.took_as_blank(&known));
        let accepted = self
            .state
            .deployments
            .get(&known.deployment)
            .map_or(&[][..], |order| &order.request.as_ordered().accept);
        let result = result.map_err(|error| with_causes(&error)).and_then(|made| {
            known.bound.allows(&marks, &made.plan.target).map_err(|different| different.to_string())?;
            if took_as_blank && !is_still_blank {
                return Err(NOT_BLANK.to_owned());
            }
            if self.settings.own.has(&made.plan.target) {
                return Err(OWN_DISK.to_owned());
            }
            let unseen =
                if known.bound.disk.is_none() && is_named { unseen_data(machine, &made) } else { None };
            let warnings: Vec<Warning> = made.warnings.iter().cloned().chain(unseen).collect();
            Warning::refusal(&warnings, accepted).map_or(Ok(made), Err)
        });
        let made = match result {
            Err(reason) => {
                self.happen(job, JobEvent::TailorRefused(reason.clone()), now);
                let seconds = REFUSED_POLL_SECONDS.max(self.settings.poll_seconds);
                let reason = format!("refused: {reason}; `swarmboot deploy retry` orders it again");
                return (Instruction::Wait { seconds, reason }, None);
            }
            Ok(made) => made,
        };
        let last_step = made.plan.steps.iter().rfind(|step| **step != Step::Confirm).cloned();
        let confirm = self.confirm_of(&known, &made);
        let target = made.target.clone();
        let disk = made.plan.target.clone();
        let given = JobEvent::PlanGiven { key, last_step, target: target.clone(), disk, marks, confirm };
        self.happen(job, given, now);
        let Some(job) = self.state.jobs.get(&job).cloned() else { return (over(), None) };
        let again = known.key == Some(key) && known.attempt == job.attempt;
        if !again {
            let text = format!("attempt {}, target {target}", job.attempt);
            self.log(now, Whose::Job(&job), Step::Tailor, What::Done { text });
        }
        (Instruction::Deploy(Box::new(made.plan)), self.admission(&job))
    }

    fn confirm_of(&self, job: &Job, made: &Provision) -> Confirm {
        let order = self.state.deployments.get(&job.deployment);
        let silent = order.is_none_or(|order| !order.request.awaits_call_home());
        match made.plan.finish {
            _ if silent => Confirm::Never,
            Finish::Exit => Confirm::Never,
            Finish::PowerOff | Finish::Stay => Confirm::Whenever,
            Finish::Reboot => Confirm::Within(self.settings.confirm_within),
        }
    }

    /// The admission of a running job to the swarm, made anew after a restart of the server; `None` if the job has no
    /// key, or its deployment or machine was forgotten.
    #[must_use]
    pub fn admission(&self, job: &Job) -> Option<Admission> {
        let order = self.state.deployments.get(&job.deployment)?;
        let machine = self.state.machines.get(&job.machine)?;
        let url = || {
            format!(
                "{}{}/{}",
                self.settings.url,
                common::wire::http::CONFIRM,
                self.settings.token(job.id, job.attempt)
            )
        };
        let ordered = order.request.as_ordered();
        let personality = Personality {
            hostname: order.hostname(machine),
            ssh_keys: ordered.ssh_keys.clone(),
            user_data: ordered.user_data.clone(),
            instance_id: format!("swarmboot-{}-{}", job.id, job.attempt),
            confirm_url: (job.confirm != Confirm::Never).then(url),
            seed_mark: self.settings.seed_mark(job.id, job.attempt),
            boot_mac: machine.hardware.as_ref().and_then(|hardware| boot_mac(hardware.report())),
            hooks: order.request.hook_root().map(|root| Hooks {
                list: ordered.hooks.clone(),
                root: root.clone(),
                machine: machine.id,
                deployment: order.id,
                site: machine.site.clone(),
            }),
        };
        let gather = ordered
            .gather
            .map(|wanted| Gather { wanted, seconds: ordered.gather_seconds.unwrap_or(GATE_SECONDS) });
        Some(Admission {
            key: job.key?,
            image: order.image,
            name: machine.shown_name(),
            site: machine.site.clone(),
            part: Part::Machine(Box::new(MachinePart {
                deployment: job.deployment,
                job: job.id,
                personality,
                gather,
            })),
        })
    }
}

/// The warning about a disk that is not blank, and that nobody was shown. An ordinary process was given its file or
/// device by whoever started it.
fn unseen_data(machine: &Machine, made: &Provision) -> Option<Warning> {
    let report = machine.hardware.as_ref().map(|checked| checked.report())?;
    let disk = report.disks.iter().find(|disk| made.plan.target.matches(disk));
    let is_blank = disk.is_some_and(|disk| disk.contents == Contents::Blank);
    (!is_blank && report.firmware != Firmware::None)
        .then(|| Warning::UnseenData { disk: made.target.clone() })
}

/// The address of the NIC that the machine booted from; `None` if the report does not say which.
fn boot_mac(report: &HardwareReport) -> Option<Mac> {
    report.nics.iter().find(|nic| nic.boot).map(|nic| nic.mac)
}
