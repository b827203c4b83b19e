//! Core: what a call home proves. A machine may have several disks that boot, and an older OS on another of them
//! finds the CIDATA of the one that was just written as well: it takes the hostname, runs the user-data and calls home.
//! So a call counts only when the caller's root file system is on the disk that holds the CIDATA of this attempt, which
//! only the agent writes. Touches `common`.

use std::collections::BTreeSet;
use std::fmt;

use common::hardware::{Contents, HardwareReport, List};
use common::limits::cut;
use common::plan::DiskIdentity;
use common::text::{harmless, some_of};
use common::wire::call_home::{CallHome, PARTS_MAX, Part};

/// The longest text of a call that is shown, in bytes.
const TEXT_MAX: usize = 128;

/// What a call home proves about the order whose token it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Root is on the disk that was written.
    Proven {
        /// The partition with the root file system, as the OS reports it.
        root: String,
    },
    /// The call does not say where root is, but the machine has no other disk that an OS could be on.
    OnlyDisk,
    /// The call does not say where root is, and another disk of the machine is not blank.
    Unproven(Unsaid),
    /// Root is on another disk than the one that was written.
    OtherDisk {
        /// The partition with the root file system.
        root: String,
        /// The partition with this order's CIDATA, on the disk that was written.
        written: String,
    },
    /// It carries the token of another order: the OS took an older CIDATA instead of this order's.
    OlderSeed {
        /// The job that the CIDATA was made for.
        job: common::id::JobId,
        /// The partition with the root file system, if the call says it.
        root: Option<String>,
    },
}

/// Why a call does not say where root is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsaid {
    /// It only shows the token: cloud-init's `phone_home`, in an image in which the script of vendor-data does not run.
    Bare,
    /// The root file system is on no disk; the type and source of its mount.
    NoDisk(String),
    /// No disk holds the CIDATA any more.
    NoSeed,
}

impl fmt::Display for Unsaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bare => f.write_str("the image does not run the scripts of vendor-data, so it cannot say"),
            Self::NoDisk(root) => write!(f, "its root file system is {root}, which is on no disk"),
            Self::NoSeed => f.write_str("it found no disk with this order's CIDATA"),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proven { root } => write!(f, "the installed OS called home, root is {root}"),
            Self::OnlyDisk => f.write_str(
                "the installed OS called home; it did not say where root is, but the machine has no other disk with something on it",
            ),
            Self::Unproven(why) => write!(
                f,
                "an OS called home, but not from where, and another disk of the machine is not blank: {why}; look which OS runs there"
            ),
            Self::OtherDisk { root, written } => write!(
                f,
                "an OS on another disk called home: its root is {root}, and what was written is {written}; put the written disk first in the firmware's boot order, or clear the other"
            ),
            Self::OlderSeed { job, root } => {
                write!(f, "the OS that came up took the older CIDATA of {job} from another disk")?;
                root.iter().try_for_each(|root| write!(f, " (its root is {root})"))?;
                f.write_str(", and not this order's; clear that disk")
            }
        }
    }
}

/// What `call` proves; `None` is a call that only showed the token. `alone` when no other disk of the machine could
/// hold an OS.
#[must_use]
pub fn judge(call: Option<&CallHome>, alone: bool) -> Call {
    let unsaid = |why| if alone { Call::OnlyDisk } else { Call::Unproven(why) };
    let Some(call) = call else { return unsaid(Unsaid::Bare) };
    if call.root_parts.is_empty() {
        return unsaid(Unsaid::NoDisk(tidy(&call.root)));
    }
    if call.seeds.is_empty() {
        return unsaid(Unsaid::NoSeed);
    }
    let disks = |parts: &[Part]| -> BTreeSet<String> {
        parts.iter().take(PARTS_MAX).map(|part| part.disk.clone()).collect()
    };
    let shared = !disks(&call.root_parts).is_disjoint(&disks(&call.seeds));
    let root = shown(&call.root_parts);
    if shared { Call::Proven { root } } else { Call::OtherDisk { root, written: shown(&call.seeds) } }
}

/// The partition with the root file system, if the call says it.
#[must_use]
pub fn root_of(call: Option<&CallHome>) -> Option<String> {
    call.filter(|call| !call.root_parts.is_empty()).map(|call| shown(&call.root_parts))
}

/// Whether no disk of the machine but `target` could hold an OS. `report` is from before the disk was written.
#[must_use]
pub fn is_alone(report: &HardwareReport, target: Option<&DiskIdentity>) -> bool {
    if report.cut_of(List::Disks).is_some() {
        return false;
    }
    match (report.disks.as_slice(), target) {
        ([] | [_], _) => true,
        (disks, Some(target)) => {
            disks.iter().all(|disk| target.matches(disk) || disk.contents == Contents::Blank)
        }
        (disks, None) => disks.iter().all(|disk| disk.contents == Contents::Blank),
    }
}

fn shown(parts: &[Part]) -> String {
    some_of(parts.iter().map(|part| tidy(&part.to_string())), 1, "")
}

/// Removes control characters and shortens, because the OS's text is shown on an admin's terminal.
fn tidy(text: &str) -> String {
    cut(harmless(text).trim(), TEXT_MAX).to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use common::hardware::Disk;
    use common::text::is_format;

    pub(crate) fn part(name: &str, serial: &str) -> Part {
        let disk = name.trim_end_matches(char::is_numeric).to_owned();
        Part { name: name.into(), disk, serial: serial.into(), size: 2 << 30, ..Part::default() }
    }

    pub(crate) fn call(root: &[Part], seeds: &[Part]) -> CallHome {
        CallHome { root: "ext4 /dev/root".into(), root_parts: root.to_vec(), seeds: seeds.to_vec() }
    }

    /// What is tried, the parts of root and of CIDATA, and what a call proves beside other disks and alone.
    type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str], [char; 2]);

    #[test]
    fn only_an_os_on_the_written_disk_proves_an_order() {
        let parts = |names: &[&str]| -> Vec<Part> { names.iter().map(|name| part(name, name)).collect() };
        let proven = |root: &[&str], seeds: &[&str]| {
            [false, true].map(|alone| match judge(Some(&call(&parts(root), &parts(seeds))), alone) {
                Call::Proven { .. } => 'p',
                Call::OtherDisk { .. } => 'o',
                Call::OnlyDisk => 'a',
                Call::Unproven(_) => 'u',
                Call::OlderSeed { .. } => '?',
            })
        };
        let table: [Row<'_>; 9] = [
            ("one disk", &["vda3"], &["vda4"], ['p', 'p']),
            ("E4c: the old OS on the first disk", &["vda3"], &["vdb4"], ['o', 'o']),
            ("D1: root of the second, seed of the first", &["vdb3"], &["vda4"], ['o', 'o']),
            ("a mirror over both", &["vda3", "vdb3"], &["vdb4"], ['p', 'p']),
            ("a volume on the other disks", &["vdb3", "vdc1"], &["vda4"], ['o', 'o']),
            ("a copy of the seed on both", &["vda3"], &["vda4", "vdb4"], ['p', 'p']),
            ("overlay, ZFS, NFS", &[], &["vda4"], ['u', 'a']),
            ("no seed any more", &["vda3"], &[], ['u', 'a']),
            ("nothing at all", &[], &[], ['u', 'a']),
        ];
        for (what, root, seeds, wanted) in table {
            assert_eq!(proven(root, seeds), wanted, "{what}");
        }
        assert_eq!(judge(None, false), Call::Unproven(Unsaid::Bare));
        assert_eq!(judge(None, true), Call::OnlyDisk);
    }

    #[test]
    fn the_disk_that_answered_is_named_and_is_no_escape_sequence() {
        let evil = Part { serial: "\u{202e}\u{1b}[2J".repeat(90), ..part("sda3", "") };
        let text = judge(Some(&call(&[evil], &[part("sdb4", "E4B")])), false).to_string();
        assert!(text.contains("sda3 of sda") && text.contains("sdb4 of sdb, serial E4B"), "{text}");
        assert!(!text.chars().any(|c| c.is_control() || is_format(c)) && text.len() < 600, "{text}");
    }

    #[test]
    fn a_machine_is_alone_when_nothing_else_could_hold_an_os() {
        let disk = |serial: &str, contents: &str| -> Disk {
            serde_json::from_value(serde_json::json!({
                "name": serial, "bus": "virtio", "size": 1 << 30, "sector_bytes": 512, "serial": serial,
                "contents": contents,
            }))
            .unwrap()
        };
        let report = |disks: Vec<Disk>| -> HardwareReport {
            serde_json::from_value(serde_json::json!({
                "version": 1, "reporter": "t", "firmware": "bios", "memory_bytes": 1,
                "key": common::trust::KeyPair::from_secret([1; 32]).public(), "disks": disks,
            }))
            .unwrap()
        };
        let (old, blank) = (disk("A", "bootable"), disk("B", "blank"));
        let target = DiskIdentity::of(&blank);
        assert!(is_alone(&report(vec![old.clone()]), None));
        assert!(is_alone(&report(vec![blank.clone(), disk("C", "blank")]), None));
        assert!(!is_alone(&report(vec![old.clone(), blank.clone()]), None), "which is written is not known");
        assert!(!is_alone(&report(vec![old.clone(), blank.clone()]), Some(&target)));
        assert!(is_alone(&report(vec![old.clone(), blank]), Some(&DiskIdentity::of(&old))));
        let mut cut = report(vec![old]);
        cut.truncated = vec!["disks: 3 left out".into()];
        assert!(!is_alone(&cut, None));
    }
}
