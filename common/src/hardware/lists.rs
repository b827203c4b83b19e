//! Core: the lists of a hardware report that may be cut, by the names under which the report says so. Touches nothing.

/// A list of a report that may have been cut. [`super::HardwareReport::truncated`] then has its name and what was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// The list of disks.
    Disks,
    /// What is on the disks: their volumes, and what was recognised there.
    OnDisks,
    /// The list of network interfaces.
    Nics,
    /// The list of devices, the longest by far.
    Devices,
}

impl List {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Disks => "disks",
            Self::OnDisks => "what is on the disks",
            Self::Nics => "nics",
            Self::Devices => "devices",
        }
    }

    /// The text in a report for this list, of which something was `left_out`: `disks: 3 of 70 left out`.
    #[must_use]
    pub fn cut(self, left_out: &str) -> String {
        format!("{}: {left_out}", self.name())
    }
}
