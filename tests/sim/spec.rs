//! A machine before it lives: its lines, when it comes and what befalls it. Touches nothing.

/// Megabits per second as bytes per second.
pub(crate) fn mbit(rate: f64) -> f64 {
    rate * 1e6 / 8.0
}

/// What becomes of a machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fate {
    Honest,
    /// Switched off then.
    Killed(f64),
    /// Switched off then, and there again at the second time with what it had.
    Restarts(f64, f64),
    /// Nothing goes over its lines between the two times, but nobody is told.
    Stalls(f64, f64),
    /// Every chunk that it sends is wrong, and it claims to have all.
    Liar,
    /// No peer can reach it, and it can reach none.
    Isolated,
}

impl Fate {
    /// Whether it must be complete in the end.
    pub(crate) fn finishes(self) -> bool {
        !matches!(self, Self::Killed(_) | Self::Liar)
    }
}

/// One machine before it lives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spec {
    pub(crate) site: usize,
    /// What it can send and take in, in bytes per second.
    pub(crate) up: f64,
    pub(crate) down: f64,
    /// When it comes, in seconds.
    pub(crate) joins: f64,
    pub(crate) fate: Fate,
}

impl Spec {
    /// An honest machine of the first site that is there from the start, with rates in Mbit/s.
    pub(crate) fn new(up: f64, down: f64) -> Self {
        Self { site: 0, up: mbit(up), down: mbit(down), joins: 0.0, fate: Fate::Honest }
    }
}
