//! `swarmboot swarm` as it is typed. Touches `clap`'s types only.

use clap::Subcommand;

/// What can be asked of the swarm.
#[derive(Debug, Subcommand)]
pub enum Swarm {
    /// Who holds how much, what the server sent, and what holds each up.
    Status,
    /// Show or change how much may go out, while chunks are being sent too.
    ///
    /// Covers all that machines are sent; boot files go before chunks. Holds until
    /// the server stops; the configuration file (`limit`, and `limit` of a `[[site]]`) has what stays.
    #[command(
        after_help = "Example:\n  swarmboot swarm limit\n  swarmboot swarm limit 50M\n  swarmboot swarm \
                            limit 20M --site branch\n  swarmboot swarm limit none --site branch"
    )]
    Limit {
        /// Bits per second, such as 20M or 1.5G; `none` lifts the limit.
        rate: Option<String>,
        /// What goes into this site, instead of all that the server sends.
        #[arg(long, requires = "rate", value_name = "SITE")]
        site: Option<String>,
    },
}
