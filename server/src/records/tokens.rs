//! Tokens of the API as rows; the token itself is in none. Touches the transaction or the row that it is given.

use common::id::Hash;
use jiff::Timestamp;
use rusqlite::{Row, Transaction, params};

use super::error::RecordsError;
use super::values::{Written, instant, json, number, parse, run, text, unsigned};
use crate::api::shapes::{Role, Scope};
use crate::fleet::token::Token;

/// The query whose rows [`token`] reads.
pub(super) const TOKENS: &str =
    "select id, name, hash, role, scope, made, made_by, expires, revoked from tokens order by id";

pub(super) fn write_token(transaction: &Transaction<'_>, token: &Token) -> Written {
    run(
        transaction,
        "insert into tokens (id, name, hash, role, scope, made, made_by, expires, revoked)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         on conflict (id) do update set revoked = excluded.revoked",
        params![
            number(token.number),
            token.name,
            token.hash.to_string(),
            token.role.name(),
            json("token's scope", &token.scope)?,
            token.made.as_millisecond(),
            token.by,
            token.expires.map(Timestamp::as_millisecond),
            token.revoked.map(Timestamp::as_millisecond),
        ],
    )
}

/// A token from its row. One that cannot be read lets nobody in: it is set aside.
pub(super) fn token(row: &Row<'_>) -> rusqlite::Result<Result<Token, RecordsError>> {
    let (id, name, hash): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let (role, scope, made): (String, String, i64) = (row.get(3)?, row.get(4)?, row.get(5)?);
    let by = row.get(6)?;
    let (expires, revoked): (Option<i64>, Option<i64>) = (row.get(7)?, row.get(8)?);
    Ok((|| {
        Ok(Token {
            number: unsigned(id),
            name,
            hash: text::<Hash>("token's hash", &hash)?,
            role: text::<Role>("token's role", &role)?,
            scope: parse::<Scope>("token's scope", &scope)?,
            made: instant(made)?,
            by,
            expires: expires.map(instant).transpose()?,
            revoked: revoked.map(instant).transpose()?,
        })
    })())
}
