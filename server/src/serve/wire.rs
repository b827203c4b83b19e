//! Second of three steps of starting: what is bound is connected: the fleet over the records, the routes over the
//! fleet, the channels between them. Nothing is served yet. Touches the records, which are read here.

use std::sync::Arc;

use axum::Router;
use common::trust::PublicKey;
use jiff::SignedDuration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::aside::aside;
use super::bind::{Bound, Doors, Watched};
use super::files::Files;
use super::home::Home;
use super::stores::Stores;
use super::watch::Watching;
use super::{leases, own, status, users};
use crate::api;
use crate::api::shapes::ServerStatus;
use crate::backup::Backup;
use crate::config::Config;
use crate::dhcp4::{Lease, LeaseStore};
use crate::fault::Fault;
use crate::fleet::boot_policy::BootPolicies;
use crate::fleet::decide::Settings;
use crate::fleet::{self, FleetHandle, FleetTask};
use crate::http;
use crate::peers::Peers;
use crate::provision::Provisioning;
use crate::subscribers;
use crate::swarm::{self, SwarmFact};
use crate::traffic::Traffic;

/// Seconds after which a waiting machine reports again where it cannot wait with an open request.
pub(super) const POLL_SECONDS: u32 = 10;

/// How long an installed OS may take to call home. A server with a lot of memory tests it for minutes first.
pub(super) const CONFIRM_WITHIN: SignedDuration = SignedDuration::from_mins(30);

/// What [`wire`] has connected, ready to be started.
pub(super) struct Wired {
    pub(super) config: Arc<Config>,
    pub(super) files: Files,
    pub(super) key: PublicKey,
    pub(super) url: String,
    pub(super) stores: Stores,
    pub(super) doors: Doors,
    pub(super) swarm: swarm::Bound,
    pub(super) traffic: Traffic,
    /// The receiving end of the channel on which the swarm reports.
    pub(super) facts: mpsc::Receiver<SwarmFact>,
    pub(super) fleet: FleetHandle,
    pub(super) fleet_task: FleetTask,
    /// The task of the live stream.
    pub(super) live_task: api::LiveTask,
    /// Images that are being sent in pieces.
    pub(super) uploads: api::Uploads,
    /// The routes of the machines' HTTP listener.
    pub(super) public: Router,
    /// The routes of the admin's socket.
    pub(super) private: Router,
    /// The routes of the listener for metrics alone.
    pub(super) metrics: Router,
    /// Who is told of events.
    pub(super) subscribers: subscribers::Opened,
    /// What monitoring looks at.
    pub(super) watched: Watched,
    /// Where changed leases are saved.
    pub(super) leases: Box<dyn LeaseStore>,
    /// The leases of earlier runs.
    pub(super) kept: Vec<Lease>,
}

/// The server's status, with what the boot policies warn of.
fn with_policies(
    status: impl Fn() -> ServerStatus + Send + Sync,
    known: watch::Receiver<Arc<BootPolicies>>,
) -> impl Fn() -> ServerStatus + Send + Sync {
    move || {
        let mut status = status();
        status.warnings.extend(known.borrow().warning());
        status
    }
}

/// Connects what is `bound`. Cancelling `closing` ends what an admin follows or uploads.
pub(super) async fn wire(bound: Bound, closing: CancellationToken) -> Result<Wired, Fault> {
    let (url, status) = (bound.url(), status::status(&bound));
    let Bound {
        config,
        files,
        home,
        stores,
        records,
        leases,
        doors,
        traffic,
        peers,
        swarm,
        facts,
        subscribers,
        watched,
        ..
    } = bound;
    let provisioning = provisioning(&stores, &home, swarm.handle(), peers.clone());
    let settings = settings(&config, files, &home, (&url, swarm.handle().addresses()));
    let keys = home.keys.clone();
    let start =
        move || fleet::start(records, provisioning, keys, settings).map_err(|error| not_started(&error));
    let (fleet, fleet_task) = aside(start).await?;
    let (leases, kept) = leases::load(leases).await?;
    expect(&peers, &fleet);
    let public = public(&config, &stores, &fleet, peers);
    let watch = watching(&watched, &doors, &stores, (&config, &traffic), (&fleet, subscribers.handle()));
    let (live, live_task) = api::LiveStreams::new(fleet.clone(), swarm.handle(), traffic.clone());
    let uploads = api::Uploads::default();
    let private = api::routes(api::Admin {
        fleet: fleet.clone(),
        images: stores.images.clone(),
        uploads: uploads.clone(),
        kits: Arc::clone(&stores.kits),
        swarm: swarm.handle(),
        traffic: traffic.clone(),
        status: Arc::new(with_policies(status, fleet.policies())),
        tokens: fleet.tokens(),
        used: api::LastUsed::default(),
        user_name: Arc::new(users::name),
        errands: api::Errands::default(),
        streams: api::Streams::default(),
        ops: api::Ops { backup: backed_up(&config).door(), watch: Arc::clone(&watch) },
        live,
        cancel: closing,
    });
    Ok(Wired {
        config,
        files,
        key: home.keys.public(),
        url,
        stores,
        doors,
        swarm,
        traffic,
        facts,
        fleet,
        fleet_task,
        live_task,
        uploads,
        public,
        private,
        metrics: http::details(&watch).merge(http::words(&watch)),
        subscribers,
        watched,
        leases,
        kept,
    })
}

/// The routes of the machines' HTTP listener.
fn public(config: &Config, stores: &Stores, fleet: &FleetHandle, peers: Peers) -> Router {
    http::public(fleet.clone(), boot_files(stores), config.kernel_args.clone(), config.discovery, peers)
}

/// Tells the peers' side for which sites machines are expected.
fn expect(peers: &Peers, fleet: &FleetHandle) {
    let orders = fleet.policies();
    peers.expect(move |site| orders.borrow().due.expects(site));
}

fn not_started(error: &dyn std::error::Error) -> Fault {
    Fault::failed("cannot start the fleet").because(error)
}

/// What a backup is made of.
fn backed_up(config: &Config) -> Backup {
    Backup { state: config.state.clone(), configuration: config.file.clone() }
}

/// What machines boot from.
fn boot_files(stores: &Stores) -> Arc<http::Stores> {
    let Stores { images, kits, bundles } = stores.clone();
    Arc::new(http::Stores { kits, bundles, images })
}

/// What monitoring looks at, of what is bound and connected.
fn watching(
    watched: &Watched,
    doors: &Doors,
    stores: &Stores,
    (config, traffic): (&Arc<Config>, &Traffic),
    (fleet, subscribers): (&FleetHandle, subscribers::Handle),
) -> Arc<dyn http::Watch> {
    Arc::new(Watching {
        metrics: watched.metrics.clone(),
        fleet: fleet.clone(),
        traffic: traffic.clone(),
        stores: stores.clone(),
        config: Arc::clone(config),
        leases: watched.leases.clone(),
        subscribers,
        rivals: doors.dhcp.rivals(),
        queues: watched.queues.clone(),
        open: vec![("machines", Box::new(doors.web.open())), ("admin", Box::new(doors.admin.open()))],
        census: Default::default(),
    })
}

fn provisioning(stores: &Stores, home: &Home, swarm: swarm::SwarmHandle, peers: Peers) -> Arc<Provisioning> {
    Arc::new(Provisioning {
        images: stores.images.clone(),
        kits: Arc::clone(&stores.kits),
        bundles: Arc::clone(&stores.bundles),
        swarm,
        key: home.keys.public(),
        peers,
    })
}

/// The fleet's settings; `url` and `seeds` are where machines reach the server's HTTP and its swarm.
fn settings(config: &Config, files: Files, home: &Home, (url, seeds): (&str, &[String])) -> Settings {
    Settings {
        discover: config.discovery,
        poll_seconds: POLL_SECONDS,
        waiters: files.waiters(config.connections_per_address),
        confirm_within: CONFIRM_WITHIN,
        keep_events: config.keep_events,
        keep_bytes: config.keep_bytes,
        reserve_bytes: config.reserve_bytes,
        rules: config.rules.clone(),
        max_machines: config.max_machines,
        sites: config.sites.clone(),
        token_key: home.keys.secret(),
        own: Arc::new(own::read(std::path::Path::new("/"))),
        order_expires: config.order_expires,
        url: url.to_owned(),
        seeds: seeds.to_vec(),
    }
}
