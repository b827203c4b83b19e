//! What an image can boot on and be given, as its bytes show: which firmware boots it, whether there is room to
//! personalise it, and whether its cloud-init would use that. Typed, because warnings about orders depend on it.
//! Touches nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What was found in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImageTraits {
    /// The version of the inspection that found these; an image that an earlier one inspected is inspected again.
    pub looked: u32,
    /// Whether a BIOS boots it.
    pub bios: BiosBoot,
    /// Whether UEFI firmware boots it without a boot entry of its own.
    pub uefi: UefiBoot,
    /// Why hostname, keys and user-data cannot be written into it; `None` when they can.
    pub not_personalised: Option<String>,
    /// Whether cloud-init in it would use them.
    pub cloud_init: CloudInit,
    /// Its partitions, with the marks that an OS finds them by.
    pub partitions: Vec<PartitionMarks>,
}

/// A partition's marks, by which an installed OS finds its file systems, perhaps on another disk of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PartitionMarks {
    /// The partition's number in the table, from 1, as Linux counts.
    pub number: u32,
    /// The partition's GUID; `None` in an MBR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guid: Option<String>,
    /// The type of its file system or other contents; `None` when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<String>,
    /// The file system's UUID; `None` when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// The file system's label; `None` when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// Whether a BIOS boots an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "boots", rename_all = "kebab-case")]
pub enum BiosBoot {
    /// There is boot code in the first sector, and a place for what it loads.
    Yes,
    /// There is no boot code in the first sector.
    NoCode,
    /// There is boot code, and a GPT without a BIOS boot partition or one that is marked as bootable.
    NoPlace,
}

/// Whether UEFI firmware boots an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "boots", rename_all = "kebab-case")]
pub enum UefiBoot {
    /// An EFI system partition has the default loader, `EFI/BOOT/BOOTX64.EFI`.
    Yes,
    /// There is no EFI system partition.
    NoPartition,
    /// No EFI system partition has the default loader.
    NoLoader {
        /// The folders with other loaders that were found.
        vendors: Vec<String>,
    },
    /// No EFI system partition could be read.
    Unreadable {
        /// The error of the last one that was tried.
        why: String,
    },
}

/// Whether an image has cloud-init that would use the data that it is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "found", rename_all = "kebab-case")]
pub enum CloudInit {
    /// cloud-init was found.
    Yes,
    /// It was found, but this file disables it.
    Disabled {
        /// The file's path in the image.
        file: String,
    },
    /// It was found, but this file lists no datasource that is served.
    Elsewhere {
        /// The file's path in the image.
        file: String,
        /// The datasources that the file lists.
        sources: Vec<String>,
    },
    /// A root file system was read, and it is not there.
    No,
    /// No root file system could be read.
    Unknown,
}

impl ImageTraits {
    /// A name and a word or sentence for each trait, for people.
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
