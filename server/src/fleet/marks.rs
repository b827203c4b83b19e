//! Core: the marks that a machine is recognised by, each in one normal form, without placeholders. Touches `common`.
//!
//! Placeholders are found by rules, because lists of them are never complete: a number that repeats itself or counts up
//! was never given to one machine. An address that can be carried to another machine does not identify one alone: it is
//! weak.

use std::collections::BTreeSet;

use common::hardware::{HardwareReport, Nic, System};
use common::id::Mac;

/// The most Ethernet addresses of one machine. A switch with 128 ports in one box is the largest that was seen.
const MACS_MAX: usize = 256;

/// The most UUIDs of one machine: firmware that makes its UUID of a NIC's address shows one per NIC.
const UUIDS_MAX: usize = 8;

/// The marks of a machine. A mark that is missing or a placeholder is not in here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// The system's serial number, as the following ones in the form of [`worthy`].
    pub system_serial: Option<String>,
    /// The chassis' serial number.
    pub chassis_serial: Option<String>,
    /// The main board's serial number.
    pub board_serial: Option<String>,
    /// The UUIDs that its firmware was seen to show, each in the form of [`uuid`].
    pub uuids: BTreeSet<String>,
    /// Its Ethernet addresses, without multicast, zero and repeated ones.
    pub macs: BTreeSet<Mac>,
    /// Those of `macs` that do not identify it alone: of a USB adapter, locally administered beside addresses that are
    /// not, shown by a later report only, or shown by another machine as well.
    pub weak: BTreeSet<Mac>,
}

impl Fingerprint {
    /// The marks in a hardware report; none for an agent that runs as an ordinary process, since many share one host.
    #[must_use]
    pub fn of(report: &HardwareReport) -> Self {
        if report.firmware == common::hardware::Firmware::None {
            return Self::default();
        }
        let system: &System = &report.system;
        let nics: Vec<&Nic> =
            report.nics.iter().filter(|nic| is_worthy_mac(nic.mac)).take(MACS_MAX).collect();
        let universal = nics.iter().any(|nic| !is_adapter(nic) && !is_local(nic.mac));
        let weak = |nic: &&&Nic| is_adapter(nic) || (universal && is_local(nic.mac));
        Self {
            system_serial: worthy(&system.serial),
            chassis_serial: worthy(&system.chassis_serial),
            board_serial: worthy(&system.board_serial),
            uuids: uuid(&system.uuid).into_iter().collect(),
            macs: nics.iter().map(|nic| nic.mac).collect(),
            weak: nics.iter().filter(weak).map(|nic| nic.mac).collect(),
        }
    }

    /// Whether it has no marks at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The addresses that identify it alone: those that are not weak.
    pub fn own(&self) -> impl Iterator<Item = Mac> {
        self.macs.difference(&self.weak).copied()
    }

    /// Whether `mac` is one of [`Fingerprint::own`].
    #[must_use]
    pub fn owns(&self, mac: Mac) -> bool {
        self.macs.contains(&mac) && !self.weak.contains(&mac)
    }

    /// The serial numbers, each with its name.
    #[must_use]
    pub fn serials(&self) -> [(&'static str, Option<&String>); 3] {
        [
            ("system serial", self.system_serial.as_ref()),
            ("chassis serial", self.chassis_serial.as_ref()),
            ("board serial", self.board_serial.as_ref()),
        ]
    }

    /// Whether it has a UUID or a serial number.
    #[must_use]
    pub fn is_strong(&self) -> bool {
        !self.uuids.is_empty() || self.serials().iter().any(|(_, serial)| serial.is_some())
    }

    /// Adds addresses that a later report showed, as weak ones: otherwise a forged report could give this machine the
    /// address of another that has not been seen yet, and so direct this one's orders to that one.
    pub fn add_late(&mut self, macs: impl IntoIterator<Item = Mac>) {
        for mac in macs {
            if self.macs.len() < MACS_MAX && self.macs.insert(mac) {
                self.weak.insert(mac);
            }
        }
    }

    /// Adds UUIDs that this machine shows now, up to `UUIDS_MAX`.
    pub fn add_uuids(&mut self, shown: &BTreeSet<String>) {
        for uuid in shown {
            if self.uuids.len() < UUIDS_MAX {
                self.uuids.insert(uuid.clone());
            }
        }
    }

    /// Makes the addresses weak that `pick` picks.
    pub fn weaken(&mut self, pick: impl Fn(Mac) -> bool) {
        let picked: Vec<Mac> = self.macs.iter().copied().filter(|mac| pick(*mac)).collect();
        self.weak.extend(picked);
    }
}

/// The marks of the built-in disks: a serial number, else a WWN. Disks are moved, so they only support other marks.
#[must_use]
pub fn disks(report: &HardwareReport) -> BTreeSet<String> {
    let mark = |disk: &common::hardware::Disk| worthy(&disk.serial).or_else(|| worthy(&disk.wwn));
    report.disks.iter().filter(|disk| !disk.removable).filter_map(mark).collect()
}

/// A serial number, trimmed and in lower case; `None` if it is a placeholder that many machines share.
#[must_use]
pub fn worthy(text: &str) -> Option<String> {
    let text = text.trim().to_lowercase();
    let core: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    // Words in placeholders of firmware by Supermicro, ASUS, MSI, Gigabyte, Dell, VMware and QEMU.
    const WORDS: [&str; 9] = [
        "tobefilled",
        "defaultstring",
        "serialnumber",
        "notspecified",
        "notapplicable",
        "notavailable",
        "notsettable",
        "notpresent",
        "invalid",
    ];
    const WHOLE: [&str; 7] = ["none", "na", "oem", "unknown", "null", "default", "empty"];
    let first = core.bytes().next();
    let repeated = core.bytes().all(|byte| Some(byte) == first);
    let counts = core.len() >= 5 && core.as_bytes().windows(2).all(|pair| counts_up(pair[0], pair[1]));
    let worthless = core.len() < 2
        || repeated
        || counts
        || core.starts_with("123456789")
        || WORDS.iter().any(|word| core.contains(word))
        || WHOLE.contains(&core.as_str());
    (!worthless).then_some(text)
}

fn counts_up(before: u8, after: u8) -> bool {
    after == before.wrapping_add(1) || (before == b'9' && matches!(after, b'0' | b'a'))
}

/// A UUID in its normal form, in lower case with dashes; `None` if it is malformed or a placeholder.
///
/// Firmware before SMBIOS 2.6, PXE (option 97) and iPXE disagree on the byte order of the first three fields, so the
/// normal form is the smaller of the two readings.
#[must_use]
pub fn uuid(text: &str) -> Option<String> {
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    let mut shown = [0; 16];
    hex::decode_to_slice(&digits, &mut shown).ok()?;
    let mut swapped = shown;
    swapped[..4].reverse();
    swapped[4..6].reverse();
    swapped[6..8].reverse();
    let orders = [&shown, &swapped];
    let worthless = match orders.map(serial_in) {
        [Some(a), Some(b)] => [a, b].iter().any(|serial| worthy(serial).is_none()),
        _ => orders.iter().any(|bytes| is_regular(bytes)) || is_text(&shown, &swapped),
    };
    if worthless {
        return None;
    }
    let digits = hex::encode(shown.min(swapped));
    let (a, b, c, d, e) = (&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]);
    Some(format!("{a}-{b}-{c}-{d}-{e}"))
}

/// Whether the bytes follow a pattern, as a maker's placeholder does: few different ones, all from one small range, or
/// digits that stay or count up. Of random UUIDs one in 100,000 is taken for one. A UUID of zeros and an Ethernet
/// address is among them, rightly: it identifies no more than the address does.
fn is_regular(bytes: &[u8; 16]) -> bool {
    let different: BTreeSet<u8> = bytes.iter().copied().collect();
    let span = different.last().zip(different.first()).map_or(0, |(last, first)| last - first);
    let digits: Vec<u8> = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).collect();
    let steps = digits.windows(2).filter(|pair| pair[1] == pair[0] || pair[1] == pair[0] + 1).count();
    different.len() <= 8 || span < 32 || steps >= 14
}

/// The text of a UUID whose bytes, in this order, are ASCII capitals and digits: HPE's ProLiants have product number
/// and serial number there. Whether it is a placeholder is decided as for a serial number. A UUID by RFC 9562 is never
/// such a text: its ninth byte is no ASCII. Of 16 random bytes, one in forty million million is nothing but capitals
/// and digits.
fn serial_in(bytes: &[u8; 16]) -> Option<String> {
    let in_ascii = bytes.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    in_ascii.then(|| bytes.iter().map(|byte| char::from(*byte)).collect())
}

/// Whether it begins with a maker's mark in ASCII, such as `RPi4`, or with placeholder text, and is no UUID by RFC 9562
/// in either byte order: every board of the kind begins like it. Dell's `4c4c4544` ("LLED") is one by the RFC and holds
/// the service tag. Random and time-based UUIDs are by the RFC, so none of them is lost; of random bytes that are not,
/// one in three hundred begins with four letters or digits, and one in three thousand with eight characters.
fn is_text(shown: &[u8; 16], swapped: &[u8; 16]) -> bool {
    let by_the_rfc = |bytes: &[u8; 16]| (1..=8).contains(&(bytes[6] >> 4)) && bytes[8] >> 6 == 2;
    let marked = shown[..4].iter().all(u8::is_ascii_alphanumeric);
    // The first eight bytes are the same ones in both orders.
    let told = shown[..8].iter().all(|byte| *byte == b' ' || byte.is_ascii_graphic());
    (marked || told) && !by_the_rfc(shown) && !by_the_rfc(swapped)
}

/// Whether an Ethernet address can tell machines apart: it is neither multicast nor one repeated byte.
#[must_use]
pub fn is_worthy_mac(mac: Mac) -> bool {
    let multicast = mac.0[0] & 1 == 1;
    let repeated = mac.0.iter().all(|byte| *byte == mac.0[0]);
    !multicast && !repeated
}

/// Whether an address is locally administered: assigned by software, and not by the maker of the network card.
fn is_local(mac: Mac) -> bool {
    mac.0[0] & 2 == 2
}

/// Whether a NIC is on USB: an adapter that is carried from machine to machine, or one that a BMC presents to its host,
/// often with the same address in many machines. The drivers are for reports that do not name the bus.
fn is_adapter(nic: &Nic) -> bool {
    const USB_DRIVERS: [&str; 18] = [
        "cdc_ether",
        "cdc_ncm",
        "cdc_eem",
        "cdc_mbim",
        "cdc_subset",
        "rndis_host",
        "r8152",
        "r8153_ecm",
        "ax88179_178a",
        "asix",
        "aqc111",
        "smsc75xx",
        "smsc95xx",
        "lan78xx",
        "dm9601",
        "mcs7830",
        "ipheth",
        "usbnet",
    ];
    nic.usb || USB_DRIVERS.contains(&nic.driver.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makers_left_in_is_worth_nothing() {
        for text in [
            "",
            " ",
            "0",
            "0000000",
            "To Be Filled By O.E.M.",
            "To be filled by O.E.M",
            "Default string",
            "Not Specified",
            "None",
            "N/A",
            "System Serial Number",
            "1234567890",
            "123456789",
            "0123456789",
            "012345678901234567",
            "0123456789ABCDEF",
            "abcdef",
            "XXXXXXXX",
            "........",
            "Chassis Serial Number",
            "INVALID",
        ] {
            assert_eq!(worthy(text), None, "{text}");
        }
        for text in [" CZC1234ABC ", "SN1", "LAB-0001", "VMware-56 4d 1b c4", "5", "1234"] {
            assert_eq!(worthy(text).is_some(), text != "5", "{text}");
        }
        assert_eq!(worthy(" CZC1234ABC "), Some("czc1234abc".to_owned()));
    }

    #[test]
    fn uuids_that_many_boards_share_are_found_by_rule() {
        for text in [
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "03000200-0400-0500-0006-000700080009",
            "00020003-0004-0005-0006-000700080009",
            "03020100-0504-0706-0809-0a0b0c0d0e0f",
            "10000000-0000-8000-0040-000000000000",
            "fefefefe-fefe-fefe-fefe-fefefefefefe",
            "fefefefe-fefe-fefe-fefe-fefefefefe01",
            "12345678-1234-5678-90ab-cddeefaabbcc",
            "12345678-1234-5678-1234-567812345678",
            "00112233-4455-6677-8899-aabbccddeeff",
            "00000000-0000-0000-0000-000000000001",
            "00000000-0000-0000-0000-ac1f6b123456",
            // A Raspberry Pi's option 97.
            "52506934-1431-c000-32b7-34d68a1b2c3d",
            // "To be filled by " in both byte orders.
            "546f2062-6520-6669-6c6c-656420627920",
            "62206f54-2065-6966-6c6c-656420627920",
            // "0123456789ABCDEF", "0000000000000000" and "SERIALNUMBER0000" in the order of HPE's.
            "33323130-3534-3736-3839-414243444546",
            "30303030-3030-3030-3030-303030303030",
            "49524553-4c41-554e-4d42-455230303030",
            "no UUID",
            "",
        ] {
            assert_eq!(uuid(text), None, "{text}");
        }
        for text in [
            "4c4c4544-0042-3510-8052-b4c04f4d4e32",
            "564d1bc4-9d3e-0f6a-77c1-2be9d0a48351",
            "a3b8c1d2-7f4e-4a90-9c36-5e1d0b72f8aa",
            // ProLiants: "P52534CZ2329024Y" and "864625CZ3904N3MG", product number and serial number.
            "35323550-3433-5a43-3233-323930323459",
            "36343638-3532-5a43-3339-30344e334d47",
            // The same with few different digits.
            "33333333-3333-5a43-3333-333333343530",
        ] {
            assert!(uuid(text).is_some(), "{text}");
        }
    }

    #[test]
    fn random_uuids_are_worth_something() {
        let mut seed = 7_u64;
        let random = std::iter::repeat_with(|| {
            let bytes: [u8; 16] = std::array::from_fn(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                u8::try_from(seed >> 56).unwrap()
            });
            let mut bytes = bytes;
            (bytes[6], bytes[8]) = (bytes[6] & 15 | 0x40, bytes[8] & 63 | 0x80);
            hex::encode(bytes)
        });
        let lost = random.take(20_000).filter(|text| uuid(text).is_none()).count();
        assert!(lost <= 4, "{lost} of 20,000");
    }

    #[test]
    fn two_proliants_are_two_and_option_97_names_each() {
        let in_a_report =
            ["35323550-3433-5a43-3233-323930323459", "35323550-3433-5a43-3233-323930333459"].map(uuid);
        assert!(in_a_report.iter().all(Option::is_some));
        assert_ne!(in_a_report[0], in_a_report[1]);
        // Firmware that does not swap.
        assert_eq!(in_a_report[0], uuid("50353235-3334-435a-3233-323930323459"));
    }

    #[test]
    fn a_uuid_matches_its_byte_swapped_form() {
        let shown = uuid("A3B8C1D2-7F4E-4A90-9C36-5E1D0B72F8AA");
        assert_eq!(shown, uuid("d2c1b8a3-4e7f-904a-9c36-5e1d0b72f8aa"));
        assert_ne!(shown, uuid("d2c1b8a3-4e7f-904a-9c36-5e1d0b72f8ab"));
    }
}
