//! Those who are told of events, webhooks and exports: how far each is, what it has missed, and what is logged about it.
//! Touches the fleet's queue and the store's log.

use std::collections::BTreeSet;
use std::sync::Arc;

use common::id::MachineId;
use common::step::{Step, What};

use super::super::decide::Whose;
use super::super::request::FleetError;
use super::super::selectors::Selectors;
use super::super::state::Change;
use super::super::store::Since;
use super::FleetHandle;

impl FleetHandle {
    /// The number of the event up to which this subscriber has got what it wants; `None` for one that is new.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn cursor(&self, of: Arc<str>) -> Result<Option<u64>, FleetError> {
        self.look(move |fleet| fleet.state.cursors.get(&*of).copied()).await
    }

    /// Keeps that this subscriber has got what it wants up to the event of number `after`.
    ///
    /// # Errors
    /// When it could not be committed.
    pub async fn keep_cursor(&self, of: Arc<str>, after: u64) -> Result<(), FleetError> {
        self.tell(move |fleet, _| fleet.put(Change::Cursor { of: of.to_string(), after })).await
    }

    /// Writes `text` about this subscriber into the log: as a note, or as a failure that may end by itself.
    ///
    /// # Errors
    /// When it could not be committed.
    pub async fn remark_subscriber(
        &self,
        of: Arc<str>,
        text: String,
        is_failure: bool,
    ) -> Result<(), FleetError> {
        let what = match is_failure {
            true => What::Failed { cause: text, last: false },
            false => What::Note { text },
        };
        self.tell(move |fleet, now| fleet.log(now, Whose::Subscriber(&of), Step::Decide, what)).await
    }

    /// The first `limit` events with numbers above `after`, without progress, and what is missing before them.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn log_since(&self, after: u64, limit: u32) -> Result<Since, FleetError> {
        Ok(self.log.since(after, limit).await?)
    }

    /// Those of `machines` that fit `selectors` now.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn fitting(
        &self,
        selectors: Arc<Selectors>,
        machines: BTreeSet<MachineId>,
    ) -> Result<BTreeSet<MachineId>, FleetError> {
        self.look(move |fleet| {
            let known = machines.iter().filter_map(|id| fleet.state.machines.get(id));
            known
                .filter(|machine| fleet.settings.rules.fit(&selectors, machine))
                .map(|machine| machine.id)
                .collect()
        })
        .await
    }
}
