//! Core: what there is of the fleet, counted at one instant. The fleet fills it in. Touches `std` only.

use std::collections::BTreeMap;

/// Machines and jobs, counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Census {
    /// Machines by state and site.
    pub machines: BTreeMap<(&'static str, String), u64>,
    /// Jobs by state.
    pub jobs: BTreeMap<&'static str, u64>,
    /// Machines that have fallen silent in a job.
    pub silent: u64,
    /// Machines that wait with an open request.
    pub waiting: u64,
    /// Seconds since the running job that was not heard of the longest was last heard of; 0 when none runs.
    pub quietest_seconds: f64,
    /// Relays that are enrolled and not revoked.
    pub relays: u64,
    /// Whether the server is frozen.
    pub frozen: bool,
    /// The number of the newest event.
    pub last_event: u64,
}

impl Census {
    /// Machines by state and site, with the sites that have the fewest counted as `others` where there are more than
    /// `most`: a site is named after an address's network, and anybody can send from an address.
    #[must_use]
    pub fn bounded(&self, most: usize, others: &str) -> BTreeMap<(&'static str, String), u64> {
        let mut by_site: BTreeMap<&str, u64> = BTreeMap::new();
        for ((_, site), count) in &self.machines {
            *by_site.entry(site).or_default() += count;
        }
        let mut sizes: Vec<(u64, &str)> = by_site.into_iter().map(|(site, count)| (count, site)).collect();
        sizes.sort_unstable_by_key(|(count, site)| (std::cmp::Reverse(*count), *site));
        let named: Vec<&str> = sizes.into_iter().take(most).map(|(_, site)| site).collect();
        let mut bounded = BTreeMap::new();
        for ((state, site), count) in &self.machines {
            let site = if named.contains(&site.as_str()) { site } else { others };
            *bounded.entry((*state, site.to_owned())).or_default() += count;
        }
        bounded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_machine_is_lost_where_there_are_too_many_sites() {
        let machines = (0..50).map(|site| (("approved", format!("site {site}")), site + 1)).collect();
        let census = Census { machines, ..Census::default() };
        let bounded = census.bounded(10, "others");
        assert_eq!(bounded.len(), 11);
        assert_eq!(bounded.values().sum::<u64>(), census.machines.values().sum::<u64>());
        assert_eq!(bounded[&("approved", "site 49".to_owned())], 50);
        assert_eq!(census.bounded(50, "others"), census.machines);
    }
}
