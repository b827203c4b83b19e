//! `swarmboot config` as it is typed. Touches `clap`'s types only.

use clap::Subcommand;

use crate::config::Flags;

/// What can be done with the configuration.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Look for mistakes in the configuration: with flags, environment and file as
    /// `serve` would take them.
    ///
    /// Exit code 2 when there is one; warnings alone are 0.
    #[command(after_help = "Example:\n  swarmboot config check\n  swarmboot config check --config new.toml")]
    Check(Box<Flags>),
    /// Show what holds, and where it comes from: flag, environment, file or default.
    #[command(after_help = "Example:\n  swarmboot config show\n  swarmboot config show -o json")]
    Show(Box<Flags>),
}
