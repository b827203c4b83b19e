//! For the tests of all crates: one disk, one network interface, one report, one kernel and one module, of which a test
//! changes what it is about: `Disk { serial: "S1".to_owned(), ..disk("sda") }`. In the `testing` feature, and in no program.

use crate::disks::{Bus, Contents, Disk};
use crate::hardware::{Cpu, Firmware, HardwareReport, Nic, REPORT_VERSION, System};
use crate::id::Mac;
use crate::trust::KeyPair;

/// A blank ATA disk of 1 GiB with 512-byte sectors; every other field is empty or false.
#[must_use]
pub fn disk(name: &str) -> Disk {
    Disk { contents: Contents::Blank, ..Disk::without_marks(name, Bus::Ata, 1 << 30, 512) }
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
        drivers: None,
        name: None,
        site: None,
        truncated: vec![],
    }
}

/// A file with the header of a bzImage and no code.
#[must_use]
pub fn kernel_file(release: &str) -> Vec<u8> {
    let mut image = vec![0; 0x1000];
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    image[0x20e..0x210].copy_from_slice(&0x0600_u16.to_le_bytes());
    image[0x236] = 0b1001;
    let text = format!("{release} (builder@example) #1 SMP");
    image[0x800..0x800 + text.len()].copy_from_slice(text.as_bytes());
    image
}

/// The smallest ELF file with a `.modinfo` section: header, the two sections' bytes, three section headers.
#[must_use]
pub fn module_file(info: &[&str]) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let info: Vec<u8> = info.iter().flat_map(|entry| [entry.as_bytes(), b"\0"].concat()).collect();
    let (info_at, names_at) = (64, 64 + info.len());
    let headers_at = (names_at + names.len()).next_multiple_of(8);
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01");
    file.resize(16, 0);
    file.extend([1, 0, 62, 0, 1, 0, 0, 0]); // relocatable, x86-64, version 1
    file.extend([0; 16]); // no entry, no program headers
    file.extend((headers_at as u64).to_le_bytes());
    file.extend([0; 4]);
    file.extend([64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
    file.extend(&info);
    file.extend(names);
    file.resize(headers_at + 64, 0);
    for (name, kind, at, len) in [(1u32, 1u32, info_at, info.len()), (10, 3, names_at, names.len())] {
        file.extend(name.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend([0; 16]);
        file.extend((at as u64).to_le_bytes());
        file.extend((len as u64).to_le_bytes());
        file.extend([0; 8]);
        file.extend(1u64.to_le_bytes());
        file.extend([0; 8]);
    }
    file
}
