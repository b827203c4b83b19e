//! What an image can and cannot do, by the look of its bytes: which firmware boots it, whether it can be given a
//! name, and whether anything in it would take that. Typed, because orders warn by it. Touches nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What was seen in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageTraits {
    /// Which looks these come from: an image that was looked at by an earlier one is looked at again.
    pub looked: u32,
    /// Whether a BIOS boots it.
    pub bios: BiosBoot,
    /// Whether UEFI firmware boots it that has never seen it.
    pub uefi: UefiBoot,
    /// Why hostname, keys and user-data find no place in it; none when they do.
    pub not_personalised: Option<String>,
    /// Whether anything in it takes them.
    pub cloud_init: CloudInit,
    /// Its partitions, with what makes them known.
    pub partitions: Vec<PartitionMarks>,
}

/// A partition's marks: what an installed OS finds its file systems by, also on another disk of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionMarks {
    /// Its place in the table, from 1, as Linux numbers it.
    pub number: u32,
    /// Its own GUID; none in an MBR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guid: Option<String>,
    /// What is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<String>,
    /// The file system's UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// The file system's label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// Whether a BIOS boots an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "boots", rename_all = "kebab-case")]
pub enum BiosBoot {
    /// There is code in the first sector, and a place for what it loads.
    Yes,
    /// Nothing is in the first sector.
    NoCode,
    /// Code, and a GPT without a BIOS boot partition or one that is marked for booting.
    NoPlace,
}

/// Whether UEFI firmware boots an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "boots", rename_all = "kebab-case")]
pub enum UefiBoot {
    /// An EFI system partition holds the loader that firmware starts without an entry of its own.
    Yes,
    /// There is no EFI system partition.
    NoPartition,
    /// None of them holds that loader.
    NoLoader {
        /// The folders of loaders that are there.
        vendors: Vec<String>,
    },
    /// None of them could be read.
    Unreadable {
        /// What kept it from being read.
        why: String,
    },
}

/// Whether cloud-init is in an image and would take what it is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "found", rename_all = "kebab-case")]
pub enum CloudInit {
    /// It is there.
    Yes,
    /// It is there and switched off, by this file.
    Disabled {
        /// The file's path in the image.
        file: String,
    },
    /// It is there and looks elsewhere only, by this file.
    Elsewhere {
        /// The file's path in the image.
        file: String,
        /// Where it looks.
        sources: Vec<String>,
    },
    /// A root file system was read, and it is not there.
    No,
    /// No root file system could be read.
    Unknown,
}

impl ImageTraits {
    /// What it can and cannot do, each with a word or sentence.
    #[must_use]
    pub fn lines(&self) -> [(&'static str, String); 4] {
        let personalised =
            self.not_personalised.as_ref().map_or_else(|| "yes".to_owned(), |why| format!("no: {why}"));
        [
            ("boots on BIOS", self.bios.to_string()),
            ("boots on UEFI", self.uefi.to_string()),
            ("can be personalised", personalised),
            ("cloud-init", self.cloud_init.to_string()),
        ]
    }
}

impl fmt::Display for BiosBoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yes => "yes",
            Self::NoCode => "no: its first sector holds no boot code",
            Self::NoPlace => "no: its GPT has no BIOS boot partition",
        })
    }
}

impl fmt::Display for UefiBoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes => f.write_str("yes"),
            Self::NoPartition => f.write_str("no: it has no EFI system partition"),
            Self::NoLoader { vendors } => {
                f.write_str("no: its EFI system partition holds no EFI/BOOT/BOOTX64.EFI")?;
                if vendors.is_empty() { Ok(()) } else { write!(f, ", only EFI/{}", vendors.join(", EFI/")) }
            }
            Self::Unreadable { why } => write!(f, "unknown: its EFI system partition cannot be read: {why}"),
        }
    }
}

impl fmt::Display for CloudInit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes => f.write_str("found"),
            Self::Disabled { file } => write!(f, "switched off by {file}"),
            Self::Elsewhere { file, sources } => {
                write!(f, "does not look for NoCloud: {file} lists only {}", sources.join(", "))
            }
            Self::No => f.write_str("not found"),
            Self::Unknown => f.write_str("unknown: its root file system is not one that is read (ext4)"),
        }
    }
}
