//! Recognition of machines as a table: the marks on record, those of a report, and which machine it is.

use common::hardware::{Disk, Nic, System};
use common::testing;

use super::*;

const U: [&str; 3] = [
    "a3b8c1d2-7f4e-4a90-9c36-5e1d0b72f8aa",
    "564d1bc4-9d3e-0f6a-77c1-2be9d0a48351",
    "4c4c4544-0042-3510-8052-b4c04f4d4e32",
];

/// The marks of a machine: UUID, serial numbers of system and board, Ethernet addresses (some with a driver), serial
/// number of its disk.
#[derive(Debug, Clone, Copy)]
struct Is(&'static str, &'static str, &'static str, &'static [&'static str], &'static str);

fn nic(text: &str) -> Nic {
    let (mac, driver) = text.split_once(' ').unwrap_or((text, "e1000e"));
    Nic {
        name: "eth0".to_owned(),
        driver: driver.to_owned(),
        link: true,
        ..testing::nic(format!("00:1b:21:00:00:{mac}").parse().or_else(|_| mac.parse()).unwrap())
    }
}

fn report(is: Is) -> HardwareReport {
    let Is(uuid, system, board, macs, disk) = is;
    let disk = Disk { serial: disk.to_owned(), ..testing::disk("sda") };
    HardwareReport {
        system: System {
            uuid: uuid.to_owned(),
            serial: system.to_owned(),
            board_serial: board.to_owned(),
            ..System::default()
        },
        disks: if disk.serial.is_empty() { vec![] } else { vec![disk] },
        nics: macs.iter().map(|mac| nic(mac)).collect(),
        ..testing::report()
    }
}

/// Which machine `shown` is recognised as, where `known` are machines 1, 2, … that have reported.
fn who(known: &[Is], shown: Is) -> String {
    let reports: Vec<HardwareReport> = known.iter().map(|is| report(*is)).collect();
    let prints: Vec<Fingerprint> = reports.iter().map(Fingerprint::of).collect();
    let candidates: Vec<Candidate<'_>> = (1..)
        .zip(reports.iter().zip(&prints))
        .map(|(id, (report, print))| Candidate {
            id: MachineId(id),
            print,
            hardware: Some(report),
            doubted: false,
            claimed: false,
        })
        .collect();
    let shown = report(shown);
    let others =
        |doubts: Vec<Doubt>| -> String { doubts.iter().map(|doubt| format!(" {}", doubt.other)).collect() };
    match recognise(&Fingerprint::of(&shown), &shown, &candidates, None) {
        Who::Known { machine, doubts, .. } if doubts.is_empty() => machine.to_string(),
        Who::Known { doubts, .. } | Who::New { doubts } if !doubts.is_empty() => {
            format!("in doubt with{}", others(doubts))
        }
        _ => "new".to_owned(),
    }
}

#[test]
fn who_is_who() {
    let table: &[(&str, &[Is], Is, &str)] = &[
        (
            "same in everything",
            &[Is(U[0], "S1", "B1", &["01"], "D1")],
            Is(U[0], "S1", "B1", &["01"], "D1"),
            "m1",
        ),
        (
            "a UUID byte-swapped",
            &[Is(U[0], "", "", &["01"], "")],
            Is("d2c1b8a3-4e7f-904a-9c36-5e1d0b72f8aa", "", "", &["01"], ""),
            "m1",
        ),
        (
            "E5n: NIC replaced, UUID and serial the same",
            &[Is(U[0], "S1", "", &["01"], "")],
            Is(U[0], "S1", "", &["09"], ""),
            "m1",
        ),
        ("a NIC added", &[Is(U[0], "", "", &["01"], "")], Is(U[0], "", "", &["01", "02"], ""), "m1"),
        (
            "E5n: NIC replaced, system serial the same, no UUID",
            &[Is("", "S1", "", &["01"], "D1")],
            Is("", "S1", "", &["09"], "D1"),
            "in doubt with m1",
        ),
        (
            "NIC replaced, UUID the same",
            &[Is(U[0], "", "", &["01"], "")],
            Is(U[0], "", "", &["09"], ""),
            "in doubt with m1",
        ),
        (
            "E5a: the UUID follows the NICs",
            &[Is(U[0], "", "B1", &["01", "02"], "D1")],
            Is(U[1], "", "B1", &["02", "03"], "D1"),
            "m1",
        ),
        (
            "as E5a, other disks",
            &[Is(U[0], "", "B1", &["01", "02"], "D1")],
            Is(U[1], "", "B1", &["02", "03"], "D2"),
            "in doubt with m1",
        ),
        (
            "UUID changed by a firmware update",
            &[Is(U[0], "S1", "B1", &["01"], "")],
            Is(U[1], "S1", "B1", &["01"], ""),
            "m1",
        ),
        (
            "E5b: a new board",
            &[Is(U[0], "S1", "B1", &["01", "02"], "D1")],
            Is(U[1], "S1", "B2", &["09"], "D1"),
            "in doubt with m1",
        ),
        (
            "E5c: a board's serial number in two machines",
            &[Is(U[0], "", "B1", &["01"], "D1")],
            Is(U[1], "", "B1", &["02"], "D2"),
            "new",
        ),
        (
            "C4n: a UUID in two machines",
            &[Is(U[0], "S1", "", &["01"], "")],
            Is(U[0], "S2", "", &["02"], ""),
            "new",
        ),
        (
            "a UUID that two have shown is worthless",
            &[Is(U[0], "", "", &["01"], ""), Is(U[0], "", "", &["02"], "")],
            Is(U[0], "", "", &["03"], ""),
            "new",
        ),
        (
            "and does not hide them",
            &[Is(U[0], "", "", &["01"], ""), Is(U[0], "", "", &["02"], "")],
            Is(U[0], "", "", &["02"], ""),
            "m2",
        ),
        (
            "NIC moved to another machine",
            &[Is(U[0], "S1", "B1", &["01"], "")],
            Is(U[1], "S2", "B2", &["01"], ""),
            "in doubt with m1",
        ),
        (
            "C1: fewer marks than on record",
            &[Is(U[0], "S1", "", &["01"], "")],
            Is("", "", "", &["01"], ""),
            "in doubt with m1",
        ),
        (
            "C1: the UUID is missing",
            &[Is(U[0], "S1", "", &["01"], "")],
            Is("", "S1", "", &["01"], ""),
            "in doubt with m1",
        ),
        (
            "C1: marks of two",
            &[Is("", "", "", &["01"], ""), Is("", "", "", &["02"], "")],
            Is("", "", "", &["01", "02"], ""),
            "in doubt with m1 m2",
        ),
        (
            "C1: marks of two, one of them whole",
            &[Is(U[0], "S1", "", &["01"], ""), Is(U[1], "S2", "", &["02"], "")],
            Is(U[0], "S1", "", &["01", "02"], ""),
            "in doubt with m1 m2",
        ),
        (
            "C1: marks that were not there",
            &[Is("", "", "", &["01"], "")],
            Is(U[1], "S2", "", &["01"], ""),
            "in doubt with m1",
        ),
        (
            "addresses are all there is",
            &[Is("", "", "", &["02:00:00:00:00:01"], "")],
            Is("", "", "", &["02:00:00:00:00:01"], ""),
            "m1",
        ),
        ("a second address", &[Is("", "", "", &["01"], "")], Is("", "", "", &["01", "02"], ""), "m1"),
        (
            "one of its addresses only",
            &[Is("", "", "", &["01", "02"], "")],
            Is("", "", "", &["02"], ""),
            "in doubt with m1",
        ),
        (
            "its address, but other disks",
            &[Is("", "", "", &["01"], "D1")],
            Is("", "", "", &["01"], "D2"),
            "in doubt with m1",
        ),
        (
            "C2: an adapter went to another laptop",
            &[Is(U[0], "A", "", &["09 r8152"], "D1")],
            Is(U[1], "B", "", &["09 r8152"], "D2"),
            "new",
        ),
        (
            "C3: a gadget of the BMC",
            &[Is("", "", "", &["02:00:00:00:00:01", "02:aa:aa:aa:aa:aa cdc_ether"], "C3A")],
            Is("", "", "", &["02:00:00:00:00:02", "02:aa:aa:aa:aa:aa cdc_ether"], "C3B"),
            "new",
        ),
        (
            "C3: and it is still itself",
            &[Is("", "", "", &["02:00:00:00:00:01", "02:aa:aa:aa:aa:aa cdc_ether"], "C3A")],
            Is("", "", "", &["02:00:00:00:00:01", "02:aa:aa:aa:aa:aa cdc_ether"], "C3A"),
            "m1",
        ),
        (
            "a local address beside universal ones",
            &[Is("", "", "", &["01", "02:aa:aa:aa:aa:aa"], "")],
            Is("", "", "", &["02", "02:aa:aa:aa:aa:aa"], ""),
            "new",
        ),
        (
            "C4: a placeholder and a dock in common",
            &[Is("03020100-0504-0706-0809-0a0b0c0d0e0f", "", "", &["01", "99 r8152"], "")],
            Is("03020100-0504-0706-0809-0a0b0c0d0e0f", "", "", &["02", "99 r8152"], ""),
            "new",
        ),
        (
            "an adapter is all there is, the disk is the same",
            &[Is("", "", "", &["09 r8152"], "D1")],
            Is("", "", "", &["09 r8152"], "D1"),
            "m1",
        ),
        (
            "an adapter is all there is, another disk",
            &[Is("", "", "", &["09 r8152"], "D1")],
            Is("", "", "", &["09 r8152"], "D2"),
            "new",
        ),
        ("nothing in common", &[Is("", "S1", "", &["01"], "")], Is("", "", "B1", &["02"], ""), "new"),
        (
            "placeholders are no marks",
            &[Is("", "Default string", "To be filled by O.E.M.", &[], "")],
            Is("", "Default string", "To be filled by O.E.M.", &[], ""),
            "new",
        ),
    ];
    let wrong: Vec<String> = table
        .iter()
        .filter_map(|(what, known, shown, wanted)| {
            let got = who(known, *shown);
            (got != *wanted).then(|| format!("{what}: {got}, wanted {wanted}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
