//! The step log: every event is one row, kept until it is deleted because the log is too old or too large. Progress is
//! the exception: of each step only the newest row is kept, or a 40-minute transfer of a rack would fill the disk with
//! it. Touches the database file.

use std::path::Path;

use common::id::{DeploymentId, JobId, MachineId};
use common::step::{Sources, Step, What};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, Transaction, params, params_from_iter};

use super::connection::connect;
use super::error::RecordsError;
use super::values::{instant, json, number, parse, run, unsigned};
use crate::api::shapes::LogEvent;
use crate::fleet::store::LogFilter;

/// How many numbers of events a block has, of which the index `events_block` finds the latest time. The expression there
/// and in the query has to be the same, letter by letter. Five million events are 1,221 blocks, each a look into it.
const BLOCK: i64 = 4096;

/// Inserts one event; a progress event replaces the last one of the same machine, job and step.
pub(super) fn write(transaction: &Transaction<'_>, event: &LogEvent) -> Result<(), RecordsError> {
    let (kind, content, done, total) = match &event.what {
        What::Started => ("started", "", 0, 0),
        What::Progress { done, total } => ("progress", "", *done, *total),
        What::Note { text } => ("note", text.as_str(), 0, 0),
        What::Done { text } => ("done", text.as_str(), 0, 0),
        What::Failed { cause, last: false } => ("failed", cause.as_str(), 0, 0),
        What::Failed { cause, last: true } => ("failed-last", cause.as_str(), 0, 0),
    };
    let machine = event.machine.map(|id| number(id.0));
    let job = event.job.map(|id| number(id.0));
    if kind == "progress" {
        run(
            transaction,
            "delete from events where kind = 'progress' and machine = $1 and coalesce(job, 0) = $2 and step = $3",
            params![machine, job.unwrap_or(0), event.step.name()],
        )?;
    }
    run(
        transaction,
        "insert into events (id, at, machine, name, deployment, job, attempt, step, kind, content, done, total,
             sources, by_machine, asked_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        params![
            number(event.id),
            event.at.as_millisecond(),
            machine,
            event.name,
            event.deployment.map(|id| number(id.0)),
            job,
            event.attempt.map(i64::from),
            event.step.name(),
            kind,
            content,
            number(done),
            number(total),
            event.sources.as_ref().map(|sources| json("sources", sources)).transpose()?,
            i64::from(event.by_machine),
            event.by,
        ],
    )
}

/// A connection that reads the log while another one writes it.
#[derive(Debug)]
pub struct LogReader(Connection);

impl LogReader {
    /// Opens a connection to the records in `path`.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, RecordsError> {
        connect(path).map(Self).map_err(|source| RecordsError::Open { path: path.to_owned(), source })
    }

    /// The first `limit` events with numbers above `after` that `filter` wants, in order.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn page(&self, filter: &LogFilter, after: u64, limit: u32) -> Result<Vec<LogEvent>, RecordsError> {
        let mut after = number(after);
        if let Some(since) = filter.since {
            after = self.skip_before(since.as_millisecond(), after)?;
        }
        let mut sql = String::from(
            "select id, at, machine, name, deployment, job, attempt, step, kind, content, done, total, sources,
                 by_machine, asked_by from events where id > $1",
        );
        let mut values = vec![Value::Integer(after)];
        let mut and = |condition: &str, value: Value| {
            values.push(value);
            sql.push_str(&format!(" and {condition} ${}", values.len()));
        };
        if let Some(deployment) = filter.deployment {
            and("deployment =", Value::Integer(number(deployment.0)));
        }
        if let Some(step) = &filter.step {
            and("step =", Value::Text(step.name().to_owned()));
        }
        if let Some(since) = filter.since {
            // The plus keeps SQLite from the index over times, in whose order the events would have to be sorted anew.
            and("+at >=", Value::Integer(since.as_millisecond()));
        }
        if !filter.progress {
            and("kind <>", Value::Text("progress".to_owned()));
        }
        if let Some(machines) = &filter.machines {
            // The ids are numbers, so nothing can be injected; a parameter for each could exceed SQLite's limit.
            let list: Vec<_> = machines.iter().map(|id| id.0.to_string()).collect();
            sql.push_str(&format!(" and machine in ({})", list.join(", ")));
        }
        sql.push_str(&format!(" order by id limit {limit}"));
        let mut statement = self.0.prepare_cached(&sql).map_err(RecordsError::Read)?;
        let rows = statement.query_map(params_from_iter(values), event).map_err(RecordsError::Read)?;
        rows.map(|row| row.map_err(RecordsError::Read)?).collect()
    }

    /// A number, `after` or higher, below or at which no event is from `since` or later. Events are numbered as they are
    /// written, and dated by who reports them, perhaps hours before: so the times of neighbours are in no order, and
    /// only the latest of each block of numbers says that the whole block can be skipped.
    fn skip_before(&self, since: i64, after: i64) -> Result<i64, RecordsError> {
        let one =
            |sql| self.0.query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).map_err(RecordsError::Read);
        // Asked for apart: SQLite answers each from one end of an index, and both at once from all rows.
        let (Some(least), Some(most)) =
            (one("select min(id) from events")?, one("select max(id) from events")?)
        else {
            return Ok(after);
        };
        let latest = "select max(at) from events where id / 4096 = $1";
        let mut latest = self.0.prepare_cached(latest).map_err(RecordsError::Read)?;
        let mut block = least.max(after.saturating_add(1)) / BLOCK;
        while block * BLOCK <= most {
            let at: Option<i64> = latest.query_row([block], |row| row.get(0)).map_err(RecordsError::Read)?;
            if at.is_some_and(|at| at >= since) {
                return Ok(after.max(block * BLOCK - 1));
            }
            block += 1;
        }
        Ok(after.max(most))
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
