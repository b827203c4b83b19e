//! Doubts about a machine's identity end when an admin settles them, and do not come back.

use super::*;

#[test]
fn e5_a_machine_with_a_new_board_is_merged_by_name() {
    let mut fleet = fleet();
    let known = Marks::whole(1);
    let rebuilt = Marks { uuid: UUIDS[2], macs: vec![(9, false)], ..known.clone() };
    report(&mut fleet, &known, &key(1), at(0));
    act(&mut fleet, "m1", MachineAction::Name("db1".to_owned()), at(0)).unwrap();
    let label = MachineAction::Label { set: [("role".to_owned(), "db".to_owned())].into(), remove: vec![] };
    act(&mut fleet, "m1", label, at(0)).unwrap();
    order_for(&mut fleet, MachineId(1), at(1));
    assert_eq!(report(&mut fleet, &rebuilt, &key(2), at(2)), Got::Told(MachineId(2)));
    let merge = |into: &str| MachineAction::Merge { into: into.to_owned() };
    assert!(act(&mut fleet, "m2", merge("m2"), at(3)).is_err());
    assert!(act(&mut fleet, "m2", merge("m9"), at(3)).is_err());
    act(&mut fleet, "m2", merge("db1"), at(3)).unwrap();
    assert!(!fleet.state.machines.contains_key(&MachineId(2)));
    let merged = &fleet.state.machines[&MachineId(1)];
    assert_eq!((merged.name.as_deref(), merged.labels["role"].as_str()), (Some("db1"), "db"));
    assert!(merged.doubts.is_empty());
    assert_eq!(report(&mut fleet, &rebuilt, &key(2), at(4)), Got::Plan(MachineId(1), 1), "its order stands");
    // The old board in another case is a new machine.
    let scrap = Marks { serial: "SN-OTHER".to_owned(), disk: "OTHER".to_owned(), ..known };
    assert_eq!(report(&mut fleet, &scrap, &key(5), at(5)), Got::Told(MachineId(3)));
    assert!(fleet.state.machines[&MachineId(3)].doubts.is_empty());
}

#[test]
fn a_released_doubt_does_not_come_back() {
    let mut fleet = fleet();
    let (first, second) = (Marks::whole(1), Marks { macs: vec![(1, false), (2, false)], ..Marks::whole(2) });
    report(&mut fleet, &first, &key(1), at(0));
    assert_eq!(report(&mut fleet, &second, &key(2), at(1)), Got::Told(MachineId(2)));
    assert_eq!(fleet.state.machines[&MachineId(2)].doubts.len(), 1);
    order_for(&mut fleet, MachineId(2), at(2));
    assert!(fleet.state.newest_job(MachineId(2)).is_none(), "it takes no order while it is in doubt");
    act(&mut fleet, "m2", MachineAction::Release, at(3)).unwrap();
    for boot in 3..6 {
        assert_eq!(report(&mut fleet, &second, &key(boot), at(4)), Got::Told(MachineId(2)));
        assert!(fleet.state.machines[&MachineId(2)].doubts.is_empty());
        assert_eq!(report(&mut fleet, &first, &key(10 + boot), at(4)), Got::Told(MachineId(1)));
    }
    order_for(&mut fleet, MachineId(2), at(5));
    assert_eq!(report(&mut fleet, &second, &key(7), at(6)), Got::Plan(MachineId(2), 1));
    act(&mut fleet, "m1", MachineAction::Forget, at(7)).unwrap();
    assert_eq!(fleet.state.machines.len(), 1);
}

#[test]
fn forgetting_the_other_machine_settles_a_doubt() {
    let mut fleet = fleet();
    report(&mut fleet, &Marks::whole(1), &key(1), at(0));
    let heir = Marks { uuid: UUIDS[2], macs: vec![(9, false)], ..Marks::whole(1) };
    report(&mut fleet, &heir, &key(2), at(1));
    assert!(!fleet.state.machines[&MachineId(2)].doubts.is_empty());
    act(&mut fleet, "m1", MachineAction::Forget, at(2)).unwrap();
    assert!(fleet.state.machines[&MachineId(2)].doubts.is_empty());
}
