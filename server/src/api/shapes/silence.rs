//! Conclusions about a machine that has fallen silent, or does not come up as ordered: a kind, which `-o json` names,
//! and a sentence with likely causes and the cure. Touches nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a machine did last, and what was expected of it next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "silence", rename_all = "kebab-case")]
pub enum Silence {
    /// It fetched a whole boot program, which then requested nothing.
    ProgramNotStarted {
        /// The program's name, as DHCP or the boot URL had it.
        file: String,
        /// Whether it is one for UEFI.
        uefi: bool,
        /// Whether its last report said that Secure Boot is on.
        secure: bool,
    },
    /// It stopped fetching a boot program before the end.
    ProgramNotFetched {
        /// The program's name, as DHCP or the boot URL had it.
        file: String,
    },
    /// Its script told it to load kernel and loader, and these were not fetched completely.
    LoaderNotFetched {
        /// The last file that was fetched completely, if any.
        file: Option<String>,
    },
    /// It fetched kernel and loader, and the loader never reported.
    LoaderSilent {
        /// Bytes of memory, from an earlier report; `None` when there is none.
        memory_bytes: Option<u64>,
    },
    /// An order waits for it, and it started its own disk without asking the network.
    OwnDisk,
    /// Its disk is written, and it requested a network boot again and again.
    DiskDoesNotBoot {
        /// How often it was sent to its disk.
        times: u32,
    },
    /// Its disk is written, and its OS got an address and does not call home.
    NoCall {
        /// Another disk that may have booted instead of the written one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        other: Option<String>,
    },
    /// Its disk is written, and nothing was seen of it since.
    NotSeen,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProgramNotStarted { file, secure: true, .. } => write!(
                f,
                "it took {file} and did not start it: Secure Boot is on, which is not served; switch it off in the firmware's setup"
            ),
            Self::ProgramNotStarted { file, uefi: true, .. } => write!(
                f,
                "it took {file} and did not start it: most likely Secure Boot is on, which is not served (switch it off in the firmware's setup); or the program is not for this firmware, or memory is short"
            ),
            Self::ProgramNotStarted { file, .. } => write!(
                f,
                "it took {file}, which then asked for nothing: the program hangs on this network card (update its firmware, or try another card), or memory is short"
            ),
            Self::ProgramNotFetched { file } => write!(
                f,
                "it gave up fetching {file}: is its line good, and do packets of 1500 bytes come through?"
            ),
            Self::LoaderNotFetched { file: None } => f.write_str(
                "it was told to load the kernel, which did not come through: is its line good, and does the boot program reach TCP port 8069?",
            ),
            Self::LoaderNotFetched { file: Some(file) } => write!(
                f,
                "nothing came through after {file}: is its line good, and has it 512 MiB of memory?"
            ),
            Self::LoaderSilent { memory_bytes: Some(bytes) } if *bytes < MEMORY_LEAST => write!(
                f,
                "it took the loader and did not report: it has {} MiB of memory, and needs 512",
                bytes >> 20
            ),
            Self::LoaderSilent { .. } => f.write_str(
                "it took the loader and did not report: its console says why. It may have less than 512 MiB of memory, a network card that the boot kit has no driver for, a boot network that is a tagged VLAN, or no source of random numbers (a virtual machine without virtio-rng)",
            ),
            Self::OwnDisk => f.write_str(
                "it started its own disk without asking the network: put network boot first in the firmware's boot order, and restart it",
            ),
            Self::DiskDoesNotBoot { times } => write!(
                f,
                "it was sent to its disk {times} times and asked for a boot again: the disk does not boot; does the image boot with this firmware, and does the firmware start this disk?"
            ),
            Self::NoCall { other: Some(disk) } => write!(
                f,
                "an OS on it got an address and does not call home: most likely {disk} started, which is not the disk that was written (put that one first in the firmware's boot order); or the image has no cloud-init, or a firewall is between"
            ),
            Self::NoCall { other: None } => f.write_str(
                "its OS got an address and does not call home: the image has no cloud-init or has it disabled, its datasource_list leaves out NoCloud, or a firewall is between",
            ),
            Self::NotSeen => f.write_str(
                "nothing was seen of it since it was written: it is switched off or hangs, its OS does not boot, or asks for no address on this network",
            ),
        }
    }
}

/// Bytes of memory below which the loader cannot work.
const MEMORY_LEAST: u64 = 400 << 20;
