//! `swarmboot login` and `swarmboot token` as they are typed. Touches `clap`'s types only.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use crate::api::shapes::Role;

/// Flags of `login`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  swarmboot login https://seed.example:8470\n  swarmboot login seed \
                        --token-file token.txt --fingerprint 3F:9A:…")]
pub struct Login {
    /// The server: https://NAME:PORT, or just its name or address.
    pub url: String,
    /// Read the token from this file, or from standard input with `-`, instead
    /// of asking for it.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The SHA-256 of the server's certificate, as `swarmboot status` shows it
    /// there; it is shown and asked about when this is left out.
    #[arg(long, value_name = "SHA256")]
    pub fingerprint: Option<String>,
}

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token and print it; it is not shown again.
    #[command(
        after_help = "Example:\n  swarmboot token create anna --role operator --expires 90d\n  swarmboot token \
                            create wall --role viewer --site branch"
    )]
    Create {
        /// Its name, by which the log names whoever uses it.
        name: String,
        /// What it allows: viewer, operator or admin.
        #[arg(long)]
        role: Role,
        /// Only machines of this site; may be given several times.
        #[arg(long = "site", value_name = "SITE")]
        sites: Vec<String>,
        /// Only machines with this label; with several, with all of them.
        #[arg(short, long = "label", value_name = "KEY=VALUE")]
        labels: Vec<String>,
        /// How long it is good for, such as 90d [default: until it is revoked].
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// List tokens, without what they are made of.
    List,
    /// End a token at once.
    Revoke {
        /// Its name.
        name: String,
    },
}
