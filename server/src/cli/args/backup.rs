//! `swarmboot backup` and `restore` as they are typed. Touches `clap`'s types only.

use std::path::PathBuf;

use clap::Args;

/// Flags of `backup`.
#[derive(Debug, Args)]
#[command(after_help = "The file holds the server's keys: whoever has it can sign plans that erase \
                        disks.\n\nExample:\n  swarmboot backup /mnt/backup/swarmboot.tar.zst")]
pub struct Backup {
    /// Where to write it; - for standard output. An older file is replaced
    /// once the new one is whole.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Leave out the chunks of images, which are most of it; add the images
    /// again after a restore.
    #[arg(long)]
    pub without_images: bool,
}

/// Flags of `restore`.
#[derive(Debug, Args)]
#[command(after_help = "No server may run there. Everything is checked before anything is changed.\n\n\
                        Example:\n  systemctl stop swarmboot\n  swarmboot restore \
                        /mnt/backup/swarmboot.tar.zst --force")]
pub struct Restore {
    /// The backup; - for standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The state folder to make.
    #[arg(long, env = "SWARMBOOT_STATE", default_value = "/var/lib/swarmboot", value_name = "DIR")]
    pub state: PathBuf,
    /// Move aside what is in the state folder; nothing of it is removed.
    #[arg(long)]
    pub force: bool,
}
