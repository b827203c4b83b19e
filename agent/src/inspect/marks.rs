//! Core: recognises the marks (signatures) of file systems, RAIDs, volume groups and pools, at the start and at the end
//! of a disk or partition. The place of each mark is from the tools that write it (mdadm, dmraid, libblkid, ZFS, DRBD).
//! The bytes are hostile: every offset is checked. Owns the table of marks; touches nothing.

/// Magic number of Linux md superblocks.
const MD: u32 = 0xa92b_4efc;

/// Magic number of ZFS uberblocks.
const ZFS: u64 = 0x00ba_b10c;

const SECTOR: u64 = 512;

/// The names of the file systems and layers whose marks are in `bytes`, the start of a disk or partition.
#[must_use]
pub fn at_start(bytes: &[u8]) -> Vec<&'static str> {
    let at = |offset: usize, mark: &[u8]| bytes.get(offset..offset + mark.len()) == Some(mark);
    let lvm = (0..4).any(|sector| at(sector * 512, b"LABELONE") && at(sector * 512 + 24, b"LVM2 001"));
    // Labels of ZFS hold a ring of uberblocks from 128 KiB on, one at least every KiB to 8 KiB.
    let zfs = (128..136).any(|kib| at(kib << 10, &ZFS.to_le_bytes()) || at(kib << 10, &ZFS.to_be_bytes()));
    let ext = at(0x438, &[0x53, 0xef]);
    // The feature `extents` (0x40 of the incompatible ones) is what makes an ext4.
    let extents = bytes.get(0x460).is_some_and(|features| features & 0x40 != 0);
    let btrfs = at(0x1_0040, b"_BHRfS_M");
    let alone = at(0x1_0088, &1u64.to_le_bytes()) || at(0x1_0088, &0u64.to_le_bytes());
    // dmraid: nine sectors from the start, behind a filler of 32 bytes.
    let highpoint = at(4640, &0x5a78_16f0_u32.to_le_bytes()) || at(4640, &0x5a78_16fd_u32.to_le_bytes());
    let table = [
        ("luks", at(0, b"LUKS\xba\xbe")),
        ("lvm2", lvm),
        ("lvm1", at(0, b"HM\x01\x00") || at(0, b"HM\x02\x00")),
        // Superblocks 1.1 at the start, 1.2 behind 4 KiB.
        ("md raid", at(0, &MD.to_le_bytes()) || at(4096, &MD.to_le_bytes())),
        ("zfs", zfs),
        ("bcache", at(4120, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81")),
        ("bcachefs", at(4120, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef")),
        ("ceph bluestore", at(0, b"bluestore block device")),
        ("stratis", at(516, b"!Stra0tis\x86\xff\x02^\x41rh")),
        ("storage spaces", at(0, b"SPACEDB ")),
        ("windows dynamic disk", at(3072, b"PRIVHEAD")),
        ("oracle asm", at(32, b"ORCLDISK")),
        ("highpoint raid", highpoint),
        ("bitlocker", at(3, b"-FVE-FS-")),
        ("ntfs", at(3, b"NTFS    ")),
        ("exfat", at(3, b"EXFAT   ")),
        ("vfat", at(82, b"FAT32   ") || at(54, b"FAT16   ") || at(54, b"FAT12   ")),
        ("ext4", ext && extents),
        ("ext2", ext && !extents),
        ("xfs", at(0, b"XFSB")),
        ("btrfs", btrfs && alone),
        ("btrfs of several disks", btrfs && !alone),
        ("swap", at(4086, b"SWAPSPACE2")),
        ("iso9660", at(0x8001, b"CD001")),
        ("squashfs", at(0, b"hsqs")),
    ];
    table.into_iter().filter(|&(_, there)| there).map(|(name, _)| name).collect()
}

/// The names of the layers whose marks are in `tail`, the last bytes of a disk or partition of `size` bytes: RAIDs that
/// leave the start to the system they mirror, so that by its start a member looks like a plain disk.
#[must_use]
pub fn at_end(tail: &[u8], size: u64) -> Vec<&'static str> {
    let end = End { tail, first: size.saturating_sub(tail.len() as u64), size };
    let sectors = size / SECTOR;
    let back = |sectors_back: u64| sectors.checked_sub(sectors_back).map(|sector| sector * SECTOR);
    let sector_has = |sectors_back: u64, mark: &[u8]| back(sectors_back).is_some_and(|at| end.has(at, mark));
    let table = [
        ("md raid", end.md()),
        ("zfs", end.zfs()),
        ("drbd", end.drbd()),
        // The last sector but one, of 512 or 4096 bytes.
        ("intel raid", [2, 16].iter().any(|&sectors| sector_has(sectors, b"Intel Raid ISM Cfg Sig. "))),
        (
            "ddf raid",
            [1, 8, 257]
                .iter()
                .any(|&at| sector_has(at, b"\xde\x11\xde\x11") || sector_has(at, b"\x11\xde\x11\xde")),
        ),
        ("promise raid", PROMISE.iter().any(|&sectors| sector_has(sectors, b"Promise Technology, Inc."))),
        ("nvidia raid", sector_has(2, b"NVIDIA  ")),
        ("lsi raid", sector_has(1, b"$XIDE$")),
        ("adaptec raid", sector_has(1, b"\x37\xfc\x4d\x1e")),
        ("silicon image raid", back(1).is_some_and(|at| end.has(at + 0x60, &0x2f00_0000_u32.to_le_bytes()))),
        ("highpoint raid", sector_has(11, b"\xf3\x16\x78\x5a") || sector_has(11, b"\xfd\x16\x78\x5a")),
        ("via raid", back(1).is_some_and(|at| end.via(at))),
        ("jmicron raid", back(1).is_some_and(|at| end.jmicron(at))),
        ("freebsd geom", sector_has(1, b"GEOM::")),
        ("windows dynamic disk", sector_has(1, b"PRIVHEAD")),
    ];
    table.into_iter().filter(|&(_, there)| there).map(|(name, _)| name).collect()
}

/// Whether a disk with the mark `name` is part of something that other disks may be part of, too.
#[must_use]
pub fn is_member(name: &str) -> bool {
    name.ends_with("raid")
        || matches!(
            name,
            "lvm2"
                | "lvm1"
                | "zfs"
                | "drbd"
                | "bcache"
                | "bcachefs"
                | "ceph bluestore"
                | "stratis"
                | "storage spaces"
                | "windows dynamic disk"
                | "oracle asm"
                | "btrfs of several disks"
                | "freebsd geom"
        )
}

/// Sectors from the end at which Promise's controllers write their mark (libblkid, `promise_raid.c`).
const PROMISE: [u64; 13] = [63, 255, 256, 16, 399, 591, 675, 735, 911, 974, 991, 951, 3087];

/// The last bytes of a disk or partition, read by offsets from its start.
struct End<'a> {
    tail: &'a [u8],
    /// The offset of the first byte of `tail`.
    first: u64,
    size: u64,
}

impl End<'_> {
    fn bytes(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let at = usize::try_from(offset.checked_sub(self.first)?).ok()?;
        self.tail.get(at..at.checked_add(len)?)
    }

    fn has(&self, offset: u64, mark: &[u8]) -> bool {
        self.bytes(offset, mark.len()) == Some(mark)
    }

    /// mdadm: superblock 1.0 at least 8 KiB from the end, at a multiple of 4 KiB; 0.90 in the last whole 64 KiB.
    fn md(&self) -> bool {
        let with_major = |offset: u64, major: u32| {
            let little = [MD.to_le_bytes(), major.to_le_bytes()].concat();
            let big = [MD.to_be_bytes(), major.to_be_bytes()].concat();
            self.has(offset, &little) || self.has(offset, &big)
        };
        let one = (self.size / SECTOR).checked_sub(16).map(|sector| (sector & !7) * SECTOR);
        let old = (self.size & !0xffff).checked_sub(0x1_0000);
        one.is_some_and(|at| with_major(at, 1)) || old.is_some_and(|at| with_major(at, 0))
    }

    /// ZFS: the last two of four labels of 256 KiB each, whose second half is the ring of uberblocks.
    fn zfs(&self) -> bool {
        let end = self.size & !0x3_ffff;
        let rings = [2u64, 1]
            .into_iter()
            .filter_map(|labels| end.checked_sub(labels << 18))
            .map(|at| at + (128 << 10));
        rings
            .flat_map(|ring| (0..128u64).map(move |kib| ring + (kib << 10)))
            .any(|at| self.has(at, &ZFS.to_le_bytes()) || self.has(at, &ZFS.to_be_bytes()))
    }

    /// DRBD: the superblock of internal meta-data is the last 4 KiB; versions 8 and 9, clean and unclean.
    fn drbd(&self) -> bool {
        let magic = self.size.checked_sub(4096).map(|at| at + 60);
        let marks = [0x8374_026b_u32, 0x8374_026c, 0x8374_026d];
        magic.is_some_and(|at| marks.iter().any(|mark| self.has(at, &mark.to_be_bytes())))
    }

    /// VIA: its mark is also that of an MBR, so the checksum of the 50 bytes before it has to be right.
    fn via(&self, at: u64) -> bool {
        let Some(sector) = self.bytes(at, 51) else { return false };
        let sum = sector[..50].iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte));
        sector.starts_with(&[0x55, 0xaa]) && sum == sector[50]
    }

    /// JMicron: its mark is two letters, so the checksum has to be right: 64 words add up to 0 or 1.
    fn jmicron(&self, at: u64) -> bool {
        let Some(sector) = self.bytes(at, 128) else { return false };
        let words = sector.as_chunks::<2>().0.iter().map(|word| u16::from_le_bytes(*word));
        sector.starts_with(b"JM") && words.fold(0u16, u16::wrapping_add) <= 1
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) const SIZE: usize = 64 << 20;

    /// Each mark at the end of a disk of 64 MiB: its name, its offset and its bytes.
    pub(crate) fn ends() -> Vec<(&'static str, usize, Vec<u8>)> {
        let le = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let mut via = vec![0u8; 51];
        (via[0], via[1], via[7]) = (0x55, 0xaa, 9);
        via[50] = via.iter().fold(0, |sum, &byte| u8::wrapping_add(sum, byte));
        let mut jmicron = vec![0u8; 128];
        jmicron[..2].copy_from_slice(b"JM");
        let sum = u16::from_le_bytes(*b"JM");
        jmicron[6..8].copy_from_slice(&0u16.wrapping_sub(sum).to_le_bytes());
        let metadata = |text: &[u8]| text.to_vec();
        vec![
            ("intel raid", SIZE - 1024, metadata(b"Intel Raid ISM Cfg Sig. 1.3.00")),
            ("intel raid", SIZE - 8192, metadata(b"Intel Raid ISM Cfg Sig. 1.3.00")),
            ("md raid", SIZE - 8192, le(&[MD, 1])),
            ("md raid", SIZE - 65536, le(&[MD, 0])),
            ("md raid", SIZE - 65536, [MD.to_be_bytes(), [0; 4]].concat()),
            ("ddf raid", SIZE - 512, vec![0xde, 0x11, 0xde, 0x11]),
            ("ddf raid", SIZE - 257 * 512, vec![0xde, 0x11, 0xde, 0x11]),
            ("zfs", SIZE - (512 << 10) + (128 << 10), ZFS.to_le_bytes().to_vec()),
            ("zfs", SIZE - (256 << 10) + (255 << 10), ZFS.to_be_bytes().to_vec()),
            ("promise raid", SIZE - 63 * 512, metadata(b"Promise Technology, Inc.")),
            ("promise raid", SIZE - 3087 * 512, metadata(b"Promise Technology, Inc.")),
            ("nvidia raid", SIZE - 1024, metadata(b"NVIDIA  \x1e\0\0\0")),
            ("drbd", SIZE - 4096 + 60, 0x8374_026b_u32.to_be_bytes().to_vec()),
            ("drbd", SIZE - 4096 + 60, 0x8374_026d_u32.to_be_bytes().to_vec()),
            ("lsi raid", SIZE - 512, metadata(b"$XIDE$")),
            ("adaptec raid", SIZE - 512, vec![0x37, 0xfc, 0x4d, 0x1e]),
            ("silicon image raid", SIZE - 512 + 0x60, le(&[0x2f00_0000])),
            ("highpoint raid", SIZE - 11 * 512, le(&[0x5a78_16f3])),
            ("via raid", SIZE - 512, via),
            ("jmicron raid", SIZE - 512, jmicron),
            ("freebsd geom", SIZE - 512, metadata(b"GEOM::MIRROR")),
            ("windows dynamic disk", SIZE - 512, metadata(b"PRIVHEAD")),
        ]
    }

    #[test]
    fn a_member_is_seen_from_its_end() {
        for (name, at, mark) in ends() {
            let mut disk = vec![0; SIZE];
            disk[at..at + mark.len()].copy_from_slice(&mark);
            let tail = &disk[SIZE - (2 << 20)..];
            assert_eq!(at_end(tail, SIZE as u64), [name], "at {}", SIZE - at);
            assert!(is_member(name));
            assert_eq!(at_end(&disk[disk.len() - 256..], 256), Vec::<&str>::new());
        }
        assert!(at_end(&vec![0; 2 << 20], SIZE as u64).is_empty());
    }

    #[test]
    fn a_disk_of_any_size_has_its_md_superblock_found() {
        // (size - 16 sectors) & ~7, and the last whole 64 KiB: not where a whole MiB would have them.
        for odd in [512u64, 3584, 65024, 123 * 512] {
            let size = (8 << 20) + odd;
            for (at, major) in
                [((size / 512 - 16) & !7) * 512, (size & !0xffff) - 0x1_0000].into_iter().zip([1u32, 0])
            {
                let mut disk = vec![0u8; usize::try_from(size).unwrap()];
                let at = usize::try_from(at).unwrap();
                disk[at..at + 4].copy_from_slice(&MD.to_le_bytes());
                disk[at + 4..at + 8].copy_from_slice(&major.to_le_bytes());
                assert_eq!(at_end(&disk[6 << 20..], size), ["md raid"], "{odd}, version {major}");
            }
        }
    }

    #[test]
    fn several_disks_of_one_btrfs_are_told() {
        let mut start = vec![0; 0x1_1000];
        start[0x1_0040..0x1_0048].copy_from_slice(b"_BHRfS_M");
        start[0x1_0088] = 1;
        assert_eq!(at_start(&start), ["btrfs"]);
        start[0x1_0088] = 2;
        assert_eq!(at_start(&start), ["btrfs of several disks"]);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..5000), size in any::<u64>()) {
            let _ = (at_start(&bytes), at_end(&bytes, size), at_end(&bytes, bytes.len() as u64));
        }
    }
}
