//! For the tests of all crates: one disk, one network interface and one report, of which a test changes the fields that
//! it is about: `Disk { serial: "S1".to_owned(), ..disk("sda") }`. In the `testing` feature, and in no program.

use crate::disks::{Bus, Contents, Disk};
use crate::hardware::{Cpu, Firmware, HardwareReport, Nic, REPORT_VERSION, System};
use crate::id::Mac;
use crate::trust::KeyPair;

/// A blank ATA disk of 1 GiB with 512-byte sectors; every other field is empty or false.
#[must_use]
pub fn disk(name: &str) -> Disk {
    Disk {
        name: name.to_owned(),
        bus: Bus::Ata,
        size: 1 << 30,
        sector_bytes: 512,
        model: String::new(),
        serial: String::new(),
        wwn: String::new(),
        path: String::new(),
        rotational: false,
        removable: false,
        read_only: false,
        contents: Contents::Blank,
        found: vec![],
        volumes: vec![],
    }
}

/// An interface with this address; every other field is empty or false.
#[must_use]
pub fn nic(mac: Mac) -> Nic {
    Nic {
        name: String::new(),
        mac,
        driver: String::new(),
        speed_mbit: None,
        link: false,
        address: None,
        boot: false,
        usb: false,
    }
}

/// The report of a BIOS machine with 1 GiB of memory and nothing else, with the boot key of the secret `[1; 32]`.
#[must_use]
pub fn report() -> HardwareReport {
    HardwareReport {
        version: REPORT_VERSION,
        reporter: "0.1.0".to_owned(),
        key: KeyPair::from_secret([1; 32]).public(),
        firmware: Firmware::Bios,
        system: System::default(),
        cpu: Cpu::default(),
        memory_bytes: 1 << 30,
        disks: vec![],
        nics: vec![],
        devices: vec![],
        name: None,
        site: None,
        truncated: vec![],
    }
}
