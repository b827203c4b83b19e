//! The counts and the line of every site. A site is named after an address's network, and anybody can send from an address, so
//! their number is bounded: the one that was silent the longest is counted among the others from then on. Owns them; touches nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use common::limits::SITES_COUNTED_MAX;
use common::line::Line;

use super::rate::{Rate, payload};
use super::tally::Tally;

/// The name under which sites are counted that were silent the longest when there were too many.
pub const OTHER_SITES: &str = "other sites";

/// What is known of one site.
#[derive(Debug)]
struct Site {
    tally: Tally,
    line: Line,
    limited: bool,
}

/// The counts, by the name of the site.
#[derive(Debug, Default)]
pub(super) struct Book {
    sites: BTreeMap<String, Site>,
}

impl Book {
    /// The counts of a site, which begin now if it was not sent anything before.
    pub(super) fn tally(&mut self, site: &str, now: Duration) -> &mut Tally {
        &mut self.of(site, now).tally
    }

    /// The line into a site.
    pub(super) fn line(&mut self, site: &str, now: Duration) -> Line {
        self.of(site, now).line.clone()
    }

    /// Sets or lifts the limit of a site.
    pub(super) fn limit(&mut self, site: &str, rate: Option<Rate>, now: Duration) {
        let site = self.of(site, now);
        site.limited = rate.is_some();
        site.line.set(rate.map(payload));
    }

    fn of(&mut self, site: &str, now: Duration) -> &mut Site {
        if !self.sites.contains_key(site) {
            if self.sites.len() >= SITES_COUNTED_MAX {
                self.merge_silent(now);
            }
            self.sites.insert(site.to_owned(), Site::new(now));
        }
        self.sites.entry(site.to_owned()).or_insert_with(|| Site::new(now))
    }

    /// Forgets the site that was silent the longest. One with a limit stays, and so does one that somebody is sending
    /// to: it would have a second line beside that one. Connections are bounded, so the sites are too.
    fn merge_silent(&mut self, now: Duration) {
        let spare = |name: &str, site: &Site| name != OTHER_SITES && !site.limited && !site.line.is_shared();
        let others = self.sites.iter().filter(|(name, site)| spare(name, site));
        let silent = others.min_by_key(|(_, site)| site.tally.last()).map(|(name, _)| name.clone());
        if let Some(Site { tally, .. }) = silent.and_then(|name| self.sites.remove(&name)) {
            let others = self.sites.entry(OTHER_SITES.to_owned()).or_insert_with(|| Site::new(now));
            others.tally.merge(&tally, now);
        }
    }

    /// The best rate measured into a site.
    pub(super) fn measured(&self, site: &str) -> Option<Rate> {
        self.sites.get(site).and_then(|site| site.tally.measured())
    }

    /// All sites, by name.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &Tally)> {
        self.sites.iter().map(|(name, site)| (name.as_str(), &site.tally))
    }
}

impl Site {
    fn new(now: Duration) -> Self {
        Self { tally: Tally::new(now), line: Line::new(None), limited: false }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tally::Kind;
    use super::*;

    #[test]
    fn strangers_cannot_make_it_grow() {
        let mut book = Book::default();
        let at = |n: u32| Duration::from_millis(n.into());
        let many = u32::try_from(3 * SITES_COUNTED_MAX).unwrap();
        for n in 0..many {
            book.tally(&n.to_string(), at(n)).add(Kind::Dhcp, 1, at(n));
            book.tally("branch", at(n)).add(Kind::Chunks, 10, at(n));
        }
        assert!(book.sites.len() <= SITES_COUNTED_MAX + 1, "{}", book.sites.len());
        let of = |site: &str| book.sites[site].tally.sent();
        assert_eq!(of("branch").chunks, 10 * u64::from(many), "a site that is sent to keeps its name");
        let dhcp: u64 = book.all().map(|(_, tally)| tally.sent().dhcp).sum();
        assert_eq!(dhcp, u64::from(many), "nothing is lost");
        assert!(of(OTHER_SITES).dhcp > 0);
    }

    #[test]
    fn a_line_that_is_limited_or_in_use_stays_the_same_line() {
        let mut book = Book::default();
        let rate: Rate = "20M".parse().unwrap();
        book.limit("branch", Some(rate), Duration::ZERO);
        let used = book.line("used", Duration::ZERO);
        for n in 0..2 * u32::try_from(SITES_COUNTED_MAX).unwrap() {
            let now = Duration::from_secs(1 + u64::from(n));
            book.tally(&n.to_string(), now).add(Kind::Dhcp, 1, now);
        }
        assert_eq!(book.line("branch", Duration::ZERO).rate(), Some(payload(rate)));
        book.limit("used", Some(rate), Duration::ZERO);
        assert_eq!(used.rate(), Some(payload(rate)));
    }
}
