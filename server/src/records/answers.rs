//! Answers to orders as rows. Touches the transaction or the row that it is given.

use rusqlite::{Row, Transaction, params};

use super::error::RecordsError;
use super::values::{Written, instant, run, text};
use crate::fleet::answer::{KeptAnswer, Keyed};

/// The query whose rows [`answer`] reads. The number of a row, by which one that cannot be read is told, is its time.
pub(super) const ANSWERS: &str =
    "select given, caller, request_key, demand, answer from answers order by caller, request_key";

/// As in `read`: the outer error is SQLite's, the inner one that of a value.
type Understood<T> = rusqlite::Result<Result<T, RecordsError>>;

pub(super) fn write(transaction: &Transaction<'_>, kept: &KeptAnswer) -> Written {
    run(
        transaction,
        "insert into answers (caller, request_key, demand, answer, given) values ($1, $2, $3, $4, $5)
         on conflict (caller, request_key) do update set demand = excluded.demand, answer = excluded.answer,
             given = excluded.given",
        params![kept.of.who, kept.of.key, kept.of.order.to_string(), kept.answer, kept.at.as_millisecond()],
    )
}

pub(super) fn remove(transaction: &Transaction<'_>, who: &str, key: &str) -> Written {
    run(transaction, "delete from answers where caller = $1 and request_key = $2", params![who, key])
}

pub(super) fn answer(row: &Row<'_>) -> Understood<KeptAnswer> {
    let (at, who, key): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let (order, answer): (String, String) = (row.get(3)?, row.get(4)?);
    Ok((|| {
        let of = Keyed { who, key, order: text("hash of an order", &order)? };
        Ok(KeptAnswer { of, answer, at: instant(at)? })
    })())
}
