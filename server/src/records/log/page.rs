//! Pages of the log. Each is found by walking along an index whose order is that of the log, so that a page costs as much
//! of a long log as of a short one; which index is decided here, and not left to SQLite, which does not know what there
//! is much of. Touches the database file.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;

use common::id::{DeploymentId, JobId, MachineId};
use common::step::{Sources, Step, What};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, Statement, params, params_from_iter};

use super::super::connection::connect;
use super::super::error::RecordsError;
use super::super::values::{instant, number, parse, unsigned};
use super::FORGOTTEN;
use crate::api::shapes::LogEvent;
use crate::fleet::store::{LogFilter, Since};

/// How many numbers of events a block has, of which the index `events_block` finds the latest time. The expression there
/// and in the query has to be the same, letter by letter. Five million events are 1,221 blocks, each a look into it.
const BLOCK: i64 = 4096;

/// A step with fewer events than this is walked along, whatever the machines: so many are looked through in 5 ms.
const SELDOM: i64 = 5000;

/// A connection that reads the log while another one writes it.
#[derive(Debug)]
pub struct LogReader {
    connection: Connection,
    /// The steps that SQLite made, for a test of what a page costs.
    #[cfg(test)]
    pub(in super::super) steps: std::cell::Cell<u64>,
}

/// Conditions of a statement, with the values of their parameters.
struct Conditions {
    sql: String,
    values: Vec<Value>,
}

impl Conditions {
    fn and(&mut self, condition: &str, value: impl Into<Value>) {
        self.values.push(value.into());
        self.sql.push_str(&format!(" and {condition} ${}", self.values.len()));
    }

    /// Those on the events whose number is above `after`; `free` are the columns that SQLite may find them by. The plus
    /// before the others keeps it from their indexes.
    fn of(filter: &LogFilter, after: i64, free: &[&str]) -> Self {
        let mut those = Self { sql: " where id > $1".to_owned(), values: vec![after.into()] };
        let column = |name: &str| format!("{}{name}", if free.contains(&name) { "" } else { "+" });
        if let Some(deployment) = filter.deployment {
            those.and(&format!("{} =", column("deployment")), number(deployment.0));
        }
        if let Some(step) = &filter.step {
            those.and(&format!("{} =", column("step")), step.name().to_owned());
        }
        if let Some(since) = filter.since {
            those.and("+at >=", since.as_millisecond());
        }
        if !filter.progress {
            those.and("+kind <>", "progress".to_owned());
        }
        those
    }

    /// Restricts them to these machines, without their index.
    fn of_machines(&mut self, machines: &[MachineId]) {
        // The ids are numbers, so nothing can be injected; a parameter for each could exceed SQLite's limit.
        let list: Vec<_> = machines.iter().map(|id| id.0.to_string()).collect();
        self.sql.push_str(&format!(" and +machine in ({})", list.join(", ")));
    }
}

impl LogReader {
    /// Opens a connection to the records in `path`.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, RecordsError> {
        let connection =
            connect(path).map_err(|source| RecordsError::Open { path: path.to_owned(), source })?;
        Ok(Self {
            connection,
            #[cfg(test)]
            steps: std::cell::Cell::default(),
        })
    }

    /// The first `limit` events with numbers above `after` that `filter` wants, in order.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn page(&self, filter: &LogFilter, after: u64, limit: u32) -> Result<Vec<LogEvent>, RecordsError> {
        // One view of the log for all statements: what is forgotten meanwhile would make a page seem the last.
        let _view = self.connection.unchecked_transaction().map_err(RecordsError::Read)?;
        self.wanted(filter, after, limit)
    }

    /// The page, within a transaction that is open.
    fn wanted(&self, filter: &LogFilter, after: u64, limit: u32) -> Result<Vec<LogEvent>, RecordsError> {
        let mut after = number(after);
        if let Some(since) = filter.since {
            after = self.skip_before(since.as_millisecond(), after)?;
        }
        let Some(machines) = &filter.machines else {
            // A deployment has fewer events than a step.
            let free = if filter.deployment.is_some() { "deployment" } else { "step" };
            return self.events(&Conditions::of(filter, after, &[free]), limit);
        };
        let free = match &filter.step {
            _ if filter.deployment.is_some() => Some("deployment"),
            Some(step) if self.is_seldom(step, after)? => Some("step"),
            _ => None,
        };
        if let Some(free) = free {
            let mut those = Conditions::of(filter, after, &[free]);
            those.of_machines(machines);
            return self.events(&those, limit);
        }
        let ids = self.merged(machines, filter, after, limit)?;
        let list: Vec<_> = ids.iter().map(ToString::to_string).collect();
        let those = Conditions { sql: format!(" where id in ({})", list.join(", ")), values: vec![] };
        self.events(&those, limit)
    }

    /// The first events that meet the conditions.
    fn events(&self, those: &Conditions, limit: u32) -> Result<Vec<LogEvent>, RecordsError> {
        let sql = format!(
            "select id, at, machine, name, deployment, job, attempt, step, kind, content, done, total, sources,
                 by_machine, asked_by from events{} order by id limit {limit}",
            those.sql
        );
        self.ask(&sql, |statement| {
            let rows = statement.query_map(params_from_iter(&those.values), event)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        })?
        .into_iter()
        .collect()
    }

    /// The numbers of the first events of any of these machines: each machine's next one is looked up in its index, and
    /// the first of these is taken again and again. Whatever machines report much or little, it is a look for each of them
    /// and each event; sorting all their events took seconds of a log of five million.
    fn merged(
        &self,
        machines: &[MachineId],
        filter: &LogFilter,
        after: i64,
        limit: u32,
    ) -> Result<Vec<i64>, RecordsError> {
        let mut those = Conditions::of(filter, after, &[]);
        those.and("machine =", 0);
        let sql = format!("select id from events{} order by id limit 1", those.sql);
        let machine_at = those.values.len() - 1;
        self.ask(&sql, |statement| {
            let mut next = |machine: i64, after: i64| {
                if let Some(first) = those.values.first_mut() {
                    *first = after.into();
                }
                if let Some(last) = those.values.get_mut(machine_at) {
                    *last = machine.into();
                }
                statement
                    .query_map(params_from_iter(&those.values), |row| row.get::<_, i64>(0))?
                    .next()
                    .transpose()
            };
            let mut heads = BinaryHeap::with_capacity(machines.len());
            for machine in machines.iter().map(|machine| number(machine.0)) {
                heads.extend(next(machine, after)?.map(|id| Reverse((id, machine))));
            }
            let mut ids = vec![];
            while let Some(Reverse((id, machine))) = heads.pop() {
                ids.push(id);
                if ids.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
                    break;
                }
                heads.extend(next(machine, id)?.map(|id| Reverse((id, machine))));
            }
            Ok(ids)
        })
    }

    /// Whether this step has fewer than [`SELDOM`] events from here on.
    fn is_seldom(&self, step: &Step, after: i64) -> Result<bool, RecordsError> {
        let sql = "select count(*) from (select 1 from events where step = $1 and id > $2 limit $3)";
        let count: i64 =
            self.ask(sql, |statement| statement.query_row((step.name(), after, SELDOM), |row| row.get(0)))?;
        Ok(count < SELDOM)
    }

    /// A number, `after` or higher, below or at which no event is from `since` or later. Events are numbered as they are
    /// written, and dated by who reports them, perhaps hours before: so the times of neighbours are in no order, and
    /// only the latest of each block of numbers says that the whole block can be skipped.
    fn skip_before(&self, since: i64, after: i64) -> Result<i64, RecordsError> {
        let one =
            |sql| self.ask(sql, |statement| statement.query_row([], |row| row.get::<_, Option<i64>>(0)));
        // Asked for apart: SQLite answers each from one end of an index, and both at once from all rows.
        let (Some(least), Some(most)) =
            (one("select min(id) from events")?, one("select max(id) from events")?)
        else {
            return Ok(after);
        };
        self.ask("select max(at) from events where id / 4096 = $1", |latest| {
            let mut block = least.max(after.saturating_add(1)) / BLOCK;
            while block * BLOCK <= most {
                let at: Option<i64> = latest.query_row([block], |row| row.get(0))?;
                if at.is_some_and(|at| at >= since) {
                    return Ok(after.max(block * BLOCK - 1));
                }
                block += 1;
            }
            Ok(after.max(most))
        })
    }

    /// Lets `read` use a statement.
    fn ask<T>(
        &self,
        sql: &str,
        read: impl FnOnce(&mut Statement<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, RecordsError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(RecordsError::Read)?;
        let found = read(&mut statement).map_err(RecordsError::Read)?;
        #[cfg(test)]
        {
            let steps = statement.reset_status(rusqlite::StatementStatus::VmStep);
            self.steps.update(|sum| sum + u64::try_from(steps).unwrap_or_default());
        }
        Ok(found)
    }

    /// The first `limit` events with numbers above `after`, without progress, with what is missing before them.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn since(&self, after: u64, limit: u32) -> Result<Since, RecordsError> {
        // All three are read of the same state of the file.
        let _together = self.connection.unchecked_transaction().map_err(RecordsError::Read)?;
        let one = |sql: &str, values: &[&dyn rusqlite::ToSql]| -> Result<u64, RecordsError> {
            self.connection
                .query_row(sql, values, |row| row.get::<_, i64>(0))
                .map(unsigned)
                .map_err(RecordsError::Read)
        };
        let sql = "select coalesce(max(last), 0) from counters where name = $1";
        Ok(Since {
            forgotten: one(sql, params![FORGOTTEN])?,
            last: one("select coalesce(max(id), 0) from events", params![])?,
            events: self.wanted(&LogFilter::default(), after, limit)?,
        })
    }
}

fn event(row: &Row<'_>) -> rusqlite::Result<Result<LogEvent, RecordsError>> {
    let (id, at, name): (i64, i64, String) = (row.get(0)?, row.get(1)?, row.get(3)?);
    let (machine, deployment): (Option<i64>, Option<i64>) = (row.get(2)?, row.get(4)?);
    let (job, attempt): (Option<i64>, Option<i64>) = (row.get(5)?, row.get(6)?);
    let (step, kind, content): (String, String, String) = (row.get(7)?, row.get(8)?, row.get(9)?);
    let (done, total) = (unsigned(row.get(10)?), unsigned(row.get(11)?));
    let sources: Option<String> = row.get(12)?;
    let by_machine: i64 = row.get(13)?;
    let by = row.get(14)?;
    Ok((|| {
        let what = match kind.as_str() {
            "started" => What::Started,
            "progress" => What::Progress { done, total },
            "note" => What::Note { text: content },
            "done" => What::Done { text: content },
            "failed" => What::Failed { cause: content, last: false },
            "failed-last" => What::Failed { cause: content, last: true },
            other => return Err(RecordsError::Value { what: "kind of event", cause: other.to_owned() }),
        };
        Ok(LogEvent {
            id: unsigned(id),
            at: instant(at)?,
            machine: machine.map(|id| MachineId(unsigned(id))),
            name,
            deployment: deployment.map(|id| DeploymentId(unsigned(id))),
            job: job.map(|id| JobId(unsigned(id))),
            attempt: attempt.map(|attempt| u32::try_from(attempt).unwrap_or(u32::MAX)),
            step: Step::named(&step),
            what,
            sources: sources.map(|sources| parse::<Sources>("sources", &sources)).transpose()?,
            by,
            by_machine: by_machine != 0,
        })
    })())
}
