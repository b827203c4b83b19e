//! The step log: every event is one row, kept until it is deleted because the log is too old or too large. Progress is
//! the exception: of each step only the newest row is kept, or a 40-minute transfer of a rack would fill the disk with
//! it. Touches the database file.

// Pages of it.
mod page;

use common::step::What;
use rusqlite::{Transaction, params};

use super::error::RecordsError;
use super::values::{json, number, run};
use crate::api::shapes::LogEvent;

pub use page::LogReader;

/// The counter of the highest number of an event that was deleted because the log was too old or too large.
pub(super) const FORGOTTEN: &str = "events-forgotten";

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
