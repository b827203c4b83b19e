//! Core: what the doors saw of each machine since the server started, kept for what is concluded of its silence
//! (`silences`). Learnt anew after a restart. Touches `common` and `fleet::silence`.

use std::collections::BTreeMap;

use common::id::MachineId;
use jiff::Timestamp;

use super::super::silence::Trail;

/// What the fleet has seen of machines since the server started.
#[derive(Debug, Default)]
pub(super) struct Trails {
    /// Machines that are forgotten leave it at the next look.
    pub(super) by_machine: BTreeMap<MachineId, Trail>,
    /// When the first look was; what was written before that is not judged, because nobody saw what came after it.
    pub(super) began: Option<Timestamp>,
    /// When a machine last got no address because none is left; nothing once one was offered again.
    pub(super) full: Option<Timestamp>,
}
