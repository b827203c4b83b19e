//! Rows that cannot be read are set aside and named; all others are read.

use super::*;

#[test]
fn what_cannot_be_read_is_set_aside_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.sqlite");
    let mut records = Records::open(&path).unwrap();
    let mut fleet = Fleet::new(records.load().unwrap(), settings());
    let now = Timestamp::from_second(1_000_000).unwrap();
    for machine in 1..4 {
        perform(&mut fleet, Deed::Report(machine, 0), 1, now);
    }
    for machine in 1..4 {
        perform(&mut fleet, Deed::Order(machine), 1, now);
    }
    records.commit(&fleet.take_effects().changes).unwrap();
    let spoil = [
        "update hardware set report = replace(report, '\"version\":1', '\"version\":99') where machine = 1",
        "update machines set state = 'haunted' where id = 2",
        "update deployments set demand = '{' where id = 3",
        "insert into marks (mac, machine, weak) values ('no address', 1, 0)",
    ];
    for sql in spoil {
        assert_eq!(records.connection.execute(sql, []).unwrap(), 1, "{sql}");
    }
    let state = records.load().unwrap();
    assert_eq!(state.machines.len(), 2);
    assert!(state.machines[&MachineId(1)].hardware.is_none());
    assert!(state.machines[&MachineId(3)].hardware.is_some());
    assert_eq!(state.jobs.len(), 1, "those whose machine or order is not there wait with it");
    assert_eq!(
        (state.last_machine, state.last_job, state.last_deployment),
        (3, 3, 3),
        "no number is given twice"
    );
    let named = named(&state);
    for what in ["hardware of machine m1", "machine 2", "deployment 3", "no address", "job j2", "job j3"] {
        assert!(named.contains(what), "{what} is not named in:\n{named}");
    }
}

/// In SQLite a column can hold values of any type: here another program wrote a row of each table so.
#[test]
fn a_value_of_another_type_is_set_aside_and_costs_no_later_write() {
    let dir = tempfile::tempdir().unwrap();
    let mut records = Records::open(&dir.path().join("records.sqlite")).unwrap();
    let mut fleet = Fleet::new(records.load().unwrap(), settings());
    let now = Timestamp::from_second(1_000_000).unwrap();
    for machine in 1..3 {
        perform(&mut fleet, Deed::Report(machine, 0), 1, now);
    }
    records.commit(&fleet.take_effects().changes).unwrap();
    let spoil = [
        "insert into labels (machine, name, content) values (1, 'room', x'ff')",
        "insert into labels (machine, name, content) values (1, x'ff', 'attic')",
        "update marks set weak = x'ff' where machine = 1",
        "insert into counters (name, last) values (x'ff', 9)",
    ];
    for sql in spoil {
        assert_eq!(records.connection.execute(sql, []).unwrap(), 1, "{sql}");
    }
    let mut fleet = Fleet::new(records.load().unwrap(), settings());
    assert_eq!(fleet.state.machines.len(), 2);
    let named = named(&fleet.state);
    for what in ["a label", "an Ethernet address", "the last number given"] {
        assert!(named.contains(what), "{what} is not named in:\n{named}");
    }
    // The machine reports again, and an admin sets its label again: that repairs both rows.
    perform(&mut fleet, Deed::Report(1, 0), 1, now);
    let set = [("room".to_owned(), "cellar".to_owned())].into();
    perform(&mut fleet, Deed::Act(1, MachineAction::Label { set, remove: vec![] }), 1, now);
    records.commit(&fleet.take_effects().changes).unwrap();
    let again = records.load().unwrap();
    let machine = &again.machines[&MachineId(1)];
    assert_eq!(machine.labels.get("room").map(String::as_str), Some("cellar"));
    assert!(!machine.fingerprint.macs.is_empty());
}

#[test]
fn a_freeze_that_cannot_be_read_holds_until_it_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let now = Timestamp::from_second(1_000_000).unwrap();
    for spoiled in ["('yesterday', null)", "(9223372036854775807, 'audit')", "(1000, x'ff')"] {
        let mut records = Records::open(&dir.path().join("records.sqlite")).unwrap();
        let sql = format!("insert into frozen (since, reason) values {spoiled}");
        assert_eq!(records.connection.execute(&sql, []).unwrap(), 1);
        let mut fleet = Fleet::new(records.load().unwrap(), settings());
        let frozen = fleet.state.frozen.clone().expect("what cannot be read counts as a freeze");
        assert!(frozen.to_string().contains("cannot be read"), "{frozen}");
        let warned = fleet.warnings().join("\n");
        assert!(warned.contains("the freeze") && warned.contains("deploy unfreeze"), "{warned}");
        assert_eq!(fleet.freeze(false, None, now), None);
        assert_eq!(fleet.warnings(), [""; 0], "it is put right");
        records.commit(&fleet.take_effects().changes).unwrap();
        let again = records.load().unwrap();
        assert_eq!((again.frozen, again.set_aside), (None, vec![]));
    }
}
