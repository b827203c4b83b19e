//! Binding everything before starting anything; the order of stopping. Touches every shell below, and the
//! state folder.
//!
//! Signals are heard from the first instant, also while the server begins.
//!
//! Stopping, in this order, with ten seconds in all: the doors close (DHCP, TFTP, HTTP, the admin's socket,
//! each letting its last answers go out), the swarm ends, the fleet writes down what it was told. A second
//! signal leaves at once; nothing is lost by that but the politeness, as after a power failure.

// Which tasks run, and what becomes of the others when one ends.
mod supervisor;

// What the swarm tells, in the words of the log.
mod facts;

// How many files may be open, and who may use them.
mod files;

// The machine that the server runs on.
mod own;

// The state folder, and the server's identity in it.
mod home;

// What became of the interface.
mod network;

// What machines are given: images, kits, bundles.
mod stores;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::files::Files;
use self::home::Home;
use self::stores::Stores;
use self::supervisor::Supervisor;
use crate::api;
use crate::api::shapes::ServerStatus;
use crate::boot::tftp;
use crate::cli::fault::Fault;
use crate::config::{Addresses, Config};
use crate::dhcp4::{self, Lease, Mode, Network, Range};
use crate::fleet::decide::Settings;
use crate::fleet::{self, FleetHandle};
use crate::http;
use crate::provision::Provisioning;
use crate::records::{LeaseBook, LeaseRow, Records};
use crate::swarm;

/// Sightings and leases that may wait; a power cut brings a few for each of 2,000 machines at once.
const BACKLOG: usize = 4096;
/// Seconds after which a waiting machine reports again.
const POLL_SECONDS: u32 = 10;
/// How long an installed OS may take to call home. A server with a lot of memory tests it for minutes first.
const CONFIRM_WITHIN: SignedDuration = SignedDuration::from_mins(30);
/// The lease of an installed OS. The loader's is shorter, see `dhcp4::lease`.
const LEASE_SECONDS: u32 = 12 * 3600;
/// How long the whole of stopping may take.
const GRACE: Duration = Duration::from_secs(10);

/// The three ends, in the order in which they come: the doors', the swarm's, the fleet's.
#[derive(Debug, Default)]
struct Ends {
    outer: CancellationToken,
    inner: CancellationToken,
    last: CancellationToken,
}

/// Runs the server until it is told to stop. That it is told while it begins is no failure: what was begun is let go.
///
/// # Errors
/// When something cannot be bound, or a task ends early.
pub async fn run(config: Config) -> Result<(), Fault> {
    log_to_stderr(&config)?;
    serve(config, Programs::beside_us).await
}

async fn serve(config: Config, programs: impl FnOnce() -> Result<Programs, Fault>) -> Result<(), Fault> {
    let mut signals = StopSignals::listen()?;
    let (mut supervisor, ends) = (Supervisor::new(), Ends::default());
    let begun = tokio::select! {
        begun = begin(config, programs, &mut supervisor, &ends) => Some(begun),
        () = signals.next() => None,
    };
    let Some(stores) = begun.transpose()? else {
        tracing::info!("told to stop before it had begun");
        return Ok(());
    };

    let ended = supervisor.watch(signals.asked()).await;
    stores.stop();
    let stopping = async {
        ends.outer.cancel();
        supervisor.listeners_closed().await;
        ends.inner.cancel();
        supervisor.workers_ended().await;
        ends.last.cancel();
        supervisor.last_ended().await
    };
    let stopped = tokio::time::timeout(GRACE, stopping).await;
    match (ended, stopped) {
        (Err(fault), _) => Err(fault),
        (Ok(()), Ok(result)) => result,
        (Ok(()), Err(_)) => {
            tracing::warn!("not everything ended in time");
            Ok(())
        }
    }
}

/// Binds everything, then starts it. What reads a lot of the disk does so off this task, or nobody would hear the
/// signal to stop meanwhile.
async fn begin(
    config: Config,
    programs: impl FnOnce() -> Result<Programs, Fault>,
    supervisor: &mut Supervisor,
    ends: &Ends,
) -> Result<Stores, Fault> {
    let files = Files::raise();
    let home = Home::open(&config.state)?;
    let programs = programs()?;
    let config = Arc::new(config);

    // Everything is bound before anything runs: a server that cannot do all of its work does none of it.
    let place = dhcp4::interface_address(&config.interface).map_err(|error| {
        Fault::failed(format!("cannot use the interface {}", config.interface))
            .because(&error)
            .hint("`ip -brief address` lists the interfaces and their addresses")
    })?;
    let http_at = SocketAddr::new(place.address.into(), config.http_port);
    let (home, wanted) = (Arc::new(home), Arc::clone(&config));
    let opened = {
        let home = Arc::clone(&home);
        move || Ok((Stores::open(&wanted, &home, &programs, http_at)?, open_records(&home)?))
    };
    let (stores, (records, leases)) = aside(opened).await?;
    let web = http::bind(http_at).await.map_err(|error| {
        let hint = error.hint();
        Fault::failed("cannot serve HTTP").because(&error).hint(hint)
    })?;
    let listeners = bind_doors(&config, &stores, place.address)?;
    let admin = http::bind_admin(&config.socket).await.map_err(|error| {
        let hint = error.hint();
        Fault::failed("cannot open the admin socket").because(&error).hint(hint)
    })?;
    let (facts, facts_told) = mpsc::channel(BACKLOG);
    let node = bind_swarm(&config, &home, &stores, place.address, facts).await?;
    let swarm_handle = node.handle();

    let url = format!("http://{http_at}");
    let fleet = {
        let provisioning = provisioning(&stores, &home, swarm_handle.clone());
        let (keys, settings) = (home.keys.clone(), settings(&config, &home, &url));
        move || {
            fleet::start(records, provisioning, keys, settings)
                .map_err(|error| Fault::failed("cannot start the fleet").because(&error))
        }
    };
    let (fleet, fleet_task) = aside(fleet).await?;
    start_swarm(supervisor, node, facts_told, &fleet, &ends.inner).await?;

    let kept = leases.load().map_err(|error| Fault::failed("cannot read the leases").because(&error))?;
    let (changed, leases_changed) = mpsc::channel(BACKLOG);
    let (sightings, sighted) = mpsc::channel(BACKLOG);
    let kept = kept.into_iter().filter_map(lease_of).collect();
    let arguments = config.kernel_args.split_whitespace().map(str::to_owned).collect();
    let Stores { images, kits, bundles } = stores.clone();
    let boot_source = Arc::new(http::Stores { kits, bundles, images });
    let public = http::public(fleet.clone(), boot_source, arguments, config.discovery);
    let status = status(&config, &home, &url, stores.clone(), place.place(), listeners.dhcp.rivals());
    let known = fleet.policies();
    let status = move || {
        let mut status = status();
        status.warnings.extend(files.warning());
        status.warnings.extend(known.borrow().warning());
        status
    };
    let private = api::routes(api::Admin {
        fleet: fleet.clone(),
        images: stores.images.clone(),
        kits: Arc::clone(&stores.kits),
        swarm: swarm_handle,
        status: Arc::new(status),
        errands: api::Errands::default(),
        cancel: ends.outer.clone(),
    });

    let refresh = Arc::clone(&stores.kits);
    aside(move || {
        refresh.prepare();
        Ok(())
    })
    .await?;
    tracing::info!(url, mode = mode_words(&config), key = %home.keys.public(), "swarmboot serves");

    let policies = fleet.policies();
    let served = listeners.dhcp.served();
    supervisor
        .listener("dhcp", listeners.dhcp.run(policies, sightings.clone(), kept, changed, ends.outer.clone()));
    supervisor
        .listener("tftp", listeners.tftp.run(stores.kits.files(), served, sightings, ends.outer.clone()));
    supervisor.listener(
        "http",
        done(web.run(public, files.door(config.connections_per_address), ends.outer.clone())),
    );
    supervisor.listener("admin", done(admin.run(private, ends.outer.clone())));
    supervisor.worker("sightings", done(pass_on_sightings(sighted, fleet.clone())));
    supervisor.worker("leases", done(keep_leases(leases_changed, leases)));
    supervisor.last("fleet", fleet_task.run(ends.last.clone()));
    Ok(stores)
}

async fn bind_swarm(
    config: &Config,
    home: &Home,
    stores: &Stores,
    address: std::net::Ipv4Addr,
    facts: mpsc::Sender<swarm::SwarmFact>,
) -> Result<swarm::Bound, Fault> {
    let listen = format!("/ip4/{address}/tcp/{}", config.swarm_port);
    let node =
        swarm::bind(&home.keys, &listen, Arc::new(stores.images.clone()), facts).await.map_err(|error| {
            Fault::failed(format!("cannot open the swarm's port {}", config.swarm_port)).because(&error).hint(
                format!(
                    "`ss -ltnp 'sport = :{0}'` shows who has it; --swarm-port chooses another",
                    config.swarm_port
                ),
            )
        })?;
    let net =
        |rule: &fleet::decide::SiteRule| swarm::SiteNet { site: rule.site.clone(), subnet: rule.subnet };
    Ok(node.with_limits(config.limits.clone()).with_sites(config.sites.iter().map(net).collect()))
}

/// Starts the swarm, and then lets the machines of running jobs in again: in this order, because what the swarm is told
/// waits in a channel of its own, and a server that filled it first would never come up.
async fn start_swarm(
    supervisor: &mut Supervisor,
    node: swarm::Bound,
    told: mpsc::Receiver<swarm::SwarmFact>,
    fleet: &FleetHandle,
    inner: &CancellationToken,
) -> Result<usize, Fault> {
    supervisor.worker("swarm", done(node.run(inner.clone())));
    supervisor.worker("swarm facts", done(facts::log(told, fleet.clone())));
    fleet.readmit().await.map_err(|error| Fault::failed("cannot go on with running jobs").because(&error))
}

/// Does `work` on a thread of its own.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Fault::failed("a step of starting ended by itself").because(&error))?
}

/// A task that cannot fail, in the form of one that can.
async fn done(task: impl Future<Output = ()>) -> Result<(), std::convert::Infallible> {
    task.await;
    Ok(())
}

/// The programs that machines run. They are built with the server and stand beside it.
struct Programs {
    loader: PathBuf,
    agent: PathBuf,
}

impl Programs {
    fn beside_us() -> Result<Self, Fault> {
        let us = std::env::current_exe()
            .map_err(|error| Fault::failed("cannot find this program's own folder").because(&error))?;
        let beside = |name: &str| {
            let path = us.with_file_name(name);
            if path.is_file() {
                return Ok(path);
            }
            Err(Fault::failed(format!("{} is not there", path.display()))
                .hint("swarmboot, swarmboot-loader and swarmboot-agent belong into one folder"))
        };
        Ok(Self { loader: beside("swarmboot-loader")?, agent: beside("swarmboot-agent")? })
    }
}

fn provisioning(stores: &Stores, home: &Home, swarm: swarm::SwarmHandle) -> Arc<Provisioning> {
    Arc::new(Provisioning {
        images: stores.images.clone(),
        kits: stores.kits.store().clone(),
        bundles: Arc::clone(&stores.bundles),
        swarm,
        key: home.keys.public(),
    })
}

fn open_records(home: &Home) -> Result<(Records, LeaseBook), Fault> {
    let path = home.dir.join("records.sqlite");
    let failed = |error: &dyn std::error::Error| {
        Fault::failed("cannot open the records")
            .because(error)
            .hint("the state folder must be writable, with room on its disk")
    };
    let records = Records::open(&path).map_err(|error| failed(&error))?;
    let leases = LeaseBook::open(&path).map_err(|error| failed(&error))?;
    Ok((records, leases))
}

/// What answers firmware.
struct Listeners {
    dhcp: dhcp4::Bound,
    tftp: tftp::Bound,
}

fn bind_doors(config: &Config, stores: &Stores, address: std::net::Ipv4Addr) -> Result<Listeners, Fault> {
    let mode = match &config.addresses {
        Addresses::Proxy => Mode::Proxy,
        Addresses::Range(start, end) => Mode::Full(Network {
            range: Range { start: *start, end: *end },
            router: config.router,
            dns: config.dns.clone(),
            domain: None,
            lease_seconds: LEASE_SECONDS,
        }),
    };
    let settings = dhcp4::Config {
        interface: config.interface.clone(),
        mode,
        http_port: config.http_port,
        discovery: config.discovery,
        programs: stores.kits.programs(),
        sites: config.sites.iter().map(|rule| rule.subnet).collect(),
        authoritative: config.authoritative,
    };
    let dhcp = dhcp4::bind(settings).map_err(|error| {
        let hint = error.hint();
        Fault::failed("cannot serve DHCP").because(&error).hint(hint)
    })?;
    let tftp = tftp::bind(address).map_err(|error| {
        let hint = error.hint();
        Fault::failed("cannot serve TFTP").because(&error).hint(hint)
    })?;
    Ok(Listeners { dhcp, tftp })
}

/// What the server says of itself, asked anew each time for its warnings.
fn status(
    config: &Config,
    home: &Home,
    url: &str,
    stores: Stores,
    place: dhcp4::Place,
    rivals: watch::Receiver<Vec<dhcp4::Rival>>,
) -> impl Fn() -> ServerStatus + use<> {
    let status = ServerStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        key: home.keys.public(),
        url: url.to_owned(),
        mode: mode_words(config),
        started: Timestamp::now(),
        warnings: vec![],
        frozen: None,
    };
    let (interface, discovery) = (config.interface.clone(), config.discovery);
    move || {
        let rivals: Vec<String> =
            rivals.borrow().iter().map(|other| network::rival(other, discovery)).collect();
        let warnings = stores.warnings().into_iter().chain(network::warning(&interface, place)).chain(rivals);
        ServerStatus { warnings: warnings.collect(), ..status.clone() }
    }
}

fn settings(config: &Config, home: &Home, url: &str) -> Settings {
    Settings {
        discover: config.discovery,
        poll_seconds: POLL_SECONDS,
        confirm_within: CONFIRM_WITHIN,
        keep_events: config.keep_events,
        keep_bytes: config.keep_bytes,
        reserve_bytes: config.reserve_bytes,
        sites: config.sites.clone(),
        token_key: home.keys.secret(),
        own: Arc::new(own::read(std::path::Path::new("/"))),
        order_expires: config.order_expires,
        url: url.to_owned(),
    }
}

fn mode_words(config: &Config) -> String {
    match config.addresses {
        Addresses::Proxy => format!("proxy-dhcp on {}", config.interface),
        Addresses::Range(first, last) => format!("dhcp {first}-{last} on {}", config.interface),
    }
}

async fn pass_on_sightings(mut sighted: mpsc::Receiver<fleet::boot_policy::Sighting>, fleet: FleetHandle) {
    while let Some(sighting) = sighted.recv().await {
        fleet.sighting(sighting);
    }
}

/// Keeps leases across a restart: written one by one, off the async threads.
async fn keep_leases(mut changed: mpsc::Receiver<Lease>, book: LeaseBook) {
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

/// A lease of an earlier run; one in words that this version does not know is let go.
fn lease_of(row: LeaseRow) -> Option<Lease> {
    let state = serde_json::from_value(row.state.into()).ok()?;
    Some(Lease { address: row.address, holder: row.holder, until: row.until, state })
}

fn log_to_stderr(config: &Config) -> Result<(), Fault> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log).map_err(|error| {
        Fault::usage(format!("`{}` is no log filter", config.log))
            .because(&error)
            .hint("write info, debug, or server::dhcp=debug")
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = if config.log_json { log.json().try_init() } else { log.with_ansi(false).try_init() };
    // Only a second server in one process finds a log set up already, and there is none.
    drop(set);
    Ok(())
}

/// The wish to stop. Heard from the very beginning: a service manager may stop a server that has hardly begun, and
/// that is no failure.
struct StopSignals {
    term: Signal,
    int: Signal,
}

impl StopSignals {
    fn listen() -> Result<Self, Fault> {
        let on = |kind| {
            signal(kind)
                .map_err(|error| Fault::failed("cannot listen for the signal to stop").because(&error))
        };
        Ok(Self { term: on(SignalKind::terminate())?, int: on(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }

    /// Returns when the server is asked to stop; if it is asked again, it leaves at once.
    async fn asked(mut self) {
        self.next().await;
        tracing::info!("stopping; a second signal leaves at once");
        tokio::spawn(async move {
            self.next().await;
            #[allow(clippy::exit)] // Asked for twice.
            std::process::exit(1);
        });
    }
}

#[cfg(test)]
mod tests;
