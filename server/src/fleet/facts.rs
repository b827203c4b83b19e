//! Core: what a machine answers to the keys of selectors: its labels, and the facts that it and the server know of it.
//! Touches `common`, `fleet::machine`, `fleet::selectors`.

use common::hardware::{Bus, Disk, Firmware, HardwareReport, List};

use super::machine::Machine;
use super::selectors::{Shown, fact};

/// What `machine` answers to `key`, if its labels of rules are not counted.
#[must_use]
pub(super) fn shown(machine: &Machine, key: &str) -> Shown {
    let mut shown = if fact(key).is_some() { of_fact(machine, key) } else { Shown::default() };
    shown.label = machine.labels.get(key).cloned();
    shown
}

fn of_fact(machine: &Machine, key: &str) -> Shown {
    let text = |text: &str| Shown { texts: vec![text.to_owned()], ..Shown::default() };
    match key {
        "site" => text(&machine.site),
        "state" => text(machine.state.name()),
        "held" => text(if machine.held { "yes" } else { "no" }),
        "os" => Shown { texts: machine.deployed_image.iter().cloned().collect(), ..Shown::default() },
        _ => match &machine.hardware {
            Some(checked) => of_hardware(checked.report(), key),
            None => Shown { is_partial: true, ..Shown::default() },
        },
    }
}

fn of_hardware(report: &HardwareReport, key: &str) -> Shown {
    let number = |number| Shown { number: Some(number), ..Shown::default() };
    // An empty text is one that the firmware does not give.
    let given = |texts: Vec<String>| texts.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>();
    let text = |text: &str| Shown { texts: given(vec![text.trim().to_owned()]), ..Shown::default() };
    let cut = |list| report.cut_of(list).is_some();
    match key {
        "memory" => number(report.memory_bytes),
        "cpus" => number(report.cpu.threads.into()),
        "disk" => Shown {
            number: report.disks.iter().filter(|disk| can_be_target(disk)).map(|disk| disk.size).max(),
            is_partial: cut(List::Disks),
            ..Shown::default()
        },
        "arch" => text(&report.cpu.architecture),
        "vendor" => text(&report.system.manufacturer),
        "model" => text(&report.system.product),
        "firmware" => match report.firmware {
            Firmware::Bios => text("bios"),
            Firmware::Uefi => text("uefi"),
            Firmware::UefiSecure => text("uefi-secure"),
            Firmware::None => text("none"),
            Firmware::Other => Shown { is_partial: true, ..Shown::default() },
        },
        "nic" => Shown {
            texts: given(report.nics.iter().map(|nic| nic.driver.clone()).collect()),
            is_partial: cut(List::Nics),
            ..Shown::default()
        },
        "pci" => Shown {
            texts: report.devices.iter().filter_map(|device| pci_ids(&device.modalias)).collect(),
            is_partial: cut(List::Devices),
            ..Shown::default()
        },
        _ => Shown::default(),
    }
}

/// Whether a disk rule may choose it without naming it: it is built in, and takes an image.
fn can_be_target(disk: &Disk) -> bool {
    !disk.removable && disk.bus != Bus::Usb && !disk.read_only && disk.unusable().is_none()
}

/// Vendor and device of a PCI device, as `lspci -n` shows them: `10de:1eb8`.
fn pci_ids(modalias: &str) -> Option<String> {
    let rest = modalias.strip_prefix("pci:v0000")?;
    let (vendor, device) = (rest.get(..4)?, rest.get(4..)?.strip_prefix("d0000")?.get(..4)?);
    Some(format!("{vendor}:{device}").to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use common::hardware::{CheckedHardware, Cpu, Device, Nic, System};
    use common::id::{Mac, MachineId};
    use common::testing;
    use jiff::Timestamp;

    use super::super::marks::Fingerprint;
    use super::super::selectors::{FACTS, Kind, Selectors};
    use super::*;
    use crate::api::shapes::MachineState;

    fn machine(report: Option<HardwareReport>) -> Machine {
        let mut machine =
            Machine::new(MachineId(1), Fingerprint::default(), "lab".to_owned(), Timestamp::UNIX_EPOCH);
        machine.hardware = report.map(|report| Arc::new(CheckedHardware::check(report).unwrap()));
        machine
    }

    fn report() -> HardwareReport {
        let disk = |name: &str, size, removable| Disk { size, removable, ..testing::disk(name) };
        let device = Device {
            address: "0000:01:00.0".to_owned(),
            modalias: "pci:v000010DEd00001EB8sv000010DEsd000012A2bc03sc02i00".to_owned(),
            class: 0x03_02_00,
            driver: String::new(),
        };
        HardwareReport {
            firmware: Firmware::Uefi,
            memory_bytes: 31 << 29,
            cpu: Cpu { threads: 8, architecture: "x86_64".to_owned(), ..Cpu::default() },
            system: System { manufacturer: "Maker Inc.".to_owned(), ..System::default() },
            disks: vec![disk("sda", 200 << 30, false), disk("sdb", 900 << 30, true)],
            nics: vec![Nic { driver: "igb".to_owned(), ..testing::nic(Mac([2, 0, 0, 0, 0, 1])) }],
            devices: vec![device],
            ..testing::report()
        }
    }

    fn fits(machine: &Machine, text: &str) -> bool {
        Selectors::parse(&[text.to_owned()]).unwrap().fit(|key| shown(machine, key))
    }

    #[test]
    fn a_machine_is_chosen_for_what_it_shows() {
        let known = machine(Some(report()));
        for text in [
            "memory>=16G,memory<32G,cpus>=8,arch=x86_64",
            "disk>=200G,disk<900G",
            "vendor=maker*,!model,firmware=uefi",
            "nic=igb,pci=10de:*,pci!=8086:*",
            "site=lab,state=discovered,held=no,!os",
        ] {
            assert!(fits(&known, text), "{text}");
        }
        for text in ["disk>=900G", "vendor=Other", "pci=8086:*", "site=roof", "held=yes", "os=debian"] {
            assert!(!fits(&known, text), "{text}");
        }
    }

    #[test]
    fn what_is_not_known_of_a_machine_chooses_it_for_nothing() {
        let seen = machine(None);
        for text in ["memory>=1", "memory<1T", "vendor!=Dell", "nic notin (igb)", "firmware!=bios"] {
            assert!(!fits(&seen, text), "{text}");
        }
        assert!(fits(&seen, "!memory,site=lab"));
        let cut = HardwareReport { truncated: vec!["devices: 7 more".to_owned()], ..report() };
        let cut = machine(Some(cut));
        assert!(fits(&cut, "pci=10de:*") && !fits(&cut, "pci!=8086:*"));
    }

    #[test]
    fn a_label_from_before_counts_for_the_fact_of_its_name() {
        let mut known = machine(Some(report()));
        known.labels.insert("site".to_owned(), "roof".to_owned());
        assert!(fits(&known, "site=roof") && !fits(&known, "site=lab"));
    }

    #[test]
    fn every_fact_is_answered_and_every_state_can_be_asked_for() {
        let mut known = machine(Some(HardwareReport {
            system: System { product: "Box".to_owned(), ..report().system },
            ..report()
        }));
        known.deployed_image = Some("debian".to_owned());
        for (name, kind) in FACTS {
            let shown = shown(&known, name);
            assert!(shown.number.is_some() || !shown.texts.is_empty(), "{name}");
            if *name == "state"
                && let Kind::Word(words) = kind
            {
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
                assert_eq!(all.map(S::name).as_slice(), *words);
            }
        }
    }
}
