//! The server's configuration: flags over environment over file, fully checked before anything is opened. Touches the
//! configuration file, once.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use common::limits::CONNECTIONS_PER_ADDRESS;
use ipnet::Ipv4Net;
use jiff::SignedDuration;
use serde::Deserialize;

use crate::api::remote::API_PORT;
use crate::boot::arguments::{BadArguments, KernelArguments};
use crate::dhcp4::{Mode, Network, Range};
use crate::fault::Fault;
use crate::fleet::rules::{Rule, Rules};
use crate::peers::BootPeers;
use crate::subscribers::Subscriptions;
use crate::traffic::{LineLimits, Rate, SiteRule, Sites};
use crate::units;

// The flags of `swarmboot serve`.
mod flags;

// Core: what holds, and where it comes from.
mod show;

// Core: who is told of events.
mod told;

// Core: the commented files that are installed.
pub(crate) mod template;

pub use flags::Flags;
pub(crate) use flags::{LinkFlags, LogFlags};
pub use show::{Held, Source, held};

/// The default state folder.
pub(crate) const STATE: &str = "/var/lib/swarmboot";

/// The configuration file that is read if it exists and no other is named.
const FILE: &str = "/etc/swarmboot/swarmboot.toml";
/// The lease of an installed OS, in seconds. The loader's is shorter, see `dhcp4::lease`.
const LEASE_SECONDS: u32 = 12 * 3600;
/// The default TCP port of the machines' HTTP: boot files and reports.
const HTTP_PORT: u16 = 8069;
/// The default TCP port of the swarm.
const SWARM_PORT: u16 = 4001;

/// The default for how long an order waits for a machine: one that is switched on after a weekend is still served, one
/// that comes back after a holiday needs a new order.
const ORDER_EXPIRES: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The longest name of a site, in bytes.
const SITE_NAME_MAX: usize = 64;

/// The longest that an order may wait, in seconds, ten years: a longer value must be written as `never`.
const LIFETIME_MAX: i64 = 10 * 366 * 86_400;

/// The default ceiling of one order: more than a classroom or a rack has, and a mistake in a selector that means the
/// whole fleet is stopped.
const MAX_MACHINES: u32 = 50;

/// How long events are kept by default: more than a year, so that the last year can be looked at.
const KEEP_EVENTS: &str = "400d";
/// How much disk the records may take by default.
const KEEP_EVENTS_SIZE: &str = "4G";
/// The default free space on the state folder's disk below which nothing is recorded that no admin asked for: it leaves
/// room for orders and what they cause, and for an admin to clean up.
const DISK_RESERVE: &str = "256M";
/// The configuration's word for no limit.
const FOREVER: &str = "forever";

/// Which DHCP server gives out addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addresses {
    /// The DHCP server that exists already; this server only adds boot information.
    Proxy,
    /// This server, from the first to the last address.
    Range(Ipv4Addr, Ipv4Addr),
}

impl Addresses {
    /// What DHCP is to do, here or on a relay, which gives out the same.
    pub(crate) fn mode(&self, router: Option<Ipv4Addr>, dns: &[Ipv4Addr]) -> Mode {
        match self {
            Self::Proxy => Mode::Proxy,
            Self::Range(start, end) => Mode::Full(Network {
                range: Range { start: *start, end: *end },
                router,
                dns: dns.to_vec(),
                lease_seconds: LEASE_SECONDS,
            }),
        }
    }
}

/// The server's configuration. Every value has been checked as far as possible without opening anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The name of the network interface that the machines are on.
    pub interface: String,
    /// Which DHCP server gives out addresses.
    pub addresses: Addresses,
    /// Whether no other DHCP server serves the link, so that clients with addresses of other networks are refused.
    pub authoritative: bool,
    /// The default gateway that is given out with addresses, if any.
    pub router: Option<Ipv4Addr>,
    /// The DNS servers that are given out with addresses.
    pub dns: Vec<Ipv4Addr>,
    /// Whether machines are answered that no admin has named, approved or ordered anything for.
    pub discovery: bool,
    /// How long an order waits for a machine that does not come; `None` for ever.
    pub order_expires: Option<SignedDuration>,
    /// The state folder.
    pub state: PathBuf,
    /// The path of the admin socket.
    pub socket: PathBuf,
    /// The TCP port of the machines' HTTP.
    pub http_port: u16,
    /// The TCP port of the swarm.
    pub swarm_port: u16,
    /// The most machines that one order may write, unless it names a larger number itself.
    pub max_machines: u32,
    /// The rules that give labels to machines.
    pub rules: Rules,
    /// Which addresses are at which site; all others are at a site for each /24.
    pub sites: Sites,
    /// The limits on what the server sends in all, and into each site.
    pub limits: LineLimits,
    /// The network boot program that UEFI machines get; `None` for the best one that the kit has.
    pub uefi_program: Option<String>,
    /// Additional kernel arguments for the loader.
    pub kernel_args: KernelArguments,
    /// How long events are kept; `None` for ever.
    pub keep_events: Option<SignedDuration>,
    /// How many bytes the records may take on the disk; `None` for no limit.
    pub keep_bytes: Option<u64>,
    /// Free bytes on the state folder's disk below which nothing is recorded that no admin asked for.
    pub reserve_bytes: u64,
    /// How many HTTP connections one address may have at once.
    pub connections_per_address: usize,
    /// Whether firmware takes kernel and loader from machines of its site.
    pub boot_peers: BootPeers,
    /// The API's TLS port; `None` when it is served on the admin socket alone.
    pub api: Option<ApiPort>,
    /// Where metrics are served without a token, for a Prometheus on this host; `None` for nowhere.
    pub metrics_address: Option<SocketAddr>,
    /// Who is told of events: webhooks and exports.
    pub subscriptions: Subscriptions,
    /// The configuration file that was read, if there is one.
    pub file: Option<PathBuf>,
    /// The filter of the log, in the syntax of tracing.
    pub log: String,
    /// Whether the log is written as JSON lines.
    pub log_json: bool,
}

/// Where the API is served over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiPort {
    /// The address; that of the interface when `None`.
    pub address: Option<IpAddr>,
    /// The TCP port.
    pub port: u16,
    /// A given certificate and its key, as PEM files; `None` for one of the server's own.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// The configuration file: the same names as the flags, with underscores.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    interface: Option<String>,
    dhcp_range: Option<String>,
    authoritative: Option<bool>,
    router: Option<Ipv4Addr>,
    dns: Vec<Ipv4Addr>,
    discovery: Option<bool>,
    order_expires: Option<String>,
    state: Option<PathBuf>,
    http_port: Option<u16>,
    swarm_port: Option<u16>,
    uefi_program: Option<String>,
    kernel_args: Option<String>,
    log: Option<String>,
    log_json: Option<bool>,
    limit: Option<String>,
    keep_events: Option<String>,
    keep_events_size: Option<String>,
    disk_reserve: Option<String>,
    connections_per_address: Option<usize>,
    boot_peers: Option<BootPeers>,
    api: Option<bool>,
    api_address: Option<IpAddr>,
    api_port: Option<u16>,
    tls_certificate: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    max_machines: Option<u32>,
    metrics_address: Option<SocketAddr>,
    site: Vec<Site>,
    rule: Vec<LabelRule>,
    webhook: Vec<told::WebhookTable>,
    export: told::ExportTable,
}

/// A `[[rule]]` of the configuration file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LabelRule {
    /// The selector of the machines that it is for, such as `memory>=64G`.
    when: String,
    /// The labels that it gives them.
    set: BTreeMap<String, String>,
}

/// A `[[site]]` of the configuration file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Site {
    name: String,
    /// The subnets of the site: of the machines' own addresses, or of its DHCP relays'.
    subnets: Vec<Ipv4Net>,
    limit: Option<String>,
}

impl Config {
    /// Merges `flags` and the configuration file, with the admin's socket at `socket`.
    ///
    /// # Errors
    /// When the file cannot be read or parsed, or a value is not allowed.
    pub fn resolve(flags: Flags, socket: PathBuf) -> Result<Self, Fault> {
        let path = file_of(&flags);
        let file = path.as_deref().map_or_else(|| Ok(File::default()), read)?;
        Ok(Self { file: path, ..Self::merge(flags, file, socket)? })
    }

    pub(crate) fn merge(flags: Flags, file: File, socket: PathBuf) -> Result<Self, Fault> {
        let kept = kept(&file)?;
        let api = api(&file, flags.api_port, flags.no_api)?;
        let interface = flags.link.interface.clone().or(file.interface).ok_or_else(|| {
            Fault::usage("no network interface is named")
                .hint("name the one that the machines are on: --interface eth1 (`ip -brief link` lists them)")
        })?;
        let range = flags.link.range(file.dhcp_range);
        let addresses = range.map_or(Ok(Addresses::Proxy), |range| parse_range(&range))?;
        let (log, log_json) = flags.log.or(file.log, file.log_json);
        let kernel_args = flags.kernel_args.or(file.kernel_args).unwrap_or_default();
        let kernel_args = kernel_args.parse().map_err(|error: BadArguments| {
            Fault::usage(error.to_string())
                .hint("they become part of a boot script; write plain words, separated by spaces")
        })?;
        let (sites, limits) = sites(file.site, flags.limit.or(file.limit))?;
        Ok(Self {
            interface,
            addresses,
            authoritative: flags.link.is_authoritative(file.authoritative),
            router: flags.link.router.or(file.router),
            dns: flags.link.dns(file.dns),
            discovery: !flags.no_discovery && file.discovery.unwrap_or(true),
            order_expires: order_expires(flags.order_expires.or(file.order_expires))?,
            state: flags.state.or(file.state).unwrap_or_else(|| STATE.into()),
            socket,
            http_port: port(flags.http_port.or(file.http_port), HTTP_PORT, "http-port")?,
            swarm_port: port(flags.swarm_port.or(file.swarm_port), SWARM_PORT, "swarm-port")?,
            max_machines: max_machines(file.max_machines)?,
            rules: rules(file.rule)?,
            sites,
            limits,
            keep_events: kept.events,
            keep_bytes: kept.bytes,
            reserve_bytes: kept.reserve,
            connections_per_address: kept.connections_per_address,
            boot_peers: file.boot_peers.unwrap_or_default(),
            api,
            metrics_address: file.metrics_address,
            subscriptions: told::subscriptions(file.webhook, file.export)?,
            file: None,
            uefi_program: flags.uefi_program.or(file.uefi_program),
            kernel_args,
            log,
            log_json,
        })
    }
}

/// The limits on what is kept, and on connections.
struct Kept {
    events: Option<SignedDuration>,
    bytes: Option<u64>,
    reserve: u64,
    connections_per_address: usize,
}

fn kept(file: &File) -> Result<Kept, Fault> {
    let wrong = |what: &str, text: &str, hint: &str| {
        Fault::usage(format!("`{what} = {text}` makes no sense")).hint(hint.to_owned())
    };
    let events = file.keep_events.as_deref().unwrap_or(KEEP_EVENTS);
    let events = match events {
        FOREVER => None,
        text => Some(
            units::keeping_seconds(text)
                .map(SignedDuration::from_secs)
                .ok_or_else(|| wrong("keep_events", text, "write 400d, 12h, 6w, or forever"))?,
        ),
    };
    let size = file.keep_events_size.as_deref().unwrap_or(KEEP_EVENTS_SIZE);
    let bytes =
        match size {
            FOREVER => None,
            text => Some(units::bytes(text).filter(|bytes| *bytes >= 16 << 20).ok_or_else(|| {
                wrong("keep_events_size", text, "write 512M or 4G, at least 16M, or forever")
            })?),
        };
    let reserve = file.disk_reserve.as_deref().unwrap_or(DISK_RESERVE);
    let reserve = units::bytes(reserve)
        .ok_or_else(|| wrong("disk_reserve", reserve, "write 256M or 1G; 0 for none"))?;
    let connections = file.connections_per_address.unwrap_or(CONNECTIONS_PER_ADDRESS);
    if connections == 0 {
        return Err(wrong("connections_per_address", "0", "no machine could connect; leave it out for 64"));
    }
    Ok(Kept { events, bytes, reserve, connections_per_address: connections })
}

fn api(file: &File, port_flag: Option<u16>, off: bool) -> Result<Option<ApiPort>, Fault> {
    let certificate = match (file.tls_certificate.clone(), file.tls_key.clone()) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            return Err(Fault::usage("`tls_certificate` and `tls_key` belong together")
                .hint("name both, or none for a certificate of the server's own"));
        }
    };
    let port = port(port_flag.or(file.api_port), API_PORT, "api-port")?;
    let wanted = !off && file.api.unwrap_or(true);
    Ok(wanted.then_some(ApiPort { address: file.api_address, port, certificate }))
}

/// The configuration file that is read: the one that is named, or the usual one if it is there.
#[must_use]
pub fn file_of(flags: &Flags) -> Option<PathBuf> {
    flags.config.clone().or_else(|| Path::new(FILE).exists().then(|| FILE.into()))
}

/// The text of a configuration file.
///
/// # Errors
/// When it cannot be read.
pub fn text_of(path: &Path) -> Result<String, Fault> {
    std::fs::read_to_string(path).map_err(|error| {
        Fault::usage(format!("cannot read the configuration file {}", path.display())).because(&error)
    })
}

/// Reads a configuration file.
///
/// # Errors
/// When it cannot be read or understood.
pub(crate) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Fault> {
    let text = text_of(path)?;
    toml::from_str(&text).map_err(|error| {
        Fault::usage(format!("the configuration file {} cannot be understood", path.display()))
            .because(&error)
            .hint("`swarmboot config check` finds every mistake in it")
    })
}

/// How long an order waits, in seconds; `None` for `never` and `0`.
///
/// # Errors
/// When it is no duration, or longer than ten years.
pub fn lifetime(text: &str) -> Result<Option<i64>, Fault> {
    let seconds = match text.trim() {
        "never" | "0" => return Ok(None),
        text => units::seconds(text).filter(|seconds| *seconds <= LIFETIME_MAX),
    };
    match seconds {
        Some(0) => Ok(None),
        Some(seconds) => Ok(Some(seconds)),
        None => Err(Fault::usage(format!("`{}` is no time for an order to live", text.escape_debug()))
            .hint("write 12h, 7d or never")),
    }
}

/// How long orders wait: a week unless configured otherwise.
fn order_expires(given: Option<String>) -> Result<Option<SignedDuration>, Fault> {
    match given {
        None => Ok(Some(ORDER_EXPIRES)),
        Some(text) => Ok(lifetime(&text)?.map(SignedDuration::from_secs)),
    }
}

/// The port of `--flag`, or the default.
///
/// # Errors
/// When it is 0.
pub(crate) fn port(given: Option<u16>, default: u16, flag: &str) -> Result<u16, Fault> {
    match given.unwrap_or(default) {
        0 => Err(Fault::usage(format!("--{flag} 0: machines must know the port beforehand"))),
        port => Ok(port),
    }
}

/// The sites' subnets, and the limits on lines.
fn sites(sites: Vec<Site>, server: Option<String>) -> Result<(Sites, LineLimits), Fault> {
    let rate = |text: String| {
        text.parse::<Rate>().map_err(|error| {
            Fault::usage(format!("the limit `{text}` makes no sense")).because(&error).hint("write 20M or 1G")
        })
    };
    let mut rules: Vec<SiteRule> = vec![];
    let mut limits = LineLimits { server: server.map(rate).transpose()?, ..LineLimits::default() };
    for Site { name, subnets, limit } in sites {
        if name.is_empty() || name.len() > SITE_NAME_MAX || name.chars().any(char::is_control) {
            return Err(Fault::usage(format!("`{}` is no name for a site", name.escape_debug()))
                .hint("a few words; `name = \"branch\"`"));
        }
        if let Some(limit) = limit {
            limits.sites.insert(name.clone(), rate(limit)?);
        }
        for subnet in subnets {
            let subnet = subnet.trunc();
            if let Some(other) = rules.iter().find(|rule| rule.subnet == subnet && rule.site != name) {
                return Err(Fault::usage(format!("{subnet} is at `{}` and at `{name}`", other.site))
                    .hint("give each subnet to one site; a smaller subnet inside a larger one is fine"));
            }
            rules.push(SiteRule { subnet, site: name.clone() });
        }
    }
    Ok((rules.into(), limits))
}

/// The rules that give labels, each called by its place in the file.
fn rules(rules: Vec<LabelRule>) -> Result<Rules, Fault> {
    let rule = |(at, LabelRule { when, set }): (usize, LabelRule)| {
        Rule::new(&when, set).map_err(|error| {
            Fault::usage(format!("the {}. `[[rule]]` makes no sense", at + 1))
                .because(&error)
                .hint("write when = \"memory>=64G\" and set = { size = \"large\" }")
        })
    };
    rules.into_iter().enumerate().map(rule).collect::<Result<Vec<_>, _>>().map(Rules::from)
}

/// The ceiling of one order.
fn max_machines(given: Option<u32>) -> Result<u32, Fault> {
    match given.unwrap_or(MAX_MACHINES) {
        0 => Err(Fault::usage("`max_machines = 0`: nothing could be ordered")
            .hint(format!("leave it out for {MAX_MACHINES}; `deploy freeze` stops everything new"))),
        most => Ok(most),
    }
}

/// Parses `FIRST-LAST`.
///
/// # Errors
/// When it is no range of IPv4 addresses.
pub(crate) fn parse_range(text: &str) -> Result<Addresses, Fault> {
    let wrong = |why: &str| {
        Fault::usage(format!("`{text}` is no address range: {why}"))
            .hint("write --dhcp-range 10.0.0.100-10.0.0.200")
    };
    let (first, last) = text.split_once('-').ok_or_else(|| wrong("there is no dash"))?;
    let address = |part: &str| part.trim().parse::<Ipv4Addr>().map_err(|_| wrong("not two IPv4 addresses"));
    let (first, last) = (address(first)?, address(last)?);
    if first > last {
        return Err(wrong("the first address is above the last"));
    }
    Ok(Addresses::Range(first, last))
}

#[cfg(test)]
mod tests;
