//! The log as it is read: new events as they happen, and older ones by pages. Touches the fleet's thread and the log at rest.

use std::sync::Arc;

use common::id::MachineId;
use common::step::UnknownStep;
use common::wire::http::Refused;
use tokio::sync::broadcast;

use super::super::hostlist;
use super::super::request::FleetError;
use super::super::store::LogFilter;
use super::FleetHandle;
use crate::api::shapes::{LogEvent, LogQuery, Selection};

impl FleetHandle {
    /// New events as they happen. Who lags behind is told so and reads the records again.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Arc<LogEvent>> {
        self.events.subscribe()
    }

    /// What a log query asks for.
    ///
    /// # Errors
    /// When it names a machine that is not known.
    pub async fn log_filter(&self, query: LogQuery) -> Result<LogFilter, FleetError> {
        let machines: Vec<String> = hostlist::split(&query.machines).into_iter().map(str::to_owned).collect();
        let chosen: Option<Vec<MachineId>> = if machines.is_empty() {
            None
        } else {
            let selection = Selection { machines, labels: vec![] };
            Some(self.look(move |fleet| fleet.select(&selection)).await?.map_err(FleetError::Refused)?)
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

    /// At most `limit` events of the log from the first after number `after`.
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
