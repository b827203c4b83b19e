//! Core: which kernel to take of several, which of its modules a deployment can need, and which files are
//! network boot programs. Touches nothing.

use std::cmp::Ordering;

/// What a module is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Reaches the network.
    Network,
    /// Reaches disks.
    Storage,
    /// Reaches what is in between: USB and hypervisor buses, UEFI's variables.
    Base,
}

/// Folders and files below `kernel/` that each part takes. A path ending in `/` is a folder.
const PARTS: [(Part, &[&str]); 3] = [
    (
        Part::Network,
        &[
            "drivers/net/ethernet/",
            "drivers/net/phy/",
            "drivers/net/mdio/",
            "drivers/net/pcs/",
            "drivers/net/usb/",
            "drivers/net/hyperv/",
            "drivers/net/vmxnet3/",
            "drivers/net/virtio_net.ko",
            "drivers/net/xen-netfront.ko",
            "drivers/net/fjes/",
        ],
    ),
    (
        Part::Storage,
        &[
            "drivers/ata/",
            "drivers/nvme/host/nvme.ko",
            "drivers/message/fusion/mptsas.ko",
            "drivers/message/fusion/mptspi.ko",
            "drivers/message/fusion/mptfc.ko",
            "drivers/scsi/",
            "drivers/block/virtio_blk.ko",
            "drivers/block/xen-blkfront.ko",
            "drivers/block/mtip32xx/",
            "drivers/mmc/core/mmc_block.ko",
            "drivers/mmc/host/",
            "drivers/usb/storage/",
            "drivers/pci/controller/vmd.ko",
        ],
    ),
    (
        Part::Base,
        &[
            "drivers/virtio/virtio_pci.ko",
            "drivers/virtio/virtio_mmio.ko",
            "drivers/usb/host/xhci-",
            "drivers/usb/host/ehci-",
            "drivers/usb/host/ohci-",
            "drivers/usb/host/uhci-",
            "drivers/hv/hv_vmbus.ko",
            "drivers/pci/controller/pci-hyperv.ko",
            "fs/efivarfs/",
            "drivers/net/net_failover.ko",
            "net/packet/",
        ],
    ),
];

/// Inside those folders, but never on the way to the network or a disk of a machine that is installed:
/// switch silicon, PCMCIA, parallel ports, tapes and changers, target and initiator protocols over a network.
const NEVER: [&str; 24] = [
    "drivers/net/ethernet/mellanox/mlxsw/",
    "drivers/net/ethernet/marvell/prestera/",
    "drivers/net/ethernet/microchip/sparx5/",
    "drivers/net/ethernet/mscc/",
    "drivers/net/ethernet/xircom/",
    "drivers/net/ethernet/fujitsu/fmvj18x_cs.ko",
    "drivers/net/usb/qmi_wwan.ko",
    "drivers/net/usb/cdc_mbim.ko",
    "drivers/net/usb/hso.ko",
    "drivers/net/usb/sierra_net.ko",
    "drivers/net/usb/cdc-phonet.ko",
    "drivers/scsi/pcmcia/",
    "drivers/scsi/device_handler/",
    "drivers/scsi/scsi_debug.ko",
    "drivers/scsi/ch.ko",
    "drivers/scsi/st.ko",
    "drivers/scsi/sg.ko",
    "drivers/scsi/sr_mod.ko",
    "drivers/scsi/iscsi_tcp.ko",
    "drivers/scsi/fcoe/",
    "drivers/scsi/bnx2fc/",
    "drivers/scsi/bnx2i/",
    "drivers/scsi/cxgbi/",
    "drivers/scsi/be2iscsi/",
];

/// Not carried by the loader although the kit has them, because of their size: Fibre Channel and offloaded
/// iSCSI adapters reach disks of a storage array, which nobody installs forty machines onto at once. An agent's
/// bundle brings them to the machine that has one.
const HEAVY: [&str; 8] = [
    "drivers/scsi/lpfc/",
    "drivers/scsi/qla2xxx/",
    "drivers/scsi/qla4xxx/",
    "drivers/scsi/bfa/",
    "drivers/scsi/csiostor/",
    "drivers/scsi/qedf/",
    "drivers/scsi/qedi/",
    "drivers/scsi/fnic/",
];

/// What the module at `path` (`kernel/drivers/…`) is there for; `None` when no deployment needs it for itself
/// (another module may still depend on it).
#[must_use]
pub fn part_of(path: &str) -> Option<Part> {
    let path = path.strip_prefix("kernel/").unwrap_or(path);
    if NEVER.iter().any(|prefix| path.starts_with(prefix)) {
        return None;
    }
    PARTS.iter().find(|(_, prefixes)| prefixes.iter().any(|p| path.starts_with(p))).map(|(part, _)| *part)
}

/// Whether the loader carries the module at `path` for itself.
pub(crate) fn in_loader(path: &str) -> bool {
    let inner = path.strip_prefix("kernel/").unwrap_or(path);
    part_of(path).is_some() && !HEAVY.iter().any(|prefix| inner.starts_with(prefix))
}

/// Whether modules at `path` may go by an alias that another one asks for: checksums and ciphers.
pub(crate) fn may_be_asked_by_alias(path: &str) -> bool {
    ["kernel/crypto/", "kernel/arch/", "kernel/lib/"].iter().any(|prefix| path.starts_with(prefix))
}

/// Whether it is worth taking the file at `path` out of a package: half of a kernel package is graphics, sound,
/// television and wireless, and no network or disk driver depends on any of it.
pub(crate) fn worth_unpacking(path: &str) -> bool {
    const WANTED: [&str; 7] = [
        "boot/",
        "lib/modules/",
        "lib/firmware/",
        "usr/lib/ipxe/",
        "usr/share/ipxe/",
        "usr/lib/shim/",
        "usr/lib/grub/x86_64-efi-signed/",
    ];
    const IDLE: [&str; 6] = [
        "/kernel/sound/",
        "/kernel/drivers/gpu/",
        "/kernel/drivers/media/",
        "/kernel/drivers/staging/",
        "/kernel/drivers/iio/",
        "/kernel/drivers/net/wireless/",
    ];
    let path = super::tree::usual(path);
    WANTED.iter().any(|prefix| path.starts_with(&super::tree::usual(prefix)))
        && !(path.starts_with("lib/modules/") && IDLE.iter().any(|part| path.contains(part)))
}

/// A network boot program that a kit can have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BootProgram {
    /// Its name in the kit.
    pub(crate) name: &'static str,
    /// Where distributions put it.
    pub(crate) places: &'static [&'static str],
    /// Whether it starts on legacy BIOS; else on UEFI.
    pub(crate) bios: bool,
    /// Whether firmware can start it by itself, without another program before it.
    pub(crate) first: bool,
}

const fn program(
    name: &'static str,
    places: &'static [&'static str],
    bios: bool,
    first: bool,
) -> BootProgram {
    BootProgram { name, places, bios, first }
}

/// Every network boot program that a kit takes where a source has it. Debian and Ubuntu first, then Fedora.
pub(crate) const BOOT_PROGRAMS: [BootProgram; 8] = [
    program("undionly.kpxe", &["lib/ipxe/undionly.kpxe", "usr/share/ipxe/undionly.kpxe"], true, true),
    program("ipxe.pxe", &["lib/ipxe/ipxe.pxe", "usr/share/ipxe/ipxe.pxe"], true, true),
    program(
        "snponly.efi",
        &["lib/ipxe/snponly.efi", "usr/share/ipxe/ipxe-snponly-x86_64.efi", "usr/share/ipxe/snponly.efi"],
        false,
        true,
    ),
    program(
        "ipxe.efi",
        &["lib/ipxe/ipxe.efi", "boot/ipxe.efi", "usr/share/ipxe/ipxe-x86_64.efi", "usr/share/ipxe/ipxe.efi"],
        false,
        true,
    ),
    // The chain for Secure Boot: each is signed by somebody that the firmware trusts.
    program(
        "shimx64.efi",
        &["lib/shim/shimx64.efi.signed", "lib/shim/shimx64.efi.signed.latest"],
        false,
        false,
    ),
    program("grubx64.efi", &["lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"], false, false),
    program("ipxe-shimx64.efi", &["lib/ipxe/ipxe-shimx64.efi"], false, false),
    program("snponly-shimx64.efi", &["lib/ipxe/snponly-shimx64.efi"], false, false),
];

/// The newest of `releases`. A general kernel comes before one for the cloud, which lacks drivers of real
/// machines, and before one for real-time.
pub(crate) fn newest(releases: &[String]) -> Option<&String> {
    releases.iter().max_by(|a, b| compare_releases(a, b))
}

/// Whether `release` is a kernel with the drivers of one kind of machine only.
pub(crate) fn is_special(release: &str) -> bool {
    const SPECIAL: [&str; 9] = ["cloud", "rt", "kvm", "aws", "azure", "gcp", "oracle", "virtual", "ibm"];
    release.split(['-', '.', '+']).any(|word| SPECIAL.contains(&word))
}

fn compare_releases(a: &str, b: &str) -> Ordering {
    is_special(b).cmp(&is_special(a)).then_with(|| compare_numbered(a, b)).then_with(|| a.cmp(b))
}

/// Compares runs of digits as numbers: 6.1.0-9 is older than 6.1.0-10.
fn compare_numbered(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
    };
    numbers(a).cmp(&numbers(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_general_kernel_is_taken() {
        let table: [(&[&str], &str); 4] = [
            (&["6.1.0-9-amd64", "6.1.0-56-amd64", "5.10.0-30-amd64"], "6.1.0-56-amd64"),
            (&["6.1.0-56-amd64", "6.1.0-57-cloud-amd64"], "6.1.0-56-amd64"),
            (&["6.1.0-57-cloud-amd64"], "6.1.0-57-cloud-amd64"),
            (&["6.8.0-100-generic", "6.8.0-31-generic"], "6.8.0-100-generic"),
        ];
        for (releases, wanted) in table {
            let releases: Vec<String> = releases.iter().map(|&text| text.to_owned()).collect();
            assert_eq!(newest(&releases).unwrap(), wanted);
        }
    }

    #[test]
    fn drivers_of_network_and_disks_are_taken_and_nothing_else() {
        let table = [
            ("kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko", Some(Part::Network)),
            ("kernel/drivers/net/virtio_net.ko", Some(Part::Network)),
            ("kernel/drivers/net/wireless/intel/iwlwifi/iwlwifi.ko", None),
            ("kernel/drivers/net/can/vcan.ko", None),
            ("kernel/drivers/ata/ahci.ko", Some(Part::Storage)),
            ("kernel/drivers/scsi/sd_mod.ko", Some(Part::Storage)),
            ("kernel/drivers/scsi/scsi_debug.ko", None),
            ("kernel/drivers/usb/host/xhci-pci.ko", Some(Part::Base)),
            ("kernel/fs/ext4/ext4.ko", None),
        ];
        for (path, wanted) in table {
            assert_eq!(part_of(path), wanted, "{path}");
        }
        assert!(!in_loader("kernel/drivers/scsi/lpfc/lpfc.ko"));
        assert!(in_loader("kernel/drivers/scsi/mpt3sas/mpt3sas.ko"));
    }

    #[test]
    fn half_a_package_is_left_in_it() {
        assert!(worth_unpacking("boot/vmlinuz-6.1.0-9-amd64"));
        assert!(worth_unpacking("usr/lib/modules/6/kernel/drivers/net/ethernet/a.ko.xz"));
        assert!(worth_unpacking("usr/lib/ipxe/snponly.efi"));
        assert!(!worth_unpacking("lib/modules/6/kernel/sound/core/snd.ko"));
        assert!(!worth_unpacking("usr/share/doc/ipxe/copyright"));
    }
}
