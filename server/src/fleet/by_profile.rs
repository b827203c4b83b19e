//! Core, part of the fleet: orders by profiles: what is ordered by each, and which machine by which. A machine that fits two
//! profiles is refused with the whole order: one of the two selectors is wrong, and nobody here knows which. Touches `api`,
//! `common` and the other cores of the fleet.

use std::collections::{BTreeMap, BTreeSet};

use common::id::MachineId;
use common::text::some_of;
use common::wire::http::Refused;

use super::decide::Fleet;
use super::order::{CheckedOrder, refused};
use super::orders::Candidate;
use super::profile::Profile;
use crate::api::shapes::{DeployLine, DeployOrder, ImageShown, ProfileChoice, Shown, ShownLine};

/// The most profiles of one order.
const PROFILES_MAX: usize = 64;
/// How many machines a refusal lists.
const MACHINES_SHOWN: usize = 8;

/// The machines of each part of an order, and those that fit no profile.
#[derive(Debug)]
pub struct Shares {
    /// As many as the order has parts.
    pub parts: Vec<Vec<Candidate>>,
    /// Machines that the order names, refused.
    pub left_over: Vec<DeployLine>,
}

impl Fleet {
    /// What `order` orders by each of its profiles; the order itself where it has none. Of an order that was shown before,
    /// only the profiles that a machine was shown for.
    ///
    /// # Errors
    /// When there is no such profile, it was changed since it was shown, or the profiles cannot be ordered by together.
    pub fn orders_by_profile(&self, order: &DeployOrder) -> Result<Vec<DeployOrder>, Refused> {
        let plain = DeployOrder { profile: None, ..order.clone() };
        let choices = &order.profiles;
        if choices.is_empty() {
            return Ok(vec![plain]);
        }
        check_choices(order)?;
        let mut parts = vec![];
        for choice in choices {
            let profile = self.profile(&choice.name)?;
            let own = profile.selectors().to_vec();
            let mut part = profile.order(&plain, &choice.machines.clone().map_or(own, |text| vec![text]));
            if let Some(shown) = &order.shown {
                let shown = shown_of(shown, profile, choices.len() == 1)?;
                if shown.machines.is_empty() && choices.len() > 1 {
                    continue;
                }
                part.shown = Some(shown);
            }
            parts.push(part);
        }
        if parts.is_empty() {
            return Err(refused(
                "nothing of the order was shown",
                "order again, and look at what it would do",
            ));
        }
        Ok(parts)
    }

    /// The machines that each of `parts` of `order` takes now. Changes nothing.
    ///
    /// # Errors
    /// When a part means no machine, or a machine fits two profiles.
    pub fn share_out(
        &self,
        order: &DeployOrder,
        parts: &[(CheckedOrder, ImageShown)],
    ) -> Result<Shares, Refused> {
        let shares: Vec<Vec<Candidate>> =
            parts.iter().map(|(part, image)| self.candidates(part, image)).collect::<Result<_, _>>()?;
        if order.profiles.is_empty() || order.shown.is_some() {
            return Ok(Shares { parts: shares, left_over: vec![] });
        }
        check_apart(&shares)?;
        let left_over = self.left_over(order, parts, &shares)?;
        Ok(Shares { parts: shares, left_over })
    }

    /// The machines that `order` names and no profile fits.
    fn left_over(
        &self,
        order: &DeployOrder,
        parts: &[(CheckedOrder, ImageShown)],
        shares: &[Vec<Candidate>],
    ) -> Result<Vec<DeployLine>, Refused> {
        let taken: BTreeSet<MachineId> = shares.iter().flatten().map(|candidate| candidate.machine).collect();
        let named = self.select(&order.selection)?;
        let left = named.into_iter().filter(|id| !taken.contains(id));
        let own = order.selection.labels.len();
        let asks = |(part, _): &(CheckedOrder, ImageShown)| {
            let ordered = part.as_ordered();
            let name = ordered.profile.as_ref().map(|profile| profile.name.as_str()).unwrap_or_default();
            format!("{name} ({})", ordered.selection.labels[own..].join(","))
        };
        let why = match parts {
            [part] => format!("it does not fit the profile {}", asks(part)),
            several => {
                let all: Vec<String> = several.iter().map(asks).collect();
                format!("it fits none of the profiles {}", some_of(all.iter(), MACHINES_SHOWN, ", "))
            }
        };
        let line = |id: MachineId| {
            let machine = self.state.machines.get(&id)?;
            Some(DeployLine {
                machine: id,
                name: machine.shown_name(),
                target: None,
                disk: None,
                warnings: vec![],
                profile: None,
                hostname: None,
                refused: Some(why.clone()),
            })
        };
        Ok(left.filter_map(line).collect())
    }
}

/// What cannot be ordered by several profiles at once.
fn check_choices(order: &DeployOrder) -> Result<(), Refused> {
    let choices = &order.profiles;
    if choices.len() > PROFILES_MAX {
        return Err(refused(
            format!("an order by more than {PROFILES_MAX} profiles"),
            "order by fewer at once",
        ));
    }
    let twice =
        |(at, choice): (usize, &ProfileChoice)| choices[..at].iter().any(|other| other.name == choice.name);
    if let Some(choice) = choices.iter().enumerate().find(|one| twice(*one)).map(|(_, choice)| choice) {
        let error = format!("the profile `{}` is named twice", common::limits::cut(&choice.name, 80));
        return Err(refused(error, "`role in (web, db)` is one selector for machines of two kinds"));
    }
    if choices.iter().any(|choice| choice.machines.as_ref().is_some_and(|text| text.trim().is_empty())) {
        return Err(refused("an empty selector for a profile", "such as --profile web=role=web"));
    }
    if order.open && choices.len() > 1 {
        return Err(refused(
            "an open order by several profiles",
            "order by each of them on its own: a machine that appears is taken by the first order that it fits",
        ));
    }
    Ok(())
}

/// The part of what was shown that is by this profile; `is_only` says that the order has no other.
fn shown_of(shown: &Shown, profile: &Profile, is_only: bool) -> Result<Shown, Refused> {
    let same =
        shown.profiles.iter().find(|other| other.name == profile.name && other.number == profile.number);
    let Some(then) = same else {
        let error = format!("the profile `{}` is another one than the one that was shown", profile.name);
        return Err(refused(error, "order again, and look at what it would do"));
    };
    let is_of = |line: &&ShownLine| match &line.profile {
        Some(name) => *name == profile.name,
        None => is_only,
    };
    let machines = shown.machines.iter().filter(is_of).cloned().collect();
    Ok(Shown { image: then.image, machines, profiles: vec![] })
}

/// Refuses machines that fit several profiles.
fn check_apart(shares: &[Vec<Candidate>]) -> Result<(), Refused> {
    let mut by: BTreeMap<MachineId, Vec<&Candidate>> = BTreeMap::new();
    for candidate in shares.iter().flatten() {
        by.entry(candidate.machine).or_default().push(candidate);
    }
    let words = |fits: &Vec<&Candidate>| {
        let names: Vec<&str> = fits.iter().filter_map(|one| one.profile.as_deref()).collect();
        let machine = fits.first().map(|one| one.name.as_str()).unwrap_or_default();
        format!("{machine} fits {}", names.join(" and "))
    };
    let several: Vec<String> = by.values().filter(|fits| fits.len() > 1).map(words).collect();
    if several.is_empty() {
        return Ok(());
    }
    Err(Refused {
        error: "machines fit more than one profile, and nothing is ordered".to_owned(),
        cause: Some(some_of(several.iter(), MACHINES_SHOWN, "; ")),
        hint: Some("give one of them another selector for this order: --profile NAME=SELECTOR".to_owned()),
    })
}
