//! Core, part of the fleet: takes hardware reports: which machine it is, and what it is told: the steps `inspect` and
//! `decide`. Touches `api`, `common` and the other cores of the fleet.

use std::net::IpAddr;
use std::sync::Arc;

use common::hardware::{CheckedHardware, Firmware, HardwareReport};
use common::id::MachineId;
use common::plan::Instruction;
use common::step::{Step, What};
use common::trust::PublicKey;
use jiff::Timestamp;

use super::boot_policy::IdleBoot;
use super::decide::{AtWork, Bar, Fleet, REPORT_LIFE, Whose};
use super::identity::{Fingerprint, Who, shared};
use super::machine::{Boot, Machine, has_bootable_disk};
use super::provisioner::PlanRequest;
use super::silence::Seen;
use super::state::Change;
use crate::api::shapes::{Doubt, JobState, MachineState};

/// Seconds until a machine that was refused, held or rejected asks again.
pub(super) const REFUSED_POLL_SECONDS: u32 = 30;

/// The decision about a report.
#[derive(Debug)]
pub struct Decided {
    /// The machine that reported, known or new; number 0 if it was not recorded.
    pub machine: MachineId,
    /// Whether the report was recorded and decided about, so that its instruction holds until something changes.
    pub taken: bool,
    /// Its instruction, or what has to be done before there is one.
    pub next: Next,
}

/// The next step for a machine that reported.
#[derive(Debug)]
pub enum Next {
    /// Answer with this instruction.
    Tell(Instruction),
    /// An agent of an earlier boot is at work on its job, or may be: ask the swarm.
    AtWork(AtWork),
    /// A job is open for it: the tailor has to make its plan.
    Tailor(Box<PlanRequest>, Arc<CheckedHardware>),
}

/// How a report arrived.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// The address it came from: new keys of machines that nobody let in are rate-limited by address. `None` in tests.
    pub address: Option<IpAddr>,
    /// When the machine began to report: when it was given the nonce in the report.
    pub begun: Timestamp,
    /// Whether the agent of the earlier boot is known to have left the swarm.
    pub gone: bool,
}

impl Fleet {
    /// Takes a report from `address` that begins and arrives at `now`; its signature has been checked.
    pub fn report(
        &mut self,
        hardware: &Arc<CheckedHardware>,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Decided {
        self.arrived(hardware, Arrival { address, begun: now, gone: false }, now)
    }

    /// As [`Fleet::report`], with how it arrived.
    pub fn arrived(&mut self, hardware: &Arc<CheckedHardware>, arrival: Arrival, now: Timestamp) -> Decided {
        let report = hardware.report();
        let wait = |machine, seconds, reason: &str| {
            let order = Instruction::Wait { seconds, reason: reason.to_owned() };
            Decided { machine, taken: false, next: Next::Tell(order) }
        };
        if let Some(machine) = self.boots.is_over(&report.key, arrival.begun) {
            self.dropped += 1;
            return wait(machine, REFUSED_POLL_SECONDS, "another boot of this machine has reported since");
        }
        if now.duration_since(arrival.begun) > REPORT_LIFE {
            self.dropped += 1;
            let machine = self.state.by_key(&report.key).map_or(MachineId(0), |machine| machine.id);
            return wait(machine, 1, "the report was too long on its way");
        }
        let shown = Fingerprint::of(report);
        let (id, absorbs, doubts) = match self.who(report, &shown) {
            Who::Known { machine, absorbs, doubts } => (machine, absorbs, doubts),
            Who::New { doubts } => (MachineId(self.state.last_machine + 1), vec![], doubts),
            Who::NotItsBoot(machine) => {
                let text = "a report under the key of its present boot shows other marks: it gets no plan";
                let what = What::Note { text: text.to_owned() };
                self.log_once(now, Whose::Machine(machine), Step::Inspect, what);
                return wait(machine, REFUSED_POLL_SECONDS, "the marks are not those of this boot");
            }
        };
        if let Some(agent) = self.at_work(id, report.key, arrival.gone, now) {
            let text = "another boot of this machine reports while its agent is at work: it waits until that one \
                        was silent for long enough";
            let what = What::Note { text: text.to_owned() };
            self.log_once(now, Whose::Machine(id), Step::Inspect, what);
            return Decided { machine: id, taken: false, next: Next::AtWork(agent) };
        }
        if !self.inspect(id, hardware, shown, doubts, arrival.address, now) {
            // Nothing was recorded, so it has no number; the machine asks again.
            return wait(
                MachineId(0),
                REFUSED_POLL_SECONDS,
                "there is no room for one more unknown machine now",
            );
        }
        for sighting in absorbs {
            self.absorb(id, sighting, now);
        }
        let next = self.decide(id, hardware, arrival.address, now);
        Decided { machine: id, taken: true, next }
    }

    /// Records the report of machine `id`. False, with nothing recorded, when limits on unknown machines forbid it.
    fn inspect(
        &mut self,
        id: MachineId,
        hardware: &Arc<CheckedHardware>,
        shown: Fingerprint,
        doubts: Vec<Doubt>,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> bool {
        let report = hardware.report();
        let (is_new, same_boot) =
            (!self.state.machines.contains_key(&id), self.state.by_key(&report.key).is_some());
        if !same_boot && !self.is_let_in(id) && !self.admit_stranger(address, is_new, now) {
            self.left_out += 1;
            return false;
        }
        let known = self.state.machines.get(&id);
        let site = self.site_of(known, report, address);
        let mut machine =
            known.cloned().unwrap_or_else(|| Machine::new(id, Fingerprint::default(), site.clone(), now));
        let before = machine.boot.map(|boot| boot.key).filter(|key| *key != report.key);
        let is_new_boot = machine.boot.is_none() || before.is_some();
        if let Some(key) = before {
            self.boots.end(key, id, now);
        }
        if is_new_boot {
            self.leave_boot(id, report.key);
            machine.boot = Some(Boot { key: report.key, through: 0, since: now });
        }
        self.boots.hear(report.key, now);
        machine.name = machine.name.or_else(|| self.own_name(report));
        self.learn(&mut machine, shown);
        machine.site = site;
        machine.last_seen = now;
        machine.doubts.clone_from(&doubts);
        let kept = self.kept(id, hardware);
        let is_changed = machine.hardware.as_deref() != Some(&*kept);
        self.put_machine(machine);
        if is_changed {
            self.put(Change::Hardware(id, kept));
        }
        if let Some(address) = address {
            self.remember(address, id);
        }
        self.trace(id, Seen::Reported, now);
        if is_new_boot {
            self.tell_of(id, is_new, report, now);
        }
        if is_new {
            self.tell_rivals(id, &doubts, now);
        }
        self.tell_doubts(id, &doubts, now);
        true
    }

    /// Adds the marks of a report to those on record. Only marks of the first report count as missing later. Addresses
    /// of later reports are added as weak ones, and only if they identify no other machine.
    fn learn(&self, machine: &mut Machine, shown: Fingerprint) {
        let id = machine.id;
        if machine.hardware.is_some() {
            let print = &mut machine.fingerprint;
            print.add_late(shown.macs.iter().copied().filter(|mac| !self.is_anothers(*mac, id)));
            print.weaken(|mac| shown.weak.contains(&mac));
            if !print.uuids.is_empty() && print.uuids.is_disjoint(&shown.uuids) {
                print.add_uuids(&shown.uuids);
            }
            return;
        }
        let sighted = std::mem::replace(&mut machine.fingerprint, shown);
        machine.fingerprint.weaken(|mac| self.is_anothers(mac, id));
        if self.is_claimed(id) {
            // The order is for the machine with the address that was seen; the others are added as weak.
            machine.fingerprint.weaken(|mac| !sighted.macs.contains(&mac));
        }
        machine.fingerprint.add_late(sighted.macs);
    }

    /// Removes the boot with this key from any other machine: the key is now `id`'s.
    fn leave_boot(&mut self, id: MachineId, key: PublicKey) {
        let other = self.state.by_key(&key).filter(|other| other.id != id).cloned();
        if let Some(mut other) = other {
            other.boot = None;
            self.put_machine(other);
        }
    }

    /// The name that a machine gives itself, if no other has it and it looks like no id and no Ethernet address.
    fn own_name(&self, report: &HardwareReport) -> Option<String> {
        let name = report.name.clone()?;
        let plain = name.parse::<MachineId>().is_err() && name.parse::<common::id::Mac>().is_err();
        (plain && self.state.named(&name).is_empty()).then_some(name)
    }

    /// Merges the record of a sighting into machine `id`: it was of another NIC of that.
    fn absorb(&mut self, id: MachineId, sighting: MachineId, now: Timestamp) {
        let (Some(machine), Some(other)) = (self.state.machines.get(&id), self.state.machines.get(&sighting))
        else {
            return;
        };
        let name = other.shown_name();
        let shared = shared(&machine.fingerprint, &other.fingerprint).join(", ");
        self.forget(sighting);
        let text = format!("{name}, seen before by {shared} only, is this machine");
        self.log_within(now, Whose::Machine(id), Step::Inspect, What::Note { text });
    }

    fn tell_of(&mut self, id: MachineId, is_new: bool, report: &HardwareReport, now: Timestamp) {
        let text = format!("{}{}", if is_new { "a new machine: " } else { "" }, summary(report));
        self.log_within(now, Whose::Machine(id), Step::Inspect, What::Note { text });
        for cut in &report.truncated {
            let text = format!("the report is not whole: {cut}");
            self.log_within(now, Whose::Machine(id), Step::Inspect, What::Note { text });
        }
    }

    /// Logs which other machines share marks with a new one that are not enough for a doubt.
    fn tell_rivals(&mut self, id: MachineId, doubts: &[Doubt], now: Timestamp) {
        let Some(machine) = self.state.machines.get(&id) else { return };
        let print = machine.fingerprint.clone();
        for rival in self.state.sharing(&print) {
            let Some(other) = self.state.machines.get(&rival).filter(|other| other.id != id) else {
                continue;
            };
            if other.hardware.is_none() || doubts.iter().any(|doubt| doubt.other == rival) {
                continue;
            }
            let shared = shared(&print, &other.fingerprint).join(", ");
            let text = format!("{} shows {shared} too; they are two machines", other.shown_name());
            self.log_within(now, Whose::Machine(id), Step::Inspect, What::Note { text });
        }
    }

    /// A machine's site: as configured for the address that the report came from, or that address' network. A site that
    /// a report claims would decide what the machine is sent and whose rate limit that counts against, so it is
    /// accepted only from an ordinary process that an admin let in.
    fn site_of(&self, known: Option<&Machine>, report: &HardwareReport, address: Option<IpAddr>) -> String {
        let let_in = known.is_some_and(|machine| {
            use MachineState::{Approved, Deployed, Deploying, Failed};
            matches!(machine.state, Approved | Deploying | Deployed | Failed)
        });
        if let Some(site) = report.site.as_ref().filter(|_| let_in && report.firmware == Firmware::None) {
            return site.clone();
        }
        address.map_or_else(|| "local".to_owned(), |address| self.settings.sites.of(address))
    }

    fn decide(
        &mut self,
        id: MachineId,
        hardware: &Arc<CheckedHardware>,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Next {
        let Some(machine) = self.state.machines.get(&id).cloned() else {
            return Next::Tell(Instruction::Wait {
                seconds: REFUSED_POLL_SECONDS,
                reason: "unknown".to_owned(),
            });
        };
        let bar = self.bar_plan(&machine, &hardware.report().key);
        if bar.is_none() {
            let wanted = self.state.newest_job(id).filter(|job| job.wants_plan()).cloned();
            let wanted = wanted.or_else(|| self.take_open(id, now));
            let order = wanted.as_ref().and_then(|job| self.state.deployments.get(&job.deployment));
            if let (Some(job), Some(order)) = (&wanted, order) {
                let request = order.plan_request(job, hardware.report(), address);
                return Next::Tailor(Box::new(request), Arc::clone(hardware));
            }
        }
        let stays = bar.as_ref().is_some_and(Bar::passes);
        let reason = self.reason(id, bar);
        Next::Tell(self.send_away(machine, hardware.report(), (reason, stays), now))
    }

    /// Why machine `id`, which gets no plan, gets none; `bar` says whether something forbids it.
    pub(super) fn reason(&self, id: MachineId, bar: Option<Bar>) -> String {
        let refused = self.state.newest_job(id).filter(|job| job.state == JobState::Refused);
        match (bar, refused) {
            (Some(bar), _) => bar.to_string(),
            (None, Some(job)) => format!(
                "what was ordered was refused ({}); `swarmboot deploy retry` orders it again",
                job.cause.as_deref().unwrap_or("no reason is known")
            ),
            (None, None) if self.stays(id) => {
                "an admin inspects this machine; `swarmboot machine release` ends that".to_owned()
            }
            (None, None) => "nothing is ordered for this machine".to_owned(),
        }
    }

    fn stays(&self, id: MachineId) -> bool {
        self.state.machines.get(&id).is_some_and(|machine| machine.idle_boot == IdleBoot::Stay)
    }

    fn send_away(
        &mut self,
        mut machine: Machine,
        report: &HardwareReport,
        (reason, waits): (String, bool),
        now: Timestamp,
    ) -> Instruction {
        let id = machine.id;
        // An ordinary process has no disk to boot. A disk that a job sealed is bootable, whatever the report says of
        // it.
        let sealed = self.state.newest_job(id).is_some_and(|job| job.sealed);
        let stays = machine.idle_boot == IdleBoot::Stay;
        let boots = !stays && report.firmware != Firmware::None && (sealed || has_bootable_disk(report));
        let idle_boot = if boots { IdleBoot::BootDisk } else { IdleBoot::Load };
        if !stays && machine.idle_boot != idle_boot {
            machine.idle_boot = idle_boot;
            self.put_machine(machine);
        }
        let (order, text) = if boots && !waits {
            let text = format!("{reason}: it boots its own disk");
            (Instruction::BootDisk { reason }, text)
        } else {
            let text = format!("{reason}: it waits");
            (Instruction::Wait { seconds: self.settings.poll_seconds, reason }, text)
        };
        self.log_once(now, Whose::Machine(id), Step::Decide, What::Done { text });
        order
    }
}

/// A machine's hardware in one line, for the log.
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

#[cfg(test)]
mod tests;
