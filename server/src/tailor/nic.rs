//! Core: which modules of a boot kit a machine needs to reach the server over the NIC that it booted from, of which
//! only the PCI ids are known, and which it most likely needs besides. Touches `common` and `kit::part_of`, which says
//! what a module is for.

use std::collections::BTreeSet;
use std::fmt;

use common::hardware::HardwareReport;
use common::modules::{ModuleIndex, alias_matches};

use crate::kit::{Part, part_of};

/// The PCI ids of a NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PciId {
    /// The vendor.
    pub vendor: u16,
    /// The device.
    pub device: u16,
}

impl fmt::Display for PciId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

/// Red Hat's vendor id, which all virtio devices have. Their PCI function only shows a second bus, on which the NIC is
/// a device of its own.
const VIRTIO: u16 = 0x1af4;

/// The driver of a virtio NIC and that of its PCI function, by which iPXE knows it.
const VIRTIO_NET: (&str, &str) = ("virtio_net", "virtio-pci");

/// The PCI class of network controllers, the first byte of the 24 bits.
const NETWORK_CLASS: u32 = 0x02;

/// What every loader needs besides: raw packets for DHCP, and the UEFI variables for Secure Boot's state.
const ALWAYS: [&str; 2] = ["af_packet", "efivarfs"];

/// Controllers of disks that most machines have, and USB hosts. What a loader lacks each machine fetches by itself, from
/// the server: for thirty machines behind a line that was 24 MiB, where the loader enters their site twice.
const COMMON: [&str; 5] = ["ahci", "ehci_pci", "nvme", "sd_mod", "xhci_pci"];

/// The same for a virtual machine, and its source of random numbers: a loader makes its key before it has a network, so
/// this one cannot be fetched.
const COMMON_VIRTIO: [&str; 5] = ["ahci", "sd_mod", "virtio_blk", "virtio_rng", "virtio_scsi"];

/// The names of the modules that bring up `nic` and the common controllers of disks, and of all that they need,
/// ascending; `None` when `index` has no driver for it.
///
/// Several drivers may claim an id, of which the subsystem or class decides that iPXE does not tell: all are taken.
/// Which PHY a card has shows only once its driver runs, so all PHYs' drivers come with one that does not name its own:
/// tg3 refuses to start without.
#[must_use]
pub fn reaching(index: &ModuleIndex, nic: PciId) -> Option<Vec<String>> {
    let is_network = |path: &str| part_of(path) == Some(Part::Network);
    let drives = |alias: &String| {
        let of_id = alias.split_once("sv").map_or(alias.as_str(), |(of_id, _)| of_id);
        // An alias of any vendor is for a class of devices.
        !of_id.starts_with("pci:v*")
            && alias_matches(of_id, &format!("pci:v{:08X}d{:08X}", nic.vendor, nic.device))
    };
    let mut wanted: BTreeSet<&str> = index
        .modules()
        .iter()
        .filter(|module| is_network(&module.path) && module.aliases.iter().any(drives))
        .map(|module| module.name.as_str())
        .collect();
    if nic.vendor == VIRTIO && index.get("virtio_net").is_some() {
        wanted.extend(["virtio_net", "virtio_pci"]);
    }
    if wanted.is_empty() {
        return None;
    }
    wanted.extend(ALWAYS);
    let common = if nic.vendor == VIRTIO { COMMON_VIRTIO.as_slice() } else { &COMMON };
    wanted.extend(common.iter().copied().filter(|name| index.get(name).is_some()));
    let is_phy = |path: &str| path.starts_with("kernel/drivers/net/phy/");
    let drivers = index.load_order_of(wanted.iter().copied());
    let names_its_phy = |name: &String| index.get(name).is_some_and(|module| is_phy(&module.path));
    let any_phy = drivers.iter().any(|module| module.name == "libphy")
        && !drivers.iter().any(|module| module.pre.iter().any(names_its_phy));
    if any_phy {
        let phys = index.modules().iter().filter(|module| is_phy(&module.path));
        wanted.extend(phys.map(|module| module.name.as_str()));
    }
    let all: BTreeSet<String> =
        index.load_order_of(wanted).into_iter().map(|module| module.name.clone()).collect();
    Some(all.into_iter().collect())
}

/// The kinds of NICs that the machine may have booted from, as iPXE names them. A report does not tell which of several
/// cards it was, but it tells the driver: of two kinds with one driver both are taken.
#[must_use]
pub fn booted_from(report: &HardwareReport) -> BTreeSet<PciId> {
    let boot = report.nics.iter().find(|nic| nic.boot && !nic.usb);
    let driver = boot.map(|nic| if nic.driver == VIRTIO_NET.0 { VIRTIO_NET.1 } else { nic.driver.as_str() });
    let networks = report.devices.iter().filter(|device| device.class >> 16 == NETWORK_CLASS);
    let driven = networks.filter(|device| driver == Some(device.driver.as_str()));
    driven.filter_map(|device| pci_id(&device.modalias)).collect()
}

/// The ids in a modalias such as `pci:v00008086d00001533sv…`.
fn pci_id(modalias: &str) -> Option<PciId> {
    let (vendor, rest) = modalias.strip_prefix("pci:v")?.split_at_checked(8)?;
    let device = rest.strip_prefix('d')?.get(..8)?;
    let number = |text| u32::from_str_radix(text, 16).ok()?.try_into().ok();
    Some(PciId { vendor: number(vendor)?, device: number(device)? })
}

#[cfg(test)]
mod tests {
    use common::hardware::{Device, Nic};
    use common::id::Mac;
    use common::modules::Module;
    use common::testing;

    use super::*;

    fn module(path: &str, depends: &[&str], pre: &[&str], aliases: &[&str]) -> Module {
        let own = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        let name = path.rsplit('/').next().unwrap().trim_end_matches(".ko").replace('-', "_");
        let path = format!("kernel/{path}");
        Module {
            name,
            path,
            aliases: own(aliases),
            depends: own(depends),
            pre: own(pre),
            ..Module::default()
        }
    }

    fn index() -> ModuleIndex {
        let modules = vec![
            module(
                "drivers/net/ethernet/intel/igb/igb.ko",
                &["dca"],
                &[],
                &["pci:v00008086d00001533sv*sd*bc*sc*i*"],
            ),
            module("drivers/dca/dca.ko", &[], &[], &[]),
            module(
                "drivers/net/ethernet/broadcom/tg3.ko",
                &["libphy"],
                &[],
                &["pci:v000014E4d00001657sv*sd*bc*sc*i*"],
            ),
            module(
                "drivers/net/ethernet/realtek/r8169.ko",
                &["libphy"],
                &["realtek"],
                &["pci:v000010ECd00008168sv*sd*bc*sc*i*"],
            ),
            module(
                "drivers/net/ethernet/realtek/8139cp.ko",
                &[],
                &[],
                &["pci:v000010ECd00008139sv*sd*bc*sc*i*"],
            ),
            module(
                "drivers/net/ethernet/realtek/8139too.ko",
                &[],
                &[],
                &["pci:v000010ECd00008139sv*sd*bc*sc*i*", "pci:v*d00001234sv*sd*bc02sc00i*"],
            ),
            module("drivers/net/phy/libphy.ko", &[], &[], &[]),
            module("drivers/net/phy/realtek.ko", &["libphy"], &[], &["mdio:*"]),
            module("drivers/net/phy/broadcom.ko", &["libphy"], &[], &["mdio:*"]),
            module("drivers/net/virtio_net.ko", &[], &[], &["virtio:d00000001v*"]),
            module("drivers/char/hw_random/virtio-rng.ko", &[], &[], &["virtio:d00000004v*"]),
            module("drivers/virtio/virtio_pci.ko", &[], &[], &["pci:v00001AF4d*sv*sd*bc*sc*i*"]),
            module("drivers/ata/ahci.ko", &[], &[], &["pci:v00008086d00002922sv*sd*bc*sc*i*"]),
            module("net/packet/af_packet.ko", &[], &[], &[]),
            module("fs/efivarfs/efivarfs.ko", &[], &[], &[]),
        ];
        ModuleIndex::new("6.1.0".to_owned(), modules, []).unwrap()
    }

    #[test]
    fn a_nic_gets_what_it_needs_or_nothing_is_said() {
        let table: [(u16, u16, Option<&[&str]>); 8] = [
            (0x8086, 0x1533, Some(&["dca", "igb"])),
            (0x14e4, 0x1657, Some(&["broadcom", "libphy", "realtek", "tg3"])),
            (0x10ec, 0x8168, Some(&["libphy", "r8169", "realtek"])),
            (0x10ec, 0x8139, Some(&["8139cp", "8139too"])),
            (0x1af4, 0x1041, Some(&["virtio_net", "virtio_pci", "virtio_rng"])),
            // A controller of disks is no NIC; an alias of any vendor counts for none; an id that nobody drives.
            (0x8086, 0x2922, None),
            (0x1234, 0x1234, None),
            (0x8086, 0xffff, None),
        ];
        for (vendor, device, wanted) in table {
            let got = reaching(&index(), PciId { vendor, device });
            let wanted = wanted.map(|names| {
                let mut all: Vec<&str> = names.iter().copied().chain(ALWAYS).chain(["ahci"]).collect();
                all.sort_unstable();
                all
            });
            assert_eq!(
                got.as_ref().map(|names| names.iter().map(String::as_str).collect::<Vec<_>>()),
                wanted,
                "{vendor:04x}:{device:04x}"
            );
        }
        let built_in = index().cut(["igb"]);
        assert_eq!(reaching(&built_in, PciId { vendor: VIRTIO, device: 0x1000 }), None);
    }

    #[test]
    fn the_card_that_a_machine_booted_from_is_known_by_its_driver() {
        let device = |modalias: &str, class, driver: &str| Device {
            address: "0000:00:01.0".to_owned(),
            modalias: modalias.to_owned(),
            class,
            driver: driver.to_owned(),
        };
        let report = |driver: &str, devices: Vec<Device>| {
            let nic = Nic { boot: true, driver: driver.to_owned(), ..testing::nic(Mac([2, 0, 0, 0, 0, 1])) };
            HardwareReport { nics: vec![nic], devices, ..testing::report() }
        };
        let igb = || device("pci:v00008086d00001533sv00008086sd00000001bc02sc00i00", 0x02_0000, "igb");
        let e1000 = || device("pci:v00008086d000015D7sv00008086sd00000001bc02sc00i00", 0x02_0000, "e1000e");
        let disk = || device("pci:v00008086d0000A102sv00008086sd00000001bc01sc06i01", 0x01_0601, "igb");
        let virtio =
            || device("pci:v00001AF4d00001041sv00001AF4sd00000001bc02sc00i00", 0x02_0000, "virtio-pci");
        let cut = || device("pci:v0000", 0x02_0000, "igb");
        let table = [
            ("igb", vec![e1000(), igb(), igb(), disk()], vec!["8086:1533"]),
            ("e1000e", vec![e1000(), igb()], vec!["8086:15d7"]),
            ("virtio_net", vec![virtio(), igb()], vec!["1af4:1041"]),
            ("igb", vec![cut()], vec![]),
            ("r8169", vec![igb()], vec![]),
        ];
        for (driver, devices, wanted) in table {
            let got: Vec<String> =
                booted_from(&report(driver, devices)).iter().map(PciId::to_string).collect();
            assert_eq!(got, wanted, "{driver}");
        }
        let mut usb = report("igb", vec![igb()]);
        usb.nics[0].usb = true;
        assert!(booted_from(&usb).is_empty(), "iPXE does not name it by PCI");
    }
}
