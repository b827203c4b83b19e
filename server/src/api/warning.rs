//! What an admin should know of an order before it is placed. A warning either only says something, or refuses
//! the machine until the order accepts it by the warning's word. Touches `common`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{BiosBoot, CloudInit, UefiBoot};

/// One thing to know about an order for one machine. A new one is a variant here, its words in `Display`, and
/// its word in [`Warning::stops`] and [`ACCEPTABLE`] if it refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "warning", rename_all = "kebab-case")]
pub enum Warning {
    /// The machine has not reported its hardware, so nobody can be shown the disk.
    HardwareUnknown,
    /// A UEFI machine, and an image that its firmware does not start.
    NoUefiBoot {
        /// Why.
        why: UefiBoot,
    },
    /// A BIOS machine, and an image that it does not start.
    NoBiosBoot {
        /// Why.
        why: BiosBoot,
    },
    /// Nothing in the image takes hostname, keys and user-data, or calls home.
    NoCloudInit {
        /// What was seen.
        why: CloudInit,
    },
}

/// The words that `deploy start --accept` knows.
pub const ACCEPTABLE: &[&str] = &[];

impl Warning {
    /// The word that an order accepts it by; none for a warning that refuses nothing.
    #[must_use]
    pub fn stops(&self) -> Option<&'static str> {
        match self {
            Self::HardwareUnknown
            | Self::NoUefiBoot { .. }
            | Self::NoBiosBoot { .. }
            | Self::NoCloudInit { .. } => None,
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
                "its hardware is not known yet: the disk is chosen by the rule when it first reports",
            ),
        }
    }
}
