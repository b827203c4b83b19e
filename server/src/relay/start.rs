//! Starting a relay: opens its folders, binds every socket, is let in by the server, and starts every task under its
//! name. A relay that lacks a port serves nothing at all. Touches the state folder, the interface and all ports.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot, watch};

use super::ahead::{self, Ahead};
use super::cache::FileCache;
use super::chunks::ChunkStore;
use super::config::Config;
use super::enrol;
use super::home::Home;
use super::leases::LeaseFile;
use super::programs::BootPrograms;
use super::seeds::Seeds;
use super::site::Site;
use super::sync::Sync;
use super::upstream::Upstream;
use super::via::ViaSigner;
use super::wake;
use super::web::Web;
use crate::boot::choose::Programs;
use crate::boot::tftp;
use crate::dhcp4::{self, Interface, LeaseStore};
use crate::fault::Fault;
use crate::fleet::boot_policy::{BootPolicies, Sighting};
use crate::http;
use crate::serve::{Ends, Files, Supervisor, aside, done, keep_leases, load_leases};

/// How many sightings or changed leases wait in a channel.
const BACKLOG: usize = 4096;

/// The part of the cache that boot files may take, one in so many; images have the rest.
const FILES_PART: u64 = 10;

/// The bound sockets.
struct Doors {
    web: http::Bound,
    dhcp: dhcp4::Bound,
    tftp: tftp::Bound,
}

/// What DHCP and TFTP are told as it changes.
#[derive(Default)]
struct Told {
    programs: watch::Sender<Programs>,
    files: watch::Sender<tftp::Files>,
    discovers: watch::Sender<bool>,
    policies: watch::Sender<Arc<BootPolicies>>,
}

/// A relay that runs.
pub(super) struct Started {
    /// Closed last.
    pub(super) cache: FileCache,
    /// Why the relay is to end, when the server wants that.
    pub(super) ended: oneshot::Receiver<Fault>,
}

/// Starts every task under `supervisor`.
///
/// # Errors
/// When something cannot be opened or bound, or the server does not let this relay in.
pub(super) async fn start(
    config: Config,
    supervisor: &mut Supervisor,
    ends: &Ends,
) -> Result<Started, Fault> {
    let open_files = Files::raise();
    let mut home = Home::open(&config.state)?;
    let upstream = Upstream::new(&config.server)?;
    let interface = dhcp4::interface_address(&config.interface).map_err(|error| {
        Fault::failed(format!("cannot use the interface {}", config.interface))
            .because(&error)
            .hint("`ip -brief address` lists the interfaces and their addresses")
    })?;
    let http = SocketAddr::new(interface.address.into(), config.http_port);
    let told = Told::default();
    let doors = bind(&config, &interface, http, &told).await?;
    let (cache, store) = open_caches(&config, &upstream, ends).await?;
    let enrolment = enrol::enrolment(&mut home, &upstream, config.invite.clone()).await?;
    if enrolment.revoked {
        return Err(enrol::revoked(&enrolment));
    }

    let site = watch::Sender::new(Arc::new(Site::default().with(home.site())));
    let via = Arc::new(ViaSigner::new(home.keys.clone()));
    let (tell, images) = watch::channel(vec![]);
    let seeds = Seeds {
        keys: home.keys.clone(),
        server: enrolment.server,
        listen: (interface.address, config.swarm_port),
        store: store.clone(),
        cache: cache.clone(),
        upstream: upstream.clone(),
        site: site.subscribe(),
        images: tell,
    };
    supervisor.worker("images", done(seeds.run(ends.inner.child_token())));
    tracing::info!(
        %http, server = upstream.url(), name = enrolment.name, site = enrolment.site, key = %home.keys.public(),
        "the relay serves"
    );
    let web = Web::new(upstream.clone(), Arc::clone(&via), cache.clone(), site.subscribe(), enrolment.server);
    let bounds = open_files.door(config.connections_per_address);
    supervisor.listener("http", done(doors.web.run(web.routes(), bounds, ends.outer.clone())));
    start_dhcp(&config, supervisor, ends, (doors.dhcp, doors.tftp), &told).await?;
    supervisor.worker("policies", done(publish(site.subscribe(), told.policies, ends.inner.clone())));
    let Told { programs, files, discovers, .. } = told;
    let server = upstream.address();
    let programs = BootPrograms {
        cache: cache.clone(),
        site: site.subscribe(),
        http,
        server,
        programs,
        files,
        discovers,
    };
    supervisor.worker("boot programs", done(programs.run(ends.inner.clone())));
    let ahead = Ahead { cache: cache.clone(), site: site.subscribe(), idle: ahead::IDLE };
    supervisor.worker("boot files", done(ahead.run(ends.inner.clone())));
    let wake = wake::run(site.subscribe(), interface.address, ends.inner.clone());
    supervisor.worker("wake", done(wake));
    let free = Box::new(move || store.free());
    let clock = SystemTime::now;
    let sync = Sync { home, enrolment, upstream, via, http, free, clock, site, images };
    let (end, ended) = oneshot::channel();
    supervisor.worker("state", done(sync.run(end, ends.inner.clone())));
    Ok(Started { cache, ended })
}

async fn bind(
    config: &Config,
    interface: &Interface,
    http_at: SocketAddr,
    told: &Told,
) -> Result<Doors, Fault> {
    let web = http::bind(http_at).await.map_err(|error| {
        let hint = error.hint();
        Fault::failed("cannot serve HTTP").because(&error).hint(hint)
    })?;
    let settings = dhcp4::Config {
        interface: config.interface.clone(),
        mode: config.addresses.mode(config.router, &config.dns),
        http_port: config.http_port,
        discovery: told.discovers.subscribe(),
        programs: told.programs.subscribe(),
        sites: vec![],
        authoritative: config.authoritative,
    };
    let dhcp = dhcp4::bind(settings).map_err(|error| {
        let hint = error.hint();
        Fault::failed("cannot serve DHCP").because(&error).hint(hint)
    })?;
    let tftp = tftp::bind(interface.address).map_err(|error| {
        let hint = error.hint();
        Fault::failed("cannot serve TFTP").because(&error).hint(hint)
    })?;
    Ok(Doors { web, dhcp, tftp })
}

/// Opens the caches of files and of images, on a blocking thread.
async fn open_caches(
    config: &Config,
    upstream: &Upstream,
    ends: &Ends,
) -> Result<(FileCache, ChunkStore), Fault> {
    let (dir, upstream, cancel) = (config.state.clone(), upstream.clone(), ends.inner.clone());
    let files_max = config.cache_bytes / FILES_PART;
    let chunks_max = config.cache_bytes - files_max;
    aside(move || {
        let open = || {
            let files = FileCache::open(dir.join("files"), files_max, upstream, cancel)?;
            Ok::<_, std::io::Error>((files, ChunkStore::open(dir.join("images"), chunks_max)?))
        };
        open().map_err(|error| {
            Fault::failed(format!("cannot open the caches in {}", dir.display()))
                .because(&error)
                .hint("the state folder must be writable, with room on its disk")
        })
    })
    .await
}

/// Starts DHCP and TFTP, and what follows what they report.
async fn start_dhcp(
    config: &Config,
    supervisor: &mut Supervisor,
    ends: &Ends,
    (dhcp, tftp): (dhcp4::Bound, tftp::Bound),
    told: &Told,
) -> Result<(), Fault> {
    let path = config.state.join("leases");
    let leases = LeaseFile::open(&path).map_err(|error| {
        Fault::failed(format!("cannot open {}", path.display()))
            .because(&error)
            .hint("the state folder must be writable, with room on its disk")
    })?;
    let leases: Box<dyn LeaseStore> = Box::new(leases);
    let (leases, kept) = load_leases(leases).await?;
    let (sightings, sighted) = mpsc::channel(BACKLOG);
    let (changed, leases_changed) = mpsc::channel(BACKLOG);
    let served = dhcp.served();
    let dhcp = dhcp.run(told.policies.subscribe(), sightings.clone(), kept, changed, ends.outer.clone());
    supervisor.listener("dhcp", dhcp);
    let tftp = tftp.run(told.files.subscribe(), served, sightings, ends.outer.clone());
    supervisor.listener("tftp", tftp);
    supervisor.worker("leases", done(keep_leases(leases_changed, leases)));
    supervisor.worker("sightings", done(note(sighted)));
    Ok(())
}

/// What DHCP and TFTP saw, for who looks at this host's own log.
async fn note(mut sighted: mpsc::Receiver<Sighting>) {
    while let Some(sighting) = sighted.recv().await {
        tracing::debug!(?sighting);
    }
}

/// Gives the boot policies of the site to DHCP, as they change.
async fn publish(
    mut site: watch::Receiver<Arc<Site>>,
    policies: watch::Sender<Arc<BootPolicies>>,
    cancel: tokio_util::sync::CancellationToken,
) {
    loop {
        let now = site.borrow_and_update().policies().clone();
        policies.send_replace(Arc::new(now));
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = site.changed() => if changed.is_err() { return },
        }
    }
}
