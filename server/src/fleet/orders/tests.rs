//! Orders, with a tailor that takes the only disk. Owns the fixtures that the tests share: machines, disks, and a fleet
//! to which they report.

use std::net::Ipv4Addr;
use std::sync::Arc;

use common::hardware::{Bus, CheckedHardware, Contents, Device, Disk, Firmware, HardwareReport, Nic, System};
use common::id::{Hash, ImageId, Mac};
use common::plan::{Instruction, Plan};
use common::step::{EventBatch, StepEvent};
use common::testing;
use common::trust::{KeyPair, PublicKey};
use common::user_data::UserData;
use jiff::SignedDuration;

use super::super::boot_policy::{Asker, ScriptSays, Sighting};
use super::super::decide::Settings;
use super::super::own::{Own, OwnDisk};
use super::super::provisioner::{NoPlan, Provision};
use super::super::reports::Next;
use super::super::state::State;
use super::*;
use crate::api::shapes::{
    Cancel, DeployOrder, MachineAction, MachineChanged, MachineCommand, Retry, RetryLine, RetryShown, Shown,
    ShownLine,
};

// Cancelled orders.
mod cancel;

// Commands of an admin at awkward times.
mod word;

// Only the disk that was shown is written.
mod shown;

// Orders and jobs that expire.
mod expiry;

// Pauses, turns and the ceiling of one order.
mod pace;

// Orders by profiles.
mod profiles;

// Machines that an order does not take.
mod refused;

const WEEK: i64 = 7 * 24 * 3600;

fn key(machine: u8, boot: u8) -> PublicKey {
    KeyPair::from_secret([machine.wrapping_mul(16).wrapping_add(boot); 32]).public()
}

fn disk(serial: &str, contents: Contents) -> Disk {
    Disk { serial: serial.to_owned(), contents, ..testing::disk("sda") }
}

fn blank(serial: &str) -> Vec<Disk> {
    vec![disk(serial, Contents::Blank)]
}

fn report(machine: u8, boot: u8, disks: Vec<Disk>) -> HardwareReport {
    HardwareReport {
        key: key(machine, boot),
        firmware: Firmware::Uefi,
        system: System { serial: format!("SN{machine}"), ..System::default() },
        disks,
        nics: vec![Nic {
            name: "eth0".to_owned(),
            link: true,
            boot: true,
            ..testing::nic(Mac([2, 0, 0, 0, 0, machine]))
        }],
        ..testing::report()
    }
}

fn image(name: &str) -> ImageShown {
    ImageShown {
        name: name.to_owned(),
        id: ImageId(Hash::of(name.as_bytes())),
        added: Timestamp::UNIX_EPOCH,
        bytes: 1 << 30,
        wire_bytes: 1 << 28,
        chunks: 1024,
        zero_chunks: 0,
        sector_bytes: 512,
        partition_table: "gpt".to_owned(),
        source: "test".to_owned(),
        staged: vec![],
        traits: None,
        updates: vec![],
    }
}

/// The tailor of these tests: chooses the disk that was shown, or the only one there is. A disk with the serial number
/// FIRST gets a warning that stops the order unless it has `--accept other-disk`.
fn choose(request: &PlanRequest, hardware: &CheckedHardware) -> Result<Target, NoPlan> {
    let target = |disk: &Disk| Target {
        disk: DiskIdentity::of(disk),
        words: disk.serial.clone(),
        warnings: if disk.serial == "FIRST" {
            vec![Warning::OtherDiskBoots { disk: "sdb".to_owned() }]
        } else {
            vec![]
        },
    };
    match hardware.report().disks.as_slice() {
        [disk] => Ok(target(disk)),
        disks => {
            let bound = disks.iter().find(|disk| request.bound == Some(DiskIdentity::of(disk)));
            bound.map(target).ok_or_else(|| NoPlan::Failed(format!("{} disks", disks.len()).into()))
        }
    }
}

/// A fleet under test, its clock, and the request that waits for the tailor.
struct Trial {
    fleet: Fleet,
    now: Timestamp,
    request: Option<PlanRequest>,
    hardware: Option<Arc<CheckedHardware>>,
}

impl Trial {
    fn new() -> Self {
        Self::with(Own::default())
    }

    fn with(own: Own) -> Self {
        let settings = Settings {
            order_expires: Some(SignedDuration::from_secs(WEEK)),
            own: Arc::new(own),
            ..crate::fleet::testing::settings()
        };
        let fleet = Fleet::new(State::default(), settings);
        Self { fleet, now: Timestamp::from_second(1_000_000).unwrap(), request: None, hardware: None }
    }

    fn pass(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        self.fleet.tick(self.now);
    }

    /// Takes a report of a machine whose earlier agent has long been silent. `None` if a request to the tailor now
    /// waits.
    fn comes(&mut self, report: HardwareReport) -> Option<Instruction> {
        self.now = self.now.checked_add(SignedDuration::from_secs(1)).unwrap();
        let hardware = Arc::new(CheckedHardware::check(report).unwrap());
        self.fleet.boots.age();
        (self.request, self.hardware) = (None, None);
        match self.fleet.report(&hardware, None, self.now).next {
            Next::Tell(order) => Some(order),
            Next::AtWork(agent) => Some(agent.order()),
            Next::Tailor(request, hardware) => {
                (self.request, self.hardware) = (Some(*request), Some(hardware));
                None
            }
        }
    }

    /// Lets the tailor answer the request that waits.
    fn tailored(&mut self) -> Instruction {
        let (request, hardware) = (self.request.take().unwrap(), self.hardware.take().unwrap());
        let made = choose(&request, &hardware).map(|target| Provision {
            plan: plan(&request, target.disk),
            target: target.words,
            warnings: target.warnings,
        });
        let key = hardware.report().key;
        self.fleet.tailored(request.job, key, made, self.now).0
    }

    /// Machine 1 asks for its boot script, and is known by its address only.
    fn asks_for_its_script(&mut self) {
        let asker = Asker { mac: Some(Mac([2, 0, 0, 0, 0, 1])), uuid: None, serial: None };
        let address = Ipv4Addr::new(10, 0, 0, 9).into();
        self.fleet.sighting(Sighting::Script { asker, address, says: ScriptSays::Load }, self.now);
    }

    fn reports(&mut self, report: HardwareReport) -> Instruction {
        match self.comes(report) {
            Some(order) => order,
            None => self.tailored(),
        }
    }

    /// The serial number of the disk that a machine that reports is told to write; `None` if it gets no plan.
    fn written(&mut self, report: HardwareReport) -> Option<String> {
        match self.reports(report) {
            Instruction::Deploy(plan) => Some(plan.target.serial),
            _ => None,
        }
    }

    fn lines(&self, order: &DeployOrder, name: &str) -> Result<Vec<DeployLine>, Refused> {
        let line = |candidate: Candidate| {
            let target = candidate.request.as_ref().map(|(asked, hardware)| choose(asked, hardware));
            candidate.line(target, &[])
        };
        let mut lines: Vec<_> = self
            .fleet
            .candidates(&CheckedOrder::check(order.clone())?, &image(name))?
            .into_iter()
            .map(line)
            .collect();
        let shown = order.shown.iter().flat_map(|shown| &shown.machines);
        lines.iter_mut().zip(shown).for_each(|(line, shown)| hold_to(line, shown.disk.as_ref()));
        Ok(lines)
    }

    fn place(&mut self, order: DeployOrder, lines: &mut [DeployLine]) -> Result<DeploymentId, Refused> {
        let image = image(&order.image);
        self.fleet.place(CheckedOrder::check(order)?, &image, lines, self.now)
    }

    fn order_lines(&mut self, text: serde_json::Value) -> Result<(DeploymentId, Vec<DeployLine>), Refused> {
        let order: DeployOrder = serde_json::from_value(text).unwrap();
        let name = order.image.clone();
        let mut lines = self.lines(&order, &name)?;
        let id = self.place(order, &mut lines)?;
        Ok((id, lines))
    }

    fn order(&mut self, machines: &[&str]) -> Result<DeploymentId, Refused> {
        self.order_lines(serde_json::json!({"image": "debian", "selection": {"machines": machines}}))
            .map(|(id, _)| id)
    }

    fn open(&mut self) -> DeploymentId {
        self.order_lines(serde_json::json!({"image": "open", "selection": {}, "open": true})).unwrap().0
    }

    fn act(&mut self, machine: &str, action: MachineAction) -> Result<Vec<MachineChanged>, Refused> {
        let selection = Selection { machines: vec![machine.to_owned()], labels: vec![] };
        self.fleet.command(&MachineCommand { selection, action, dry_run: false }, self.now)
    }

    fn cancel(&mut self, id: DeploymentId) {
        self.fleet.cancel(id, &Cancel::default(), self.now).unwrap();
    }

    fn retry(&mut self, retry: Retry) -> Result<Vec<RetryLine>, Refused> {
        let mut lines: Vec<RetryLine> = self
            .fleet
            .retryable(&retry)?
            .into_iter()
            .map(|again| {
                let target = again.candidate.request.as_ref().map(|(asked, seen)| choose(asked, seen));
                let line = again.candidate.line(target, &[]);
                RetryLine { job: again.job, deployment: again.deployment, image: again.image, line }
            })
            .collect();
        for again in &mut lines {
            let shown = retry.shown.iter().flatten().find(|shown| shown.job == again.job);
            shown.into_iter().for_each(|shown| hold_to(&mut again.line, shown.disk.as_ref()));
        }
        self.fleet.retry(&mut lines, retry.max_machines, self.now).map(|()| lines)
    }

    fn told(&mut self, machine: u8, boot: u8, number: u64, step: Step, what: What) {
        let key = key(machine, boot);
        let job = self.fleet.state.newest_job(MachineId(machine.into())).map(|job| job.id);
        let event = StepEvent { number, at_ms: 0, step, what, sources: None };
        self.fleet
            .events(EventBatch { key, job, attempt: None, sent_at_ms: 0, events: vec![event] }, self.now)
            .unwrap();
    }

    fn calls_home(&mut self, machine: u8) {
        let job = self.fleet.state.newest_job(MachineId(machine.into())).unwrap();
        let token = self.fleet.settings.token(job.id, job.attempt);
        self.fleet.confirm(&token, None, self.now).unwrap();
    }

    fn machine(&self, machine: u8) -> &Machine {
        &self.fleet.state.machines[&MachineId(machine.into())]
    }

    fn job(&self, machine: u8) -> &Job {
        self.fleet.state.newest_job(MachineId(machine.into())).unwrap()
    }

    fn logged(&mut self) -> Vec<String> {
        let changes = self.fleet.take_effects().changes;
        let text = |change| match change {
            Change::Event(event) => Some(format!("{:?}", event.what)),
            _ => None,
        };
        changes.into_iter().filter_map(text).collect()
    }
}

fn plan(request: &PlanRequest, target: DiskIdentity) -> Plan {
    serde_json::from_value(serde_json::json!({
        "deployment": request.deployment, "job": request.job, "attempt": request.attempt,
        "image": request.image, "image_bytes": 1, "target": target,
        "steps": ["join", "transfer", "seal", "linger", "reboot"],
        "seed": {"key": key(9, 9), "addresses": []},
        "tuning": {"cache_bytes": 1, "fetch_parallel": 1, "write_backlog": 1, "sync_bytes": 1,
            "upload_parallel": 1},
        "finish": request.finish, "bundle": null,
    }))
    .unwrap()
}

fn done() -> What {
    What::Done { text: String::new() }
}
