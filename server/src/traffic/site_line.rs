//! The way into one site: everything that is sent there waits for its turn on the site's line and on the server's own,
//! and is counted. Owns nothing of its own; touches the lines and the counts.

use std::sync::Arc;

use common::line::{Class, Line};

use super::Traffic;
use super::tally::Kind;

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

    /// Counts bytes that were sent without waiting: others wait the longer for it.
    pub fn charge(&self, kind: Kind, bytes: usize) {
        self.lines.iter().for_each(|line| line.charge(bytes));
        self.sent(kind, bytes);
    }
}

impl Kind {
    /// The class in which bytes of this kind wait.
    fn class(self) -> Class {
        match self {
            Self::Dhcp | Self::Tftp | Self::Answers | Self::Control => Class::Small,
            Self::BootFiles | Self::Bundle | Self::Manifest => Class::Boot,
            Self::Chunks => Class::Chunks,
        }
    }
}
