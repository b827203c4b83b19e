//! The grammar of `swarmboot relay` and `swarmboot image stage`; flags of a relay are in `relay`. Touches `clap`'s types
//! only.

use clap::{Args as ClapArgs, Subcommand};

/// What can be done with relays.
#[derive(Debug, Subcommand)]
pub enum Relay {
    /// Invite a relay to a site: prints a word that lets in one relay, once.
    #[command(
        after_help = "Example:\n  swarmboot relay invite --site branch\n  swarmboot relay invite --site \
                            10.1.2.0/24 --name attic --expires 7d"
    )]
    Invite {
        /// The site: a `[[site]]` of the configuration, or a network such as 10.1.2.0/24.
        #[arg(long, value_name = "SITE")]
        site: String,
        /// Its name [default: the site's, with a number].
        #[arg(long)]
        name: Option<String>,
        /// How long the word can be used, such as 90m or 7d [default: 24h].
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// Run the relay of a site: on a host there, with the word of an invitation.
    Run(Box<crate::relay::Flags>),
    /// List relays and invitations.
    List,
    /// Shut a relay out for good, or take back an invitation.
    Revoke {
        /// Its name.
        name: String,
    },
}

/// Flags of `image stage`.
#[derive(Debug, ClapArgs)]
pub struct Stage {
    /// The image, by name or the beginning of its id.
    pub name: String,
    /// The site whose relays are to hold it.
    #[arg(long, value_name = "SITE")]
    pub site: String,
    /// When they begin: a time of day here, or a time such as 2026-12-01T22:00:00Z.
    #[arg(long, value_name = "TIME", conflicts_with = "remove")]
    pub not_before: Option<String>,
    /// How much of the line they take, in bits per second such as 5M.
    #[arg(long, value_name = "RATE", conflicts_with = "remove")]
    pub limit: Option<String>,
    /// Hold it there no longer.
    #[arg(long)]
    pub remove: bool,
}
