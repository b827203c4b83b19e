//! Core: the boot policies: what DHCP, TFTP and the boot script may know of a machine without asking the fleet.
//! Firmware takes the first answers of a few seconds, so they cannot wait for the fleet or its records; the fleet
//! publishes this table whenever it changes. Also what these listeners report to the fleet ([`Sighting`]). Touches
//! `common`, `fleet::marks`.

// Who is to come for an order.
mod due;

use std::collections::HashMap;

use common::id::{Mac, MachineId};

use super::marks::{self, Fingerprint};
pub use due::Due;

/// What a machine that asks to network-boot is to get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BootPolicy {
    /// Not on record: the loader, to report its hardware (or no answer with `--no-discovery`).
    #[default]
    Unknown,
    /// Known, and gets the loader: a job is open, or nothing on its disks would boot.
    Load,
    /// Known, and is sent to its own disk, whatever its boot order says.
    BootDisk,
    /// Rejected: no answer at all.
    Ignore,
}

/// What a machine with no open job gets when it network-boots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IdleBoot {
    /// The loader: its hardware is not known, or nothing on its disks would boot.
    #[default]
    Load,
    /// Its own disk: an image was written whole, or something on a disk of it would boot.
    BootDisk,
    /// The loader, and it stays there whatever is on its disks: an admin wants to look at its hardware.
    Stay,
}

/// What a request to DHCP, TFTP or the boot script shows of its client. Any of it can be missing, and firmware lies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asker {
    /// The Ethernet address that the request comes from.
    pub mac: Option<Mac>,
    /// The SMBIOS UUID, in lower case with dashes.
    pub uuid: Option<String>,
    /// The system's serial number.
    pub serial: Option<String>,
}

/// The marks of an [`Asker`] in the form that is on record; placeholders are left out.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    mac: Option<Mac>,
    uuid: Option<String>,
    serial: Option<String>,
}

/// The marks on record by which a request is recognised as a known machine's.
#[derive(Debug, Clone)]
pub struct KnownBy {
    /// The machine that has these marks.
    pub machine: MachineId,
    /// The UUIDs that it has shown; empty when it has shown none but placeholders.
    pub uuids: Vec<String>,
    /// The system's serial number.
    pub serial: Option<String>,
    /// Its Ethernet addresses that identify it alone.
    pub own: Vec<Mac>,
    /// Its other Ethernet addresses: they identify it only together with a UUID or serial number.
    pub weak: Vec<Mac>,
}

impl Shown {
    /// The marks of `asker`, without placeholders.
    #[must_use]
    pub fn of(asker: &Asker) -> Self {
        Self {
            mac: asker.mac,
            uuid: asker.uuid.as_deref().and_then(marks::uuid),
            serial: asker.serial.as_deref().and_then(marks::worthy),
        }
    }

    /// The same marks as a fingerprint.
    #[must_use]
    pub fn print(&self) -> Fingerprint {
        Fingerprint {
            system_serial: self.serial.clone(),
            uuids: self.uuid.iter().cloned().collect(),
            macs: self.mac.into_iter().collect(),
            ..Fingerprint::default()
        }
    }

    /// Which of `known` it is; `None` if it is none of them, or could be several. An address identifies a machine only
    /// if UUID and serial number do not contradict it: adapters are carried from one machine to the next, which would
    /// be sent to its own disk and so never be discovered. A UUID alone does not identify a machine that shows an
    /// unknown address: whole batches share one.
    #[must_use]
    pub fn settle<'a>(&self, known: impl Iterator<Item = &'a KnownBy>) -> Option<&'a KnownBy> {
        let fitting: Vec<(&KnownBy, bool)> =
            known.filter_map(|known_by| Some((known_by, self.fits(known_by)?))).collect();
        let owners: Vec<&KnownBy> =
            fitting.iter().filter(|(_, owns)| *owns).map(|(known_by, _)| *known_by).collect();
        match (owners.as_slice(), fitting.as_slice()) {
            ([one], _) | ([], [(one, _)]) => Some(one),
            _ => None,
        }
    }

    /// `None` if it is not `known_by`; else whether it is by one of the addresses that identify it alone.
    fn fits(&self, known_by: &KnownBy) -> Option<bool> {
        let uuid = self.uuid.as_ref().filter(|_| !known_by.uuids.is_empty());
        let uuid = uuid.map(|uuid| known_by.uuids.contains(uuid));
        let serial = self.serial.as_ref().zip(known_by.serial.as_ref()).map(|(ours, theirs)| ours == theirs);
        if uuid == Some(false) || serial == Some(false) {
            return None;
        }
        let (uuid, serial) = (uuid.is_some(), serial.is_some());
        let owns = self.mac.is_some_and(|mac| known_by.own.contains(&mac));
        let weak = self.mac.is_some_and(|mac| known_by.weak.contains(&mac));
        let nothing_else = self.uuid.is_none()
            && self.serial.is_none()
            && known_by.uuids.is_empty()
            && known_by.serial.is_none();
        let fits = owns
            || (weak && (uuid || serial || nothing_else))
            || (uuid && serial)
            || (self.mac.is_none() && uuid);
        fits.then_some(owns)
    }
}

/// The table of all known machines with their boot policies.
#[derive(Debug, Clone, Default)]
pub struct BootPolicies {
    known: Vec<(KnownBy, BootPolicy)>,
    by_mac: HashMap<Mac, Vec<usize>>,
    by_uuid: HashMap<String, Vec<usize>>,
    /// Machines whose identity is in doubt, for the warning.
    pub doubted: Vec<MachineId>,
    /// Who is to come for an order.
    pub due: Due,
}

impl BootPolicies {
    /// Adds a machine with its policy.
    pub fn insert(&mut self, known_by: KnownBy, policy: BootPolicy) {
        let at = self.known.len();
        for mac in known_by.own.iter().chain(&known_by.weak) {
            self.by_mac.entry(*mac).or_default().push(at);
        }
        for uuid in &known_by.uuids {
            self.by_uuid.entry(uuid.clone()).or_default().push(at);
        }
        self.known.push((known_by, policy));
    }

    /// The policy for a request of `asker`, with the machine that it is; `None` and `Unknown` if it is not known.
    #[must_use]
    pub fn of(&self, asker: &Asker) -> (Option<MachineId>, BootPolicy) {
        let shown = Shown::of(asker);
        let by_mac = shown.mac.and_then(|mac| self.by_mac.get(&mac)).into_iter().flatten();
        let by_uuid = shown.uuid.as_ref().and_then(|uuid| self.by_uuid.get(uuid)).into_iter().flatten();
        let places: std::collections::BTreeSet<usize> = by_mac.chain(by_uuid).copied().collect();
        let near: Vec<&(KnownBy, BootPolicy)> = places.iter().filter_map(|at| self.known.get(*at)).collect();
        let found = shown.settle(near.iter().map(|(known_by, _)| known_by));
        let found =
            found.and_then(|known_by| near.iter().find(|(other, _)| other.machine == known_by.machine));
        match found {
            Some((known_by, policy)) => (Some(known_by.machine), *policy),
            None => (None, BootPolicy::Unknown),
        }
    }

    /// A warning for admins about machines in doubt, in one sentence; `None` when there are none.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let named: Vec<String> = self.doubted.iter().take(8).map(MachineId::to_string).collect();
        let more = if self.doubted.len() > 8 { ", …" } else { "" };
        let named = named.join(", ");
        (!named.is_empty()).then(|| {
            format!(
                "it is in doubt which machines these are: {named}{more}; they get no plan until `machine merge` or \
                 `machine release` says so"
            )
        })
    }

    /// All known machines with their policies.
    pub fn iter(&self) -> impl Iterator<Item = (MachineId, BootPolicy)> {
        self.known.iter().map(|(known_by, policy)| (known_by.machine, *policy))
    }
}

/// What DHCP answered to a machine that asked to network-boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// An address and how to boot.
    Offered {
        /// The address that it is offered or given, of the server's own range.
        address: std::net::Ipv4Addr,
        /// The boot file; `None` when the client is told it on port 4011.
        file: Option<String>,
    },
    /// How to boot; the address comes from another DHCP server.
    Proxy {
        /// The boot file; `None` when the client is told it on port 4011.
        file: Option<String>,
    },
    /// No answer, and why.
    Not(Unanswered),
}

/// Why a machine was not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unanswered {
    /// No address is free in the range.
    Exhausted,
    /// There is no boot program for its firmware; the reason for the log.
    NoProgram(String),
    /// Another reason, for the log.
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

/// Which program of a machine sent a DHCP request, as far as the request shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientKind {
    /// Firmware of a kind that there is a boot program for.
    Firmware {
        /// The kind for the log, with a blank before the processor: `bios`, `uefi x64`.
        kind: &'static str,
        /// Whether it fetches the program by UEFI HTTP boot, and not by TFTP.
        http: bool,
    },
    /// A single-board computer whose request claims to be a PC's; the kind for the log.
    Board(&'static str),
    /// PXE firmware, in a place where its kind does not matter.
    Pxe,
    /// UEFI HTTP boot firmware, in a place where its kind does not matter.
    HttpBoot,
    /// iPXE that is running, and can use HTTP where that matters.
    Ipxe,
    /// iPXE that was built without HTTP, and so is given another iPXE first.
    IpxeWithoutHttp,
    /// This server's loader.
    Loader,
    /// An OS, or any other client that does not ask to network-boot.
    Os,
}

impl ClientKind {
    /// Firmware of this kind that fetches its program over TFTP.
    #[must_use]
    pub const fn tftp(kind: &'static str) -> Self {
        Self::Firmware { kind, http: false }
    }

    /// Whether it is a network boot program that firmware has started.
    #[must_use]
    pub fn is_boot_program(self) -> bool {
        matches!(self, Self::Ipxe | Self::IpxeWithoutHttp)
    }
}

impl std::fmt::Display for ClientKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Firmware { kind, http: false } | Self::Board(kind) => kind,
            Self::Firmware { kind, http: true } => return f.write_str(&kind.replacen(' ', " http ", 1)),
            Self::Pxe => "pxe",
            Self::HttpBoot => "uefi http",
            Self::Ipxe => "ipxe",
            Self::IpxeWithoutHttp => "ipxe without http",
            Self::Loader => "loader",
            Self::Os => "os",
        })
    }
}

/// What a boot script makes the machine start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptSays {
    /// The loader.
    Load,
    /// To wait until a neighbour has kernel and loader.
    Wait,
    /// The OS on the machine's own disk.
    BootDisk,
    /// Its own disk, because it shows no Ethernet address, which the loader needs.
    BootDiskNoEthernet,
}

impl std::fmt::Display for ScriptSays {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Load => "load",
            Self::Wait => "wait for a neighbour that fetches kernel and loader",
            Self::BootDisk => "boot disk",
            Self::BootDiskNoEthernet => "boot disk: it shows no Ethernet address (InfiniBand?)",
        })
    }
}

/// What DHCP, TFTP or HTTP saw of a machine. Sent to the fleet's queue without waiting; dropped when that is full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighting {
    /// A DHCP client asked to network-boot.
    PowerOn {
        /// The marks in its request.
        asker: Asker,
        /// Which program of the machine sent the request.
        firmware: ClientKind,
        /// The server's answer.
        answer: Answered,
        /// An address of its subnet as the DHCP relay tells it, which decides its site; `None` without a relay.
        relay: Option<std::net::Ipv4Addr>,
    },
    /// A machine that network-boots requested an address that another DHCP server offered.
    Address {
        /// The marks in its request.
        asker: Asker,
        /// The address that it requested.
        address: std::net::Ipv4Addr,
    },
    /// A network boot program was sent.
    BootProgram {
        /// The address that fetched it.
        address: std::net::IpAddr,
        /// The file, by the name that it was asked for.
        file: String,
        /// `tftp` or `http`.
        over: &'static str,
        /// Bytes that were sent; fewer than the file has when the client gave up.
        bytes: u64,
        /// Whether the whole file was sent.
        whole: bool,
    },
    /// A boot script was asked for. It may take a minute to be answered, when a loader is made for it first.
    AsksScript {
        /// The marks that iPXE put into the URL of the script.
        asker: Asker,
        /// The address that asks.
        address: std::net::IpAddr,
    },
    /// A boot script was sent.
    Script {
        /// The marks that iPXE put into the URL of the script.
        asker: Asker,
        /// The address that fetched it.
        address: std::net::IpAddr,
        /// What the script starts.
        says: ScriptSays,
    },
    /// A hardware report was refused before it could be told which machine it is from.
    RefusedReport {
        /// The address that sent it.
        address: std::net::IpAddr,
        /// What the check of the report found.
        why: String,
    },
    /// A machine was sent to a neighbour for boot files, and says that it got none, or wrong ones.
    NeighbourFailed {
        /// The address of the machine that says so.
        address: std::net::IpAddr,
        /// Which neighbour, and what it did.
        why: String,
    },
    /// The OS of a known machine asked DHCP for an address, as it does when it starts.
    System {
        /// The Ethernet address that the request came from.
        mac: Mac,
    },
    /// The kernel or the loader is being sent.
    LoaderFileBegun {
        /// The address that fetches it.
        address: std::net::IpAddr,
    },
    /// The kernel or the loader was sent.
    LoaderFile {
        /// The address that fetched it.
        address: std::net::IpAddr,
        /// The file, by the name that it was asked for.
        file: String,
        /// Bytes that were sent.
        bytes: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const U: [&str; 3] = [
        "a3b8c1d2-7f4e-4a90-9c36-5e1d0b72f8aa",
        "564d1bc4-9d3e-0f6a-77c1-2be9d0a48351",
        "4c4c4544-0042-3510-8052-b4c04f4d4e32",
    ];
    /// The first of them in the byte order of firmware before SMBIOS 2.6.
    const SWAPPED: &str = "d2c1b8a3-4e7f-904a-9c36-5e1d0b72f8aa";

    fn known_by(machine: u64, uuid: &str, serial: &str, own: &[u8], weak: &[u8]) -> KnownBy {
        let macs = |last: &[u8]| last.iter().map(|last| Mac([2, 0, 0, 0, 0, *last])).collect();
        KnownBy {
            machine: MachineId(machine),
            uuids: marks::uuid(uuid).into_iter().collect(),
            serial: marks::worthy(serial),
            own: macs(own),
            weak: macs(weak),
        }
    }

    #[test]
    fn an_address_is_settled_with_uuid_and_serial() {
        let mut table = BootPolicies::default();
        table.insert(known_by(1, U[0], "SN-A", &[1], &[9]), BootPolicy::BootDisk);
        table.insert(known_by(2, "", "", &[2], &[]), BootPolicy::Load);
        table.insert(known_by(3, U[1], "", &[3], &[]), BootPolicy::BootDisk);
        table.insert(known_by(4, U[1], "", &[4], &[]), BootPolicy::BootDisk);
        let rows: [(&str, u8, &str, &str, Option<u64>); 13] = [
            ("its address alone", 1, "", "", Some(1)),
            ("its address and its UUID", 1, U[0], "", Some(1)),
            ("its UUID byte-swapped", 1, SWAPPED, "", Some(1)),
            ("C2: an adapter that went to another laptop", 1, U[2], "SN-B", None),
            ("C2: option 97 of another machine", 1, U[2], "", None),
            ("another serial number", 1, "", "SN-B", None),
            ("C4n: a UUID may not speak for an address that nobody knows", 7, U[0], "", None),
            ("UUID and serial number may", 7, U[0], "SN-A", Some(1)),
            ("an adapter's address alone", 9, "", "", None),
            ("an adapter's address and the UUID", 9, U[0], "", Some(1)),
            ("more than is on record", 2, U[2], "SN-C", Some(2)),
            ("a placeholder says nothing", 1, "03000200-0400-0500-0006-000700080009", "None", Some(1)),
            ("a UUID of two, an address of one", 3, U[1], "", Some(3)),
        ];
        for (what, mac, uuid, serial, wanted) in rows {
            let asker = Asker {
                mac: Some(Mac([2, 0, 0, 0, 0, mac])),
                uuid: (!uuid.is_empty()).then(|| uuid.to_owned()),
                serial: (!serial.is_empty()).then(|| serial.to_owned()),
            };
            let (machine, policy) = table.of(&asker);
            assert_eq!(machine, wanted.map(MachineId), "{what}");
            assert_eq!(policy == BootPolicy::Unknown, wanted.is_none(), "{what}");
        }
        assert_eq!(table.of(&Asker::default()), (None, BootPolicy::Unknown));
    }
}
