//! Another machine shows marks or the name of a machine or replays its reports, by malice or because a GUID or an
//! adapter is shared: that takes no marks, plans or attempts from it.

use super::*;

#[test]
fn c1_a_stranger_cannot_give_an_ordered_machine_the_marks_of_another() {
    // V has all marks or only its address; W was never seen, was seen by DHCP, or has reported.
    for (whole, seen) in [(true, 0), (true, 1), (true, 2), (false, 0), (false, 1), (false, 2)] {
        let mut fleet = fleet();
        let v = if whole { Marks::whole(1) } else { Marks::bare(1) };
        let w = Marks::whole(2);
        report(&mut fleet, &v, &key(1), at(0));
        order_for(&mut fleet, MachineId(1), at(1));
        let asker = Asker { mac: Some(mac(2)), uuid: None, serial: None };
        match seen {
            1 => {
                let (firmware, answer) =
                    (crate::fleet::boot_policy::ClientKind::tftp("bios"), Answered::Proxy { file: None });
                fleet.sighting(Sighting::PowerOn { asker, firmware, answer, relay: None }, at(1));
            }
            2 => drop(report(&mut fleet, &w, &key(2), at(1))),
            _ => {}
        }
        report(&mut fleet, &Marks::bare(1).with(2), &key(66), at(2));
        report(&mut fleet, &Marks::bare(2), &key(66), at(3));
        let honest = report(&mut fleet, &w, &key(22), at(4));
        assert!(matches!(honest, Got::Told(id) if id != MachineId(1)), "{whole} {seen}: {honest:?}");
        let bare = report(&mut fleet, &Marks::bare(2), &key(23), at(5));
        assert!(matches!(bare, Got::Told(id) if id != MachineId(1)), "{whole} {seen}: {bare:?}");
        // V is still recognised as V, once the forged agent is silent.
        fleet.boots.age();
        let honest = report(&mut fleet, &v, &key(11), at(1000));
        assert!(matches!(honest, Got::Plan(MachineId(1), _)), "{whole} {seen}: {honest:?}");
    }
}

#[test]
fn c1_marks_of_a_machine_are_neither_replaced_nor_made_worthless() {
    let mut fleet = fleet();
    let (v, stranger) = (Marks::bare(1), Marks { macs: vec![(1, false)], ..Marks::whole(3) });
    report(&mut fleet, &v, &key(1), at(0));
    assert_eq!(
        report(&mut fleet, &stranger, &key(66), at(1)),
        Got::Told(MachineId(2)),
        "a record of its own"
    );
    let doubts = &fleet.state.machines[&MachineId(2)].doubts;
    assert_eq!(doubts[0].other, MachineId(1));
    let warning = fleet.state.policies(true).warning().unwrap();
    assert!(warning.contains(": m2;"), "{warning}");
    order_for(&mut fleet, MachineId(1), at(2));
    assert!(matches!(report(&mut fleet, &v, &key(11), at(3)), Got::Plan(MachineId(1), 1)));
    order_for(&mut fleet, MachineId(2), at(4));
    assert_eq!(
        report(&mut fleet, &stranger, &key(66), at(5)),
        Got::Told(MachineId(2)),
        "found again, no plan"
    );
}

#[test]
fn c1_a_boot_key_confirms_an_identity_and_never_replaces_it() {
    let mut fleet = fleet();
    let open = serde_json::json!({"image": "debian", "selection": {"labels": []}, "open": true});
    report(&mut fleet, &Marks::whole(2), &key(2), at(0));
    order(&mut fleet, open, at(0));
    let stranger = key(66);
    let got = report(&mut fleet, &Marks::whole(3), &stranger, at(1));
    assert!(matches!(got, Got::Plan(MachineId(2), 1)), "{got:?}");
    assert_eq!(report(&mut fleet, &Marks::whole(2), &stranger, at(2)), Got::Told(MachineId(2)));
    assert_eq!(fleet.state.machines[&MachineId(2)].fingerprint.system_serial.as_deref(), Some("sn-3"));
    let got = report(&mut fleet, &Marks::whole(3).with(9), &stranger, at(3));
    assert!(matches!(got, Got::Plan(MachineId(2), 1)), "a NIC that came up later: {got:?}");
}

#[test]
fn c2_a_name_is_no_id_address_or_serial_number() {
    for name in ["m1", "SN-1", "db1", "00-1b-21-00-00-01"] {
        let mut fleet = fleet();
        report(&mut fleet, &Marks::whole(1), &key(1), at(0));
        act(&mut fleet, "m1", MachineAction::Name("db1".to_owned()), at(0)).unwrap();
        order_for(&mut fleet, MachineId(1), at(1));
        let nameless = Marks { name: Some(name.to_owned()), disk: "D".to_owned(), ..Marks::default() };
        assert_eq!(report(&mut fleet, &nameless, &key(66), at(2)), Got::Told(MachineId(2)), "{name}");
        let dressed = Marks { name: Some(name.to_owned()), ..Marks::whole(1) };
        assert!(matches!(report(&mut fleet, &dressed, &key(67), at(3)), Got::Told(id) if id != MachineId(1)));
        assert!(matches!(report(&mut fleet, &Marks::whole(1), &key(11), at(4)), Got::Plan(MachineId(1), 1)));
    }
}

#[test]
fn c2_two_agents_of_one_name_do_not_take_turns() {
    let mut fleet = fleet();
    let named =
        |disk: &str| Marks { name: Some("ct-1".to_owned()), disk: disk.to_owned(), ..Marks::default() };
    report(&mut fleet, &named("A"), &key(1), at(0));
    order_for(&mut fleet, MachineId(1), at(1));
    assert_eq!(report(&mut fleet, &named("A"), &key(1), at(2)), Got::Plan(MachineId(1), 1));
    assert_eq!(report(&mut fleet, &named("B"), &key(2), at(3)), Got::AtWork(MachineId(1)));
    assert_eq!(report(&mut fleet, &named("A"), &key(1), at(4)), Got::Plan(MachineId(1), 1), "undisturbed");
    let renamed = MachineAction::Name("spare".to_owned());
    act(&mut fleet, "ct-1", renamed, at(5)).unwrap();
    assert_eq!(report(&mut fleet, &named("A"), &key(1), at(6)), Got::Plan(MachineId(1), 1));
    assert_eq!(
        report(&mut fleet, &named("A"), &key(3), at(900)),
        Got::Plan(MachineId(1), 2),
        "after silence"
    );
}

#[test]
fn h8_a_report_does_not_end_an_installation() {
    let mut fleet = fleet();
    let v = Marks::whole(1);
    let (old, own, forged) = (key(1), key(2), key(66));
    report(&mut fleet, &v, &old, at(0));
    order_for(&mut fleet, MachineId(1), at(1));
    assert_eq!(report(&mut fleet, &v, &own, at(100)), Got::Plan(MachineId(1), 1));
    // A replayed report of an earlier boot.
    let replayed = Arrival { address: None, begun: at(0), gone: true };
    assert_eq!(arrive(&mut fleet, &v, &old, replayed, at(5000)), Got::Told(MachineId(1)));
    let tell = |fleet: &mut Fleet, number, now| {
        let what = What::Progress { done: number, total: 100 };
        let event = common::step::StepEvent { number, at_ms: 0, step: Step::Transfer, what, sources: None };
        let batch = common::step::EventBatch {
            key: own.public(),
            job: Some(JobId(1)),
            attempt: Some(1),
            sent_at_ms: 0,
            events: vec![event],
        };
        fleet.events(batch, now).is_ok()
    };
    for round in 0..20 {
        let now = at(110 + i64::from(round) * 30);
        assert!(tell(&mut fleet, u64::try_from(round).unwrap() + 1, now));
        assert_eq!(report(&mut fleet, &v, &forged, now), Got::AtWork(MachineId(1)));
        let gone = Arrival { address: None, begun: now, gone: true };
        assert_eq!(arrive(&mut fleet, &v, &forged, gone, now), Got::AtWork(MachineId(1)));
    }
    // It loses power at 680 s: the next boot continues, sooner if the agent's connection is known to be closed.
    let next = key(3);
    assert_eq!(report(&mut fleet, &v, &next, at(725)), Got::AtWork(MachineId(1)));
    let gone = |now| Arrival { address: None, begun: now, gone: true };
    assert_eq!(arrive(&mut fleet, &v, &next, gone(at(700)), at(700)), Got::AtWork(MachineId(1)));
    assert_eq!(arrive(&mut fleet, &v, &next, gone(at(725)), at(725)), Got::Plan(MachineId(1), 2));
    let late = key(4);
    assert_eq!(report(&mut fleet, &v, &late, at(725 + 119)), Got::AtWork(MachineId(1)));
    assert_eq!(report(&mut fleet, &v, &late, at(725 + 121)), Got::Plan(MachineId(1), 3));
}

#[test]
fn a4n_two_small_boards_with_one_guid_are_two() {
    let mut fleet = fleet();
    for last in [1, 2] {
        let uuid = Some("52506934-1431-c000-32b7-34d68a1b2c3d".to_owned());
        let asker = Asker { mac: Some(mac(last)), uuid, serial: None };
        let (firmware, answer) =
            (crate::fleet::boot_policy::ClientKind::tftp("bios"), Answered::Proxy { file: None });
        fleet.sighting(Sighting::PowerOn { asker, firmware, answer, relay: None }, at(0));
    }
    assert_eq!(fleet.state.machines.len(), 2);
}

#[test]
fn c2_the_log_names_nobody_else_for_an_adapter_that_went_on() {
    let mut fleet = fleet();
    let laptop = |n| Marks { macs: vec![(9, true)], ..Marks::whole(n) };
    report(&mut fleet, &laptop(1), &key(1), at(0));
    let asker = Asker { mac: Some(mac(9)), uuid: Some(UUIDS[2].to_owned()), serial: None };
    let (firmware, answer) =
        (crate::fleet::boot_policy::ClientKind::tftp("uefi x64"), Answered::Proxy { file: None });
    fleet.sighting(Sighting::PowerOn { asker: asker.clone(), firmware, answer, relay: None }, at(1));
    let events = fleet.take_effects().changes;
    let named = |change: &Change| match change {
        Change::Event(event) if event.step == Step::PowerOn => event.machine,
        _ => None,
    };
    assert_eq!(events.iter().find_map(named), Some(MachineId(2)));
    assert_eq!(report(&mut fleet, &laptop(2), &key(2), at(2)), Got::Told(MachineId(2)));
    assert!(fleet.state.machines[&MachineId(2)].doubts.is_empty());
    order_for(&mut fleet, MachineId(2), at(3));
    assert_eq!(fleet.state.policies(true).of(&asker).0, Some(MachineId(2)));
    assert_eq!(report(&mut fleet, &laptop(2), &key(3), at(4)), Got::Plan(MachineId(2), 1));
}
