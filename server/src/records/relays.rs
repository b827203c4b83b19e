//! Relays and staged images as rows. Touches the transaction or the row that it is given.

use common::id::{Hash, ImageId};
use common::trust::PublicKey;
use jiff::Timestamp;
use rusqlite::{Row, Transaction, params};

use super::error::RecordsError;
use super::values::{Written, instant, number, run, text, unsigned};
use crate::fleet::relay::{Relay, StageOrder};
use crate::traffic::Rate;

/// The query whose rows [`relay`] reads.
pub(super) const RELAYS: &str = "select id, name, site, invitation, invited, expires, relay_key, enrolled,
                                     revoked, version, last_seen from relays order by id";

/// The query whose rows [`stage`] reads.
pub(super) const STAGES: &str =
    "select id, image, image_name, wire_bytes, site, not_before, rate, ordered from stages order by id";

/// As in `read`: the outer error is SQLite's, the inner one that of a value.
type Understood<T> = rusqlite::Result<Result<T, RecordsError>>;

pub(super) fn write_relay(transaction: &Transaction<'_>, relay: &Relay) -> Written {
    run(
        transaction,
        "insert into relays (id, name, site, invitation, invited, expires, relay_key, enrolled, revoked, version,
             last_seen)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         on conflict (id) do update set relay_key = excluded.relay_key, enrolled = excluded.enrolled,
             revoked = excluded.revoked, version = excluded.version, last_seen = excluded.last_seen",
        params![
            number(relay.number),
            relay.name,
            relay.site,
            relay.invitation.to_string(),
            relay.invited.as_millisecond(),
            relay.expires.as_millisecond(),
            relay.enrolled.map(|(key, _)| key.to_string()),
            relay.enrolled.map(|(_, at)| at.as_millisecond()),
            relay.revoked.map(Timestamp::as_millisecond),
            relay.version,
            relay.last_seen.map(Timestamp::as_millisecond),
        ],
    )
}

pub(super) fn write_stage(transaction: &Transaction<'_>, order: &StageOrder) -> Written {
    run(
        transaction,
        "insert into stages (id, image, image_name, wire_bytes, site, not_before, rate, ordered)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (id) do update set image_name = excluded.image_name, not_before = excluded.not_before,
             rate = excluded.rate, ordered = excluded.ordered",
        params![
            number(order.number),
            order.image.to_string(),
            order.image_name,
            number(order.wire_bytes),
            order.site,
            order.not_before.map(Timestamp::as_millisecond),
            order.limit.map(|limit| number(limit.into())),
            order.ordered.as_millisecond(),
        ],
    )
}

pub(super) fn relay(row: &Row<'_>) -> Understood<Relay> {
    let (id, name, site): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let (invitation, invited, expires): (String, i64, i64) = (row.get(3)?, row.get(4)?, row.get(5)?);
    let (key, enrolled): (Option<String>, Option<i64>) = (row.get(6)?, row.get(7)?);
    let (revoked, last_seen): (Option<i64>, Option<i64>) = (row.get(8)?, row.get(10)?);
    let version = row.get(9)?;
    Ok((|| {
        let enrolled = match key.zip(enrolled) {
            Some((key, at)) => Some((text::<PublicKey>("relay's key", &key)?, instant(at)?)),
            None => None,
        };
        Ok(Relay {
            number: unsigned(id),
            name,
            site,
            invitation: text("invitation's key", &invitation)?,
            invited: instant(invited)?,
            expires: instant(expires)?,
            enrolled,
            revoked: revoked.map(instant).transpose()?,
            version,
            last_seen: last_seen.map(instant).transpose()?,
        })
    })())
}

pub(super) fn stage(row: &Row<'_>) -> Understood<StageOrder> {
    let (id, image, image_name): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let (wire_bytes, site): (i64, String) = (row.get(3)?, row.get(4)?);
    let (not_before, rate, ordered): (Option<i64>, Option<i64>, i64) =
        (row.get(5)?, row.get(6)?, row.get(7)?);
    Ok((|| {
        let limit = rate.map(|rate| Rate::try_from(unsigned(rate))).transpose();
        Ok(StageOrder {
            number: unsigned(id),
            image: ImageId(text::<Hash>("image id", &image)?),
            image_name,
            wire_bytes: unsigned(wire_bytes),
            site,
            not_before: not_before.map(instant).transpose()?,
            limit: limit.map_err(|error| RecordsError::Value { what: "rate", cause: error.to_string() })?,
            ordered: instant(ordered)?,
        })
    })())
}
