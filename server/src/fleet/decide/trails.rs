//! Core: what DHCP, TFTP and HTTP saw of each machine since the server started, from which `silences` draws its
//! conclusions. Not recorded. Touches `common` and `fleet::silence`.

use std::collections::BTreeMap;

use common::id::MachineId;
use jiff::Timestamp;

use super::super::silence::Trail;

/// What was seen of all machines since the server started.
#[derive(Debug, Default)]
pub(super) struct Trails {
    /// The last sightings of each machine; entries of forgotten machines are dropped at the next tick.
    pub(super) by_machine: BTreeMap<MachineId, Trail>,
    /// The time of the first tick; `None` before it. Jobs that were written earlier get no conclusion, because what
    /// followed was not seen.
    pub(super) began: Option<Timestamp>,
    /// When a machine last got no address because none was free; `None` once one was offered again.
    pub(super) full: Option<Timestamp>,
}
