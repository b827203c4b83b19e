//! Reads the fleet's state from rows. A row that cannot be read is left unchanged in the database, and listed in the
//! state's `set_aside`. Touches the connection it is given.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::causes::with_causes;
use common::hardware::CheckedHardware;
use common::id::{DeploymentId, JobId, Mac, MachineId};
use common::step::Step;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, Row, params};

use super::error::RecordsError;
use super::stored::{StoredDoubt, StoredJobState, StoredMachineState, StoredMarks, StoredOrder};
use super::values::{all, instant, number, parse, text, unsigned, word};
use super::{answers, profiles, relays, tokens};
use crate::api::shapes::{DeployOrder, Doubt, Frozen, MachineState};
use crate::fleet::boot_policy::IdleBoot;
use crate::fleet::bound::{Bound, Marks};
use crate::fleet::deployment::Deployment;
use crate::fleet::job::{Confirm, Job};
use crate::fleet::machine::{Boot, Machine};
use crate::fleet::marks::{self, Fingerprint};
use crate::fleet::order::{BadOrder, CheckedOrder};
use crate::fleet::state::{Change, RowKind, SetAside, State};
use crate::fleet::store::KnownHardware;

/// The state from all rows but the events. Hardware in `known` is not read again.
pub(super) fn load(connection: &Connection, known: &KnownHardware) -> Result<State, RecordsError> {
    let mut state = State::default();
    let mut aside = Vec::new();
    for machine in machines(connection, &mut aside)? {
        state.adopt(&Change::Machine(Box::new(machine)));
    }
    load_hardware(connection, &mut state, known, &mut aside)?;
    let sql = "select id, ordered, image, image_name, wire_bytes, demand, is_open, paused, placed_with
         from deployments order by id";
    for deployment in readable(connection, sql, "deployment", deployment, &mut aside)? {
        state.adopt(&Change::Deployment(Box::new(deployment)));
    }
    let sql = "select coalesce(max(id), 0) from deployments";
    let last: i64 = connection.query_row(sql, [], |row| row.get(0)).map_err(RecordsError::Read)?;
    // Counts deployments that cannot be read as well, so that their numbers are not given again.
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
            "stage" => state.last_stage = unsigned(last),
            "token" => state.last_token = unsigned(last),
            "profile" => state.last_profile = unsigned(last),
            _ => {}
        }
    }
    for relay in readable(connection, relays::RELAYS, "relay", relays::relay, &mut aside)? {
        state.adopt(&Change::Relay(Box::new(relay)));
    }
    for token in readable(connection, tokens::TOKENS, "the token", tokens::token, &mut aside)? {
        state.adopt(&Change::Token(Box::new(token)));
    }
    for profile in readable(connection, profiles::PROFILES, "the profile", profiles::profile, &mut aside)? {
        state.adopt(&Change::Profile(Box::new(profile)));
    }
    for order in readable(connection, relays::STAGES, "the order to stage", relays::stage, &mut aside)? {
        state.adopt(&Change::Stage(Box::new(order)));
    }
    for kept in readable(connection, answers::ANSWERS, "the answer to an order", answers::answer, &mut aside)?
    {
        state.adopt(&Change::Answer(Box::new(kept)));
    }
    let sql = "select subscriber, after_event from cursors";
    let cursors = sound(connection, sql, "how far a subscriber is", &mut aside, |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
    })?;
    state.cursors = cursors.into_iter().map(|(of, after)| (of, unsigned(after))).collect();
    state.frozen = load_frozen(connection, &mut aside)?;
    let sql = "select coalesce(max(id), 0) from events";
    let last: i64 = connection.query_row(sql, [], |row| row.get(0)).map_err(RecordsError::Read)?;
    state.last_event = unsigned(last);
    state.set_aside = aside;
    Ok(state)
}

/// The freeze that is in force. A row that cannot be read counts as one: somebody froze the fleet, and what began by
/// mistake would overwrite disks. `deploy unfreeze` or another `deploy freeze` overwrites the row.
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
    known: &KnownHardware,
    aside: &mut Vec<SetAside>,
) -> Result<(), RecordsError> {
    let sql = "select machine from hardware order by machine";
    let ids: Vec<i64> = sound(connection, sql, "the hardware of a machine", aside, |row| row.get(0))?;
    let mut one =
        connection.prepare("select report from hardware where machine = $1").map_err(RecordsError::Read)?;
    for row in ids {
        let id = MachineId(unsigned(row));
        let hardware = match known.get(&id) {
            Some(hardware) => Ok(Arc::clone(hardware)),
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

/// The rows of a query that `read` can read; the others are added to `aside`, called `what` and their number.
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

/// The outer error is SQLite's for a column of the wrong type, the inner one for a value that cannot be parsed.
type Understood<T> = rusqlite::Result<Result<T, RecordsError>>;

fn machine(row: &Row<'_>) -> Understood<Machine> {
    let (state, rest): (String, String) = (row.get(2)?, row.get(9)?);
    let (first, last): (i64, i64) = (row.get(12)?, row.get(13)?);
    let key: Option<String> = row.get(10)?;
    let through = unsigned(row.get(11)?);
    // Checked again: the rules for placeholders may have changed since the row was written.
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
                // `None` in rows of an earlier version: then when the machine was first seen.
                since: instant(since.unwrap_or(first))?,
            }),
            None => None,
        };
        Ok(Machine {
            id: MachineId(unsigned(id)),
            name,
            state: word::<StoredMachineState>("machine state", &state)?.into(),
            held: held != 0,
            doubts: doubts
                .map_or(Ok(vec![]), |text| parse::<Vec<StoredDoubt>>("doubts", &text))?
                .into_iter()
                .map(Doubt::from)
                .collect(),
            site,
            labels: BTreeMap::new(),
            fingerprint,
            idle_boot: match rest.as_str() {
                "boot-disk" => IdleBoot::BootDisk,
                "stay" => IdleBoot::Stay,
                _ => IdleBoot::Load,
            },
            boot,
            first_seen: instant(first)?,
            last_seen: instant(last)?,
            deployed_image,
            hardware: None,
        })
    })())
}

/// An order from its recorded form. One that this version does not understand is set aside like other unreadable rows.
fn order(text: &str) -> Result<CheckedOrder, RecordsError> {
    let ordered = DeployOrder::from(parse::<StoredOrder>("order", text)?);
    ordered
        .try_into()
        .map_err(|error: BadOrder| RecordsError::Value { what: "order", cause: error.to_string() })
}

fn deployment(row: &Row<'_>) -> Understood<Deployment> {
    let (id, ordered, wire): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(4)?);
    let (image, demand): (String, String) = (row.get(2)?, row.get(5)?);
    let image_name = row.get(3)?;
    let (open, paused, first): (i64, Option<i64>, Option<i64>) = (row.get(6)?, row.get(7)?, row.get(8)?);
    Ok((|| {
        Ok(Deployment {
            id: DeploymentId(unsigned(id)),
            ordered: instant(ordered)?,
            image: parse("image id", &format!("\"{image}\""))?,
            image_name,
            wire_bytes: unsigned(wire),
            request: order(&demand)?,
            open: open != 0,
            paused: paused.map(instant).transpose()?,
            placed_with: first.map(|first| DeploymentId(unsigned(first))),
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
            state: word::<StoredJobState>("job state", &state)?.into(),
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
                marks: marks.map(|marks| parse::<StoredMarks>("marks", &marks)).transpose()?.map(Marks::from),
                disk: disk.map(|disk| parse("disk", &disk)).transpose()?,
            },
            before: before
                .map(|state| word::<StoredMachineState>("machine state", &state))
                .transpose()?
                .map(MachineState::from),
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

/// The rows of a query whose columns have the types that `read` expects; the others are added to `aside`, called
/// `what`. In SQLite a column can hold values of any type.
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
