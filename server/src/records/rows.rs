//! Machines, deployments and jobs as rows, and back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::causes::with_causes;
use common::hardware::CheckedHardware;
use common::id::{DeploymentId, JobId, Mac, MachineId};
use common::step::Step;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, Row, Transaction, params};
use serde::{Serialize, de::DeserializeOwned};

use super::RecordsError;
use super::log;
use crate::api::shapes::Frozen;
use crate::fleet::bound::Bound;
use crate::fleet::deployment::Deployment;
use crate::fleet::job::{Confirm, Job};
use crate::fleet::machine::{Boot, IdleBoot, Machine};
use crate::fleet::marks::{self, Fingerprint};
use crate::fleet::state::{Change, RowKind, SetAside, State};

type Written = Result<(), RecordsError>;

/// Writes one change.
pub(super) fn write(transaction: &Transaction<'_>, change: &Change) -> Written {
    match change {
        Change::Machine(machine) => write_machine(transaction, machine),
        Change::Hardware(id, hardware) => run(
            transaction,
            "insert into hardware (machine, report) values ($1, $2)
             on conflict (machine) do update set report = excluded.report",
            params![number(id.0), json("hardware report", hardware.report())?],
        ),
        Change::Forget(id) => run(transaction, "delete from machines where id = $1", params![number(id.0)]),
        Change::Deployment(deployment) => write_deployment(transaction, deployment),
        Change::Job(job) => write_job(transaction, job),
        Change::Frozen(frozen) => write_frozen(transaction, frozen.as_ref()),
        Change::Event(event) => log::write(transaction, event),
    }
}

/// Runs one statement that changes something.
pub(super) fn run(transaction: &Transaction<'_>, sql: &str, values: &[&dyn rusqlite::ToSql]) -> Written {
    let mut statement = transaction.prepare_cached(sql).map_err(RecordsError::Write)?;
    statement.execute(values).map(|_| ()).map_err(RecordsError::Write)
}

fn count(transaction: &Transaction<'_>, name: &str, last: u64) -> Written {
    run(
        transaction,
        "insert into counters (name, last) values ($1, $2)
         on conflict (name) do update set last = excluded.last where excluded.last > counters.last",
        params![name, number(last)],
    )
}

fn write_machine(transaction: &Transaction<'_>, machine: &Machine) -> Written {
    count(transaction, "machine", machine.id.0)?;
    let id = number(machine.id.0);
    let print = &machine.fingerprint;
    let rest = match machine.idle_boot {
        IdleBoot::Load => "load",
        IdleBoot::BootDisk => "boot-disk",
    };
    run(
        transaction,
        "insert into machines (id, name, state, held, site, system_serial, chassis_serial, board_serial, uuid,
             rest, boot_key, boot_through, first_seen, last_seen, deployed_image, boot_since, doubts)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
         on conflict (id) do update set name = excluded.name, state = excluded.state, held = excluded.held,
             site = excluded.site, system_serial = excluded.system_serial,
             chassis_serial = excluded.chassis_serial, board_serial = excluded.board_serial,
             uuid = excluded.uuid, rest = excluded.rest, boot_key = excluded.boot_key,
             boot_through = excluded.boot_through, last_seen = excluded.last_seen,
             deployed_image = excluded.deployed_image, boot_since = excluded.boot_since,
             doubts = excluded.doubts",
        params![
            id,
            machine.name,
            machine.state.name(),
            i64::from(machine.held),
            machine.site,
            print.system_serial,
            print.chassis_serial,
            print.board_serial,
            joined(&print.uuids),
            rest,
            machine.boot.map(|boot| boot.key.to_string()),
            number(machine.boot.map_or(0, |boot| boot.through)),
            machine.first_seen.as_millisecond(),
            machine.last_seen.as_millisecond(),
            machine.deployed_image,
            machine.boot.map(|boot| boot.since.as_millisecond()),
            json("doubts", &machine.doubts)?,
        ],
    )?;
    write_labels(transaction, id, &machine.labels)?;
    write_macs(transaction, id, print)
}

/// Writes labels where they differ from those that are there: a machine is written at each word of its agent.
fn write_labels(transaction: &Transaction<'_>, id: i64, labels: &BTreeMap<String, String>) -> Written {
    let sql = "select name, content from labels where machine = $1";
    let there: BTreeMap<String, String> = pairs(transaction, sql, id)?;
    for name in there.keys().filter(|&name| !labels.contains_key(name)) {
        run(transaction, "delete from labels where machine = $1 and name = $2", params![id, name])?;
    }
    for (name, content) in labels.iter().filter(|&(name, content)| there.get(name) != Some(content)) {
        let sql = "insert into labels (machine, name, content) values ($1, $2, $3)
             on conflict (machine, name) do update set content = excluded.content";
        run(transaction, sql, params![id, name, content])?;
    }
    Ok(())
}

/// Writes those Ethernet addresses that are new or count otherwise than before, and removes those that are gone.
fn write_macs(transaction: &Transaction<'_>, id: i64, print: &Fingerprint) -> Written {
    let sql = "select mac, weak from marks where machine = $1";
    let there: BTreeMap<String, i64> = pairs(transaction, sql, id)?;
    let weak = |mac: &Mac| i64::from(print.weak.contains(mac));
    let wanted: BTreeMap<String, i64> = print.macs.iter().map(|mac| (mac.to_string(), weak(mac))).collect();
    for (mac, weak) in &there {
        if wanted.get(mac) != Some(weak) {
            run(transaction, "delete from marks where machine = $1 and mac = $2", params![id, mac])?;
        }
    }
    for (mac, weak) in &wanted {
        if there.get(mac) != Some(weak) {
            let sql = "insert into marks (mac, machine, weak) values ($1, $2, $3)
                 on conflict (mac, machine) do update set weak = excluded.weak";
            run(transaction, sql, params![mac, id, weak])?;
        }
    }
    Ok(())
}

/// UUIDs in one column, as the version before wrote its only one; none where there is none.
fn joined(uuids: &BTreeSet<String>) -> Option<String> {
    (!uuids.is_empty()).then(|| uuids.iter().map(String::as_str).collect::<Vec<_>>().join(" "))
}

/// What stands in the two columns of one machine's rows. Those that cannot be read were named when they were loaded,
/// and stay as they are.
fn pairs<T: rusqlite::types::FromSql>(
    transaction: &Transaction<'_>,
    sql: &str,
    machine: i64,
) -> Result<BTreeMap<String, T>, RecordsError> {
    let mut statement = transaction.prepare_cached(sql).map_err(RecordsError::Read)?;
    let rows = statement
        .query_map(params![machine], |row| Ok(row.get(0).and_then(|name| Ok((name, row.get(1)?)))))
        .map_err(RecordsError::Read)?;
    let rows: Vec<rusqlite::Result<(String, T)>> =
        rows.collect::<rusqlite::Result<_>>().map_err(RecordsError::Read)?;
    Ok(rows.into_iter().flatten().collect())
}

fn write_deployment(transaction: &Transaction<'_>, deployment: &Deployment) -> Written {
    run(
        transaction,
        "insert into deployments (id, ordered, image, image_name, wire_bytes, demand, is_open)
         values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (id) do update set is_open = excluded.is_open, demand = excluded.demand",
        params![
            number(deployment.id.0),
            deployment.ordered.as_millisecond(),
            deployment.image.to_string(),
            deployment.image_name,
            number(deployment.wire_bytes),
            json("order", &deployment.request)?,
            i64::from(deployment.open),
        ],
    )
}

fn write_job(transaction: &Transaction<'_>, job: &Job) -> Written {
    count(transaction, "job", job.id.0)?;
    // Null is "whenever", zero "never": a time to wait of zero makes no sense.
    let confirm = match job.confirm {
        Confirm::Within(time) => Some(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)),
        Confirm::Whenever => None,
        Confirm::Never => Some(0),
    };
    run(
        transaction,
        "insert into jobs (id, deployment, machine, state, attempt, boot_key, last_step, confirm_ms, deadline,
             target, step, done, total, sources, sealed, cause, changed, marks, disk, machine_before)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
         on conflict (id) do update set state = excluded.state, attempt = excluded.attempt,
             boot_key = excluded.boot_key, last_step = excluded.last_step, confirm_ms = excluded.confirm_ms,
             deadline = excluded.deadline, target = excluded.target, step = excluded.step,
             done = excluded.done, total = excluded.total, sources = excluded.sources,
             sealed = excluded.sealed, cause = excluded.cause, changed = excluded.changed,
             marks = excluded.marks, disk = excluded.disk, machine_before = excluded.machine_before",
        params![
            number(job.id.0),
            number(job.deployment.0),
            number(job.machine.0),
            job.state.name(),
            i64::from(job.attempt),
            job.key.map(|key| key.to_string()),
            job.last_step.as_ref().map(Step::name),
            confirm,
            job.deadline.map(Timestamp::as_millisecond),
            job.target,
            job.step.as_ref().map(Step::name),
            number(job.done),
            number(job.total),
            json("sources", &job.sources)?,
            i64::from(job.sealed),
            job.cause,
            job.changed.as_millisecond(),
            job.bound.marks.as_ref().map(|marks| json("marks", marks)).transpose()?,
            job.bound.disk.as_ref().map(|disk| json("disk", disk)).transpose()?,
            job.before.map(crate::api::shapes::MachineState::name),
        ],
    )
}

fn write_frozen(transaction: &Transaction<'_>, frozen: Option<&Frozen>) -> Written {
    run(transaction, "delete from frozen", params![])?;
    frozen.map_or(Ok(()), |frozen| {
        let sql = "insert into frozen (since, reason) values ($1, $2)";
        run(transaction, sql, params![frozen.since.as_millisecond(), frozen.reason])
    })
}

/// All rows, as the state that they describe. A row that cannot be read is set aside: it stays as it is, and the state
/// names it. `known` gives the hardware that need not be read again.
pub(super) fn load(
    connection: &Connection,
    known: impl Fn(MachineId) -> Option<Arc<CheckedHardware>>,
) -> Result<State, RecordsError> {
    let mut state = State::default();
    let mut aside = Vec::new();
    for machine in machines(connection, &mut aside)? {
        state.adopt(&Change::Machine(Box::new(machine)));
    }
    load_hardware(connection, &mut state, known, &mut aside)?;
    let sql =
        "select id, ordered, image, image_name, wire_bytes, demand, is_open from deployments order by id";
    for deployment in readable(connection, sql, "deployment", deployment, &mut aside)? {
        state.adopt(&Change::Deployment(Box::new(deployment)));
    }
    let sql = "select coalesce(max(id), 0) from deployments";
    let last: i64 = connection.query_row(sql, [], |row| row.get(0)).map_err(RecordsError::Read)?;
    // The number of one that was set aside is not given again.
    state.last_deployment = unsigned(last);
    let sql =
        "select id, deployment, machine, state, attempt, boot_key, last_step, confirm_ms, deadline, target,
                   step, done, total, sources, sealed, cause, changed, marks, disk, machine_before from jobs order by id";
    for job in readable(connection, sql, "job", job, &mut aside)? {
        if state.machines.contains_key(&job.machine) && state.deployments.contains_key(&job.deployment) {
            state.adopt(&Change::Job(Box::new(job)));
        } else {
            aside
                .push(SetAside::other(format!("job {}: its machine or its deployment is not there", job.id)));
        }
    }
    let sql = "select name, last from counters";
    let counters = sound(connection, sql, "the last number given", &mut aside, |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
    })?;
    for (name, last) in counters {
        match name.as_str() {
            "machine" => state.last_machine = unsigned(last),
            "job" => state.last_job = unsigned(last),
            _ => {}
        }
    }
    state.frozen = load_frozen(connection, &mut aside)?;
    let sql = "select coalesce(max(id), 0) from events";
    let last: i64 = connection.query_row(sql, [], |row| row.get(0)).map_err(RecordsError::Read)?;
    state.last_event = unsigned(last);
    state.set_aside = aside;
    Ok(state)
}

/// Whether orders are frozen. A row that cannot be read counts as a freeze: somebody froze, and what began by mistake
/// would overwrite disks. `deploy unfreeze` or another `deploy freeze` writes over it.
fn load_frozen(connection: &Connection, aside: &mut Vec<SetAside>) -> Result<Option<Frozen>, RecordsError> {
    let rows =
        all(connection, "select since, reason from frozen", |row| Ok((instant_in(row, 0), row.get(1))))?;
    let mut frozen = None;
    for (since, reason) in rows {
        let read = since.and_then(|since| {
            let reason: Option<String> = reason.map_err(RecordsError::Read)?;
            Ok(Frozen { since, reason })
        });
        frozen = Some(read.unwrap_or_else(|error| {
            let words = format!(
                "the freeze, so nothing new begins until `swarmboot deploy unfreeze`: {}",
                with_causes(&error)
            );
            aside.push(SetAside { kind: RowKind::Freeze, words });
            let reason = "its record cannot be read, so neither since when nor why is known".to_owned();
            Frozen { since: Timestamp::UNIX_EPOCH, reason: Some(reason) }
        }));
    }
    Ok(frozen)
}

fn instant_in(row: &Row<'_>, column: usize) -> Result<Timestamp, RecordsError> {
    row.get(column).map_err(RecordsError::Read).and_then(instant)
}

fn load_hardware(
    connection: &Connection,
    state: &mut State,
    known: impl Fn(MachineId) -> Option<Arc<CheckedHardware>>,
    aside: &mut Vec<SetAside>,
) -> Result<(), RecordsError> {
    let sql = "select machine from hardware order by machine";
    let ids: Vec<i64> = sound(connection, sql, "the hardware of a machine", aside, |row| row.get(0))?;
    let mut one =
        connection.prepare("select report from hardware where machine = $1").map_err(RecordsError::Read)?;
    for row in ids {
        let id = MachineId(unsigned(row));
        let hardware = match known(id) {
            Some(hardware) => Ok(hardware),
            None => one
                .query_row(params![row], |row| row.get::<_, String>(0))
                .map_err(RecordsError::Read)
                .and_then(|text| checked(&text)),
        };
        match hardware {
            Ok(hardware) => state.adopt(&Change::Hardware(id, hardware)),
            Err(error) => {
                aside.push(SetAside::other(format!(
                    "the hardware of machine {id}, until it reports again: {}",
                    with_causes(&error)
                )));
            }
        }
    }
    Ok(())
}

fn checked(text: &str) -> Result<Arc<CheckedHardware>, RecordsError> {
    let report = parse("hardware report", text)?;
    CheckedHardware::check(report)
        .map(Arc::new)
        .map_err(|error| RecordsError::Value { what: "hardware report", cause: error.to_string() })
}

/// The rows of a query that can be read, of things called `what`; `aside` is told of each other one.
fn readable<T>(
    connection: &Connection,
    sql: &str,
    what: &str,
    read: fn(&Row<'_>) -> Understood<T>,
    aside: &mut Vec<SetAside>,
) -> Result<Vec<T>, RecordsError> {
    let rows = sound(connection, sql, what, aside, |row| {
        let id: i64 = row.get(0)?;
        Ok((id, read(row).map_err(RecordsError::Read).and_then(|read| read)))
    })?;
    let mut found = Vec::new();
    for (id, row) in rows {
        match row {
            Ok(row) => found.push(row),
            Err(error) => aside.push(SetAside::other(format!("{what} {id}: {}", with_causes(&error)))),
        }
    }
    Ok(found)
}

fn machines(connection: &Connection, aside: &mut Vec<SetAside>) -> Result<Vec<Machine>, RecordsError> {
    let mut labels: BTreeMap<i64, BTreeMap<String, String>> = BTreeMap::new();
    let sql = "select machine, name, content from labels";
    for (machine, name, content) in sound(connection, sql, "a label", aside, |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
    })? {
        labels.entry(machine).or_default().insert(name, content);
    }
    let mut macs: BTreeMap<i64, Vec<(String, bool)>> = BTreeMap::new();
    let sql = "select machine, mac, weak from marks";
    for (machine, mac, weak) in sound(connection, sql, "an Ethernet address", aside, |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
    })? {
        macs.entry(machine).or_default().push((mac, weak != 0));
    }
    let sql = "select id, name, state, held, site, system_serial, chassis_serial, board_serial, uuid, rest,
                   boot_key, boot_through, first_seen, last_seen, deployed_image, boot_since, doubts
               from machines order by id";
    let mut found = Vec::new();
    for mut machine in readable(connection, sql, "machine", machine, aside)? {
        let id = number(machine.id.0);
        machine.labels = labels.remove(&id).unwrap_or_default();
        for (mac, weak) in macs.remove(&id).unwrap_or_default() {
            let Ok(mac) = mac.parse::<Mac>() else {
                aside
                    .push(SetAside::other(format!("the Ethernet address {mac:?} of machine {}", machine.id)));
                continue;
            };
            machine.fingerprint.macs.insert(mac);
            if weak {
                machine.fingerprint.weak.insert(mac);
            }
        }
        found.push(machine);
    }
    Ok(found)
}

/// A row that was read, but maybe not understood.
type Understood<T> = rusqlite::Result<Result<T, RecordsError>>;

fn machine(row: &Row<'_>) -> Understood<Machine> {
    let (state, rest): (String, String) = (row.get(2)?, row.get(9)?);
    let (first, last): (i64, i64) = (row.get(12)?, row.get(13)?);
    let key: Option<String> = row.get(10)?;
    let through = unsigned(row.get(11)?);
    // What counts as a placeholder may have changed since it was written.
    let serial = |column| -> rusqlite::Result<Option<String>> {
        Ok(row.get::<_, Option<String>>(column)?.as_deref().and_then(marks::worthy))
    };
    let uuids: Option<String> = row.get(8)?;
    let uuids = uuids.iter().flat_map(|uuids| uuids.split_whitespace()).filter_map(marks::uuid).collect();
    let fingerprint = Fingerprint {
        system_serial: serial(5)?,
        chassis_serial: serial(6)?,
        board_serial: serial(7)?,
        uuids,
        ..Fingerprint::default()
    };
    let doubts: Option<String> = row.get(16)?;
    let (id, held): (i64, i64) = (row.get(0)?, row.get(3)?);
    let (name, site, deployed_image) = (row.get(1)?, row.get(4)?, row.get(14)?);
    let since: Option<i64> = row.get(15)?;
    Ok((|| {
        let boot = match key {
            Some(key) => Some(Boot {
                key: text("machine key", &key)?,
                through,
                // An earlier version did not keep it: not before the machine was first seen.
                since: instant(since.unwrap_or(first))?,
            }),
            None => None,
        };
        Ok(Machine {
            id: MachineId(unsigned(id)),
            name,
            state: word("machine state", &state)?,
            held: held != 0,
            doubts: doubts.map(|text| parse("doubts", &text)).transpose()?.unwrap_or_default(),
            site,
            labels: BTreeMap::new(),
            fingerprint,
            idle_boot: if rest == "boot-disk" { IdleBoot::BootDisk } else { IdleBoot::Load },
            boot,
            first_seen: instant(first)?,
            last_seen: instant(last)?,
            deployed_image,
            hardware: None,
        })
    })())
}

fn deployment(row: &Row<'_>) -> Understood<Deployment> {
    let (id, ordered, wire): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(4)?);
    let (image, demand): (String, String) = (row.get(2)?, row.get(5)?);
    let image_name = row.get(3)?;
    let open: i64 = row.get(6)?;
    Ok((|| {
        Ok(Deployment {
            id: DeploymentId(unsigned(id)),
            ordered: instant(ordered)?,
            image: parse("image id", &format!("\"{image}\""))?,
            image_name,
            wire_bytes: unsigned(wire),
            request: parse("order", &demand)?,
            open: open != 0,
        })
    })())
}

fn job(row: &Row<'_>) -> Understood<Job> {
    let (id, deployment, machine): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let (state, sources): (String, String) = (row.get(3)?, row.get(13)?);
    let (attempt, sealed, changed): (i64, i64, i64) = (row.get(4)?, row.get(14)?, row.get(16)?);
    let (key, last_step, step): (Option<String>, Option<String>, Option<String>) =
        (row.get(5)?, row.get(6)?, row.get(10)?);
    let (confirm, deadline): (Option<i64>, Option<i64>) = (row.get(7)?, row.get(8)?);
    let (target, cause) = (row.get(9)?, row.get(15)?);
    let (marks, disk, before): (Option<String>, Option<String>, Option<String>) =
        (row.get(17)?, row.get(18)?, row.get(19)?);
    let (done, total) = (unsigned(row.get(11)?), unsigned(row.get(12)?));
    Ok((|| {
        Ok(Job {
            id: JobId(unsigned(id)),
            deployment: DeploymentId(unsigned(deployment)),
            machine: MachineId(unsigned(machine)),
            state: word("job state", &state)?,
            attempt: u32::try_from(attempt).unwrap_or(u32::MAX),
            key: key.map(|key| text("machine key", &key)).transpose()?,
            last_step: last_step.as_deref().map(Step::named),
            confirm: match confirm {
                None => Confirm::Whenever,
                Some(0) => Confirm::Never,
                Some(ms) => Confirm::Within(SignedDuration::from_millis(ms)),
            },
            deadline: deadline.map(instant).transpose()?,
            target,
            bound: Bound {
                marks: marks.map(|marks| parse("marks", &marks)).transpose()?,
                disk: disk.map(|disk| parse("disk", &disk)).transpose()?,
            },
            before: before.map(|state| word("machine state", &state)).transpose()?,
            step: step.as_deref().map(Step::named),
            done,
            total,
            sources: parse("sources", &sources)?,
            sealed: sealed != 0,
            cause,
            changed: instant(changed)?,
        })
    })())
}

/// The rows of a query whose columns are of the types that `read` expects; `aside` is told of each other one, which is
/// `what`. SQLite keeps a value of any type in a column of any other.
fn sound<T>(
    connection: &Connection,
    sql: &str,
    what: &str,
    aside: &mut Vec<SetAside>,
    mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, RecordsError> {
    let mut found = Vec::new();
    for row in all(connection, sql, |row| Ok(read(row)))? {
        match row {
            Ok(row) => found.push(row),
            Err(error) => aside.push(SetAside::other(format!("{what}: {}", with_causes(&error)))),
        }
    }
    Ok(found)
}

/// Every row of a query.
pub(super) fn all<T>(
    connection: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, RecordsError> {
    let mut statement = connection.prepare(sql).map_err(RecordsError::Read)?;
    let rows = statement.query_map([], read).map_err(RecordsError::Read)?;
    rows.collect::<rusqlite::Result<_>>().map_err(RecordsError::Read)
}

/// SQL's numbers are signed; the few that could exceed it are byte counts far below.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The number that [`number`] wrote.
pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// The instant that was written as milliseconds.
pub(super) fn instant(ms: i64) -> Result<Timestamp, RecordsError> {
    let cause = |error: jiff::Error| RecordsError::Value { what: "time", cause: error.to_string() };
    Timestamp::from_millisecond(ms).map_err(cause)
}

/// `value` as JSON text.
pub(super) fn json<T: Serialize>(what: &'static str, value: &T) -> Result<String, RecordsError> {
    serde_json::to_string(value).map_err(|error| RecordsError::Value { what, cause: error.to_string() })
}

/// The value that was written as JSON text.
pub(super) fn parse<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, RecordsError> {
    serde_json::from_str(text).map_err(|error| RecordsError::Value { what, cause: error.to_string() })
}

/// The value whose serde name is `name`.
fn word<T: DeserializeOwned>(what: &'static str, name: &str) -> Result<T, RecordsError> {
    parse(what, &format!("\"{name}\""))
}

/// The value that was written by its `Display`.
pub(super) fn text<T: std::str::FromStr<Err: std::fmt::Display>>(
    what: &'static str,
    text: &str,
) -> Result<T, RecordsError> {
    text.parse().map_err(|error: T::Err| RecordsError::Value { what, cause: error.to_string() })
}
