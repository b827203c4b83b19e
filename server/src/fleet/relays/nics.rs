//! Core, part of the fleet: which NICs the machines of a site boot from, by their reports: the relays there are told of the
//! small loaders for them. Touches `api`, the tailor's reader of reports and the other cores of the fleet.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::super::decide::Fleet;
use crate::api::shapes::MachineState;
use crate::tailor::{PciId, booted_from};

/// The most kinds of NICs that a site's relays are told of: a small loader has 3 to 5 MiB, and a site with more kinds has
/// the general loader for the others until one of them boots.
const NICS_MAX: usize = 6;

impl Fleet {
    /// The kinds of NICs that machines of `site` booted from when they last reported, the most frequent first.
    pub(super) fn nics_of(&self, site: &str) -> Vec<PciId> {
        let gone = |state| matches!(state, MachineState::Rejected | MachineState::Retired);
        let at_site =
            self.state.machines.values().filter(|machine| machine.site == site && !gone(machine.state));
        let mut counts: BTreeMap<PciId, usize> = BTreeMap::new();
        for hardware in at_site.filter_map(|machine| machine.hardware.as_ref()) {
            for nic in booted_from(hardware.report()) {
                *counts.entry(nic).or_default() += 1;
            }
        }
        let mut nics: Vec<(PciId, usize)> = counts.into_iter().collect();
        nics.sort_by_key(|(nic, count)| (Reverse(*count), *nic));
        nics.into_iter().take(NICS_MAX).map(|(nic, _)| nic).collect()
    }
}
