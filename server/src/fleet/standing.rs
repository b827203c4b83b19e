//! Core: what the doors (DHCP, TFTP, boot script) may know of a machine without asking anybody. Firmware
//! takes the first answers of a few seconds, so they cannot wait for the fleet or its records; the fleet
//! publishes this table whenever it changes. Touches `common`.

use std::collections::HashMap;

use common::id::{Mac, MachineId};

/// What a machine that asks to network-boot is to get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Standing {
    /// Never seen: the loader, to report its hardware (or silence with `--no-discovery`).
    #[default]
    Unknown,
    /// Known, and wanted: the loader, because a job is open or nothing on its disks would boot.
    Load,
    /// Known, and to boot its own disk, whatever its boot order says.
    BootDisk,
    /// Rejected, or this server itself: no answer at all.
    Ignore,
}

/// What a door knows of who is asking. Any of it can be missing, and firmware lies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asker {
    /// The Ethernet address it asks from.
    pub mac: Option<Mac>,
    /// The SMBIOS UUID, in lower case with dashes.
    pub uuid: Option<String>,
    /// The system's serial number.
    pub serial: Option<String>,
}

/// The table: who is known, and what each is to get.
#[derive(Debug, Clone, Default)]
pub struct Standings {
    /// By Ethernet address; a machine is in here once per NIC.
    pub by_mac: HashMap<Mac, (MachineId, Standing)>,
    /// By UUID, only UUIDs that exactly one machine has.
    pub by_uuid: HashMap<String, (MachineId, Standing)>,
}

impl Standings {
    /// What `asker` is to get, and who it is when it is known. The Ethernet address decides before the UUID:
    /// an address can be moved to another machine, but whole batches of boards share one UUID.
    #[must_use]
    pub fn of(&self, asker: &Asker) -> (Option<MachineId>, Standing) {
        let by_mac = asker.mac.and_then(|mac| self.by_mac.get(&mac));
        let by_uuid = asker.uuid.as_ref().and_then(|uuid| self.by_uuid.get(uuid));
        match by_mac.or(by_uuid) {
            Some((machine, standing)) => (Some(*machine), *standing),
            None => (None, Standing::Unknown),
        }
    }
}

/// What a machine that asked to network-boot was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// An address, and how to boot.
    Offered {
        /// The address.
        address: std::net::Ipv4Addr,
        /// The boot file; none when it is told at port 4011.
        file: Option<String>,
    },
    /// How to boot; the address is another server's.
    Proxy {
        /// As above.
        file: Option<String>,
    },
    /// Nothing.
    Not(Unanswered),
}

/// Why a machine was not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unanswered {
    /// No address is left in the range.
    Exhausted,
    /// There is no boot program for its firmware, in these words.
    NoProgram(String),
    /// Another reason, in these words.
    Other(String),
}

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exhausted => f.write_str("no address is left in the range"),
            Self::NoProgram(why) | Self::Other(why) => f.write_str(why),
        }
    }
}

impl std::fmt::Display for Answered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Offered { address, file: Some(file) } => write!(f, "offered {address} and {file}"),
            Self::Offered { address, file: None } => write!(f, "offered {address}"),
            Self::Proxy { file: Some(file) } => write!(f, "proxy offer of {file}"),
            Self::Proxy { file: None } => f.write_str("proxy offer"),
            Self::Not(why) => write!(f, "not answered: {why}"),
        }
    }
}

/// What a door saw, for the log. Sent on a bounded channel without waiting; dropped and counted when full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighting {
    /// A DHCP client asked to network-boot.
    PowerOn {
        /// Who.
        asker: Asker,
        /// Its firmware in words: `bios`, `uefi x64`, `uefi http x64`, `ipxe`.
        firmware: String,
        /// What it was answered.
        answer: Answered,
        /// The subnet that its relay names, if it came through one: the machine's site.
        relay: Option<std::net::Ipv4Addr>,
    },
    /// A network boot program went out.
    BootProgram {
        /// To whom.
        address: std::net::IpAddr,
        /// Which.
        file: String,
        /// `tftp` or `http`.
        over: &'static str,
        /// How many bytes; less than the file when the client gave up.
        bytes: u64,
        /// Whether that was all of it.
        whole: bool,
    },
    /// A boot script went out.
    Script {
        /// To whom.
        asker: Asker,
        /// From which address.
        address: std::net::IpAddr,
        /// What it says: `load` or `boot disk`.
        says: &'static str,
    },
    /// A hardware report was refused before anybody could say whose it is.
    RefusedReport {
        /// From where it came.
        address: std::net::IpAddr,
        /// Why.
        why: String,
    },
    /// Kernel or loader went out.
    LoaderFile {
        /// To whom.
        address: std::net::IpAddr,
        /// Which.
        file: String,
        /// How many bytes.
        bytes: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_decides_before_a_uuid() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let mut table = Standings::default();
        table.by_mac.insert(mac, (MachineId(1), Standing::Load));
        table.by_uuid.insert("u".to_owned(), (MachineId(2), Standing::BootDisk));
        let both = Asker { mac: Some(mac), uuid: Some("u".to_owned()), serial: None };
        assert_eq!(table.of(&both), (Some(MachineId(1)), Standing::Load));
        let other = Asker { mac: Some(Mac([9; 6])), uuid: Some("u".to_owned()), serial: None };
        assert_eq!(table.of(&other), (Some(MachineId(2)), Standing::BootDisk));
        assert_eq!(table.of(&Asker::default()), (None, Standing::Unknown));
    }
}
