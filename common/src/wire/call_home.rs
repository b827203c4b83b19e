//! The body of an installed OS's call home: which disks its root file system is on, and which hold the CIDATA file
//! system that it was given. A host name or a token alone cannot tell the OS that was written from an older one on
//! another disk that found the new CIDATA. Touches `id`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The most parts of the root file system, and of CIDATA, that are read of one call; the rest is cut off.
pub const PARTS_MAX: usize = 64;

/// The volume serial number of a CIDATA file system: random for each attempt of each job, so that an OS can say which
/// of several it has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SeedMark(pub u32);

impl fmt::Display for SeedMark {
    // As `blkid` and `mdir` show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04X}-{:04X}", self.0 >> 16, self.0 & 0xffff)
    }
}

/// What a call home says of the OS's own disks; whatever the OS could not tell is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallHome {
    /// Type and source of `/`, such as `ext4 /dev/vda3`.
    pub root: String,
    /// What `/` is on: one part, or several below LVM and RAID. Empty where that is no disk (overlay, ZFS, network).
    pub root_parts: Vec<Part>,
    /// The partitions with a CIDATA file system of the attempt's [`SeedMark`].
    pub seeds: Vec<Part>,
}

/// A partition, or a whole disk, as the kernel of the OS shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Part {
    /// The kernel's name of the part, such as `vda3`.
    pub name: String,
    /// Its first sector, in units of 512 bytes; 0 for a whole disk.
    pub start: u64,
    /// The kernel's name of its disk, such as `vda`. Only good for comparing the parts of one call.
    pub disk: String,
    /// Size of its disk in bytes.
    pub size: u64,
    /// The disk's model; empty where it reports none.
    pub model: String,
    /// The disk's serial number; empty where it reports none.
    pub serial: String,
    /// The disk's world wide name; empty where it reports none.
    pub wwn: String,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.name, self.disk)?;
        for (word, text) in [("model", &self.model), ("serial", &self.serial), ("wwn", &self.wwn)] {
            if !text.is_empty() {
                write!(f, ", {word} {text}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_shown_as_tools_show_it() {
        assert_eq!(SeedMark(0x0A1B_002C).to_string(), "0A1B-002C");
    }

    #[test]
    fn a_part_is_named_by_what_it_has() {
        let part = Part { name: "vda3".into(), disk: "vda".into(), serial: "D1".into(), ..Part::default() };
        assert_eq!(part.to_string(), "vda3 of vda, serial D1");
    }
}
