//! The one handle that everybody who sends has: counts bytes, and makes them wait for their turn. Owns the counts, the
//! limits and the lines; touches the clock.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::line::Line;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::book::Book;
use super::limits::{LimitOrder, LineLimits};
use super::rate::{Rate, payload};
use super::sites::Sites;
use super::tally::{Kind, SentByKind};

/// What the server has sent into one site since it started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SiteTraffic {
    /// The site's name, or [`super::OTHER_SITES`].
    pub site: String,
    /// What its line may carry; `None` without a limit.
    pub limit: Option<Rate>,
    /// The best rate that was measured while its line was busy; `None` as long as it never was for some seconds.
    pub measured: Option<Rate>,
    /// Bytes by kind, without the headers of TCP, IP and Ethernet, which add about a twentieth.
    pub sent: SentByKind,
    /// Bytes that came from there over HTTP and the swarm's control streams: requests, reports, events.
    pub received: u64,
}

/// The counts and limits of all lines. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct Traffic(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    sites: Sites,
    limits: Mutex<LineLimits>,
    /// The server's own line, which everything passes.
    own: Line,
    book: Mutex<Book>,
    began: Instant,
}

impl Default for Traffic {
    fn default() -> Self {
        Self::new(Sites::default(), LineLimits::default())
    }
}

impl Traffic {
    /// Counts from now on, with these sites and limits.
    #[must_use]
    pub fn new(sites: Sites, limits: LineLimits) -> Self {
        let own = Line::new(limits.server.map(payload));
        let mut book = Book::default();
        for (site, rate) in &limits.sites {
            book.limit(site, Some(*rate), Duration::ZERO);
        }
        let (limits, book) = (Mutex::new(limits), Mutex::new(book));
        Self(Arc::new(Shared { sites, limits, own, book, began: Instant::now() }))
    }

    /// The site of an address: that of a `[[site]]`, else its network's.
    #[must_use]
    pub fn site_of(&self, address: IpAddr) -> String {
        self.0.sites.of(address)
    }

    /// The way into `site`.
    #[must_use]
    pub fn to_site(&self, site: &str) -> SiteLine {
        let line = self.0.book.lock().line(site, self.0.began.elapsed());
        SiteLine::new(self.clone(), site, line, self.0.own.clone())
    }

    /// The way into the site of `address`.
    #[must_use]
    pub fn to(&self, address: IpAddr) -> SiteLine {
        self.to_site(&self.site_of(address))
    }

    /// Counts `bytes` of this kind that were sent to `site`.
    pub fn sent(&self, site: &str, kind: Kind, bytes: u64) {
        let now = self.0.began.elapsed();
        self.0.book.lock().tally(site, now).add(kind, bytes, now);
    }

    fn received(&self, site: &str, bytes: u64) {
        self.0.book.lock().tally(site, self.0.began.elapsed()).receive(bytes);
    }

    /// Counts `bytes` of this kind that were sent to the site of `address`.
    pub fn sent_to(&self, address: IpAddr, kind: Kind, bytes: u64) {
        self.sent(&self.site_of(address), kind, bytes);
    }

    /// What the line into `site` carries: its limit, else the best rate that was measured while it was busy; `None`
    /// when neither is known.
    #[must_use]
    pub fn rate_of(&self, site: &str) -> Option<Rate> {
        let limit = self.0.limits.lock().sites.get(site).copied();
        limit.or_else(|| self.0.book.lock().measured(site))
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> LineLimits {
        self.0.limits.lock().clone()
    }

    /// Sets or removes a limit, and returns those that are then in force.
    pub fn limit(&self, order: LimitOrder) -> LineLimits {
        let mut limits = self.0.limits.lock();
        match &order.site {
            None => self.0.own.set(order.rate.map(payload)),
            Some(site) => self.0.book.lock().limit(site, order.rate, self.0.began.elapsed()),
        }
        limits.set(order);
        limits.clone()
    }

    /// All sites that were sent anything, by name.
    #[must_use]
    pub fn shown(&self) -> Vec<SiteTraffic> {
        let limits = self.limits();
        let book = self.0.book.lock();
        let sent_to = book.all().filter(|(_, tally)| tally.sent().all() > 0);
        let shown = sent_to.map(|(site, tally)| SiteTraffic {
            site: site.to_owned(),
            limit: limits.sites.get(site).copied(),
            measured: tally.measured(),
            sent: tally.sent(),
            received: tally.received(),
        });
        shown.collect()
    }
}

/// Sends into one site pass this. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SiteLine {
    traffic: Traffic,
    site: Arc<str>,
    /// The thinner one first: see `common::swarm::serve::Outlet`.
    lines: [Line; 2],
}

impl SiteLine {
    pub(super) fn new(traffic: Traffic, site: &str, line: Line, own: Line) -> Self {
        Self { traffic, site: site.into(), lines: [line, own] }
    }

    /// The lines that are passed, for who waits for turns on them by itself.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.lines.to_vec()
    }

    /// The most bytes to send in one turn; `usize::MAX` while there is no limit.
    #[must_use]
    pub fn piece(&self) -> usize {
        self.lines.iter().map(Line::piece).min().unwrap_or(usize::MAX)
    }

    /// Waits until `bytes` of this kind may be sent; they are not counted yet. Cancel safe.
    pub async fn pass(&self, kind: Kind, bytes: usize) {
        for line in &self.lines {
            line.pass(kind.class(), bytes).await;
        }
    }

    /// Counts bytes that have passed and were sent.
    pub fn sent(&self, kind: Kind, bytes: usize) {
        self.traffic.sent(&self.site, kind, bytes as u64);
    }

    /// Counts bytes of requests and reports that came from there.
    pub fn received(&self, bytes: usize) {
        self.traffic.received(&self.site, bytes as u64);
    }

    /// Counts bytes that were sent without waiting: others wait the longer for it.
    pub fn charge(&self, kind: Kind, bytes: usize) {
        self.lines.iter().for_each(|line| line.charge(bytes));
        self.sent(kind, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::sites::SiteRule;
    use super::*;

    #[test]
    fn what_was_sent_is_shown_by_site_and_kind() {
        let rule = SiteRule { subnet: "10.2.0.0/16".parse().unwrap(), site: "branch".to_owned() };
        let traffic = Traffic::new(Sites::from(vec![rule]), LineLimits::default());
        traffic.sent_to("10.2.9.1".parse().unwrap(), Kind::BootFiles, 7_000);
        traffic.sent_to("10.2.9.2".parse().unwrap(), Kind::BootFiles, 500);
        traffic.sent("branch", Kind::Chunks, 1_000_000);
        traffic.sent_to("10.3.0.9".parse().unwrap(), Kind::Dhcp, 300);
        let shown = traffic.shown();
        assert_eq!(
            shown.iter().map(|site| site.site.as_str()).collect::<Vec<_>>(),
            ["10.3.0.0/24", "branch"]
        );
        assert_eq!(
            shown[1].sent,
            SentByKind { boot_files: 7_500, chunks: 1_000_000, ..SentByKind::default() }
        );
        assert_eq!((shown[0].sent.dhcp, shown[0].sent.all()), (300, 300));
    }

    #[test]
    fn a_limit_is_the_rate_of_a_line() {
        let traffic = Traffic::default();
        assert_eq!(traffic.rate_of("branch"), None);
        let rate: Rate = "20M".parse().unwrap();
        let limits = traffic.limit(LimitOrder { site: Some("branch".to_owned()), rate: Some(rate) });
        assert_eq!(limits.sites.get("branch"), Some(&rate));
        assert_eq!(traffic.rate_of("branch"), Some(rate));
        traffic.limit(LimitOrder { site: Some("branch".to_owned()), rate: None });
        assert_eq!(traffic.rate_of("branch"), None);
    }
}
