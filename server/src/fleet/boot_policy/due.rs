//! Core, part of the boot policies: which machines are to come for an order, and where: those may wait for a neighbour's
//! boot files, and a site's last agent stays for them. Touches `common`.

use std::collections::{HashMap, HashSet};

use common::id::MachineId;

/// Who is to come for an order.
#[derive(Debug, Clone, Default)]
pub struct Due {
    /// Machines with an order to carry out.
    ordered: HashSet<MachineId>,
    /// Of those, how many at each site have not begun it.
    expected: HashMap<String, usize>,
    /// Machines that have not reported yet, and that no admin keeps from orders.
    unseen: HashSet<MachineId>,
    /// For each open order that takes more machines, the site that its selectors name; `None` is any site.
    open: HashSet<Option<String>>,
}

impl Due {
    /// Notes that there is an order for `machine`, which was last seen at `site`, and whether it has begun it.
    pub fn order(&mut self, machine: MachineId, site: &str, begun: bool) {
        self.ordered.insert(machine);
        if !begun {
            *self.expected.entry(site.to_owned()).or_default() += 1;
        }
    }

    /// Notes an open order that takes machines which have not shown themselves yet, at `site` or, with `None`, anywhere.
    pub fn open(&mut self, site: Option<&str>) {
        self.open.insert(site.map(str::to_owned));
    }

    /// Notes that `machine` asked for something to boot, but has not reported yet.
    pub fn unseen(&mut self, machine: MachineId) {
        self.unseen.insert(machine);
    }

    /// Whether an open order may take a machine of `site` that has not reported yet.
    #[must_use]
    pub fn takes_strangers(&self, site: &str) -> bool {
        self.open.iter().any(|named| named.as_deref().is_none_or(|named| named == site))
    }

    /// Whether the machine at `site` has an order to carry out, or an open order may take it; `machine` is `None` where
    /// it is not on record.
    #[must_use]
    pub fn comes(&self, machine: Option<MachineId>, site: &str) -> bool {
        machine.is_some_and(|machine| self.ordered.contains(&machine))
            || (machine.is_none_or(|machine| self.unseen.contains(&machine)) && self.takes_strangers(site))
    }

    /// How many machines of `site` have an order that they have not begun.
    #[must_use]
    pub fn expected(&self, site: &str) -> usize {
        self.expected.get(site).copied().unwrap_or(0)
    }

    /// Whether further machines of `site` are to come.
    #[must_use]
    pub fn expects(&self, site: &str) -> bool {
        self.expected(site) > 0 || self.takes_strangers(site)
    }
}
