//! The configuration of a relay: flags over environment over file, fully checked before anything is opened. The doc
//! comments of the flags are the help that users read. Touches the configuration file, once.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use clap::Args;
use common::limits::CONNECTIONS_PER_ADDRESS;
use common::wire::relay::{BadWord, InviteWord};
use serde::Deserialize;

use crate::config::{Addresses, LinkFlags, LogFlags, parse_range, port};
use crate::fault::Fault;
use crate::units;

/// The configuration file that is read if it exists and no other is named.
const FILE: &str = "/etc/swarmboot/relay.toml";
/// The default state folder.
const STATE: &str = "/var/lib/swarmboot-relay";
/// The default TCP port of the machines' HTTP.
const HTTP_PORT: u16 = 8069;
/// The default for the first TCP port of the swarm.
const SWARM_PORT: u16 = 4001;
/// The default for what the caches may take of the disk.
const CACHE_SIZE: &str = "40G";
/// The least that they need: one set of boot files and a small image.
const CACHE_MIN: u64 = 256 << 20;

/// Flags of `relay run`; each can stand in the configuration file instead.
#[derive(Debug, Default, Args)]
#[command(
    after_help = "Without --dhcp-range the relay gives out no addresses: it only adds boot information \
                        beside the DHCP server that is there (proxyDHCP).\n\nExample, with the word that \
                        `swarmboot relay invite --site branch` printed on the server:\n  swarmboot relay run \
                        --server http://10.0.0.1:8069 --interface eth0 --invite WORD"
)]
pub struct Flags {
    /// The server, as this host reaches it.
    #[arg(long, env = "SWARMBOOT_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// The word that lets this relay in, once; later starts do not need it.
    #[arg(long, env = "SWARMBOOT_INVITE", value_name = "WORD", hide_env_values = true)]
    pub invite: Option<String>,
    #[command(flatten)]
    pub(crate) link: LinkFlags,
    /// Where everything is kept [default: /var/lib/swarmboot-relay].
    #[arg(long, env = "SWARMBOOT_RELAY_STATE", value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Configuration file [default: /etc/swarmboot/relay.toml, if it is there].
    #[arg(long, env = "SWARMBOOT_RELAY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What images and boot files may take of the disk [default: 40G].
    #[arg(long, value_name = "SIZE")]
    pub cache_size: Option<String>,
    /// TCP port of HTTP boot and the machines' reports [default: 8069].
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<u16>,
    /// First TCP port of the swarm; each image has one of its own, from this one
    /// upward [default: 4001].
    #[arg(long, value_name = "PORT")]
    pub swarm_port: Option<u16>,
    #[command(flatten)]
    pub(crate) log: LogFlags,
}

/// A relay's configuration. Every value has been checked as far as possible without opening anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The server's URL, as it was given.
    pub server: String,
    /// What lets this relay in, at its first start.
    pub invite: Option<InviteWord>,
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
    /// The state folder.
    pub state: PathBuf,
    /// Bytes that images and boot files may take of the disk.
    pub cache_bytes: u64,
    /// The TCP port of the machines' HTTP.
    pub http_port: u16,
    /// The first TCP port of the swarm.
    pub swarm_port: u16,
    /// How many HTTP connections one address may have at once.
    pub connections_per_address: usize,
    /// The filter of the log, in the syntax of tracing.
    pub log: String,
    /// Whether the log is written as JSON lines.
    pub log_json: bool,
}

/// The configuration file: the same names as the flags, with underscores.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    server: Option<String>,
    invite: Option<String>,
    interface: Option<String>,
    dhcp_range: Option<String>,
    authoritative: Option<bool>,
    router: Option<Ipv4Addr>,
    dns: Vec<Ipv4Addr>,
    state: Option<PathBuf>,
    cache_size: Option<String>,
    http_port: Option<u16>,
    swarm_port: Option<u16>,
    connections_per_address: Option<usize>,
    log: Option<String>,
    log_json: Option<bool>,
}

impl Config {
    /// The configuration from `flags` and the file.
    ///
    /// # Errors
    /// When the file cannot be read, something is missing, or a value makes no sense.
    pub fn resolve(flags: Flags) -> Result<Self, Fault> {
        let file = match &flags.config {
            Some(path) => crate::config::read(path)?,
            None if Path::new(FILE).exists() => crate::config::read(Path::new(FILE))?,
            None => File::default(),
        };
        Self::merge(flags, file)
    }

    fn merge(flags: Flags, file: File) -> Result<Self, Fault> {
        let server = flags.server.or(file.server).ok_or_else(|| {
            Fault::usage("no server is named")
                .hint("name it as this host reaches it: --server http://10.0.0.1:8069")
        })?;
        // Checked here, so that a typing error is found before anything is opened.
        super::upstream::Upstream::new(&server)?;
        let interface = flags.link.interface.clone().or(file.interface).ok_or_else(|| {
            Fault::usage("no network interface is named")
                .hint("name the one that the machines are on: --interface eth0 (`ip -brief link` lists them)")
        })?;
        let invite =
            flags.invite.or(file.invite).map(|word| word.parse()).transpose().map_err(|error: BadWord| {
                Fault::usage("that is no invitation")
                    .because(&error)
                    .hint("on the server, `swarmboot relay invite --site NAME` prints one")
            })?;
        let range = flags.link.range(file.dhcp_range);
        let addresses = range.map_or(Ok(Addresses::Proxy), |range| parse_range(&range))?;
        let size = flags.cache_size.or(file.cache_size).unwrap_or_else(|| CACHE_SIZE.to_owned());
        let cache_bytes = units::bytes(&size).filter(|bytes| *bytes >= CACHE_MIN).ok_or_else(|| {
            Fault::usage(format!("`--cache-size {}` makes no sense", size.escape_debug()))
                .hint("write 40G or 512M, at least 256M")
        })?;
        let connections = file.connections_per_address.unwrap_or(CONNECTIONS_PER_ADDRESS);
        if connections == 0 {
            return Err(Fault::usage("`connections_per_address = 0` makes no sense")
                .hint("no machine could connect; leave it out for 64"));
        }
        let (log, log_json) = flags.log.or(file.log, file.log_json);
        Ok(Self {
            server,
            invite,
            interface,
            addresses,
            authoritative: flags.link.is_authoritative(file.authoritative),
            router: flags.link.router.or(file.router),
            dns: flags.link.dns(file.dns),
            state: flags.state.or(file.state).unwrap_or_else(|| STATE.into()),
            cache_bytes,
            http_port: port(flags.http_port.or(file.http_port), HTTP_PORT, "http-port")?,
            swarm_port: port(flags.swarm_port.or(file.swarm_port), SWARM_PORT, "swarm-port")?,
            connections_per_address: connections,
            log,
            log_json,
        })
    }
}

#[cfg(test)]
mod tests {
    use common::trust::KeyPair;

    use super::*;

    fn flags() -> Flags {
        let link = LinkFlags { interface: Some("eth0".to_owned()), ..LinkFlags::default() };
        Flags { server: Some("http://10.0.0.1:8069".to_owned()), link, ..Flags::default() }
    }

    fn merged(flags: Flags, file: &str) -> Result<Config, Fault> {
        Config::merge(flags, toml::from_str(file).unwrap())
    }

    #[test]
    fn harmless_unless_a_range_is_given_and_a_flag_stands_above_the_file() {
        let config = merged(flags(), "").unwrap();
        assert_eq!((config.addresses, config.cache_bytes), (Addresses::Proxy, 40 << 30));
        assert_eq!((config.http_port, config.swarm_port, config.invite), (8069, 4001, None));
        let text = "dhcp_range = '10.2.0.5-10.2.0.9'\ncache_size = '1G'\nserver = 'http://10.9.9.9'";
        let config = merged(flags(), text).unwrap();
        assert_eq!(config.addresses, Addresses::Range([10, 2, 0, 5].into(), [10, 2, 0, 9].into()));
        assert_eq!((config.cache_bytes, config.server.as_str()), (1 << 30, "http://10.0.0.1:8069"));
        let mut proxy = flags();
        proxy.link.proxy_dhcp = true;
        assert_eq!(merged(proxy, text).unwrap().addresses, Addresses::Proxy);
        let word = InviteWord::generate(KeyPair::from_secret([7; 32]).public()).unwrap();
        let invited = merged(flags(), &format!("invite = '{word}'")).unwrap();
        assert_eq!(invited.invite, Some(word));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(merged(Flags { server: None, ..flags() }, "").unwrap_err().text().contains("--server"));
        assert!(merged(Flags { link: LinkFlags::default(), ..flags() }, "").is_err());
        for wrong in [
            "invite = 'letmein'",
            "cache_size = '10M'",
            "cache_size = 'much'",
            "http_port = 0",
            "connections_per_address = 0",
            "dhcp_range = '10.0.0.9-10.0.0.1'",
        ] {
            assert!(merged(flags(), wrong).is_err(), "{wrong}");
        }
        let wrong = Flags { server: Some("https://a/b".to_owned()), ..flags() };
        assert!(merged(wrong, "").is_err());
        assert!(toml::from_str::<File>("interfaces = 'eth1'").is_err());
    }
}
