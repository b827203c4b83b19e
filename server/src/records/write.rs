//! Writes changes of the fleet's state as rows; a row that exists is updated. Touches the transaction it is given.

use std::collections::{BTreeMap, BTreeSet};

use common::id::Mac;
use common::step::Step;
use jiff::Timestamp;
use rusqlite::{Transaction, params};

use super::error::RecordsError;
use super::stored::{StoredDoubt, StoredJobState, StoredMachineState, StoredMarks, StoredOrder};
use super::values::{Written, json, number, run};
use super::{answers, log, profiles, relays, tokens};
use crate::api::shapes::Frozen;
use crate::fleet::boot_policy::IdleBoot;
use crate::fleet::deployment::Deployment;
use crate::fleet::job::{Confirm, Job};
use crate::fleet::machine::Machine;
use crate::fleet::marks::Fingerprint;
use crate::fleet::state::Change;

/// Writes one change within `transaction`.
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
        Change::Relay(relay) => relays::write_relay(transaction, relay),
        Change::Token(token) => {
            count(transaction, "token", token.number)?;
            tokens::write_token(transaction, token)
        }
        Change::Profile(profile) => {
            count(transaction, "profile", profile.number)?;
            profiles::write(transaction, profile)
        }
        Change::ProfileGone(id) => profiles::remove(transaction, *id),
        Change::Answer(kept) => answers::write(transaction, kept),
        Change::AnswerGone { who, key } => answers::remove(transaction, who, key),
        Change::TokenGone(id) => run(transaction, "delete from tokens where id = $1", params![number(*id)]),
        Change::Stage(order) => {
            count(transaction, "stage", order.number)?;
            relays::write_stage(transaction, order)
        }
        Change::Unstage(id) => run(transaction, "delete from stages where id = $1", params![number(*id)]),
        Change::Cursor { of, after } => run(
            transaction,
            "insert into cursors (subscriber, after_event) values ($1, $2)
             on conflict (subscriber) do update set after_event = excluded.after_event",
            params![of, number(*after)],
        ),
        Change::Event(event) => log::write(transaction, event),
    }
}

pub(super) fn count(transaction: &Transaction<'_>, name: &str, last: u64) -> Written {
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
        IdleBoot::Stay => "stay",
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
            StoredMachineState::from(machine.state).word(),
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
            json("doubts", &machine.doubts.iter().map(StoredDoubt::from).collect::<Vec<_>>())?,
        ],
    )?;
    write_labels(transaction, id, &machine.labels)?;
    write_macs(transaction, id, print)
}

/// Writes only labels that differ from the recorded ones: a machine is written at each message of its agent.
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

/// Writes only Ethernet addresses that are new or whose weakness has changed, and removes those that are gone.
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

/// UUIDs for their column, separated by blanks; an earlier version wrote only one. `None` if there are none.
fn joined(uuids: &BTreeSet<String>) -> Option<String> {
    (!uuids.is_empty()).then(|| uuids.iter().map(String::as_str).collect::<Vec<_>>().join(" "))
}

/// The two columns of a query for one machine, as a map. Rows that cannot be read are skipped: they were reported when
/// the state was loaded, and are left unchanged.
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
        "insert into deployments (id, ordered, image, image_name, wire_bytes, demand, is_open, paused, placed_with)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         on conflict (id) do update set is_open = excluded.is_open, demand = excluded.demand,
             paused = excluded.paused",
        params![
            number(deployment.id.0),
            deployment.ordered.as_millisecond(),
            deployment.image.to_string(),
            deployment.image_name,
            number(deployment.wire_bytes),
            json("order", &StoredOrder::from(deployment.request.as_ordered()))?,
            i64::from(deployment.open),
            deployment.paused.map(Timestamp::as_millisecond),
            deployment.placed_with.map(|first| number(first.0)),
        ],
    )
}

fn write_job(transaction: &Transaction<'_>, job: &Job) -> Written {
    count(transaction, "job", job.id.0)?;
    // Null stands for `Whenever` and zero for `Never`, because no order waits for zero time.
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
            StoredJobState::from(job.state).word(),
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
            job.bound.marks.as_ref().map(|marks| json("marks", &StoredMarks::from(marks))).transpose()?,
            job.bound.disk.as_ref().map(|disk| json("disk", disk)).transpose()?,
            job.before.map(|state| StoredMachineState::from(state).word()),
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
