//! Records that the version before issue 16 wrote: they are read without loss, and written again byte for byte. Records
//! of a later version are left unchanged. The fixture was written by the code of commit aa0dcaf.

use common::plan::{DiskIdentity, Finish};

use super::*;
use crate::api::shapes::{JobState, MachineState};
use crate::dhcp4::LeaseState;
use crate::fleet::job::Confirm;

/// A database as aa0dcaf left it.
fn fixture(dir: &Path) -> PathBuf {
    let path = dir.join("records.sqlite");
    let connection = Connection::open(&path).unwrap();
    // The fixture has the tables in the order of their names, so a row may come before the one that it refers to.
    connection.pragma_update(None, "foreign_keys", "off").unwrap();
    connection.execute_batch(include_str!("../fixture_aa0dcaf.sql")).unwrap();
    path
}

/// Every row of every table, as text in a fixed order.
pub(in crate::records) fn rows(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    // The versions of the schema differ: a later step adds tables, and columns that are null in earlier rows. A column that
    // is null everywhere is left out.
    let tables =
        "select name from sqlite_master where type = 'table' and name <> 'schema_version' order by name";
    let tables: Vec<String> = all(&connection, tables, |row| row.get(0));
    let of = |table: &String| {
        let columns: Vec<String> =
            all(&connection, &format!("select name from pragma_table_info('{table}')"), |row| row.get(0));
        let used = |column: &String| {
            let sql = format!("select count({column}) from {table}");
            connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap() > 0
        };
        let columns: Vec<String> = columns.into_iter().filter(used).collect();
        if columns.is_empty() {
            return vec![];
        }
        let quoted: Vec<String> = columns.iter().map(|column| format!("quote({column})")).collect();
        let sql = format!("select {} from {table} order by 1, 2", quoted.join(" || ', ' || "));
        let sql = if columns.len() == 1 { sql.replace(", 2", "") } else { sql.replace("1, 2", "1") };
        let rows: Vec<String> = all(&connection, &sql, |row| row.get(0));
        rows.into_iter().map(|row| format!("{table}: {row}")).collect::<Vec<_>>()
    };
    tables.iter().flat_map(of).collect()
}

fn all<T>(
    connection: &Connection,
    sql: &str,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Vec<T> {
    let mut statement = connection.prepare(sql).unwrap();
    statement.query_map([], read).unwrap().collect::<rusqlite::Result<_>>().unwrap()
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_000 + seconds * 1000 + 7).unwrap()
}

#[test]
fn what_was_recorded_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let records = Records::open(&fixture(dir.path())).unwrap();
    let state = records.load().unwrap();
    assert!(state.set_aside.is_empty(), "{}", named(&state));
    let numbers = (state.last_event, state.last_machine, state.last_job, state.last_deployment);
    assert_eq!(numbers, (8, 9, 8, 4), "the forgotten machine's number is not given again");
    let states: Vec<MachineState> = state.machines.values().map(|machine| machine.state).collect();
    let wanted = [
        MachineState::Deploying,
        MachineState::Inspected,
        MachineState::Discovered,
        MachineState::Approved,
        MachineState::Deployed,
        MachineState::Failed,
        MachineState::Rejected,
        MachineState::Retired,
    ];
    assert_eq!(states, wanted);
    let states: Vec<JobState> = state.jobs.values().map(|job| job.state).collect();
    let wanted = [
        JobState::Running,
        JobState::Ordered,
        JobState::Written,
        JobState::Deployed,
        JobState::Failed,
        JobState::Refused,
        JobState::Cancelled,
    ];
    assert_eq!(states, wanted);
    let web = &state.machines[&MachineId(1)];
    assert_eq!((web.name.as_deref(), web.labels["rack"].as_str()), (Some("web-1"), "r'1 \"q\" ä"));
    assert_eq!(
        (web.fingerprint.uuids.len(), web.fingerprint.macs.len(), web.fingerprint.weak.len()),
        (2, 3, 1)
    );
    assert_eq!(web.boot.map(|boot| (boot.through, boot.since)), Some((12, at(5))));
    let report = web.hardware.as_ref().unwrap().report();
    assert_eq!((report.disks.len(), report.truncated.len()), (5, 1));
    let doubts: Vec<u64> = state.machines[&MachineId(2)].doubts.iter().map(|doubt| doubt.other.0).collect();
    assert_eq!((doubts, state.machines[&MachineId(2)].held), (vec![1, 3], true));
    let job = &state.jobs[&JobId(1)];
    assert_eq!(
        (job.attempt, job.step.clone(), job.last_step.clone()),
        (2, Some(Step::Transfer), Some(Step::Confirm))
    );
    assert_eq!(job.confirm, Confirm::Within(SignedDuration::from_mins(15)));
    assert_eq!(
        (state.jobs[&JobId(2)].confirm, state.jobs[&JobId(3)].confirm),
        (Confirm::Never, Confirm::Whenever)
    );
    assert_eq!((job.before, job.sources.cpu_ms, job.sealed), (Some(MachineState::Approved), 10, true));
    assert_eq!(job.bound.disk, Some(DiskIdentity::of(&report.disks[0])));
    let order = state.deployments[&DeploymentId(2)].request.as_ordered();
    assert_eq!((order.limit, order.gather, order.expires_seconds), (Some(32), Some(4), Some(0)));
    assert_eq!((order.finish, order.accept.len()), (Some(Finish::PowerOff), 2));
    assert_eq!(order.shown.as_ref().map(|shown| shown.machines.len()), Some(2));
    assert!(state.deployments[&DeploymentId(3)].request.as_ordered().secrets_removed);
    assert!(state.deployments[&DeploymentId(4)].request.as_ordered().user_data.is_some());
    let frozen = state.frozen.unwrap();
    assert_eq!((frozen.since, frozen.reason.as_deref()), (at(300), Some("audit")));
}

#[test]
fn the_log_and_the_leases_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = fixture(dir.path());
    drop(Records::open(&path).unwrap());
    let every = LogFilter { progress: true, ..LogFilter::default() };
    let log = LogReader::open(&path).unwrap().page(&every, 0, 100).unwrap();
    let told: Vec<What> = log.iter().take(6).map(|event| event.what.clone()).collect();
    let wanted = [
        What::Started,
        What::Progress { done: 5, total: 9 },
        What::Note { text: "it's a \"note\"; --".to_owned() },
        What::Done { text: "ok".to_owned() },
        What::Failed { cause: "timeout".to_owned(), last: false },
        What::Failed { cause: "no disk".to_owned(), last: true },
    ];
    assert_eq!(told, wanted);
    assert_eq!((log[1].sources.as_ref().map(|sources| sources.peers), log[5].by_machine), (Some(2), false));
    assert_eq!((log[6].machine, &log[6].step), (None, &Step::PowerOn));
    assert_eq!(log[7].step, Step::Other("defragment".to_owned()));
    let leases = LeaseBook::open(&path).unwrap().load().unwrap();
    let states: Vec<LeaseState> = leases.iter().map(|lease| lease.state).collect();
    assert_eq!(states, [LeaseState::Held, LeaseState::Quarantined, LeaseState::Offered]);
    assert_eq!((leases[1].holder.as_str(), leases[1].until), ("hw0102", 1_700_000_600));
}

#[test]
fn what_is_read_is_written_again_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = fixture(dir.path());
    let before = rows(&path);
    let state = Records::open(&path).unwrap().load().unwrap();
    assert_eq!(rows(&path), before, "opening changes no row");
    let again = dir.path().join("again.sqlite");
    let mut records = Records::open(&again).unwrap();
    let forgotten =
        crate::fleet::machine::Machine::new(MachineId(9), Default::default(), "local".to_owned(), at(0));
    let orphan = crate::fleet::job::Job::new(JobId(8), DeploymentId(4), MachineId(9), at(20));
    let mut changes = vec![Change::Machine(Box::new(forgotten))];
    for machine in state.machines.values() {
        changes.push(Change::Machine(Box::new(machine.clone())));
        changes.extend(machine.hardware.iter().map(|checked| Change::Hardware(machine.id, checked.clone())));
    }
    changes.extend(state.deployments.values().map(|order| Change::Deployment(Box::new(order.clone()))));
    changes.push(Change::Job(Box::new(orphan)));
    changes.extend(state.jobs.values().map(|job| Change::Job(Box::new(job.clone()))));
    changes.push(Change::Forget(MachineId(9)));
    changes.push(Change::Frozen(state.frozen.clone()));
    let every = LogFilter { progress: true, ..LogFilter::default() };
    let log = LogReader::open(&path).unwrap().page(&every, 0, 100).unwrap();
    changes.extend(log.into_iter().map(|event| Change::Event(Box::new(event))));
    records.commit(&changes).unwrap();
    let (old, new) = (LeaseBook::open(&path).unwrap(), LeaseBook::open(&again).unwrap());
    old.load().unwrap().iter().for_each(|lease| new.save(lease).unwrap());
    assert_eq!(rows(&again), before);
}

#[test]
fn records_of_a_later_version_are_refused_and_left_untouched() {
    for mode in ["delete", "wal"] {
        let dir = tempfile::tempdir().unwrap();
        let path = fixture(dir.path());
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "journal_mode", mode).unwrap();
        connection.execute("insert into schema_version (version) values (99)", []).unwrap();
        connection.close().unwrap();
        let before = std::fs::read(&path).unwrap();
        let error = Records::open(&path).unwrap_err();
        let newest = crate::records::schema::newest();
        assert!(matches!(error, RecordsError::Newer { found: 99, known, .. } if known == newest), "{error}");
        let told = error.to_string();
        assert!(told.contains("schema 99") && told.contains(&format!("program's {newest}")), "{told}");
        assert!(std::fs::read(&path).unwrap() == before, "the file of a later version was changed ({mode})");
    }
}
