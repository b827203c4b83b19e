//! Third of three steps of starting: every task that is bound and wired runs, each under its name. Touches the kits,
//! which get this version's loader before a machine is told of them.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::aside::aside;
use super::bind::BACKLOG;
use super::status::mode_words;
use super::stores::Stores;
use super::supervisor::Ends;
use super::supervisor::{Supervisor, done};
use super::wire::Wired;
use super::{carried, facts, leases, notify};
use crate::fault::Fault;
use crate::fleet::{self, FleetHandle};
use crate::http::ConnectionBounds;
use crate::metrics::Metrics;
use crate::swarm::{self, SwarmFact};

/// The bounds on the connections of the listener for metrics: Prometheus needs one or two.
const METRICS_BOUNDS: ConnectionBounds = ConnectionBounds { all: 16, per_address: 16 };

/// Starts every task under `supervisor`. Returns the stores, whose long work must be cancelled when the server stops.
pub(super) async fn start(wired: Wired, supervisor: &mut Supervisor, ends: &Ends) -> Result<Stores, Fault> {
    let Wired { config, files, stores, doors, fleet, leases, watched, .. } = wired;
    let (metrics, queues) = (watched.metrics, watched.queues);
    start_swarm(supervisor, wired.swarm, (wired.facts, metrics.clone()), &fleet, &ends.inner).await?;
    let refresh = Arc::clone(&stores.kits);
    aside(move || {
        refresh.prepare();
        Ok(())
    })
    .await?;
    tracing::info!(url = wired.url, mode = mode_words(&config), key = %wired.key, "swarmboot serves");

    let (sightings, sighted) = mpsc::channel(BACKLOG);
    let (changed, leases_changed) = mpsc::channel(BACKLOG);
    queues.add("sightings", &sightings);
    queues.add("leases", &changed);
    let (policies, served) = (fleet.policies(), doors.dhcp.served());
    let dhcp = doors.dhcp.run(policies, sightings.clone(), wired.kept, changed, ends.outer.clone());
    supervisor.listener("dhcp", dhcp);
    supervisor.listener("tftp", doors.tftp.run(stores.kits.files(), served, sightings, ends.outer.clone()));
    let bounds = files.door(config.connections_per_address);
    let web = doors.web.with_relays(fleet.relays());
    supervisor.listener("http", done(web.run(wired.public, bounds, ends.outer.clone())));
    if let Some(api) = doors.api {
        supervisor.listener("api", done(api.run(wired.private.clone(), ends.outer.clone())));
    }
    supervisor.listener("admin", done(doors.admin.run(wired.private, ends.outer.clone())));
    if let Some(door) = doors.metrics {
        supervisor.listener("metrics", done(door.run(wired.metrics, METRICS_BOUNDS, ends.outer.clone())));
    }
    supervisor.listener("live", done(wired.live_task.run(ends.outer.clone())));
    supervisor.listener("uploads", done(wired.uploads.tend(ends.outer.clone())));
    supervisor.worker("traffic", done(carried::log(fleet.clone(), wired.traffic, ends.inner.clone())));
    supervisor.worker("subscribers", wired.subscribers.run(fleet.clone(), ends.inner.clone()));
    supervisor.worker("watchdog", done(notify::watchdog(fleet.clone(), ends.inner.clone())));
    supervisor.worker("sightings", done(pass_on_sightings(sighted, fleet)));
    supervisor.worker("leases", done(leases::keep(leases_changed, leases)));
    supervisor.last("fleet", wired.fleet_task.run(ends.last.clone()));
    Ok(stores)
}

/// Starts the swarm, and then readmits the machines of running jobs. In this order, because requests to the swarm wait
/// in a bounded channel: if it were filled before the swarm runs, the server would never come up. Returns how many were
/// readmitted.
pub(super) async fn start_swarm(
    supervisor: &mut Supervisor,
    node: swarm::Bound,
    (told, metrics): (mpsc::Receiver<SwarmFact>, Metrics),
    fleet: &FleetHandle,
    inner: &CancellationToken,
) -> Result<usize, Fault> {
    supervisor.worker("swarm", done(node.run(inner.clone())));
    supervisor.worker("swarm facts", done(facts::log(told, fleet.clone(), metrics)));
    fleet.readmit().await.map_err(|error| Fault::failed("cannot go on with running jobs").because(&error))
}

async fn pass_on_sightings(mut sighted: mpsc::Receiver<fleet::boot_policy::Sighting>, fleet: FleetHandle) {
    while let Some(sighting) = sighted.recv().await {
        fleet.sighting(sighting);
    }
}
