//! Core: who a machine is. Weighs what it shows of itself against the machines that are known. Touches
//! `common`.
//!
//! No single mark is trusted: NICs are moved, boards are replaced, whole batches share one UUID, and
//! firmware that was never personalised shows its maker's placeholder. So marks that agree count for, marks
//! that differ count against, and only a clear balance makes two the same machine. The weights are those of
//! Digital Rebar, which has recognised machines that way for years, with two changes. Ethernet addresses
//! count at most twice, or a four-port card would outweigh the machine that it was moved from. And marks
//! that differ count, because there is no mark on the disk here that would settle it.

use std::collections::BTreeSet;

use common::hardware::{HardwareReport, System};
use common::id::{Mac, MachineId};

const SERIAL: i32 = 25;
const UUID: i32 = 50;
const MAC: i32 = 30;
const MACS_MAX: i32 = 2 * MAC;

/// The balance from which two are the same: one Ethernet address with nothing against it. A UUID with
/// no Ethernet address in common stays below, because batches of boards share UUIDs.
pub const SAME: i32 = 30;

/// What a machine is recognised by. A mark that is missing or known to be worthless is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// The system's serial number.
    pub system_serial: Option<String>,
    /// The chassis' serial number.
    pub chassis_serial: Option<String>,
    /// The main board's serial number.
    pub board_serial: Option<String>,
    /// The system's UUID, in lower case.
    pub uuid: Option<String>,
    /// Its Ethernet addresses, but multicast, zero and locally repeated ones.
    pub macs: BTreeSet<Mac>,
}

impl Fingerprint {
    /// The marks in a hardware report.
    #[must_use]
    pub fn of(report: &HardwareReport) -> Self {
        let system: &System = &report.system;
        Self {
            system_serial: worthy(&system.serial),
            chassis_serial: worthy(&system.chassis_serial),
            board_serial: worthy(&system.board_serial),
            uuid: worthy(&system.uuid),
            macs: report.nics.iter().map(|nic| nic.mac).filter(|mac| is_worthy_mac(*mac)).collect(),
        }
    }

    /// Whether there is nothing to recognise it by.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The balance of what agrees and what differs.
    #[must_use]
    pub fn balance(&self, other: &Self) -> i32 {
        let mark = |ours: &Option<String>, theirs: &Option<String>, weight: i32| match (ours, theirs) {
            (Some(ours), Some(theirs)) if ours == theirs => weight,
            (Some(_), Some(_)) => -weight,
            _ => 0,
        };
        let shared = self.macs.intersection(&other.macs).count();
        let macs = if shared > 0 {
            i32::try_from(shared).unwrap_or(i32::MAX).saturating_mul(MAC).min(MACS_MAX)
        } else if self.macs.is_empty() || other.macs.is_empty() {
            0
        } else {
            -MAC
        };
        mark(&self.system_serial, &other.system_serial, SERIAL)
            + mark(&self.chassis_serial, &other.chassis_serial, SERIAL)
            + mark(&self.board_serial, &other.board_serial, SERIAL)
            + mark(&self.uuid, &other.uuid, UUID)
            + macs
    }

    /// The marks that both have, in words.
    #[must_use]
    pub fn shared(&self, other: &Self) -> Vec<String> {
        let mut words = Vec::new();
        let mut mark = |name: &str, ours: &Option<String>, theirs: &Option<String>| {
            if let (Some(ours), Some(theirs)) = (ours, theirs)
                && ours == theirs
            {
                words.push(format!("{name} {ours}"));
            }
        };
        mark("system serial", &self.system_serial, &other.system_serial);
        mark("chassis serial", &self.chassis_serial, &other.chassis_serial);
        mark("board serial", &self.board_serial, &other.board_serial);
        mark("UUID", &self.uuid, &other.uuid);
        words.extend(self.macs.intersection(&other.macs).map(Mac::to_string));
        words
    }
}

/// Who a report is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recognised {
    /// The machine; none when it is a new one.
    pub machine: Option<MachineId>,
    /// Other machines that share a mark with it, and which: for an admin to see, never merged silently.
    pub rivals: Vec<(MachineId, Vec<String>)>,
}

/// Who among `known` shows `shown`. The best balance from [`SAME`] on; of equal ones the older machine.
#[must_use]
pub fn recognise<'a>(
    shown: &Fingerprint,
    known: impl Iterator<Item = (MachineId, &'a Fingerprint)>,
) -> Recognised {
    let mut best: Option<(i32, MachineId)> = None;
    let mut rivals = Vec::new();
    for (id, fingerprint) in known {
        let shared = shown.shared(fingerprint);
        if shared.is_empty() {
            continue;
        }
        let balance = shown.balance(fingerprint);
        if balance >= SAME && best.is_none_or(|(most, who)| balance > most || (balance == most && id < who)) {
            best = Some((balance, id));
        }
        rivals.push((id, shared));
    }
    let machine = best.map(|(_, id)| id);
    rivals.retain(|(id, _)| Some(*id) != machine);
    rivals.sort();
    Recognised { machine, rivals }
}

/// A mark in its one form, or nothing where it is a placeholder that many machines share.
#[must_use]
pub fn worthy(text: &str) -> Option<String> {
    let text = text.trim().to_lowercase();
    let core: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    // Placeholders that firmware of Supermicro, ASUS, MSI, Gigabyte, Dell and QEMU was seen to carry.
    const PLACEHOLDERS: [&str; 17] = [
        "tobefilledbyoem",
        "defaultstring",
        "notspecified",
        "notapplicable",
        "notavailable",
        "notsettable",
        "notpresent",
        "systemserialnumber",
        "chassisserialnumber",
        "baseboardserialnumber",
        "serialnumber",
        "none",
        "na",
        "oem",
        "unknown",
        "123456789",
        "0123456789",
    ];
    // UUIDs that whole series of boards were shipped with.
    const SHARED_UUIDS: [&str; 2] = ["03000200040005000006000700080009", "12345678123456781234567812345678"];
    let repeated = core.chars().next().is_some_and(|first| core.chars().all(|c| c == first));
    let worthless = core.len() < 2
        || repeated
        || PLACEHOLDERS.contains(&core.as_str())
        || core.starts_with("123456789")
        || SHARED_UUIDS.contains(&core.as_str());
    (!worthless).then_some(text)
}

/// Whether an Ethernet address can tell machines apart.
#[must_use]
pub fn is_worthy_mac(mac: Mac) -> bool {
    let multicast = mac.0[0] & 1 == 1;
    let repeated = mac.0.iter().all(|byte| *byte == mac.0[0]);
    !multicast && !repeated
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn print(system: &str, board: &str, uuid: &str, macs: &[u8]) -> Fingerprint {
        Fingerprint {
            system_serial: worthy(system),
            chassis_serial: None,
            board_serial: worthy(board),
            uuid: worthy(uuid),
            macs: macs.iter().map(|last| Mac([2, 0, 0, 0, 0, *last])).collect(),
        }
    }

    #[test]
    fn who_is_who() {
        let table = [
            ("only an address is known", print("", "", "", &[1]), print("S1", "B1", "u-1", &[1]), true),
            ("same in everything", print("S1", "B1", "u-1", &[1]), print("S1", "B1", "u-1", &[1]), true),
            (
                "NIC moved to another machine",
                print("S1", "B1", "u-1", &[1]),
                print("S2", "B2", "u-2", &[1]),
                false,
            ),
            (
                "two ports moved, only UUIDs known",
                print("", "", "u-1", &[1, 2]),
                print("", "", "u-2", &[1, 2]),
                false,
            ),
            (
                "eight ports moved",
                print("S1", "B1", "u-1", &[1, 2, 3, 4, 5, 6, 7, 8]),
                print("S2", "B2", "u-2", &[1, 2, 3, 4, 5, 6, 7, 8]),
                false,
            ),
            ("NIC replaced", print("S1", "B1", "u-1", &[1]), print("S1", "B1", "u-1", &[9]), true),
            ("boards of a batch share a UUID", print("", "", "u-1", &[1]), print("", "", "u-1", &[2]), false),
            (
                "UUID changed by a firmware update",
                print("S1", "B1", "u-1", &[1]),
                print("S1", "B1", "u-2", &[1]),
                true,
            ),
            (
                "main board replaced, same chassis and NIC",
                print("S1", "B1", "", &[1]),
                print("S1", "B2", "", &[1]),
                true,
            ),
            ("nothing in common", print("S1", "", "", &[1]), print("", "B1", "", &[]), false),
            (
                "placeholders are no marks",
                print("Default string", "To be filled by O.E.M.", "", &[]),
                print("Default string", "To be filled by O.E.M.", "", &[]),
                false,
            ),
        ];
        for (what, known, shown, same) in table {
            let found = recognise(&shown, [(MachineId(1), &known)].into_iter());
            assert_eq!(found.machine, same.then_some(MachineId(1)), "{what}");
        }
    }

    #[test]
    fn two_that_fit_are_both_shown() {
        let (one, two) = (print("", "", "", &[1]), print("", "", "", &[2]));
        let shown = print("S1", "", "u-1", &[1, 2]);
        let found = recognise(&shown, [(MachineId(2), &two), (MachineId(1), &one)].into_iter());
        assert_eq!(found.machine, Some(MachineId(1)));
        assert_eq!(found.rivals, vec![(MachineId(2), vec!["02:00:00:00:00:02".to_owned()])]);
    }

    #[test]
    fn what_makers_left_in_is_worth_nothing() {
        for text in [
            "",
            " ",
            "0",
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "To Be Filled By O.E.M.",
            "To be filled by O.E.M",
            "Default string",
            "Not Specified",
            "None",
            "N/A",
            "System Serial Number",
            "1234567890",
            "123456789",
            "XXXXXXXX",
            "........",
            "03000200-0400-0500-0006-000700080009",
        ] {
            assert_eq!(worthy(text), None, "{text}");
        }
        assert_eq!(worthy(" CZC1234ABC "), Some("czc1234abc".to_owned()));
    }

    proptest! {
        #[test]
        fn balance_is_symmetric(a in 0_u8..4, b in 0_u8..4, m in prop::collection::vec(0_u8..4, 0..4), n in prop::collection::vec(0_u8..4, 0..4)) {
            let one = print(&format!("SN{a}"), "", &format!("u-{b}"), &m);
            let two = print(&format!("SN{b}"), "", &format!("u-{a}"), &n);
            prop_assert_eq!(one.balance(&two), two.balance(&one));
        }
    }
}
