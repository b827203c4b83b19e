//! Core: the bytes that were sent into one site, by kind, and the rate that its line was seen to carry.

use std::time::Duration;

use common::line::Class;
use serde::{Deserialize, Serialize};

use super::rate::Rate;

/// What bytes are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Answers of the DHCP server.
    Dhcp,
    /// Boot programs over TFTP.
    Tftp,
    /// Kernels, loaders and boot programs over HTTP.
    BootFiles,
    /// Agents' bundles.
    Bundle,
    /// Images' manifests, and their tables of deltas.
    Manifest,
    /// Chunks of images.
    Chunks,
    /// Everything else over HTTP: scripts, verdicts, acknowledgements.
    Answers,
    /// The swarm's control streams.
    Control,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Dhcp,
        Self::Tftp,
        Self::BootFiles,
        Self::Bundle,
        Self::Manifest,
        Self::Chunks,
        Self::Answers,
        Self::Control,
    ];

    /// The kind's name, as `swarm status` prints it in JSON and metrics have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dhcp => "dhcp",
            Self::Tftp => "tftp",
            Self::BootFiles => "boot_files",
            Self::Bundle => "bundle",
            Self::Manifest => "manifest",
            Self::Chunks => "chunks",
            Self::Answers => "answers",
            Self::Control => "control",
        }
    }

    /// The class in which bytes of this kind wait.
    pub(super) fn class(self) -> Class {
        match self {
            Self::Dhcp | Self::Tftp | Self::Answers | Self::Control => Class::Small,
            Self::BootFiles | Self::Bundle | Self::Manifest => Class::Boot,
            Self::Chunks => Class::Chunks,
        }
    }
}

/// Bytes that were sent, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SentByKind {
    /// Answers of the DHCP server.
    pub dhcp: u64,
    /// Boot programs over TFTP.
    pub tftp: u64,
    /// Kernels, loaders and boot programs over HTTP.
    pub boot_files: u64,
    /// Agents' bundles.
    pub bundle: u64,
    /// Images' manifests.
    pub manifest: u64,
    /// Chunks of images.
    pub chunks: u64,
    /// Everything else over HTTP: scripts, verdicts, acknowledgements.
    pub answers: u64,
    /// The swarm's control streams.
    pub control: u64,
}

impl SentByKind {
    /// Bytes of this kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Dhcp => self.dhcp,
            Kind::Tftp => self.tftp,
            Kind::BootFiles => self.boot_files,
            Kind::Bundle => self.bundle,
            Kind::Manifest => self.manifest,
            Kind::Chunks => self.chunks,
            Kind::Answers => self.answers,
            Kind::Control => self.control,
        }
    }

    /// Bytes of all kinds.
    #[must_use]
    pub fn all(&self) -> u64 {
        Kind::ALL.iter().map(|kind| self.of(*kind)).sum()
    }

    /// What was added since `before`, an earlier state of the same counts.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut since = Self::default();
        for kind in Kind::ALL {
            since.add(kind, self.of(kind).saturating_sub(before.of(kind)));
        }
        since
    }

    fn add(&mut self, kind: Kind, bytes: u64) {
        *match kind {
            Kind::Dhcp => &mut self.dhcp,
            Kind::Tftp => &mut self.tftp,
            Kind::BootFiles => &mut self.boot_files,
            Kind::Bundle => &mut self.bundle,
            Kind::Manifest => &mut self.manifest,
            Kind::Chunks => &mut self.chunks,
            Kind::Answers => &mut self.answers,
            Kind::Control => &mut self.control,
        } += bytes;
    }
}

/// The whole seconds in a row over which a rate is measured. Their median counts: what the kernel's buffers swallow of
/// a new connection is in the first of them, and never crossed the line that fast.
const SECONDS: usize = 5;

/// The counts of one site.
#[derive(Debug, Default)]
pub(super) struct Tally {
    sent: SentByKind,
    received: u64,
    last: Duration,
    /// Bytes in the second of `last`.
    in_second: u64,
    /// Bytes in each of the seconds before that, the newest last.
    before: Vec<u64>,
    /// The best median, in bytes per second.
    best: u64,
}

impl Tally {
    /// Counts from `now` on.
    pub(super) fn new(now: Duration) -> Self {
        Self { last: now, ..Self::default() }
    }

    /// Counts bytes that were sent `now`, a time since the server started that never goes back.
    pub(super) fn add(&mut self, kind: Kind, bytes: u64, now: Duration) {
        self.sent.add(kind, bytes);
        self.turn(now);
        self.in_second += bytes;
    }

    /// Counts bytes that came from there.
    pub(super) fn receive(&mut self, bytes: u64) {
        self.received += bytes;
    }

    /// Adds the counts of another site, which has no line in common with this one.
    pub(super) fn merge(&mut self, other: &Self, now: Duration) {
        for kind in Kind::ALL {
            self.sent.add(kind, other.sent.of(kind));
        }
        self.received += other.received;
        self.last = now;
    }

    fn turn(&mut self, now: Duration) {
        let passed = now.as_secs().saturating_sub(self.last.as_secs());
        self.last = now.max(self.last);
        if passed == 0 {
            return;
        }
        if passed > 1 {
            // A second without a byte: the line was not busy.
            self.before.clear();
        } else {
            if self.before.len() == SECONDS {
                self.before.remove(0);
            }
            self.before.push(self.in_second);
        }
        self.in_second = 0;
        if self.before.len() == SECONDS {
            let mut sorted = self.before.clone();
            sorted.sort_unstable();
            self.best = self.best.max(sorted[SECONDS / 2]);
        }
    }

    /// When something was last sent.
    pub(super) fn last(&self) -> Duration {
        self.last
    }

    /// Bytes by kind.
    pub(super) fn sent(&self) -> SentByKind {
        self.sent
    }

    /// Bytes that came from there.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// The best rate over some seconds; `None` below the least limit, which is no busy line.
    pub(super) fn measured(&self) -> Option<Rate> {
        Rate::try_from(self.best.saturating_mul(8)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(seconds: &[u64]) -> Option<u64> {
        let mut tally = Tally::default();
        for (at, bytes) in (0..).zip(seconds) {
            for part in 0..10 {
                if *bytes > 0 {
                    tally.add(Kind::BootFiles, bytes / 10, Duration::from_millis(1000 * at + 100 * part));
                }
            }
        }
        assert_eq!(tally.sent().all(), seconds.iter().sum::<u64>());
        tally.measured().map(u64::from)
    }

    #[test]
    fn a_rate_is_what_a_busy_line_carried() {
        let (buffers, line) = (9_000_000, 2_500_000);
        let table: &[(&[u64], Option<u64>)] = &[
            (&[line; 4], None),
            (&[line; 5], None),
            (&[line; 6], Some(20_000_000)),
            // The buffers of two new connections, and of a third one later.
            (&[buffers, buffers, line, line, line, line, buffers, line, line], Some(20_000_000)),
            // A pause is no slow line, and what comes before it is not added to what comes after it.
            (&[line, line, line, 0, line, line, line, 0, line], None),
            (&[line, line, line, line, line, line, 0, 0, 1000, 1000, 1000], Some(20_000_000)),
            // Reports of machines that wait are no busy line.
            (&[1000; 60], None),
        ];
        for (seconds, wanted) in table {
            assert_eq!(measured(seconds), *wanted, "{seconds:?}");
        }
    }
}
