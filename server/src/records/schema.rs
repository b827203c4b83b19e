//! The schema: one migration step per version. A released step is never changed; changes are further steps. Touches the
//! connection it is given.

use std::path::Path;

use rusqlite::{Connection, params};

use super::error::RecordsError;

const STEPS: &[&str] = &[
    "
create table machines (
    id bigint primary key,
    name text,
    state text not null,
    held bigint not null,
    site text not null,
    system_serial text,
    chassis_serial text,
    board_serial text,
    uuid text,
    rest text not null,
    boot_key text,
    boot_through bigint not null,
    first_seen bigint not null,
    last_seen bigint not null,
    deployed_image text
);
create table labels (
    machine bigint not null references machines (id) on delete cascade,
    name text not null,
    content text not null,
    primary key (machine, name)
);
create table macs (
    mac text primary key,
    machine bigint not null references machines (id) on delete cascade
);
create index macs_machine on macs (machine);
create table hardware (
    machine bigint primary key references machines (id) on delete cascade,
    report text not null
);
create table deployments (
    id bigint primary key,
    ordered bigint not null,
    image text not null,
    image_name text not null,
    wire_bytes bigint not null,
    demand text not null,
    is_open bigint not null
);
create table jobs (
    id bigint primary key,
    deployment bigint not null references deployments (id),
    machine bigint not null references machines (id) on delete cascade,
    state text not null,
    attempt bigint not null,
    boot_key text,
    last_step text,
    confirm_ms bigint,
    deadline bigint,
    target text,
    step text,
    done bigint not null,
    total bigint not null,
    sources text not null,
    sealed bigint not null,
    cause text,
    changed bigint not null
);
create index jobs_deployment on jobs (deployment);
create index jobs_machine on jobs (machine);
create table events (
    id bigint primary key,
    at bigint not null,
    machine bigint,
    name text not null,
    deployment bigint,
    job bigint,
    attempt bigint,
    step text not null,
    kind text not null,
    content text not null,
    done bigint not null,
    total bigint not null,
    sources text
);
create index events_machine on events (machine, id);
create index events_deployment on events (deployment, id);
create index events_at on events (at);
create index events_progress on events (kind, machine, job, step);
create table leases (
    address text primary key,
    holder text not null,
    until bigint not null,
    state text not null
);
create table counters (
    name text primary key,
    last bigint not null
);
",
    "
alter table machines add column boot_since bigint;
alter table events add column by_machine bigint not null default 0;
 ",
    "
alter table jobs add column marks text;
alter table jobs add column disk text;
alter table jobs add column machine_before text;
create table frozen (
    since bigint not null,
    reason text
);
",
    "
create table marks (
    mac text not null,
    machine bigint not null references machines (id) on delete cascade,
    weak bigint not null,
    primary key (mac, machine)
);
create index marks_machine on marks (machine);
insert into marks (mac, machine, weak) select mac, machine, 0 from macs;
drop table macs;
alter table machines add column doubts text;
",
    "
create table relays (
    id bigint primary key,
    name text not null,
    site text not null,
    invitation text not null,
    invited bigint not null,
    expires bigint not null,
    relay_key text,
    enrolled bigint,
    revoked bigint,
    version text,
    last_seen bigint
);
create table stages (
    id bigint primary key,
    image text not null,
    image_name text not null,
    wire_bytes bigint not null,
    site text not null,
    not_before bigint,
    rate bigint,
    ordered bigint not null
);
",
    "
create table tokens (
    id bigint primary key,
    name text not null,
    hash text not null,
    role text not null,
    scope text not null,
    made bigint not null,
    made_by text not null,
    expires bigint,
    revoked bigint
);
alter table events add column asked_by text;
 ",
    "
alter table deployments add column paused bigint;
",
    "
create table answers (
    caller text not null,
    request_key text not null,
    demand text not null,
    answer text not null,
    given bigint not null,
    primary key (caller, request_key)
);
",
    "
create table profiles (
    id bigint primary key,
    name text not null,
    added bigint not null,
    added_by text not null,
    wish text not null
);
alter table deployments add column placed_with bigint;
",
    "
create table cursors (
    subscriber text primary key,
    after_event bigint not null
);
",
    // For a page of the log by step, and from a time on: without them SQLite reads the log from its beginning. Measured
    // with a million events: 149 ms for a seldom step, 127 ms for the last thousand events, and 2.5 s for a seldom step of
    // 1,900 machines; with them 0.3, 3.4 and 0.4 ms, for 34 bytes more of each event.
    "
create index events_step on events (step, id);
create index events_block on events ((id / 4096), at);
",
];

/// The schema version that this program writes.
pub(super) fn newest() -> i64 {
    i64::try_from(STEPS.len()).unwrap_or(i64::MAX)
}

/// The schema version of the file in `path`; 0 if it has none yet. Only reads, so that a later version's file is left
/// unchanged.
///
/// # Errors
/// When it cannot be read, or is of a later version.
pub(super) fn found(connection: &Connection, path: &Path) -> Result<i64, RecordsError> {
    let failed = |source| RecordsError::Open { path: path.to_owned(), source };
    let sql = "select count(*) from sqlite_master where type = 'table' and name = 'schema_version'";
    let tables: i64 = connection.query_row(sql, [], |row| row.get(0)).map_err(failed)?;
    if tables == 0 {
        return Ok(0);
    }
    let sql = "select coalesce(max(version), 0) from schema_version";
    let found: i64 = connection.query_row(sql, [], |row| row.get(0)).map_err(failed)?;
    if found > newest() {
        return Err(RecordsError::Newer { path: path.to_owned(), found, known: newest() });
    }
    Ok(found)
}

/// Upgrades the tables from schema version `found`, each step in a transaction of its own.
pub(super) fn migrate(connection: &mut Connection, path: &Path, found: i64) -> Result<(), RecordsError> {
    migrate_until(connection, path, found, newest())
}

/// Upgrades the tables up to schema version `last`.
pub(super) fn migrate_until(
    connection: &mut Connection,
    path: &Path,
    found: i64,
    last: i64,
) -> Result<(), RecordsError> {
    let failed = |source| RecordsError::Open { path: path.to_owned(), source };
    connection
        .execute_batch("create table if not exists schema_version (version bigint not null)")
        .map_err(failed)?;
    let due = |version: i64| version > found && version <= last;
    for (step, version) in STEPS.iter().zip(1_i64..).filter(|(_, version)| due(*version)) {
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(step).map_err(failed)?;
        transaction
            .execute("insert into schema_version (version) values ($1)", params![version])
            .map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    Ok(())
}
