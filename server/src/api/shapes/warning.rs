//! Warnings about an order for one machine. A warning either only informs, or refuses the machine until the order
//! accepts it by the warning's word. Touches `common`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{BiosBoot, CloudInit, UefiBoot};

/// One warning. To add one: a variant here, its sentence in `Display`, and if it refuses the machine, its word in
/// [`Warning::stops`] and [`ACCEPTABLE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "warning", rename_all = "kebab-case")]
pub enum Warning {
    /// The machine has not reported its hardware, so no disk can be shown.
    HardwareUnknown,
    /// The machine's hardware was not known when it was ordered for, and its disk holds something that nobody was shown.
    UnseenData {
        /// The disk and what it holds, in words.
        disk: String,
    },
    /// The machine has UEFI firmware, which does not boot the image.
    NoUefiBoot {
        /// What the image lacks for UEFI.
        why: UefiBoot,
    },
    /// The machine has a BIOS, which does not boot the image.
    NoBiosBoot {
        /// What the image lacks for a BIOS.
        why: BiosBoot,
    },
    /// Nothing in the image would use hostname, keys and user-data, or call home.
    NoCloudInit {
        /// What was found instead.
        why: CloudInit,
    },
    /// Another disk is bootable, and a BIOS boots the first one.
    OtherDiskBoots {
        /// The other disk: its name and marks.
        disk: String,
    },
    /// Another disk is bootable, and UEFI firmware may boot it.
    OtherDiskMayBoot {
        /// The other disk: its name and marks.
        disk: String,
    },
    /// A BIOS boots its first disk, and the target is not the first.
    NotFirstDisk {
        /// The disk that the BIOS boots instead: its name and marks.
        first: String,
    },
    /// Another disk has a file system that cloud-init may read as its data.
    OtherSeed {
        /// The other disk: its name and marks.
        disk: String,
        /// Its partition; 0 for the whole disk.
        partition: u32,
        /// The file system's label, which cloud-init looks for.
        label: String,
    },
    /// Another disk holds a file system with a UUID of the image.
    SameUuid {
        /// The other disk: its name and marks.
        disk: String,
        /// Its partition; 0 for the whole disk.
        partition: u32,
        /// The UUID.
        uuid: String,
    },
    /// cloud-init does not know the first line of the user-data.
    UserDataIgnored {
        /// The first line of the user-data, cut short where it is long.
        first: String,
        /// Whether no version of cloud-init takes it.
        always: bool,
    },
    /// The user-data is no YAML, or no gzip.
    UserDataBroken {
        /// The error of the parser.
        why: String,
    },
    /// The user-data disables cloud-init for the next boot.
    UserDataDisables,
    /// The user-data configures the network, which cloud-init does not read from there.
    UserDataNetwork,
    /// The user-data disables the call home.
    CallHomeOff {
        /// What in the user-data does so.
        by: String,
    },
    /// The user-data leaves only a call home that does not report which disk it comes from.
    CallHomeBare,
}

/// The words that `deploy start --accept` takes.
pub const ACCEPTABLE: &[&str] = &[OTHER_DISK, UNCONFIRMED, DATA];

/// A disk that nobody was shown holds something.
const DATA: &str = "data";
/// Another disk of the machine may come up instead of the one that is written.
const OTHER_DISK: &str = "other-disk";
/// The installed OS will not call home.
const UNCONFIRMED: &str = "unconfirmed";

impl Warning {
    /// The word by which an order accepts it; `None` for a warning that refuses nothing.
    #[must_use]
    pub fn stops(&self) -> Option<&'static str> {
        match self {
            Self::OtherDiskBoots { .. }
            | Self::NotFirstDisk { .. }
            | Self::OtherSeed { .. }
            | Self::SameUuid { .. } => Some(OTHER_DISK),
            Self::CallHomeOff { .. } => Some(UNCONFIRMED),
            Self::UnseenData { .. } => Some(DATA),
            Self::HardwareUnknown
            | Self::NoUefiBoot { .. }
            | Self::NoBiosBoot { .. }
            | Self::NoCloudInit { .. }
            | Self::OtherDiskMayBoot { .. }
            | Self::UserDataIgnored { .. }
            | Self::UserDataBroken { .. }
            | Self::UserDataDisables
            | Self::UserDataNetwork
            | Self::CallHomeBare => None,
        }
    }

    /// Why a machine of an order that accepts only `accepted` is refused because of `warnings`, if it is.
    #[must_use]
    pub fn refusal(warnings: &[Self], accepted: &[String]) -> Option<String> {
        let stops = |warning: &&Self| warning.stops().is_some_and(|word| !accepted.iter().any(|a| a == word));
        let first = warnings.iter().find(stops)?;
        Some(format!("{first} (`--accept {}` orders it all the same)", first.stops().unwrap_or_default()))
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUefiBoot { why } => {
                write!(f, "the machine has UEFI firmware; whether the image boots there: {why}")
            }
            Self::NoBiosBoot { why } => {
                write!(f, "the machine has a BIOS; whether the image boots there: {why}")
            }
            Self::NoCloudInit { why } => write!(
                f,
                "hostname, keys and user-data may be lost, and no call home come; cloud-init in the image: {why}"
            ),
            Self::HardwareUnknown => f.write_str(
                "its hardware is not known yet: the disk is chosen by the rule when it first reports, and written only if it is blank then (`--accept data`: in any case)",
            ),
            Self::UnseenData { disk } => write!(
                f,
                "its hardware was not known when it was ordered for, and nobody was shown what would be erased: {disk}"
            ),
            Self::OtherDiskBoots { disk } => write!(
                f,
                "another disk would boot ({disk}), and a BIOS starts whichever comes first: clear or detach it, or put the target first in the BIOS's setup"
            ),
            Self::OtherDiskMayBoot { disk } => write!(
                f,
                "another disk would boot ({disk}): the firmware may start that one; put the target first in its boot order"
            ),
            Self::NotFirstDisk { first } => write!(
                f,
                "{first} comes before the target, and a BIOS starts its first disk: put the target first in the BIOS's setup"
            ),
            Self::OtherSeed { disk, partition, label } => write!(
                f,
                "{} of {disk} is labelled {label}, and cloud-init may take that instead of what is ordered: clear or detach it",
                place(*partition)
            ),
            Self::SameUuid { disk, partition, uuid } => write!(
                f,
                "{} of {disk} has the UUID {uuid} as the image has, so either may become the root: clear or detach it",
                place(*partition)
            ),
            Self::UserDataIgnored { first, always: true } => {
                write!(f, "cloud-init takes nothing of it: user-data that begins with `{first}` is of no kind that it knows")
            }
            Self::UserDataIgnored { first, always: false } => {
                write!(f, "older versions of cloud-init take nothing of user-data that begins with `{first}`")
            }
            Self::UserDataBroken { why } => write!(f, "cloud-init takes nothing of the user-data: {why}"),
            Self::UserDataDisables => {
                f.write_str("the user-data names cloud-init.disabled: from its next start the OS reads no CIDATA")
            }
            Self::UserDataNetwork => {
                f.write_str("cloud-init takes no network from user-data: it is set up for the card that booted")
            }
            Self::CallHomeOff { by } => write!(
                f,
                "the user-data switches the call home off ({by}), so the order cannot be confirmed: `--no-confirm` does not wait for it"
            ),
            Self::CallHomeBare => f.write_str(
                "the user-data switches the scripts of vendor-data off, so the call home cannot say which disk it comes from: it counts only where no other disk holds anything",
            ),
        }
    }
}

fn place(partition: u32) -> String {
    if partition == 0 { "the whole".to_owned() } else { format!("partition {partition}") }
}
