//! `swarmboot profile` as it is typed. Touches `clap`'s types only.

use std::path::PathBuf;

use clap::Subcommand;

use crate::api::shapes::ProfileChoice;

/// What can be done with profiles.
#[derive(Debug, Subcommand)]
pub enum Profile {
    /// Check a profile and keep it; every mistake is shown with line and column,
    /// and then nothing is kept.
    #[command(
        after_help = "Example:\n  swarmboot profile add web.toml --dry-run\n  swarmboot profile add web.toml \
                            --replace\n  swarmboot deploy start --profile web --machines rack1-[01-16]"
    )]
    Add {
        /// The TOML file. Files that it names are looked for beside it.
        file: PathBuf,
        /// Its name [default: that of the file, without .toml].
        #[arg(long)]
        name: Option<String>,
        /// Take the place of one with the same name. What was ordered by that
        /// keeps what it said.
        #[arg(long)]
        replace: bool,
        /// Only look for mistakes.
        #[arg(long)]
        dry_run: bool,
    },
    /// List profiles.
    List,
    /// Show a profile, without its keys, user-data and scripts.
    Show {
        /// Its name.
        name: String,
    },
    /// Remove a profile. What was ordered by it stays ordered.
    Remove {
        /// Its name.
        name: String,
    },
}

/// A profile of an order as it is typed: `NAME`, or `NAME=SELECTOR`.
///
/// # Errors
/// Never: what makes no sense is refused by the server.
pub(super) fn choice(text: &str) -> Result<ProfileChoice, std::convert::Infallible> {
    let (name, machines) = match text.split_once('=') {
        Some((name, machines)) => (name, Some(machines.to_owned())),
        None => (text, None),
    };
    Ok(ProfileChoice { name: name.to_owned(), machines })
}
