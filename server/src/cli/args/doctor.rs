//! `swarmboot doctor` as it is typed. Touches `clap`'s types only.

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// Flags of `doctor`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Nothing is changed. As root it sees more: who else answers machines, and which \
                        program has a port. Exit code 1 when something is wrong that keeps machines from \
                        being served.\n\nExample:\n  swarmboot doctor --interface eth1")]
pub struct Doctor {
    /// The network interface that the machines are on [default: the
    /// configuration's].
    #[arg(long, env = "SWARMBOOT_INTERFACE")]
    pub interface: Option<String>,
    /// Configuration file [default: /etc/swarmboot/swarmboot.toml, if it is there].
    #[arg(long, env = "SWARMBOOT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How long to wait for the answers of other servers, such as 4s.
    #[arg(long, default_value = "4s", value_name = "TIME")]
    pub wait: String,
}
