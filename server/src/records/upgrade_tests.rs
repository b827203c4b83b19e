//! The upgrade of records that commit 837dfd5 wrote: machines are still recognised.

use std::sync::Arc;

use common::hardware::{CheckedHardware, HardwareReport, Nic};
use common::id::MachineId;
use common::trust::KeyPair;

use super::*;
use crate::fleet::decide::Fleet;

fn key(n: u8) -> KeyPair {
    KeyPair::from_secret([n; 32])
}

/// Machines known by UUID and serial number, by an address alone, by an adapter, with a placeholder that counted as a
/// UUID then, by a UUID in the other byte order, by name, and by a sighting: each reports again, under new keys.
#[test]
fn machines_keep_their_names_after_the_upgrade() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.sqlite");
    let text = include_str!("fixture_837dfd5.sql").replace("ed25519:KEY", &key(1).public().to_string());
    Connection::open(&path).unwrap().execute_batch(&text).unwrap();
    let mut records = Records::open(&path).unwrap();
    let state = records.load().unwrap();
    let names = |state: &State| -> Vec<(MachineId, Option<String>)> {
        state.machines.values().map(|machine| (machine.id, machine.name.clone())).collect()
    };
    let before = names(&state);
    assert_eq!(before.len(), 7);
    let reports: Vec<(MachineId, HardwareReport)> = state
        .machines
        .values()
        .filter_map(|machine| Some((machine.id, machine.hardware.as_ref()?.report().clone())))
        .collect();
    let settings = crate::fleet::testing::settings();
    let mut fleet = Fleet::new(state, settings);
    let now = Timestamp::from_second(2_000_000).unwrap();
    for boot in 1..4 {
        for (id, report) in &reports {
            let mut report = report.clone();
            report.key = key(u8::try_from(id.0).unwrap() * 10 + boot).public();
            let hardware = Arc::new(CheckedHardware::check(report).unwrap());
            assert_eq!(fleet.report(&hardware, None, now).machine, *id, "boot {boot}");
            assert!(fleet.state.machines[id].doubts.is_empty(), "{id}");
        }
    }
    // The sighting that was named reports for the first time.
    let mut seventh = reports[1].1.clone();
    seventh.key = key(99).public();
    seventh.system.serial = "SN-7".to_owned();
    seventh.disks[0].serial = "D7".to_owned();
    seventh.nics = vec![Nic { mac: "00:1b:21:00:00:07".parse().unwrap(), ..seventh.nics[0].clone() }];
    let hardware = Arc::new(CheckedHardware::check(seventh).unwrap());
    assert_eq!(fleet.report(&hardware, None, now).machine, MachineId(7));
    assert_eq!(names(&fleet.state), before);
    records.commit(&fleet.take_effects().changes).unwrap();
    let again = records.load().unwrap();
    assert_eq!(names(&again), before);
    assert_eq!(again.machines[&MachineId(1)].labels["role"], "r1");
}

/// The oldest records that there are, as they were written.
fn oldest(path: &Path) {
    let text = include_str!("fixture_837dfd5.sql").replace("ed25519:KEY", &key(1).public().to_string());
    Connection::open(path).unwrap().execute_batch(&text).unwrap();
}

/// A process that is killed between two steps leaves the earlier ones done; one that is killed within a step leaves
/// nothing of it. The next start goes on from there, to the same records.
#[test]
fn an_upgrade_that_was_interrupted_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    oldest(&whole);
    let first = schema::found(&Connection::open(&whole).unwrap(), &whole).unwrap();
    drop(Records::open(&whole).unwrap());
    let wanted = tests::written_before::rows(&whole);
    assert!(first < schema::newest(), "there is something to upgrade");
    for done in first..schema::newest() {
        let path = dir.path().join(format!("killed after {done}"));
        oldest(&path);
        let mut connection = Connection::open(&path).unwrap();
        schema::migrate_until(&mut connection, &path, first, done).unwrap();
        // Within the next one: what it did is in the file's journal, and no commit follows.
        let transaction = connection.transaction().unwrap();
        transaction.execute_batch("create table half_a_step (n bigint); delete from machines").unwrap();
        drop(transaction);
        drop(connection);
        assert_eq!(schema::found(&Connection::open(&path).unwrap(), &path).unwrap(), done);
        drop(Records::open(&path).unwrap());
        assert_eq!(tests::written_before::rows(&path), wanted, "killed after step {done}");
    }
}
