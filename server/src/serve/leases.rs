//! DHCP leases across a restart: read from the records at the start, saved as they change. Touches the records.

use tokio::sync::mpsc;

use crate::dhcp4::Lease;
use crate::records::{LeaseBook, LeaseRow};

/// Saves each changed lease, one by one, on a blocking thread. Ends when DHCP has closed the channel.
pub(super) async fn keep(mut changed: mpsc::Receiver<Lease>, book: LeaseBook) {
    let writer = tokio::task::spawn_blocking(move || {
        while let Some(lease) = changed.blocking_recv() {
            if let Err(error) = book.save(&row_of(&lease)) {
                tracing::warn!(error = &error as &dyn std::error::Error, address = %lease.address, "a lease was not kept");
            }
        }
    });
    if let Err(error) = writer.await {
        tracing::error!(%error, "leases are not kept any more");
    }
}

fn row_of(lease: &Lease) -> LeaseRow {
    let state = serde_json::to_value(lease.state).ok().and_then(|value| value.as_str().map(str::to_owned));
    LeaseRow {
        address: lease.address,
        holder: lease.holder.clone(),
        until: lease.until,
        state: state.unwrap_or_default(),
    }
}

/// A lease of an earlier run; `None` when its state is a word that this version does not know.
pub(super) fn lease_of(row: LeaseRow) -> Option<Lease> {
    let state = serde_json::from_value(row.state.into()).ok()?;
    Some(Lease { address: row.address, holder: row.holder, until: row.until, state })
}
