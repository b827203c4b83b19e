//! Core: the root of an image that hooks would run in, from its table and what was found in its partitions. Touches
//! `api` and `common`.

use common::hooks::{Candidate, RootRule, root as choose};
use common::table;

use super::plan::Refusal;
use crate::api::shapes::PartitionMarks;

/// The kernel's name of the file system of the root that `rule` means, in an image that begins with `first`.
///
/// # Errors
/// When there is no such root, or it is none that can be mounted.
pub fn root(
    first: &[u8],
    sector_bytes: u32,
    marks: &[PartitionMarks],
    rule: &RootRule,
) -> Result<&'static str, Refusal> {
    // A table that cannot be read has no partitions: the refusal says so.
    let table = table::read(first, sector_bytes).ok();
    let partitions = table.as_ref().map(table::Table::partitions).unwrap_or_default();
    let candidates: Vec<Candidate> = partitions
        .iter()
        .filter(|one| one.start < one.end)
        .map(|one| {
            let found = marks.iter().find(|mark| mark.number == one.number);
            Candidate {
                number: one.number,
                kind: Some(one.kind),
                name: one.name.clone(),
                bytes: (one.end - one.start).saturating_mul(u64::from(sector_bytes)),
                holds: found.and_then(|mark| mark.holds.clone()),
                label: found.and_then(|mark| mark.label.clone()),
            }
        })
        .collect();
    let chosen = choose(&candidates, rule).map_err(Refusal::NoRoot)?;
    Ok(chosen.file_system().unwrap_or_default())
}
