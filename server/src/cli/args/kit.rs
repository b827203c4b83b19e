//! `swarmboot kit` as it is typed: boot kits. Touches `clap`'s types only.

use std::path::PathBuf;

use clap::Subcommand;

/// What can be done with boot kits.
#[derive(Debug, Subcommand)]
pub enum Kit {
    /// Make a boot kit from this host's kernel, a folder, or Debian packages.
    #[command(after_help = "Example:\n  swarmboot kit import\n  swarmboot kit import --name full --deb \
                            linux-image-6.1.0-44-amd64.deb --deb ipxe.deb")]
    Import {
        /// The kit's name [default: its kernel's version].
        #[arg(long)]
        name: Option<String>,
        /// A Debian package to take parts from; may be given several times.
        #[arg(long, value_name = "FILE")]
        deb: Vec<PathBuf>,
        /// A folder laid out like a root file system; may be given several times.
        #[arg(long, value_name = "DIR")]
        folder: Vec<PathBuf>,
        /// The archive of an iPXE release (ipxeboot.tar.gz), whose programs
        /// are taken and not those of other sources.
        #[arg(long, value_name = "FILE")]
        ipxe: Option<PathBuf>,
        /// Also take what this host has installed (the default when nothing else is named).
        #[arg(long)]
        host: bool,
        /// Which kernel version, where there are several.
        #[arg(long, value_name = "VERSION")]
        kernel: Option<String>,
    },
    /// List boot kits.
    List,
    /// Show one boot kit.
    Show {
        /// Its name.
        name: String,
    },
    /// Remove a boot kit.
    Remove {
        /// Its name.
        name: String,
    },
}
