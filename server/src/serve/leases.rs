//! DHCP leases across a restart: read at the start, saved as they change. Touches where they are kept.

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::aside::aside;
use crate::dhcp4::{Lease, LeaseStore};
use crate::fault::Fault;

/// What was kept in earlier runs.
pub(crate) async fn load(mut store: Box<dyn LeaseStore>) -> Result<(Box<dyn LeaseStore>, Vec<Lease>), Fault> {
    aside(move || {
        let kept = Handle::current().block_on(store.load());
        let kept = kept.map_err(|error| Fault::failed("cannot read the leases").because(&error))?;
        Ok((store, kept))
    })
    .await
}

/// Saves each changed lease, one by one, on a blocking thread. Ends when DHCP has closed the channel.
pub(crate) async fn keep(mut changed: mpsc::Receiver<Lease>, mut store: Box<dyn LeaseStore>) {
    let writer = tokio::task::spawn_blocking(move || {
        while let Some(lease) = changed.blocking_recv() {
            if let Err(error) = Handle::current().block_on(store.save(&lease)) {
                tracing::warn!(error = &error as &dyn std::error::Error, address = %lease.address, "a lease was not kept");
            }
        }
    });
    if let Err(error) = writer.await {
        tracing::error!(%error, "leases are not kept any more");
    }
}
