//! Owns the hardware report of a machine of the site benchmark: a small server with an Intel network card, as long as
//! those of real machines. Touches its disk's file.

use agent::disk::find::as_disk;
use anyhow::Result;
use common::hardware::{Cpu, Device, Disk, Firmware, HardwareReport, Nic, REPORT_VERSION, System};
use common::id::{Hash, Mac};
use common::trust::PublicKey;

use super::spec::Spec;

/// The network card: Intel I210.
pub(crate) const NIC: (u16, u16) = (0x8086, 0x1533);
/// The devices that count for drivers: vendor, device, class, driver. A disk controller without a driver might hide a
/// disk, and an open order would not take the machine.
const DEVICES: [(u16, u16, u32, &str); 5] = [
    (NIC.0, NIC.1, 0x02_0000, "igb"),
    (0x8086, 0xa102, 0x01_0601, "ahci"),
    (0x144d, 0xa808, 0x01_0802, "nvme"),
    (0x8086, 0xa12f, 0x0c_0330, "xhci_hcd"),
    (0x1a03, 0x2000, 0x03_0000, ""),
];
/// How many others there are: bridges, memory controllers, sensors. A server of one socket lists 50 to 90.
const OTHERS: u16 = 60;

/// The machine's disks.
///
/// # Errors
/// When its file is missing.
pub(crate) fn disks(spec: &Spec) -> Result<Vec<Disk>> {
    Ok(vec![as_disk(&spec.target, None)?])
}

/// The report of the machine with this boot key and address, whose loader has the drivers of the kit with this index.
///
/// # Errors
/// When its disk's file is missing.
pub(crate) fn report(
    spec: &Spec,
    key: PublicKey,
    address: &str,
    drivers: Option<Hash>,
) -> Result<HardwareReport> {
    let efi = spec.platform == "efi";
    let boot = Nic {
        name: "enp3s0".to_owned(),
        mac: Mac(spec.mac()),
        driver: "igb".to_owned(),
        speed_mbit: Some(1000),
        link: true,
        address: Some(address.to_owned()),
        boot: true,
        usb: false,
    };
    Ok(HardwareReport {
        version: REPORT_VERSION,
        reporter: env!("CARGO_PKG_VERSION").to_owned(),
        key,
        firmware: if efi { Firmware::Uefi } else { Firmware::Bios },
        system: System {
            manufacturer: "Lab".to_owned(),
            product: "Site".to_owned(),
            serial: spec.serial(),
            uuid: spec.uuid(),
            ..System::default()
        },
        cpu: Cpu { architecture: "x86_64".to_owned(), model: "Lab CPU".to_owned(), threads: 4 },
        memory_bytes: 1 << 30,
        disks: disks(spec)?,
        nics: vec![boot],
        devices: devices(),
        drivers,
        name: None,
        site: None,
        truncated: vec![],
    })
}

/// What is on its buses.
pub(crate) fn devices() -> Vec<Device> {
    let others = (0..OTHERS).map(|at| (0x8086, 0xa200 + at, 0x08_8000, ""));
    let device = |(at, (vendor, id, class, driver)): (usize, (u16, u16, u32, &str))| {
        let [_, base, sub, interface] = class.to_be_bytes();
        let modalias = format!(
            "pci:v{vendor:08X}d{id:08X}sv{vendor:08X}sd00007270bc{base:02X}sc{sub:02X}i{interface:02X}"
        );
        let address = format!("0000:{:02x}:{:02x}.0", at / 32, at % 32);
        Device { address, modalias, class, driver: driver.to_owned() }
    };
    DEVICES.into_iter().chain(others).enumerate().map(device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_as_long_as_real_ones_and_the_server_takes_it() {
        let folder = tempfile::tempdir().unwrap();
        let target = lab::disk::blank(&folder.path().join("disk"), 1 << 30).unwrap();
        let spec = Spec {
            number: 3,
            address: "10.0.0.3".to_owned(),
            platform: "efi".to_owned(),
            version: "2.0.0".to_owned(),
            target,
            image_bytes: 1 << 20,
            only_reports_to: None,
            pause_ms: 0,
        };
        let key = common::trust::KeyPair::from_secret([1; 32]).public();
        let report = report(&spec, key, "10.0.0.3/24", None).unwrap();
        let bytes = serde_json::to_vec(&report).unwrap().len();
        assert!((8_000..60_000).contains(&bytes), "{bytes} bytes");
        common::hardware::CheckedHardware::check(report).unwrap();
    }
}
