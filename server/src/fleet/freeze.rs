//! Core, part of the fleet: `freeze` stops everything new. While it lasts, no order is placed, no plan is given but the
//! one that an agent has already, and no open deployment takes a machine; running jobs go on. Touches `api`, `common`
//! and the other cores of the fleet.

use common::limits::{EVENT_TEXT_MAX, cut};
use common::step::{Step, What};
use common::text::harmless;
use common::wire::http::Refused;
use jiff::Timestamp;

use super::decide::{Fleet, Whose};
use super::order::refused;
use super::state::Change;
use crate::api::shapes::Frozen;

impl Fleet {
    /// Freezes the fleet, or with `false` ends that, and returns what is then in force. To freeze again is no error: it
    /// changes the reason and keeps the time.
    pub fn freeze(&mut self, freeze: bool, reason: Option<String>, now: Timestamp) -> Option<Frozen> {
        let reason = reason.map(|text| cut(&harmless(&text), EVENT_TEXT_MAX / 2).to_owned());
        let frozen = freeze.then(|| Frozen {
            since: self.state.frozen.as_ref().map_or(now, |frozen| frozen.since),
            reason: reason.clone(),
        });
        if frozen == self.state.frozen {
            return frozen;
        }
        let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let text = if freeze {
            format!("{}: frozen, nothing new begins{why}", self.caller_name())
        } else {
            format!("{}: not frozen any more{why}", self.caller_name())
        };
        self.put(Change::Frozen(frozen.clone()));
        self.log(now, Whose::Server, Step::Decide, What::Note { text });
        frozen
    }

    /// Refuses what would begin something new.
    ///
    /// # Errors
    /// While the fleet is frozen.
    pub(super) fn check_frozen(&self) -> Result<(), Refused> {
        match &self.state.frozen {
            None => Ok(()),
            Some(frozen) => {
                Err(refused(frozen.to_string(), "`swarmboot deploy unfreeze` lets new things begin again"))
            }
        }
    }
}
