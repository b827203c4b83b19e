//! `swarmboot image` as it is typed. Touches `clap`'s types only.

use std::path::PathBuf;

use clap::Subcommand;

use super::relay::Stage;

/// What can be done with images.
#[derive(Debug, Subcommand)]
pub enum Image {
    /// Add an image: raw, qcow2, or gz, xz, zst of raw; `-` reads standard input.
    #[command(after_help = "Example:\n  swarmboot image add debian-12 debian-12.qcow2\n  xzcat disk.xz | \
                            swarmboot image add disk -")]
    Add {
        /// The name to give it.
        name: String,
        /// The file, or `-`.
        file: PathBuf,
        /// Sector size the image was made for, where its partition table does not tell: 512 or 4096.
        #[arg(long, value_name = "BYTES")]
        sector_size: Option<u32>,
        /// Add it although it has no partition table: the disk will hold just these bytes.
        #[arg(long)]
        no_table: bool,
    },
    /// List images.
    List,
    /// Show one image.
    Show {
        /// Its name, or the beginning of its id.
        name: String,
    },
    /// Read every chunk of an image and check it.
    Verify {
        /// Its name, or the beginning of its id.
        name: String,
    },
    /// Write an image out as a raw file; `-` writes standard output.
    Export {
        /// Its name, or the beginning of its id.
        name: String,
        /// The file, or `-`.
        file: PathBuf,
    },
    /// Remove an image, and the chunks that no other image has.
    Remove {
        /// Its name.
        name: String,
    },
    /// Bring an image to the relays of a site ahead of its day.
    #[command(
        after_help = "Example:\n  swarmboot image stage debian-12 --site branch --not-before 22:00 --limit \
                            5M\n  swarmboot image stage debian-12 --site branch --remove"
    )]
    Stage(Stage),
}
