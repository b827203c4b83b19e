//! Core: chooses the kernel of several, the modules that a deployment can need, and the files that are network boot
//! programs. Touches nothing.

use std::cmp::Ordering;

/// What a module is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Network adapters.
    Network,
    /// Disks.
    Storage,
    /// What these are connected to: USB and hypervisor buses; UEFI's variables; and where random numbers come from.
    Base,
}

/// The modules of each part: those whose path below `kernel/` begins with one of these prefixes.
///
/// Every network driver is here. Disks are those of machines that can run a 64-bit system and boot from the
/// network: what is left out is parallel SCSI (but for VMware's and VirtualBox's), adapters for disks of a storage
/// array, controllers of the PATA time and card readers. With all of those the loader's initramfs for Debian 12
/// was 11.6 MB without its program; with this list it is 9.9 MB.
const PARTS: [(Part, &[&str]); 3] = [
    (
        Part::Network,
        &[
            "drivers/net/ethernet/",
            "drivers/net/phy/",
            "drivers/net/mdio/",
            "drivers/net/pcs/",
            "drivers/net/hyperv/",
            "drivers/net/vmxnet3/",
            "drivers/net/virtio_net.ko",
            "drivers/net/xen-netfront.ko",
            // USB adapters that firmware can boot from; the others are phones, modems and USB 1.1.
            "drivers/net/usb/aqc111.ko",
            "drivers/net/usb/asix.ko",
            "drivers/net/usb/ax88179_178a.ko",
            "drivers/net/usb/cdc_ether.ko",
            "drivers/net/usb/cdc_ncm.ko",
            "drivers/net/usb/lan78xx.ko",
            "drivers/net/usb/r8152.ko",
            "drivers/net/usb/r8153_ecm.ko",
            "drivers/net/usb/smsc75xx.ko",
            "drivers/net/usb/smsc95xx.ko",
        ],
    ),
    (
        Part::Storage,
        &[
            "drivers/ata/ahci.ko",
            "drivers/ata/ata_generic.ko",
            "drivers/ata/ata_piix.ko",
            "drivers/ata/pata_acpi.ko",
            "drivers/ata/pata_amd.ko",
            "drivers/ata/pata_atiixp.ko",
            "drivers/ata/pata_jmicron.ko",
            "drivers/ata/pata_marvell.ko",
            "drivers/ata/pata_via.ko",
            "drivers/ata/sata_mv.ko",
            "drivers/ata/sata_nv.ko",
            "drivers/ata/sata_promise.ko",
            "drivers/ata/sata_sil",
            "drivers/ata/sata_via.ko",
            "drivers/block/virtio_blk.ko",
            "drivers/block/xen-blkfront.ko",
            "drivers/message/fusion/mptsas.ko",
            "drivers/message/fusion/mptspi.ko",
            "drivers/mmc/core/mmc_block.ko",
            "drivers/mmc/host/rtsx_pci_sdmmc.ko",
            "drivers/mmc/host/sdhci-acpi.ko",
            "drivers/mmc/host/sdhci-pci.ko",
            "drivers/nvme/host/nvme.ko",
            "drivers/pci/controller/vmd.ko",
            "drivers/scsi/aacraid/",
            "drivers/scsi/hpsa.ko",
            "drivers/scsi/hv_storvsc.ko",
            "drivers/scsi/isci/",
            "drivers/scsi/megaraid/megaraid_sas.ko",
            "drivers/scsi/mpi3mr/",
            "drivers/scsi/mpt3sas/",
            "drivers/scsi/mvsas/",
            "drivers/scsi/sd_mod.ko",
            "drivers/scsi/smartpqi/",
            "drivers/scsi/virtio_scsi.ko",
            "drivers/scsi/vmw_pvscsi.ko",
            "drivers/scsi/xen-scsifront.ko",
            "drivers/ufs/host/ufshcd-pci.ko",
            "drivers/usb/storage/uas.ko",
            "drivers/usb/storage/usb-storage.ko",
        ],
    ),
    (
        Part::Base,
        &[
            // Sources of random numbers for processors without RDRAND, on which making a key would take for ever; 15 KiB
            // compressed.
            "drivers/char/hw_random/amd-rng.ko",
            "drivers/char/hw_random/intel-rng.ko",
            "drivers/char/hw_random/via-rng.ko",
            "drivers/char/hw_random/virtio-rng.ko",
            "drivers/hv/hv_vmbus.ko",
            "drivers/pci/controller/pci-hyperv.ko",
            "drivers/usb/host/ehci-",
            "drivers/usb/host/xhci-",
            "drivers/virtio/virtio_mmio.ko",
            "drivers/virtio/virtio_pci.ko",
            "fs/efivarfs/",
            "net/packet/af_packet.ko",
        ],
    ),
];

/// Network drivers that no machine to be installed needs: for the chips inside switches, for PCMCIA cards, and the
/// storage half of a network card.
const NEVER: [&str; 6] = [
    "drivers/net/ethernet/broadcom/cnic.ko",
    "drivers/net/ethernet/marvell/prestera/",
    "drivers/net/ethernet/mellanox/mlxsw/",
    "drivers/net/ethernet/microchip/sparx5/",
    "drivers/net/ethernet/mscc/",
    "drivers/net/ethernet/xircom/",
];

/// What the module at `path` (`kernel/drivers/…`) is needed for; `None` when no deployment needs it for itself (another
/// module may still depend on it).
#[must_use]
pub fn part_of(path: &str) -> Option<Part> {
    let path = path.strip_prefix("kernel/").unwrap_or(path);
    let is_card = super::tree::uncompressed_name(path).ends_with("_cs.ko");
    if is_card || NEVER.iter().any(|prefix| path.starts_with(prefix)) {
        return None;
    }
    PARTS.iter().find(|(_, prefixes)| prefixes.iter().any(|p| path.starts_with(p))).map(|(part, _)| *part)
}

/// The modules by which hooks mount a new root. They are in a kit and no loader has them: most orders have no hooks.
const FOR_HOOKS: [&str; 4] =
    ["drivers/block/loop.ko", "fs/ext4/ext4.ko", "fs/xfs/xfs.ko", "fs/btrfs/btrfs.ko"];

/// Whether the module at `path` is one by which hooks mount a new root.
pub(crate) fn is_for_hooks(path: &str) -> bool {
    let path = path.strip_prefix("kernel/").unwrap_or(path);
    FOR_HOOKS.contains(&super::tree::uncompressed_name(path))
}

/// Whether other modules may depend on the modules at `path` by an alias: checksums and ciphers.
pub(crate) fn may_be_asked_by_alias(path: &str) -> bool {
    ["kernel/crypto/", "kernel/arch/", "kernel/lib/"].iter().any(|prefix| path.starts_with(prefix))
}

/// Whether the file at `path` is unpacked from a package: half of a kernel package is graphics, sound, television and
/// wireless, and no network or disk driver depends on any of it.
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
    /// Its file name in the kit.
    pub(crate) name: &'static str,
    /// The paths where distributions install it, in the order in which they are tried.
    pub(crate) places: &'static [&'static str],
    /// Whether it runs on a legacy BIOS; otherwise on UEFI.
    pub(crate) bios: bool,
    /// Whether firmware can start it without another program before it.
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

/// The network boot programs that a kit takes where a source has them. Paths of Debian and Ubuntu first, then Fedora's.
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
        // Debian's iPXE 2.0 has it as `ipxe-amd64.efi`.
        &[
            "lib/ipxe/ipxe.efi",
            "lib/ipxe/ipxe-amd64.efi",
            "boot/ipxe.efi",
            "usr/share/ipxe/ipxe-x86_64.efi",
            "usr/share/ipxe/ipxe.efi",
        ],
        false,
        true,
    ),
    // The chain for Secure Boot: each is signed with a key that the firmware or the program before it trusts.
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

/// The newest of `releases`. A general kernel is preferred to one for the cloud, which lacks drivers of real machines,
/// and to one for real-time.
pub(crate) fn newest(releases: &[String]) -> Option<&String> {
    releases.iter().max_by(|a, b| compare_releases(a, b))
}

/// Whether `release` is a kernel that has only the drivers of one kind of machine.
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
            ("kernel/drivers/net/ethernet/8390/pcnet_cs.ko", None),
            ("kernel/drivers/net/ethernet/mellanox/mlxsw/mlxsw_core.ko", None),
            ("kernel/drivers/usb/host/xhci-pci.ko", Some(Part::Base)),
            ("kernel/drivers/char/hw_random/virtio-rng.ko.xz", Some(Part::Base)),
            ("kernel/drivers/char/hw_random/timeriomem-rng.ko", None),
            ("kernel/fs/ext4/ext4.ko", None),
        ];
        for (path, wanted) in table {
            assert_eq!(part_of(path), wanted, "{path}");
        }
    }

    #[test]
    fn what_hooks_mount_with_is_taken_and_not_for_a_loader() {
        for path in ["kernel/drivers/block/loop.ko.xz", "kernel/fs/ext4/ext4.ko", "kernel/fs/xfs/xfs.ko.zst"]
        {
            assert!(is_for_hooks(path) && part_of(path).is_none(), "{path}");
        }
        for path in ["kernel/fs/ext4/ext4-inode-test.ko", "kernel/fs/ntfs/ntfs.ko"] {
            assert!(!is_for_hooks(path), "{path}");
        }
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
