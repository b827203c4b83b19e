//! Wakes machines of the site, when the server says so. Touches the network through `magic`.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::site::Site;
use crate::magic;

/// Wakes each machine that the server names, once for each order, until `cancel`; from the interface with `address`.
pub(super) async fn run(mut site: watch::Receiver<Arc<Site>>, address: Ipv4Addr, cancel: CancellationToken) {
    let mut done = 0;
    loop {
        let now = Arc::clone(&site.borrow_and_update());
        let orders = now.work().map(|work| work.wake.clone()).unwrap_or_default();
        for order in orders.iter().filter(|order| order.number > done) {
            match magic::wake(order.mac, Some(address)).await {
                Ok(()) => tracing::info!(machine = %order.machine, mac = %order.mac, "woken"),
                Err(error) => {
                    tracing::warn!(machine = %order.machine, mac = %order.mac, %error, "a machine could not be woken");
                }
            }
        }
        done = orders.iter().map(|order| order.number).fold(done, u64::max);
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = site.changed() => if changed.is_err() { return },
        }
    }
}
