//! Core, part of the fleet: which NICs the machines of a site boot from, by their reports: the relays there are told of the
//! small loaders for them. Touches `common`, `api`, the tailor's ids and the other cores of the fleet.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use common::hardware::HardwareReport;

use super::super::decide::Fleet;
use crate::api::shapes::MachineState;
use crate::tailor::PciId;

/// The most kinds of NICs that a site's relays are told of: a small loader has 3 to 5 MiB, and a site with more kinds has
/// the general loader for the others until one of them boots.
const NICS_MAX: usize = 6;

/// The PCI class of network controllers, the first byte of three.
const NETWORK: u32 = 0x02;

/// The driver of a virtio NIC and that of its PCI function, by which iPXE knows it.
const VIRTIO: (&str, &str) = ("virtio_net", "virtio-pci");

impl Fleet {
    /// The kinds of NICs that machines of `site` booted from when they last reported, the most frequent first.
    pub(super) fn nics_of(&self, site: &str) -> Vec<PciId> {
        let gone = |state| matches!(state, MachineState::Rejected | MachineState::Retired);
        let at_site =
            self.state.machines.values().filter(|machine| machine.site == site && !gone(machine.state));
        let mut counts: BTreeMap<PciId, usize> = BTreeMap::new();
        for hardware in at_site.filter_map(|machine| machine.hardware.as_ref()) {
            for nic in booted_from(hardware.report()) {
                *counts.entry(nic).or_default() += 1;
            }
        }
        let mut nics: Vec<(PciId, usize)> = counts.into_iter().collect();
        nics.sort_by_key(|(nic, count)| (Reverse(*count), *nic));
        nics.into_iter().take(NICS_MAX).map(|(nic, _)| nic).collect()
    }
}

/// The PCI ids of the card that the machine booted from. A report does not tell which of several cards it was, but it
/// tells the driver: of two kinds with one driver both are taken.
fn booted_from(report: &HardwareReport) -> impl Iterator<Item = PciId> {
    let boot = report.nics.iter().find(|nic| nic.boot && !nic.usb);
    let driver = boot.map(|nic| if nic.driver == VIRTIO.0 { VIRTIO.1 } else { nic.driver.as_str() });
    let networks = report.devices.iter().filter(|device| device.class >> 16 == NETWORK);
    let driven = networks.filter(move |device| driver == Some(device.driver.as_str()));
    driven.filter_map(|device| pci_id(&device.modalias))
}

/// The ids in `pci:v00008086d00001533sv…`.
fn pci_id(modalias: &str) -> Option<PciId> {
    let ids = modalias.strip_prefix("pci:v")?;
    let number = |text: Option<&str>| u32::from_str_radix(text?, 16).ok()?.try_into().ok();
    let (vendor, device) = (number(ids.get(..8))?, number(ids.get(8..)?.strip_prefix('d')?.get(..8))?);
    Some(PciId { vendor, device })
}

#[cfg(test)]
mod tests {
    use common::hardware::{Device, Nic};
    use common::id::Mac;
    use common::testing;

    use super::*;

    fn device(modalias: &str, class: u32, driver: &str) -> Device {
        let (modalias, driver) = (modalias.to_owned(), driver.to_owned());
        Device { address: "0000:00:01.0".to_owned(), modalias, class, driver }
    }

    fn report(driver: &str, devices: Vec<Device>) -> HardwareReport {
        let nic = Nic { boot: true, driver: driver.to_owned(), ..testing::nic(Mac([2, 0, 0, 0, 0, 1])) };
        HardwareReport { nics: vec![nic], devices, ..testing::report() }
    }

    #[test]
    fn the_card_that_a_machine_booted_from_is_known_by_its_driver() {
        let igb = || device("pci:v00008086d00001533sv00008086sd00000001bc02sc00i00", 0x02_0000, "igb");
        let e1000 = || device("pci:v00008086d000015D7sv00008086sd00000001bc02sc00i00", 0x02_0000, "e1000e");
        let disk = || device("pci:v00008086d0000A102sv00008086sd00000001bc01sc06i01", 0x01_0601, "igb");
        let virtio =
            || device("pci:v00001AF4d00001041sv00001AF4sd00000001bc02sc00i00", 0x02_0000, "virtio-pci");
        let cut = || device("pci:v0000", 0x02_0000, "igb");
        let table = [
            ("igb", vec![e1000(), igb(), disk()], vec![(0x8086, 0x1533)]),
            ("e1000e", vec![e1000(), igb()], vec![(0x8086, 0x15d7)]),
            ("virtio_net", vec![virtio(), igb()], vec![(0x1af4, 0x1041)]),
            ("igb", vec![cut()], vec![]),
            ("r8169", vec![igb()], vec![]),
        ];
        for (driver, devices, wanted) in table {
            let report = report(driver, devices);
            let got: Vec<(u16, u16)> = booted_from(&report).map(|nic| (nic.vendor, nic.device)).collect();
            assert_eq!(got, wanted, "{driver}");
        }
        let mut usb = report("igb", vec![igb()]);
        usb.nics[0].usb = true;
        assert_eq!(booted_from(&usb).count(), 0, "iPXE does not name it by PCI");
    }
}
