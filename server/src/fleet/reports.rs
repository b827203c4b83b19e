//! Core: a machine has reported its hardware. Who it is, and what it is told: the steps `inspect`, `decide`
//! and the fleet's part of `tailor`. Part of the desk. Touches `api`, `common` and the other cores of the
//! fleet.

use std::net::IpAddr;
use std::sync::Arc;

use common::hardware::{CheckedHardware, Firmware, HardwareReport};
use common::id::{JobId, MachineId};
use common::plan::{Finish, Order};
use common::step::{Step, What};
use common::trust::PublicKey;
use common::wire::swarm::Personality;
use jiff::Timestamp;

use super::bound::Marks;
use super::crew::{Admission, Commission, Gate, Tailored};
use super::desk::{Desk, Whose};
use super::identity::{Fingerprint, recognise};
use super::job::{Confirm, Job, JobEvent};
use super::machine::{Boot, Machine, Rest, has_bootable_disk, is_blank};
use super::state::Change;
use crate::api::{JobState, MachineState, Warning};

/// Seconds until a machine that was refused, held or rejected asks again.
const REFUSED_POLL_SECONDS: u32 = 30;

/// How long a gate holds machines when the order does not say.
const GATE_SECONDS: u64 = 600;

/// Why a machine that nobody approved is given up again.
const NOT_BLANK: &str = "an open order took it because its disks were blank, and they are not any more; approve it if that is meant";

/// Why a disk is written by nobody.
pub(super) const OWN_DISK: &str = "the disk is one of this server's own";

/// What comes of a report.
#[derive(Debug)]
pub struct Decided {
    /// Who it is.
    pub machine: MachineId,
    /// What is next.
    pub next: Next,
}

/// What is next for a machine that reported.
#[derive(Debug)]
pub enum Next {
    /// It can be told at once.
    Tell(Order),
    /// A job is open for it: the tailor makes its plan first.
    Tailor(Box<Commission>, Arc<CheckedHardware>),
}

impl Desk {
    /// A machine reported its hardware from `address`, in a text signed by the key in it.
    pub fn report(
        &mut self,
        hardware: &Arc<CheckedHardware>,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Decided {
        let Some(machine) = self.inspect(hardware, address, now) else {
            // Nothing was written down, so it has no number; an honest machine asks again.
            let reason = "there is no room for one more unknown machine now".to_owned();
            let next = Next::Tell(Order::Wait { seconds: REFUSED_POLL_SECONDS, reason });
            return Decided { machine: MachineId(0), next };
        };
        let next = self.decide(machine, hardware, address, now);
        Decided { machine, next }
    }

    /// Recognises the machine and records what it reported; none when there is no room for it.
    fn inspect(
        &mut self,
        hardware: &Arc<CheckedHardware>,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Option<MachineId> {
        let report = hardware.report();
        let shown = Fingerprint::of(report);
        let same_boot = self.state.by_key(&report.key).map(|machine| machine.id);
        let known = self.state.machines.values().map(|machine| (machine.id, &machine.fingerprint));
        let found = recognise(&shown, known);
        // An agent as an ordinary process in a container may show no mark at all; its name has to do.
        let by_name = || {
            let name = report.name.as_deref().filter(|_| shown.is_empty())?;
            self.state.named(name).first().copied()
        };
        let id = same_boot.or(found.machine).or_else(by_name);
        let is_new = id.is_none();
        let id = id.unwrap_or(MachineId(self.state.last_machine + 1));
        if same_boot.is_none() && !self.is_let_in(id) && !self.admit_stranger(address, is_new, now) {
            self.left_out += 1;
            return None;
        }
        let site = self.site_of(self.state.machines.get(&id), report, address);
        let mut machine = match self.state.machines.get(&id) {
            Some(machine) => machine.clone(),
            None => Machine::new(id, shown.clone(), site.clone(), now),
        };
        let is_new_boot = machine.boot.is_none_or(|boot| boot.key != report.key);
        if is_new_boot {
            machine.boot = Some(Boot { key: report.key, through: 0, since: now });
        }
        machine.name =
            machine.name.or_else(|| report.name.clone().filter(|name| self.state.named(name).is_empty()));
        machine.fingerprint = shown;
        machine.site = site;
        machine.last_seen = now;
        let kept = self.kept(id, hardware);
        let is_changed = machine.hardware.as_deref() != Some(&*kept);
        self.put_machine(machine);
        if is_changed {
            self.put(Change::Hardware(id, kept));
        }
        if let Some(address) = address {
            self.remember(address, id);
        }
        if is_new_boot {
            self.tell_of(id, is_new, report, now);
            self.settle_rivals(id, found.rivals, now);
        }
        Some(id)
    }

    fn tell_of(&mut self, id: MachineId, is_new: bool, report: &HardwareReport, now: Timestamp) {
        let text = format!("{}{}", if is_new { "a new machine: " } else { "" }, summary(report));
        self.log_within(now, Whose::Machine(id), Step::Inspect, What::Note { text });
        for cut in &report.truncated {
            let text = format!("the report is not whole: {cut}");
            self.log_within(now, Whose::Machine(id), Step::Inspect, What::Note { text });
        }
    }

    /// Other machines share marks with this one. Those that were only seen to ask for a boot through another
    /// of its NICs are part of it; any other is shown to the admin and left alone.
    fn settle_rivals(&mut self, id: MachineId, rivals: Vec<(MachineId, Vec<String>)>, now: Timestamp) {
        for (rival, shared) in rivals {
            let Some(other) = self.state.machines.get(&rival) else { continue };
            let name = other.shown_name();
            let shared = shared.join(", ");
            let text = if other.is_bare_sighting() && self.state.newest_job(rival).is_none() {
                self.put(Change::Forget(rival));
                format!("{name}, seen before by {shared} only, is this machine")
            } else {
                format!("{name} shows {shared} too; they are kept apart, so look whether they are the same")
            };
            self.log_within(now, Whose::Machine(id), Step::Inspect, What::Note { text });
        }
    }

    /// Where a machine is: as configured for the address that the report came from, or that address' network. What a
    /// report claims about its site chooses what it is sent and whose limit that counts against, so it is believed of
    /// an ordinary process that an admin let in, and of nobody else.
    fn site_of(&self, known: Option<&Machine>, report: &HardwareReport, address: Option<IpAddr>) -> String {
        let let_in = known.is_some_and(|machine| {
            use MachineState::{Approved, Deployed, Deploying, Failed};
            matches!(machine.state, Approved | Deploying | Deployed | Failed)
        });
        if let Some(site) = report.site.as_ref().filter(|_| let_in && report.firmware == Firmware::None) {
            return site.clone();
        }
        match address {
            Some(IpAddr::V4(address)) => self.settings.site_of(address),
            _ => "local".to_owned(),
        }
    }

    fn decide(
        &mut self,
        id: MachineId,
        hardware: &Arc<CheckedHardware>,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Next {
        let Some(machine) = self.state.machines.get(&id).cloned() else {
            return Next::Tell(Order::Wait { seconds: REFUSED_POLL_SECONDS, reason: "unknown".to_owned() });
        };
        let bar = self.bar_plan(&machine, &hardware.report().key);
        if bar.is_none() {
            let wanted = self.state.newest_job(id).filter(|job| job.wants_plan()).cloned();
            if let Some(job) = wanted.or_else(|| self.take_open(id, now)) {
                let commission = self.commission(&job, &machine, hardware.report(), address);
                return Next::Tailor(Box::new(commission), Arc::clone(hardware));
            }
        }
        let refused = self.state.newest_job(id).filter(|job| job.state == JobState::Refused);
        let reason = match (bar, refused) {
            (Some(bar), _) => bar.to_string(),
            (None, Some(job)) => format!(
                "what was ordered was refused ({}); `swarmboot deploy retry` orders it again",
                job.cause.as_deref().unwrap_or("no reason is known")
            ),
            (None, None) => "nothing is ordered for this machine".to_owned(),
        };
        Next::Tell(self.send_away(machine, hardware.report(), reason, now))
    }

    fn send_away(
        &mut self,
        mut machine: Machine,
        report: &HardwareReport,
        reason: String,
        now: Timestamp,
    ) -> Order {
        let id = machine.id;
        // An ordinary process has no disk to be sent to. A disk that this server sealed is bootable whatever
        // the reporter makes of it.
        let sealed = self.state.newest_job(id).is_some_and(|job| job.sealed);
        let boots = report.firmware != Firmware::None && (sealed || has_bootable_disk(report));
        let rest = if boots { Rest::BootDisk } else { Rest::Load };
        if machine.rest != rest {
            machine.rest = rest;
            self.put_machine(machine);
        }
        let (order, text) = if boots {
            let text = format!("{reason}: it boots its own disk");
            (Order::BootDisk { reason }, text)
        } else {
            let text = format!("{reason}: it waits");
            (Order::Wait { seconds: self.settings.poll_seconds, reason }, text)
        };
        self.log_once(now, Whose::Machine(id), Step::Decide, What::Done { text });
        order
    }

    pub(super) fn commission(
        &self,
        job: &Job,
        machine: &Machine,
        report: &HardwareReport,
        server: Option<IpAddr>,
    ) -> Commission {
        let order = self.state.deployments.get(&job.deployment);
        let demand = order.map(|order| &order.order);
        let finish = demand.map(|demand| demand.finish).unwrap_or_default();
        Commission {
            deployment: job.deployment,
            job: job.id,
            attempt: job.attempt_for(&report.key),
            machine: machine.id,
            image: order.map_or(common::id::ImageId(common::id::Hash([0; 32])), |order| order.image),
            disk: demand.map(|demand| demand.disk.clone()).unwrap_or_default(),
            bound: job.bound.disk.clone(),
            personalise: demand.is_some_and(|demand| !demand.no_personalise),
            gather: demand.is_some_and(|demand| demand.gather.is_some()),
            finish: if report.firmware == Firmware::None { Finish::Exit } else { finish },
            server,
        }
    }

    /// The tailor is done with a job: the machine's order, and its admission to the swarm when it has a plan.
    pub fn tailored(
        &mut self,
        job: JobId,
        key: PublicKey,
        result: Result<Tailored, String>,
        now: Timestamp,
    ) -> (Order, Option<Admission>) {
        let over = || Order::Wait { seconds: 1, reason: "the order has just changed".to_owned() };
        let Some(known) = self.state.jobs.get(&job).filter(|job| job.wants_plan()).cloned() else {
            return (over(), None);
        };
        let Some(machine) = self.state.machines.get(&known.machine) else { return (over(), None) };
        if machine.boot.is_none_or(|boot| boot.key != key) {
            return (over(), None);
        }
        // The tailor took its time, and an admin may have said something meanwhile.
        if let Some(bar) = self.bar_plan(machine, &key) {
            return (Order::Wait { seconds: REFUSED_POLL_SECONDS, reason: bar.to_string() }, None);
        }
        let marks = Marks::of(&machine.fingerprint);
        let is_still_blank = machine.hardware.as_ref().is_some_and(|checked| is_blank(checked.report()));
        let order = self.state.deployments.get(&known.deployment);
        let took_as_blank = order.is_some_and(|order| order.took_as_blank(&known));
        let accepted =
            self.state.deployments.get(&known.deployment).map_or(&[][..], |order| &order.order.accept);
        let result = result.and_then(|made| {
            known.bound.allows(&marks, &made.plan.target).map_err(|different| different.to_string())?;
            if took_as_blank && !is_still_blank {
                return Err(NOT_BLANK.to_owned());
            }
            if self.settings.own.has(&made.plan.target) {
                return Err(OWN_DISK.to_owned());
            }
            Warning::refusal(&made.warnings, accepted).map_or(Ok(made), Err)
        });
        let made = match result {
            Err(reason) => {
                self.happen(job, JobEvent::TailorRefused(reason.clone()), now);
                let seconds = REFUSED_POLL_SECONDS.max(self.settings.poll_seconds);
                let reason = format!("refused: {reason}; `swarmboot deploy retry` orders it again");
                return (Order::Wait { seconds, reason }, None);
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
            for text in made.notes {
                self.log(now, Whose::Job(&job), Step::Tailor, What::Note { text });
            }
        }
        (Order::Deploy(Box::new(made.plan)), self.admission(&job))
    }

    fn confirm_of(&self, job: &Job, made: &Tailored) -> Confirm {
        let order = self.state.deployments.get(&job.deployment);
        let silent = order.is_none_or(|order| order.order.no_confirm || order.order.no_personalise);
        match made.plan.finish {
            _ if silent => Confirm::Never,
            Finish::Exit => Confirm::Never,
            Finish::PowerOff => Confirm::Whenever,
            Finish::Reboot => Confirm::Within(self.settings.confirm_within),
        }
    }

    /// What the swarm must know of a running job. The same after a restart of the server.
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
        let personality = Personality {
            hostname: order.hostname(machine),
            ssh_keys: order.order.ssh_keys.clone(),
            user_data: order.order.user_data.clone(),
            instance_id: format!("swarmboot-{}-{}", job.id, job.attempt),
            confirm_url: (job.confirm != Confirm::Never).then(url),
        };
        let gate = order
            .order
            .gather
            .map(|machines| Gate { machines, seconds: order.order.gather_seconds.unwrap_or(GATE_SECONDS) });
        Some(Admission {
            key: job.key?,
            deployment: job.deployment,
            job: job.id,
            image: order.image,
            name: machine.shown_name(),
            site: machine.site.clone(),
            personality,
            gate,
        })
    }
}

/// A machine in one line.
#[must_use]
pub fn summary(report: &HardwareReport) -> String {
    let firmware = match report.firmware {
        Firmware::Bios => "BIOS",
        Firmware::Uefi => "UEFI",
        Firmware::UefiSecure => "UEFI with Secure Boot",
        Firmware::None => "an ordinary process",
        Firmware::Other => "unknown firmware",
    };
    let maker = format!("{} {}", report.system.manufacturer, report.system.product);
    let maker = maker.trim();
    let disks: Vec<String> = report
        .disks
        .iter()
        .map(|disk| format!("{} {:.1} GB {}", disk.name, gigabytes(disk.size), disk.contents.words()))
        .collect();
    let disks = if disks.is_empty() { "no disk".to_owned() } else { disks.join(", ") };
    let lead = if maker.is_empty() { String::new() } else { format!("{maker}, ") };
    format!(
        "{lead}{firmware}, {} MiB of memory, {} NICs, {disks}",
        report.memory_bytes >> 20,
        report.nics.len()
    )
}

#[expect(clippy::cast_precision_loss, reason = "shown to one digit")]
fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}
