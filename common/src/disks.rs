//! Disks as machines report them: what is on one, whether an image can be written to it, and whether two entries of a
//! report are two disks. Owns these types; touches `limits`, `list`.
//!
//! A value that only a later reporter knows (of a bus, of contents) is read as unknown: a machine must not disappear
//! because its loader is newer than this program. Unknown contents count as occupied.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::REPORT_FOUND_MAX;
use crate::list;

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Bus {
    /// NVM Express.
    Nvme,
    /// Serial or parallel ATA.
    Ata,
    /// SCSI, SAS, or a RAID controller that looks like it.
    Scsi,
    /// virtio-blk of a virtual machine.
    Virtio,
    /// USB.
    Usb,
    /// SD card or eMMC.
    Mmc,
    /// A file or device given to the agent as an ordinary process.
    File,
    /// Any other bus, or a value of a later reporter.
    #[serde(other)]
    Other,
}

impl fmt::Display for Bus {
    /// The value in a report and in a disk rule: `nvme`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nvme => "nvme",
            Self::Ata => "ata",
            Self::Scsi => "scsi",
            Self::Virtio => "virtio",
            Self::Usb => "usb",
            Self::Mmc => "mmc",
            Self::File => "file",
            Self::Other => "other",
        })
    }
}

/// What is on a disk, by its first and last MiB and some places between.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Contents {
    /// Zeros at every place that was read.
    Blank,
    /// A partition table and something that firmware would boot.
    Bootable,
    /// A partition table, but nothing that looks bootable.
    Partitioned,
    /// Bytes that are none of the above.
    Data,
    /// Part of a RAID, a volume group, a pool or a replicated disk: erasing it harms what other disks hold.
    Member,
    /// The same, and firmware would boot it: one half of a mirror.
    BootableMember,
    /// It could not be read.
    #[default]
    Unreadable,
    /// A value of a later reporter.
    #[serde(other)]
    Unknown,
}

impl Contents {
    /// Whether firmware would find something to boot.
    #[must_use]
    pub fn may_boot(self) -> bool {
        matches!(self, Self::Bootable | Self::BootableMember)
    }

    /// Whether other disks depend on it, as a member of an array.
    #[must_use]
    pub fn is_member(self) -> bool {
        matches!(self, Self::Member | Self::BootableMember)
    }

    /// As text for a person, behind the disk's name.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::Bootable => "bootable",
            Self::Partitioned => "partitioned",
            Self::Data => "with data",
            Self::Member => "part of an array",
            Self::BootableMember => "bootable, part of an array",
            Self::Unreadable => "unreadable",
            Self::Unknown => "with something unknown",
        }
    }
}

/// A file system on a disk, by the names under which an OS finds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Volume {
    /// The partition's number; 0 for the whole disk.
    pub partition: u32,
    /// The kind as text for a person, such as `XFS file system`.
    pub kind: String,
    /// Its label; may be empty.
    pub label: String,
    /// Its UUID or volume number; may be empty.
    pub uuid: String,
}

impl Volume {
    /// The file system that begins with `start`, if it has a label or a UUID.
    #[must_use]
    pub fn of(start: &[u8], partition: u32) -> Option<Self> {
        let found = crate::filesystem::identify(start)?;
        let (label, uuid) = (found.label.unwrap_or_default(), found.uuid.unwrap_or_default());
        let named = !label.is_empty() || !uuid.is_empty();
        named.then(|| Self { partition, kind: found.kind.to_owned(), label, uuid })
    }

    /// Whether cloud-init would read it as its data source: NoCloud's label, or OpenStack's.
    #[must_use]
    pub fn is_seed(&self) -> bool {
        ["cidata", "config-2"].iter().any(|label| self.label.eq_ignore_ascii_case(label))
    }
}

/// One disk as the kernel shows it; a disk behind two paths is two of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Disk {
    /// The kernel's name on this boot, such as `nvme0n1`. Never used to find a disk again, because names change.
    pub name: String,
    /// The bus that the disk is on.
    pub bus: Bus,
    /// Size in bytes.
    pub size: u64,
    /// Logical sector size in bytes.
    pub sector_bytes: u32,
    /// The model's name; empty where the disk gives none, as behind many controllers.
    #[serde(default)]
    pub model: String,
    /// The disk's serial number; empty, or a placeholder that [`Disk::real_serial`] leaves out.
    #[serde(default)]
    pub serial: String,
    /// World wide name, EUI-64 or NGUID, as sysfs shows it; empty where the disk has none.
    #[serde(default)]
    pub wwn: String,
    /// The place where it is plugged in: the sysfs path of the device, such as `pci0000:00/0000:00:04.0/virtio1`.
    #[serde(default)]
    pub path: String,
    /// Whether it is a spinning disk.
    #[serde(default)]
    pub rotational: bool,
    /// Whether it can be taken out (USB sticks, card readers).
    #[serde(default)]
    pub removable: bool,
    /// Whether it refuses writes.
    #[serde(default)]
    pub read_only: bool,
    /// What is on it, in general; unreadable where the reporter does not say.
    #[serde(default)]
    pub contents: Contents,
    /// What else was recognised on it, as texts: kind of partition table, file systems, RAID or LVM signatures.
    #[serde(default, deserialize_with = "list::read::<_, _, REPORT_FOUND_MAX>")]
    pub found: Vec<String>,
    /// The file systems on it that have a label or a UUID.
    #[serde(default, deserialize_with = "list::read::<_, _, REPORT_FOUND_MAX>")]
    pub volumes: Vec<Volume>,
}

/// Why no image at all can be written to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// A size of 0. Linux shows drives with sectors of 520 or 528 bytes so: it cannot read them.
    #[error("it shows no bytes: no medium, or sectors that Linux does not read (520 or 528 bytes)")]
    Empty,
    /// A sector size other than 512 or 4096 bytes, the only ones that images and firmware are made for.
    #[error("its sectors have {0} bytes, and images are made for 512 or 4096")]
    SectorBytes(u32),
    /// A size that does not fit into an offset of Linux.
    #[error("its {0} bytes are more than Linux can address")]
    TooLarge(u64),
}

impl Unusable {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::Empty | Self::SectorBytes(_) => {
                "give its sectors 512 or 4096 bytes (sg_format --format --size=512, nvme format), or name another disk"
            }
            Self::TooLarge(_) => "look at its controller and cable, or name another disk",
        }
    }
}

/// The relation of two entries of one report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinship {
    /// Two disks, with different marks.
    Apart,
    /// Two disks with the same marks (a placeholder for a serial number, two USB bridges with one number): only their
    /// places tell them apart.
    ByPlace,
    /// One disk seen over two paths: serial number and WWN agree, on a bus that has several paths.
    Paths,
    /// Entries that nothing tells apart.
    Alike,
}

impl Disk {
    /// A disk of `size` bytes that says nothing else of itself: no serial number, no place, not read, and it takes
    /// writes.
    #[must_use]
    pub fn without_marks(name: &str, bus: Bus, size: u64, sector_bytes: u32) -> Self {
        Self {
            name: name.to_owned(),
            bus,
            size,
            sector_bytes,
            model: String::new(),
            serial: String::new(),
            wwn: String::new(),
            path: String::new(),
            rotational: false,
            removable: false,
            read_only: false,
            contents: Contents::Unreadable,
            found: vec![],
            volumes: vec![],
        }
    }

    /// Why no image can be written to it, if so. Whether it is read-only or too small for one image is not
    /// asked here.
    #[must_use]
    pub fn unusable(&self) -> Option<Unusable> {
        let (size, sector_bytes) = (self.size, self.sector_bytes);
        if size == 0 {
            Some(Unusable::Empty)
        } else if sector_bytes != 512 && sector_bytes != 4096 {
            Some(Unusable::SectorBytes(sector_bytes))
        } else if i64::try_from(size).is_err() {
            Some(Unusable::TooLarge(size))
        } else {
            None
        }
    }

    /// The serial number, unless it is a placeholder.
    #[must_use]
    pub fn real_serial(&self) -> Option<&str> {
        real(&self.serial)
    }

    /// The world wide name, unless it is a placeholder.
    #[must_use]
    pub fn real_wwn(&self) -> Option<&str> {
        real(&self.wwn)
    }

    /// Its own marks, each with its name: `model M`, `serial S`, `wwn W`. Empty ones are left out.
    #[must_use]
    pub fn marks(&self) -> Vec<String> {
        marks(&self.model, &self.serial, &self.wwn)
    }

    /// Its model and serial number, as printed on it. Empty when it reports neither.
    #[must_use]
    pub fn label(&self) -> String {
        [self.model.as_str(), self.serial.as_str()].join(" ").trim().to_owned()
    }

    /// Its name, model and serial number, by which an admin looks for it.
    #[must_use]
    pub fn named(&self) -> String {
        format!("{} {}", self.name, self.label()).trim().to_owned()
    }

    /// The relation to `other`, another entry of the same report. Two serial numbers that differ decide: drives of one
    /// batch may share a WWN, or have one of zeros.
    #[must_use]
    pub fn kinship(&self, other: &Self) -> Kinship {
        let (serials, wwns) =
            ((self.real_serial(), other.real_serial()), (self.real_wwn(), other.real_wwn()));
        let differ = |pair| matches!(pair, (Some(a), Some(b)) if a != b);
        let agree = |pair| matches!(pair, (Some(a), Some(b)) if a == b);
        if self.size != other.size || differ(serials) || differ(wwns) {
            return Kinship::Apart;
        }
        let same_words = self.bus == other.bus
            && self.sector_bytes == other.sector_bytes
            && (&self.model, &self.serial, &self.wwn) == (&other.model, &other.serial, &other.wwn);
        let placed = !self.path.is_empty() && !other.path.is_empty() && self.path != other.path;
        let several_paths = [self.bus, other.bus].iter().all(|bus| matches!(bus, Bus::Scsi | Bus::Nvme));
        if agree(wwns) && several_paths {
            // A WWN is given to one disk only; it counts unless serial numbers differ.
            Kinship::Paths
        } else if !same_words && !agree(wwns) {
            Kinship::Apart
        } else if placed {
            Kinship::ByPlace
        } else {
            Kinship::Alike
        }
    }
}

/// The marks of a disk as texts; see [`Disk::marks`].
pub(crate) fn marks(model: &str, serial: &str, wwn: &str) -> Vec<String> {
    let marks = [("model", model), ("serial", serial), ("wwn", wwn)].map(|(what, text)| (what, text.trim()));
    marks.iter().filter(|(_, text)| !text.is_empty()).map(|(what, text)| format!("{what} {text}")).collect()
}

/// `text`, unless it cannot tell one disk from another: empty, or one character repeated, behind a prefix for the kind
/// of name (`eui.0000000000000000`).
fn real(text: &str) -> Option<&str> {
    let text = text.trim();
    let bare =
        ["eui.", "naa.", "nvme.", "uuid."].iter().find_map(|kind| text.strip_prefix(kind)).unwrap_or(text);
    let mut letters = bare.chars().filter(|c| c.is_alphanumeric());
    let first = letters.next()?;
    letters.any(|c| c != first).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_bus_is_that_of_a_report() {
        use Bus::{Ata, File, Mmc, Nvme, Other, Scsi, Usb, Virtio};
        for bus in [Nvme, Ata, Scsi, Virtio, Usb, Mmc, File, Other] {
            assert_eq!(serde_json::to_value(bus).unwrap(), bus.to_string());
        }
    }

    #[test]
    fn a_file_system_is_kept_for_its_names() {
        let mut start = vec![0; 1 << 16];
        start[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
        assert_eq!(Volume::of(&start, 3), None, "no name");
        start[0x478..0x480].copy_from_slice(b"lab-root");
        start[0x468..0x478].copy_from_slice(&[0xab; 16]);
        let volume = Volume::of(&start, 3).unwrap();
        assert_eq!((volume.partition, volume.label.as_str(), volume.uuid.len()), (3, "lab-root", 36));
        assert!(!volume.is_seed());
        for label in ["CIDATA", "cidata", "config-2"] {
            assert!(Volume { label: label.to_owned(), ..Volume::default() }.is_seed());
        }
    }

    fn disk(serial: &str, wwn: &str, path: &str) -> Disk {
        Disk {
            bus: Bus::Scsi,
            model: "M".to_owned(),
            serial: serial.to_owned(),
            wwn: wwn.to_owned(),
            path: path.to_owned(),
            ..crate::testing::disk("sda")
        }
    }

    #[test]
    fn a_disk_in_words_leaves_out_what_it_does_not_say() {
        let full = disk("S1", "w1", "a");
        assert_eq!(full.marks(), ["model M", "serial S1", "wwn w1"]);
        assert_eq!((full.label().as_str(), full.named().as_str()), ("M S1", "sda M S1"));
        let quiet = Disk { model: String::new(), ..disk(" ", "", "a") };
        assert_eq!(quiet.marks(), [""; 0]);
        assert_eq!((quiet.label().as_str(), quiet.named().as_str()), ("", "sda"));
        let bare = Disk { model: String::new(), ..disk("S1", "", "") };
        assert_eq!(bare.named(), "sda S1");
    }

    fn on(bus: Bus, disk: Disk) -> Disk {
        Disk { bus, ..disk }
    }

    #[test]
    fn two_entries_are_one_disk_only_when_nothing_speaks_against_it() {
        use Kinship::{Alike, Apart, ByPlace, Paths};
        let zeros = "eui.0000000000000000";
        let table = [
            // Drives of one batch that share a WWN, or have one of zeros (scrutiny#435).
            (disk("S1", "eui.0000000001000000", "a"), disk("S2", "eui.0000000001000000", "b"), Apart),
            (disk("S1", zeros, "a"), disk("S2", zeros, "b"), Apart),
            // Namespaces of one controller: they share a serial number and have a WWN each.
            (on(Bus::Nvme, disk("S1", "w1", "a")), on(Bus::Nvme, disk("S1", "w2", "a")), Apart),
            (disk("S1", "w1", "a"), Disk { size: 2 << 30, ..disk("S1", "w1", "b") }, Apart),
            (disk("", "w1", "a"), disk("", "w2", "b"), Apart),
            (disk("", "", "a"), Disk { model: "N".to_owned(), ..disk("", "", "b") }, Apart),
            // Multipath, only on a bus that can have it.
            (disk("S1", "w1", "a"), disk("S1", "w1", "b"), Paths),
            (disk("", "w1", "a"), disk("", "w1", "b"), Paths),
            (on(Bus::Usb, disk("S1", "w1", "a")), on(Bus::Usb, disk("S1", "w1", "b")), ByPlace),
            (on(Bus::Ata, disk("S1", "w1", "a")), on(Bus::Ata, disk("S1", "w1", "b")), ByPlace),
            // USB bridges that share a serial number, placeholders, no marks at all.
            (on(Bus::Usb, disk("0123", "", "a")), on(Bus::Usb, disk("0123", "", "b")), ByPlace),
            (disk("0000", "", "a"), disk("0000", "", "b"), ByPlace),
            (disk("", zeros, "a"), disk("", zeros, "b"), ByPlace),
            (disk("", "", "a"), disk("", "", "b"), ByPlace),
            (disk("S1", "", "a"), disk("S1", "", "a"), Alike),
            (disk("", "", ""), disk("", "", "b"), Alike),
        ];
        for (a, b, wanted) in table {
            assert_eq!(a.kinship(&b), wanted, "{a:?} and {b:?}");
            assert_eq!(b.kinship(&a), wanted, "the other way round: {a:?} and {b:?}");
        }
    }

    #[test]
    fn an_odd_disk_has_a_reason_and_a_way_out() {
        let with =
            |size: u64, sector_bytes: u32| Disk { size, sector_bytes, ..disk("S", "", "a") }.unusable();
        for good in [512, 4096] {
            assert_eq!(with(1 << 30, good), None);
        }
        for odd in [0, 1, 520, 528, 1024, 2048, 4160, 8192, 65536] {
            assert_eq!(with(1 << 30, odd), Some(Unusable::SectorBytes(odd)));
        }
        assert_eq!(with(0, 512), Some(Unusable::Empty));
        assert_eq!(with(u64::MAX, 512), Some(Unusable::TooLarge(u64::MAX)));
        assert_eq!(with((1 << 30) + 1, 512), None, "a plain file as the target of an ordinary process");
        for reason in [Unusable::Empty, Unusable::SectorBytes(520), Unusable::TooLarge(1)] {
            assert!(!reason.to_string().is_empty() && !reason.hint().is_empty());
        }
    }

    #[test]
    fn a_word_of_a_later_reporter_counts_as_occupied() {
        let read = |text: &str| serde_json::from_str::<Contents>(text).unwrap();
        assert_eq!(read("\"encrypted\""), Contents::Unknown);
        assert_eq!(read("\"bootable-member\""), Contents::BootableMember);
        assert!(!read("\"encrypted\"").may_boot());
        assert_ne!(read("\"encrypted\""), Contents::Blank);
        assert_eq!(serde_json::from_str::<Bus>("\"ufs\"").unwrap(), Bus::Other);
        let again = serde_json::to_string(&Contents::Unknown).unwrap();
        assert_eq!(read(&again), Contents::Unknown);
    }
}
