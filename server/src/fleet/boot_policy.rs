//! Core: what the doors (DHCP, TFTP, boot script) may know of a machine without asking anybody. Firmware
//! takes the first answers of a few seconds, so they cannot wait for the fleet or its records; the fleet
//! publishes this table whenever it changes. Touches `common`, `fleet::marks`.

use std::collections::HashMap;

use common::id::{Mac, MachineId};

use super::marks::{self, Fingerprint};

/// What a machine that asks to network-boot is to get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BootPolicy {
    /// Never seen: the loader, to report its hardware (or silence with `--no-discovery`).
    #[default]
    Unknown,
    /// Known, and wanted: the loader, because a job is open or nothing on its disks would boot.
    Load,
    /// Known, and to boot its own disk, whatever its boot order says.
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

/// What a machine shows of itself when it asks to network-boot, in the form that is on record.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    mac: Option<Mac>,
    uuid: Option<String>,
    serial: Option<String>,
}

/// What a known machine may show when it asks.
#[derive(Debug, Clone)]
pub struct KnownBy {
    /// The machine that this policy is for.
    pub machine: MachineId,
    /// The UUIDs that it has shown; empty when none is worth comparing.
    pub uuids: Vec<String>,
    /// The system's serial number.
    pub serial: Option<String>,
    /// Its Ethernet addresses that say something alone.
    pub own: Vec<Mac>,
    /// Those that do not.
    pub weak: Vec<Mac>,
}

impl Shown {
    /// What `asker` shows that is worth something.
    #[must_use]
    pub fn of(asker: &Asker) -> Self {
        Self {
            mac: asker.mac,
            uuid: asker.uuid.as_deref().and_then(marks::uuid),
            serial: asker.serial.as_deref().and_then(marks::worthy),
        }
    }

    /// The same as marks.
    #[must_use]
    pub fn print(&self) -> Fingerprint {
        Fingerprint {
            system_serial: self.serial.clone(),
            uuids: self.uuid.iter().cloned().collect(),
            macs: self.mac.into_iter().collect(),
            ..Fingerprint::default()
        }
    }

    /// Which of `known` it is. An address speaks for a machine only where UUID and serial number do not say
    /// otherwise: adapters are carried from one machine to the next, and the next would be sent to its own disk, and
    /// so never be seen. A UUID alone does not speak for an address that nobody knows: whole batches share one.
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

    /// Whether it fits, and then whether by an address that says something alone.
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

/// The table: who is known, and what each is to get.
#[derive(Debug, Clone, Default)]
pub struct BootPolicies {
    known: Vec<(KnownBy, BootPolicy)>,
    by_mac: HashMap<Mac, Vec<usize>>,
    by_uuid: HashMap<String, Vec<usize>>,
    /// Machines of which it is in doubt who they are.
    pub doubted: Vec<MachineId>,
}

impl BootPolicies {
    /// Adds a machine.
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

    /// What `asker` is to get, and who it is when it is known.
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

    /// What an admin should look at, in one sentence.
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

    /// All machines with what they are to get.
    pub fn iter(&self) -> impl Iterator<Item = (MachineId, BootPolicy)> {
        self.known.iter().map(|(known_by, policy)| (known_by.machine, *policy))
    }
}

/// What a machine that asked to network-boot was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// An address, and how to boot.
    Offered {
        /// The address that it is offered or given, of the server's own range.
        address: std::net::Ipv4Addr,
        /// The boot file; none when it is told at port 4011.
        file: Option<String>,
    },
    /// How to boot; the address is another server's.
    Proxy {
        /// The boot file; none when it is told at port 4011.
        file: Option<String>,
    },
    /// Nothing, and why.
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

/// What asks over DHCP, as far as its request shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientKind {
    /// Firmware that was given a program: which kind (`bios`, `uefi x64`), and whether it fetches over HTTP by itself.
    Firmware {
        /// Its words, with a blank before the processor.
        kind: &'static str,
        /// UEFI HTTP boot, and not TFTP.
        http: bool,
    },
    /// A small board that says it is a PC.
    Board(&'static str),
    /// PXE of a kind that is not asked about.
    Pxe,
    /// UEFI HTTP boot of a kind that is not asked about.
    HttpBoot,
    /// iPXE.
    Ipxe,
    /// iPXE that was built without HTTP, and so is given a better one.
    IpxeWithoutHttp,
    /// Our loader.
    Loader,
    /// An installed OS.
    Os,
}

impl ClientKind {
    /// Firmware that fetches its program over TFTP.
    #[must_use]
    pub const fn tftp(kind: &'static str) -> Self {
        Self::Firmware { kind, http: false }
    }

    /// Whether a network boot program runs already.
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

/// Where a boot script leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptSays {
    /// To the loader.
    Load,
    /// To the machine's own disk.
    BootDisk,
    /// There too, because it shows no address that the loader could use.
    BootDiskNoEthernet,
}

impl std::fmt::Display for ScriptSays {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Load => "load",
            Self::BootDisk => "boot disk",
            Self::BootDiskNoEthernet => "boot disk: it shows no Ethernet address (InfiniBand?)",
        })
    }
}

/// What a door saw, for the log. Sent on a bounded channel without waiting; dropped and counted when full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighting {
    /// A DHCP client asked to network-boot.
    PowerOn {
        /// The marks that it showed when it asked.
        asker: Asker,
        /// What of the machine asked.
        firmware: ClientKind,
        /// What it was answered.
        answer: Answered,
        /// The subnet that its relay names, if it came through one: the machine's site.
        relay: Option<std::net::Ipv4Addr>,
    },
    /// A machine that network-boots takes an address that another server gave it.
    Address {
        /// The marks that it showed when it asked.
        asker: Asker,
        /// The address that it takes.
        address: std::net::Ipv4Addr,
    },
    /// A network boot program went out.
    BootProgram {
        /// The address that fetched it.
        address: std::net::IpAddr,
        /// The file, by the name that it was asked for.
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
        /// The marks that iPXE put into the URL of the script.
        asker: Asker,
        /// The address that fetched it.
        address: std::net::IpAddr,
        /// Where it leads.
        says: ScriptSays,
    },
    /// A hardware report was refused before anybody could say whose it is.
    RefusedReport {
        /// From where it came.
        address: std::net::IpAddr,
        /// What the check of the report found.
        why: String,
    },
    /// The OS of a machine that is known asked for an address, as it does when it starts.
    System {
        /// By this Ethernet address.
        mac: Mac,
    },
    /// Kernel or loader went out.
    LoaderFile {
        /// The address that fetched it.
        address: std::net::IpAddr,
        /// The file, by the name that it was asked for.
        file: String,
        /// Bytes that went out.
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
    /// The first, as firmware before SMBIOS 2.6 has it.
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
