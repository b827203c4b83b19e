//! The flags of `swarmboot serve`, as they are typed, and those of them that a relay has too; `config` merges and checks
//! them. Their doc comments are the help that users read. Touches `clap`'s types only.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::Args;

/// Flags of `serve`; each can stand in the configuration file instead.
#[derive(Debug, Default, Args)]
#[command(after_help = "Without --dhcp-range the server gives out no addresses: it only adds boot \
                        information beside the DHCP server that is there (proxyDHCP).\n\nExample:\n  swarmboot \
                        serve --interface eth1")]
pub struct Flags {
    // No doc comment on a field that is flattened: it would be printed.
    #[command(flatten)]
    pub(crate) link: LinkFlags,
    /// Answer only machines that are named or approved, or for which something
    /// is ordered; others are listed, and left to whoever serves them.
    #[arg(long)]
    pub no_discovery: bool,
    /// How long an order waits for a machine that does not come, such as 12h, 7d
    /// or never [default: 7d].
    #[arg(long, env = "SWARMBOOT_ORDER_EXPIRES", value_name = "TIME")]
    pub order_expires: Option<String>,
    /// Where everything is kept [default: /var/lib/swarmboot].
    #[arg(long, env = "SWARMBOOT_STATE", value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Configuration file [default: /etc/swarmboot/swarmboot.toml, if it is there].
    #[arg(long, env = "SWARMBOOT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// TCP port of HTTP boot and the machines' reports [default: 8069].
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<u16>,
    /// What the server may send to machines at the most, such as 50M, in bits
    /// per second; can be changed with `swarmboot swarm limit` [default: all].
    #[arg(long, env = "SWARMBOOT_LIMIT", value_name = "RATE")]
    pub limit: Option<String>,
    /// TCP port of the swarm [default: 4001].
    #[arg(long, value_name = "PORT")]
    pub swarm_port: Option<u16>,
    /// TCP port of the API over TLS [default: 8470].
    #[arg(long, env = "SWARMBOOT_API_PORT", value_name = "PORT")]
    pub api_port: Option<u16>,
    /// Serve the API on the admin socket alone.
    #[arg(long)]
    pub no_api: bool,
    /// Network boot program for UEFI machines [default: snponly.efi, else ipxe.efi].
    #[arg(long, value_name = "FILE")]
    pub uefi_program: Option<String>,
    /// More words for the loader's kernel command line.
    #[arg(long, value_name = "WORDS")]
    pub kernel_args: Option<String>,
    #[command(flatten)]
    pub(crate) log: LogFlags,
}

/// The flags for the network of the machines.
#[derive(Debug, Default, Args)]
pub(crate) struct LinkFlags {
    /// The network interface that the machines are on.
    #[arg(long, env = "SWARMBOOT_INTERFACE")]
    pub(crate) interface: Option<String>,
    /// Be the DHCP server, with addresses from FIRST-LAST.
    #[arg(long, env = "SWARMBOOT_DHCP_RANGE", value_name = "FIRST-LAST", conflicts_with = "proxy_dhcp")]
    pub(crate) dhcp_range: Option<String>,
    /// Leave addresses to the DHCP server that is there (the default).
    #[arg(long)]
    pub(crate) proxy_dhcp: bool,
    /// No other DHCP server serves this wire: refuse clients that ask for
    /// addresses of other networks, instead of leaving them to others.
    #[arg(long)]
    pub(crate) authoritative: bool,
    /// Router to give out with addresses.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) router: Option<Ipv4Addr>,
    /// DNS servers to give out with addresses.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub(crate) dns: Vec<Ipv4Addr>,
}

/// The flags for the program's own log.
#[derive(Debug, Default, Args)]
pub(crate) struct LogFlags {
    /// What the log shows, as in tracing's filters [default: info].
    #[arg(long = "log", env = "SWARMBOOT_LOG", value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// Log as JSON lines.
    #[arg(long = "log-json")]
    pub(crate) json: bool,
}

impl LinkFlags {
    /// The range of addresses that is given out, with `file`'s where none is typed; none for proxyDHCP.
    pub(crate) fn range(&self, file: Option<String>) -> Option<String> {
        if self.proxy_dhcp { None } else { self.dhcp_range.clone().or(file) }
    }

    /// Whether clients are refused that ask for addresses of other networks.
    pub(crate) fn is_authoritative(&self, file: Option<bool>) -> bool {
        self.authoritative || file.unwrap_or(false)
    }

    /// The DNS servers that are given out.
    pub(crate) fn dns(&self, file: Vec<Ipv4Addr>) -> Vec<Ipv4Addr> {
        if self.dns.is_empty() { file } else { self.dns.clone() }
    }
}

impl LogFlags {
    /// The log's filter and whether it is written as JSON lines, with the file's where none is typed.
    pub(crate) fn or(self, filter: Option<String>, json: Option<bool>) -> (String, bool) {
        let filter = self.filter.or(filter).unwrap_or_else(|| "info".to_owned());
        (filter, self.json || json.unwrap_or(false))
    }
}
