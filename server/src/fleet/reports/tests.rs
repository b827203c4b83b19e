//! Reports that are forged, replayed, or contradict the records: no machine gets a plan that was not ordered for it,
//! and no forged report takes marks away from a machine. Owns the fixtures that the tests share.

use common::hardware::{Contents, Disk, Nic, System};
use common::id::{Hash, ImageId, JobId, Mac};
use common::testing;
use common::trust::KeyPair;

use super::*;
use crate::api::shapes::{DeployLine, ImageShown, MachineAction, MachineCommand, Selection};
use crate::fleet::boot_policy::{Answered, Asker, Sighting};
use crate::fleet::order::CheckedOrder;
use crate::fleet::provisioner::Provision;
use crate::fleet::state::State;

// Marks of other machines, and replayed reports.
mod forged;

// Machines in doubt, and how an admin settles that.
mod doubts;

// Random fleets.
mod random;

// A NIC that only a later report shows, and the sighting of it.
mod boot_nic;

const UUIDS: [&str; 4] = [
    "a3b8c1d2-7f4e-4a90-9c36-5e1d0b72f8aa",
    "564d1bc4-9d3e-0f6a-77c1-2be9d0a48351",
    "4c4c4544-0042-3510-8052-b4c04f4d4e32",
    "9f2d7c1e-03b8-4c55-a6e0-71d94b8f2a60",
];

fn fleet() -> Fleet {
    let settings = crate::fleet::testing::settings();
    Fleet::new(State::default(), settings)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn key(n: u64) -> KeyPair {
    KeyPair::from_secret(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

/// The marks that a machine reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Marks {
    uuid: &'static str,
    serial: String,
    macs: Vec<(u8, bool)>,
    disk: String,
    name: Option<String>,
}

impl Marks {
    /// A machine with a UUID, a serial number, an address and a disk.
    fn whole(n: u8) -> Self {
        Self { uuid: UUIDS[usize::from(n) % 4], serial: format!("SN-{n}"), ..Self::bare(n) }
    }

    /// A machine with only an address and a disk.
    fn bare(n: u8) -> Self {
        Self { macs: vec![(n, false)], disk: format!("DISK-{n}"), ..Self::default() }
    }

    fn with(mut self, n: u8) -> Self {
        self.macs.push((n, false));
        self
    }

    fn report(&self, key: &KeyPair) -> Arc<CheckedHardware> {
        let disk = Disk { serial: self.disk.clone(), ..testing::disk("sda") };
        let nic = |(last, usb): &(u8, bool)| Nic {
            name: "eth0".to_owned(),
            link: true,
            boot: true,
            usb: *usb,
            ..testing::nic(mac(*last))
        };
        let report = HardwareReport {
            key: key.public(),
            firmware: if self.name.is_some() { Firmware::None } else { Firmware::Uefi },
            system: System { uuid: self.uuid.to_owned(), serial: self.serial.clone(), ..System::default() },
            disks: vec![disk],
            nics: self.macs.iter().map(nic).collect(),
            name: self.name.clone(),
            ..testing::report()
        };
        Arc::new(CheckedHardware::check(report).unwrap())
    }
}

fn mac(last: u8) -> Mac {
    Mac([0, 0x1b, 0x21, 0, 0, last])
}

fn image() -> ImageShown {
    ImageShown {
        name: "debian".to_owned(),
        id: ImageId(Hash::of(b"debian")),
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

fn order(fleet: &mut Fleet, text: serde_json::Value, now: Timestamp) {
    let Ok(order) = CheckedOrder::check(serde_json::from_value(text).unwrap()) else { return };
    let Ok(candidates) = fleet.candidates(&order, &image()) else { return };
    let mut lines: Vec<DeployLine> = candidates
        .into_iter()
        .map(|one| {
            serde_json::from_value(serde_json::json!({
                "machine": one.machine, "name": one.name, "target": null, "refused": one.refused,
            }))
            .unwrap()
        })
        .collect();
    drop(fleet.place(order, &image(), &mut lines, now));
}

fn order_for(fleet: &mut Fleet, id: MachineId, now: Timestamp) {
    order(
        fleet,
        serde_json::json!({"image": "debian", "selection": {"machines": [id]}, "accept": ["data"]}),
        now,
    );
}

fn plan(request: &PlanRequest) -> common::plan::Plan {
    serde_json::from_value(serde_json::json!({
        "deployment": request.deployment, "job": request.job, "attempt": request.attempt,
        "image": request.image, "image_bytes": 1,
        "target": {"bus": "ata", "size": 1, "sector_bytes": 512, "model": "", "serial": "S", "wwn": "", "path": ""},
        "steps": ["join", "transfer", "seal", "reboot"],
        "seed": {"key": key(0).public(), "addresses": []},
        "tuning": {"cache_bytes": 1, "fetch_parallel": 1, "write_backlog": 1, "sync_bytes": 1, "upload_parallel": 1},
        "finish": "reboot", "bundle": null,
    }))
    .unwrap()
}

/// The result of a report: a plan for an attempt, another instruction, or to wait for the agent of an earlier boot.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Plan(MachineId, u32),
    Told(MachineId),
    AtWork(MachineId),
}

fn report(fleet: &mut Fleet, marks: &Marks, key: &KeyPair, now: Timestamp) -> Got {
    let arrival = Arrival { address: None, begun: now, gone: false };
    arrive(fleet, marks, key, arrival, now)
}

fn arrive(fleet: &mut Fleet, marks: &Marks, key: &KeyPair, arrival: Arrival, now: Timestamp) -> Got {
    let Decided { machine, next, .. } = fleet.arrived(&marks.report(key), arrival, now);
    match next {
        Next::Tell(_) => Got::Told(machine),
        Next::AtWork(_) => Got::AtWork(machine),
        Next::Tailor(request, _) => {
            let value = serde_json::json!({"plan": plan(&request), "target": "disk"});
            let made = Provision {
                plan: serde_json::from_value(value["plan"].clone()).unwrap(),
                target: "disk".to_owned(),
                warnings: vec![],
            };
            let (order, _) = fleet.tailored(request.job, key.public(), Ok(made), now);
            match order {
                Instruction::Deploy(plan) => Got::Plan(machine, plan.attempt),
                _ => Got::Told(machine),
            }
        }
    }
}

fn act(fleet: &mut Fleet, machine: &str, action: MachineAction, now: Timestamp) -> Result<(), String> {
    let selection = Selection { machines: vec![machine.to_owned()], labels: vec![] };
    let done = fleet.command(&MachineCommand { selection, action, dry_run: false }, now);
    done.map(drop).map_err(|refused| refused.error)
}
