//! Reading the log: new events as they happen, and recorded ones by pages. Touches the fleet's queue and the store's
//! log.

use std::sync::Arc;

use common::id::MachineId;
use common::step::UnknownStep;
use common::wire::http::Refused;
use tokio::sync::broadcast;

use super::super::decide::Fleet;
use super::super::hostlist;
use super::super::request::FleetError;
use super::super::store::LogFilter;
use super::FleetHandle;
use crate::api::shapes::{LogEvent, LogQuery, Selection};

impl FleetHandle {
    /// New events as they happen. A receiver that lags behind gets an error, and has to read the records again.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Arc<LogEvent>> {
        self.events.subscribe()
    }

    /// The number of the newest event.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn last_event(&self) -> Result<u64, FleetError> {
        self.look(|fleet| fleet.state.last_event).await
    }

    /// The filter for a log query, with machines looked up by their names.
    ///
    /// # Errors
    /// When it names a machine that is not known, or a step that there is not.
    pub async fn log_filter(&self, query: LogQuery) -> Result<LogFilter, FleetError> {
        let machines: Vec<String> = hostlist::split(&query.machines).into_iter().map(str::to_owned).collect();
        let labels: Vec<String> = Some(query.labels).filter(|text| !text.is_empty()).into_iter().collect();
        let chosen: Option<Vec<MachineId>> = if machines.is_empty() && labels.is_empty() {
            // For somebody with a scope: events of its machines only, and none that are about no machine.
            self.look(Fleet::all_in_scope).await?
        } else {
            let selection = Selection { machines, labels };
            let chosen = self.look(move |fleet| match fleet.select(&selection)? {
                none if none.is_empty() => Err(fleet.means_nobody("no machine is meant", &selection)),
                chosen => Ok(chosen),
            });
            Some(chosen.await?.map_err(FleetError::Refused)?)
        };
        let step = query.step.filter(|step| !step.is_empty()).map(|step| step.parse());
        let step = step.transpose().map_err(|error: UnknownStep| {
            FleetError::Refused(Refused { error: error.to_string(), cause: None, hint: None })
        })?;
        Ok(LogFilter {
            machines: chosen,
            deployment: query.deployment,
            step,
            since: query.since,
            progress: query.progress,
        })
    }

    /// The first `limit` recorded events with numbers above `after` that `filter` wants.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn log_page(
        &self,
        filter: LogFilter,
        after: u64,
        limit: u32,
    ) -> Result<Vec<LogEvent>, FleetError> {
        Ok(self.log.page(filter, after, limit).await?)
    }
}
