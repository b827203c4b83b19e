//! First of three steps of starting: opens the stores and binds every socket before any task runs, so that a server
//! that lacks one of them serves nothing at all. Touches the state folder, the interface and all ports.

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use tokio::sync::mpsc;

use super::aside::aside;
use super::certificate;
use super::files::Files;
use super::home::Home;
use super::measured::{LeaseCounts, MeasuredLeases, MeasuredStore};
use super::programs::Programs;
use super::stores::Stores;
use super::watch::Queues;
use crate::api::shapes::ApiShown;
use crate::boot::tftp;
use crate::config::Config;
use crate::dhcp4::{self, Interface, LeaseStore};
use crate::fault::Fault;
use crate::fleet::store::Store;
use crate::http;
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::records::{LeaseBook, Records};
use crate::subscribers;
use crate::swarm::{self, SwarmFact};
use crate::traffic::{SiteRule, Traffic};

/// How many sightings, changed leases or facts of the swarm wait in a channel; a power cut brings a few for each of
/// 2,000 machines at once.
pub(super) const BACKLOG: usize = 4096;

/// The bound sockets that take requests, from machines and from the admin.
pub(super) struct Doors {
    /// The machines' HTTP listener.
    pub(super) web: http::Bound,
    pub(super) dhcp: dhcp4::Bound,
    pub(super) tftp: tftp::Bound,
    pub(super) admin: http::AdminBound,
    /// The API's TLS listener, if there is one.
    pub(super) api: Option<http::ApiBound>,
    /// A listener for metrics alone, if one is configured.
    pub(super) metrics: Option<http::Bound>,
}

/// What [`bind`] has opened and bound; nothing of it runs yet.
pub(super) struct Bound {
    pub(super) config: Arc<Config>,
    /// The limit on open files, as far as it could be raised.
    pub(super) files: Files,
    pub(super) home: Arc<Home>,
    /// The network interface, with the address at which machines reach the server.
    pub(super) interface: Interface,
    pub(super) stores: Stores,
    pub(super) records: Box<dyn Store>,
    pub(super) leases: Box<dyn LeaseStore>,
    pub(super) doors: Doors,
    /// Counts what every task sends, and limits it.
    pub(super) traffic: Traffic,
    /// Which machines give boot files to others of their site.
    pub(super) peers: Peers,
    pub(super) swarm: swarm::Bound,
    /// The receiving end of the channel on which the swarm reports.
    pub(super) facts: mpsc::Receiver<SwarmFact>,
    /// Where the API is served over TLS, and the fingerprint of its certificate.
    pub(super) api: Option<ApiShown>,
    /// Who is told of events.
    pub(super) subscribers: subscribers::Opened,
    /// What monitoring looks at.
    pub(super) watched: Watched,
}

/// Counters, and what is read beside them.
#[derive(Clone, Default)]
pub(super) struct Watched {
    pub(super) metrics: Metrics,
    pub(super) queues: Queues,
    pub(super) leases: LeaseCounts,
}

impl Bound {
    /// The base URL at which machines reach the server over HTTP.
    pub(super) fn url(&self) -> String {
        format!("http://{}", http_at(&self.config, &self.interface))
    }
}

fn http_at(config: &Config, interface: &Interface) -> SocketAddr {
    SocketAddr::new(interface.address.into(), config.http_port)
}

/// Opens and binds everything. What reads a lot of the disk runs on a blocking thread, so that signals are noticed.
pub(super) async fn bind(
    config: Config,
    programs: impl FnOnce() -> Result<Programs, Fault>,
) -> Result<Bound, Fault> {
    let files = Files::raise();
    let home = Arc::new(Home::open(&config.state)?);
    let programs = programs()?;
    let config = Arc::new(config);
    let subscribers = open_subscribers(&config, &home)?;
    let interface = dhcp4::interface_address(&config.interface).map_err(|error| {
        Fault::failed(format!("cannot use the interface {}", config.interface))
            .because(&error)
            .hint("`ip -brief address` lists the interfaces and their addresses")
    })?;
    let http_at = http_at(&config, &interface);
    let (home_too, wanted) = (Arc::clone(&home), Arc::clone(&config));
    let open = move || Ok((Stores::open(&wanted, &home_too, &programs, http_at)?, open_records(&home_too)?));
    let (stores, (records, leases)) = aside(open).await?;
    let traffic = Traffic::new(config.sites.clone(), config.limits.clone());
    let watched = Watched::default();
    let records: Box<dyn Store> =
        Box::new(MeasuredStore { inner: records, metrics: watched.metrics.clone() });
    let leases: Box<dyn LeaseStore> =
        Box::new(MeasuredLeases { inner: leases, counts: watched.leases.clone() });
    let mut doors = bind_doors(&config, &stores, &interface, &traffic, &watched.metrics).await?;
    let api = bind_api(&config, &home, &interface).await?;
    let (api, listener) = api.unzip();
    doors.api = listener;
    let (tell, facts) = mpsc::channel(BACKLOG);
    watched.queues.add("swarm-facts", &tell);
    let swarm = bind_swarm(&config, &home, &stores, interface.address, tell).await?;
    let own = Ipv4Net::new(interface.address, interface.prefix).ok();
    let peers = Peers::new(config.boot_peers, traffic.clone(), own);
    let swarm = swarm.with_traffic(traffic.clone()).with_peers(peers.clone());
    Ok(Bound {
        config,
        files,
        home,
        interface,
        stores,
        records,
        leases,
        doors,
        traffic,
        peers,
        swarm,
        facts,
        api,
        subscribers,
        watched,
    })
}

async fn bind_doors(
    config: &Config,
    stores: &Stores,
    interface: &Interface,
    traffic: &Traffic,
    metrics: &Metrics,
) -> Result<Doors, Fault> {
    let listen = async |address: SocketAddr, what: &str| {
        http::bind(address).await.map_err(|error| {
            let hint = error.hint();
            Fault::failed(format!("cannot serve {what}")).because(&error).hint(hint)
        })
    };
    let web = listen(http_at(config, interface), "HTTP").await?;
    let web = web.with_traffic(traffic.clone());
    let dhcp = bind_dhcp(config, stores)?.with_traffic(traffic.clone()).with_metrics(metrics.clone());
    let tftp = tftp::bind(interface.address).map_err(|error| {
        let hint = error.hint();
        Fault::failed("cannot serve TFTP").because(&error).hint(hint)
    })?;
    let tftp = tftp.with_traffic(traffic.clone()).with_metrics(metrics.clone());
    let admin = http::bind_admin(&config.socket).await.map_err(|error| {
        let hint = error.hint();
        Fault::failed("cannot open the admin socket").because(&error).hint(hint)
    })?;
    let metrics = match config.metrics_address {
        Some(address) => Some(listen(address, "metrics").await?),
        None => None,
    };
    Ok(Doors { web, dhcp, tftp, admin, metrics, api: None })
}

/// Binds the API's TLS port, if there is to be one.
async fn bind_api(
    config: &Config,
    home: &Home,
    interface: &Interface,
) -> Result<Option<(ApiShown, http::ApiBound)>, Fault> {
    let Some(wanted) = &config.api else { return Ok(None) };
    let mut names = vec![interface.address.to_string(), "localhost".to_owned()];
    names.extend(nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()));
    let certificate = certificate::open(wanted.certificate.as_ref(), &home.dir, names)?;
    let address = SocketAddr::new(wanted.address.unwrap_or(interface.address.into()), wanted.port);
    let bound = http::bind_api(address, certificate.config).await.map_err(|error| {
        let hint = error.hint();
        Fault::failed("cannot serve the API").because(&error).hint(hint)
    })?;
    let shown =
        ApiShown { url: format!("https://{address}"), fingerprint: certificate.fingerprint.to_string() };
    Ok(Some((shown, bound)))
}

/// Reads the secrets of webhooks, and what else is needed to tell somebody of events.
fn open_subscribers(config: &Config, home: &Home) -> Result<subscribers::Opened, Fault> {
    // The key is the server's for ever, whatever its names and addresses are.
    let source = format!("/swarmboot/{}", home.keys.public());
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    subscribers::open(&config.subscriptions, &source, &host.unwrap_or_default()).map_err(|error| {
        let hint = error.hint();
        Fault::usage("those who are to be told of events cannot be").because(&error).hint(hint)
    })
}

/// The records, and the leases beside them.
type Kept = (Box<dyn Store>, Box<dyn LeaseStore>);

fn open_records(home: &Home) -> Result<Kept, Fault> {
    let path = home.dir.join("records.sqlite");
    let failed = |error: &dyn std::error::Error| {
        Fault::failed("cannot open the records")
            .because(error)
            .hint("the state folder must be writable, with room on its disk")
    };
    let records = Records::open(&path).map_err(|error| failed(&error))?;
    let leases = LeaseBook::open(&path).map_err(|error| failed(&error))?;
    Ok((Box::new(records), Box::new(leases)))
}

fn bind_dhcp(config: &Config, stores: &Stores) -> Result<dhcp4::Bound, Fault> {
    let settings = dhcp4::Config {
        interface: config.interface.clone(),
        mode: config.addresses.mode(config.router, &config.dns),
        http_port: config.http_port,
        discovery: tokio::sync::watch::channel(config.discovery).1,
        programs: stores.kits.programs(),
        sites: config.sites.rules().iter().map(|rule| rule.subnet).collect(),
        authoritative: config.authoritative,
    };
    dhcp4::bind(settings).map_err(|error| {
        let hint = error.hint();
        Fault::failed("cannot serve DHCP").because(&error).hint(hint)
    })
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
    let net = |rule: &SiteRule| swarm::SiteNet { site: rule.site.clone(), subnet: rule.subnet };
    Ok(node.with_sites(config.sites.rules().iter().map(net).collect()))
}
