//! A machine without other marks than addresses boots from a NIC that only a later report shows: the sighting of that
//! NIC is merged into it, but not on the strength of a report that anybody could forge.

use super::*;
use crate::fleet::boot_policy::BootPolicy;

/// A report of a machine with an OS on its disk, booted from the NICs whose addresses end in `booted`.
fn booted_by(marks: &Marks, booted: &[u8], key: &KeyPair) -> Arc<CheckedHardware> {
    let mut report = marks.report(key).report().clone();
    for disk in &mut report.disks {
        disk.contents = Contents::Bootable;
    }
    for nic in &mut report.nics {
        nic.boot = booted.contains(&nic.mac.0[5]);
    }
    Arc::new(CheckedHardware::check(report).unwrap())
}

fn asks_by(last: u8) -> Asker {
    Asker { mac: Some(mac(last)), ..Asker::default() }
}

fn asks(fleet: &mut Fleet, asker: Asker, now: Timestamp) {
    let (firmware, answer) =
        (crate::fleet::boot_policy::ClientKind::tftp("bios"), Answered::Proxy { file: None });
    fleet.sighting(Sighting::PowerOn { asker, firmware, answer, relay: None }, now);
}

/// The boot policy for a request from the address that ends in `last`, and the machine that it is taken for.
fn gets(fleet: &Fleet, last: u8) -> (Option<MachineId>, BootPolicy) {
    fleet.state.policies(true).of(&asks_by(last))
}

/// A fleet with machine 1, known by address 1 and sent to its own disk, and machine 2, only a sighting of `asker`.
fn met(asker: Asker) -> Fleet {
    let mut fleet = fleet();
    fleet.report(&booted_by(&Marks::bare(1), &[1], &key(1)), None, at(0));
    assert_eq!(gets(&fleet, 1), (Some(MachineId(1)), BootPolicy::BootDisk));
    asks(&mut fleet, asker, at(100));
    let sighting = &fleet.state.machines[&MachineId(2)];
    assert!(
        sighting.state == MachineState::Discovered
            && sighting.hardware.is_none()
            && sighting.labels.is_empty()
    );
    fleet
}

#[test]
fn a_machine_that_boots_by_a_new_nic_is_not_sent_the_loader_for_ever() {
    let mut fleet = met(asks_by(2));
    for round in 0..3 {
        let by_the_new_one = booted_by(&Marks::bare(1).with(2), &[2], &key(10 + round));
        assert_eq!(fleet.report(&by_the_new_one, None, at(200)).machine, MachineId(1));
        assert_eq!(gets(&fleet, 2), (Some(MachineId(1)), BootPolicy::BootDisk), "round {round}");
        asks(&mut fleet, asks_by(2), at(300));
    }
    assert_eq!(fleet.state.machines.len(), 1);
}

#[test]
fn a_sighting_is_not_swallowed_on_a_word_that_anybody_could_say() {
    let both = Marks::bare(1).with(2);
    let with_uuid = Asker { uuid: Some(UUIDS[2].to_owned()), ..asks_by(2) };
    let docked = Marks { macs: vec![(1, false), (2, true)], ..Marks::bare(1) };
    let rows: [(&str, Asker, Marks, &[u8]); 5] = [
        ("it booted by its old NIC", asks_by(2), both.clone(), &[1]),
        ("it booted by two at once", asks_by(2), both.clone(), &[1, 2]),
        ("what asked has a UUID", with_uuid, both.clone(), &[2]),
        ("by an adapter, which may go to another machine", asks_by(2), docked, &[2]),
        ("no disk in common", asks_by(2), Marks { disk: "OTHER".to_owned(), ..both.clone() }, &[2]),
    ];
    for (what, asker, marks, booted) in rows {
        let mut fleet = met(asker);
        fleet.report(&booted_by(&marks, booted, &key(66)), None, at(200));
        assert!(fleet.state.machines.contains_key(&MachineId(2)), "{what}");
        assert_eq!(gets(&fleet, 2).0, Some(MachineId(2)), "{what}");
    }
}

/// A command of an admin for machine 2.
type Word = fn(&mut Fleet);

#[test]
fn a_forged_report_does_not_swallow_what_an_admin_has_named_or_ordered_for() {
    let words: [(&str, Word); 3] = [
        ("named", |fleet| act(fleet, "m2", MachineAction::Name("db2".to_owned()), at(150)).unwrap()),
        ("approved", |fleet| act(fleet, "m2", MachineAction::Approve, at(150)).unwrap()),
        ("ordered", |fleet| order_for(fleet, MachineId(2), at(150))),
    ];
    for (what, say) in words {
        let mut fleet = met(asks_by(2));
        say(&mut fleet);
        let forged = booted_by(&Marks::bare(1).with(2), &[2], &key(66));
        let decided = fleet.report(&forged, None, at(200));
        assert!(matches!(decided.next, Next::Tell(_)), "{what}: no plan");
        let kept = fleet.state.machines.get(&MachineId(2)).is_some_and(|kept| kept.hardware.is_none());
        assert!(kept, "{what}");
        assert_eq!(gets(&fleet, 2), (Some(MachineId(2)), BootPolicy::Load), "{what}");
        assert!(!fleet.state.machines[&decided.machine].doubts.is_empty(), "{what}: an admin has to say");
    }
}
