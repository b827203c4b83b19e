//! The description of a machine: its lines, when it joins, and its fault. Touches nothing.

/// A rate in Mbit/s as bytes per second.
pub(crate) fn mbit(rate: f64) -> f64 {
    rate * 1e6 / 8.0
}

/// The fault of a machine; times are in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fate {
    Honest,
    /// Switched off at this time.
    Killed(f64),
    /// Switched off at the first time, and back at the second with what its disk holds.
    Restarts(f64, f64),
    /// Nothing goes over its lines between the two times, and nobody is told.
    Stalls(f64, f64),
    /// It claims to hold every chunk, and every chunk that it sends is wrong.
    Liar,
    /// It cannot reach any peer, nor can a peer reach it.
    Isolated,
}

impl Fate {
    /// Whether it has to be complete in the end.
    pub(crate) fn finishes(self) -> bool {
        !matches!(self, Self::Killed(_) | Self::Liar)
    }
}

/// The description of one machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spec {
    pub(crate) site: usize,
    /// The rates of its uplink and downlink, in bytes per second.
    pub(crate) up: f64,
    pub(crate) down: f64,
    /// When it joins, in seconds.
    pub(crate) joins: f64,
    pub(crate) fate: Fate,
}

impl Spec {
    /// An honest machine of the first site, there from the start, with rates in Mbit/s.
    pub(crate) fn new(up: f64, down: f64) -> Self {
        Self { site: 0, up: mbit(up), down: mbit(down), joins: 0.0, fate: Fate::Honest }
    }
}
