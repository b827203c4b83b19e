//! Core: what a signature on a disk or partition stands for: a file system, or a layer that spans disks. What follows
//! for the disk is decided here by kind; the words are for people and for the report.

use std::fmt;

/// What left its mark on a disk or partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// A LUKS container: encrypted, so what is in it is not seen.
    Luks,
    /// A physical volume of LVM, as it is since 2003.
    Lvm2,
    /// A physical volume of the first LVM.
    Lvm1,
    /// A member of a Linux software RAID, of any superblock version.
    MdRaid,
    /// A disk of a ZFS pool.
    Zfs,
    /// A cache or a backing device of bcache.
    Bcache,
    /// A disk of a bcachefs, which may have several.
    Bcachefs,
    /// An object store of Ceph on a raw device.
    CephBluestore,
    /// A disk of a Stratis pool.
    Stratis,
    /// A disk of a Windows Storage Spaces pool.
    StorageSpaces,
    /// A dynamic disk of Windows, whose volumes may span disks.
    WindowsDynamicDisk,
    /// A disk of an Oracle ASM group.
    OracleAsm,
    /// A member of a HighPoint RAID.
    HighpointRaid,
    /// A volume that BitLocker encrypted.
    Bitlocker,
    /// NTFS.
    Ntfs,
    /// exFAT.
    Exfat,
    /// FAT of 12, 16 or 32 bits.
    Vfat,
    /// An ext file system with extents.
    Ext4,
    /// An ext file system without extents: ext2 or ext3.
    Ext2,
    /// XFS.
    Xfs,
    /// btrfs on this disk alone.
    Btrfs,
    /// One of the disks of a btrfs that has more.
    BtrfsOfSeveralDisks,
    /// Swap space of Linux.
    Swap,
    /// ISO 9660, as on installation media.
    Iso9660,
    /// squashfs, as live systems have it.
    Squashfs,
    /// One side of a volume that DRBD replicates to another machine.
    Drbd,
    /// A member of an Intel firmware RAID.
    IntelRaid,
    /// A member of a RAID in the SNIA's common format (DDF), which several controllers write.
    DdfRaid,
    /// A member of a Promise RAID.
    PromiseRaid,
    /// A member of an NVIDIA firmware RAID.
    NvidiaRaid,
    /// A member of an LSI MegaRAID by firmware.
    LsiRaid,
    /// A member of an Adaptec HostRAID.
    AdaptecRaid,
    /// A member of a Silicon Image RAID.
    SiliconImageRaid,
    /// A member of a VIA RAID.
    ViaRaid,
    /// A member of a JMicron RAID.
    JmicronRaid,
    /// A provider of a FreeBSD GEOM class: a mirror, a stripe.
    FreebsdGeom,
}

impl Signature {
    /// Whether a disk that bears it is part of something that other disks may be part of, too. Every signature is
    /// named here, so that a new one has to be decided.
    #[must_use]
    pub fn is_member(self) -> bool {
        match self {
            Self::Lvm2
            | Self::Lvm1
            | Self::MdRaid
            | Self::Zfs
            | Self::Bcache
            | Self::Bcachefs
            | Self::CephBluestore
            | Self::Stratis
            | Self::StorageSpaces
            | Self::WindowsDynamicDisk
            | Self::OracleAsm
            | Self::HighpointRaid
            | Self::BtrfsOfSeveralDisks
            | Self::Drbd
            | Self::IntelRaid
            | Self::DdfRaid
            | Self::PromiseRaid
            | Self::NvidiaRaid
            | Self::LsiRaid
            | Self::AdaptecRaid
            | Self::SiliconImageRaid
            | Self::ViaRaid
            | Self::JmicronRaid
            | Self::FreebsdGeom => true,
            Self::Luks
            | Self::Bitlocker
            | Self::Ntfs
            | Self::Exfat
            | Self::Vfat
            | Self::Ext4
            | Self::Ext2
            | Self::Xfs
            | Self::Btrfs
            | Self::Swap
            | Self::Iso9660
            | Self::Squashfs => false,
        }
    }

    /// Whether the file system's own boot sector ends in the mark of an MBR, often with code that only says that
    /// it does not boot.
    #[must_use]
    pub fn has_own_boot_sector(self) -> bool {
        matches!(self, Self::Bitlocker | Self::Ntfs | Self::Exfat | Self::Vfat)
    }

    /// Whether a partition with it is how many installers lay out a single disk: there it ties a bootable disk
    /// to no other.
    #[must_use]
    pub fn is_usual_beside_a_system(self) -> bool {
        self == Self::Lvm2
    }
}

/// The word in the hardware report, which servers and people have seen since the first version.
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Luks => "luks",
            Self::Lvm2 => "lvm2",
            Self::Lvm1 => "lvm1",
            Self::MdRaid => "md raid",
            Self::Zfs => "zfs",
            Self::Bcache => "bcache",
            Self::Bcachefs => "bcachefs",
            Self::CephBluestore => "ceph bluestore",
            Self::Stratis => "stratis",
            Self::StorageSpaces => "storage spaces",
            Self::WindowsDynamicDisk => "windows dynamic disk",
            Self::OracleAsm => "oracle asm",
            Self::HighpointRaid => "highpoint raid",
            Self::Bitlocker => "bitlocker",
            Self::Ntfs => "ntfs",
            Self::Exfat => "exfat",
            Self::Vfat => "vfat",
            Self::Ext4 => "ext4",
            Self::Ext2 => "ext2",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::BtrfsOfSeveralDisks => "btrfs of several disks",
            Self::Swap => "swap",
            Self::Iso9660 => "iso9660",
            Self::Squashfs => "squashfs",
            Self::Drbd => "drbd",
            Self::IntelRaid => "intel raid",
            Self::DdfRaid => "ddf raid",
            Self::PromiseRaid => "promise raid",
            Self::NvidiaRaid => "nvidia raid",
            Self::LsiRaid => "lsi raid",
            Self::AdaptecRaid => "adaptec raid",
            Self::SiliconImageRaid => "silicon image raid",
            Self::ViaRaid => "via raid",
            Self::JmicronRaid => "jmicron raid",
            Self::FreebsdGeom => "freebsd geom",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Signature as S;

    #[test]
    fn every_signature_has_its_word_and_what_follows_from_it() {
        // (signature, word, is it a member, has it a boot sector of its own), in the order of the type
        let table = [
            (S::Luks, "luks", false, false),
            (S::Lvm2, "lvm2", true, false),
            (S::Lvm1, "lvm1", true, false),
            (S::MdRaid, "md raid", true, false),
            (S::Zfs, "zfs", true, false),
            (S::Bcache, "bcache", true, false),
            (S::Bcachefs, "bcachefs", true, false),
            (S::CephBluestore, "ceph bluestore", true, false),
            (S::Stratis, "stratis", true, false),
            (S::StorageSpaces, "storage spaces", true, false),
            (S::WindowsDynamicDisk, "windows dynamic disk", true, false),
            (S::OracleAsm, "oracle asm", true, false),
            (S::HighpointRaid, "highpoint raid", true, false),
            (S::Bitlocker, "bitlocker", false, true),
            (S::Ntfs, "ntfs", false, true),
            (S::Exfat, "exfat", false, true),
            (S::Vfat, "vfat", false, true),
            (S::Ext4, "ext4", false, false),
            (S::Ext2, "ext2", false, false),
            (S::Xfs, "xfs", false, false),
            (S::Btrfs, "btrfs", false, false),
            (S::BtrfsOfSeveralDisks, "btrfs of several disks", true, false),
            (S::Swap, "swap", false, false),
            (S::Iso9660, "iso9660", false, false),
            (S::Squashfs, "squashfs", false, false),
            (S::Drbd, "drbd", true, false),
            (S::IntelRaid, "intel raid", true, false),
            (S::DdfRaid, "ddf raid", true, false),
            (S::PromiseRaid, "promise raid", true, false),
            (S::NvidiaRaid, "nvidia raid", true, false),
            (S::LsiRaid, "lsi raid", true, false),
            (S::AdaptecRaid, "adaptec raid", true, false),
            (S::SiliconImageRaid, "silicon image raid", true, false),
            (S::ViaRaid, "via raid", true, false),
            (S::JmicronRaid, "jmicron raid", true, false),
            (S::FreebsdGeom, "freebsd geom", true, false),
        ];
        for (at, (signature, word, member, boot_sector)) in table.into_iter().enumerate() {
            assert_eq!(signature as usize, at, "{word} is not in its place, or one before it is missing");
            assert_eq!(signature.to_string(), word);
            assert_eq!(
                (signature.is_member(), signature.has_own_boot_sector()),
                (member, boot_sector),
                "{word}"
            );
            assert_eq!(signature.is_usual_beside_a_system(), word == "lvm2", "{word}");
        }
    }
}
