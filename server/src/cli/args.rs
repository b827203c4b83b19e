//! The grammar of the command line. What a flag means is decided in `config` and on the server. The doc comments of its
//! types are the help that users read. Touches `clap`'s types only.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use common::id::DeploymentId;
use common::step::Step;

pub use self::relay::{Relay, Stage};
use crate::config::Flags;

// Relays, and images that are staged at them.
mod relay;

/// The default path of the admin socket.
pub const SOCKET: &str = "/run/swarmboot/swarmboot.sock";

/// Installs operating systems on bare machines over thin lines.
#[derive(Debug, Parser)]
#[command(
    name = "swarmboot",
    version,
    max_term_width = 80,
    after_help = "Example:\n  swarmboot serve --interface eth1 --dhcp-range 10.0.0.100-10.0.0.200\n  swarmboot \
                  kit import\n  swarmboot image add debian-12 debian-12.qcow2\n  swarmboot deploy start \
                  --image debian-12 --machines m1,m2\n  swarmboot logs --follow"
)]
pub struct Args {
    /// The server's admin socket.
    #[arg(long, global = true, env = "SWARMBOOT_SOCKET", default_value = SOCKET, value_name = "PATH")]
    pub socket: PathBuf,

    /// How to print data.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server: DHCP or proxyDHCP, TFTP, HTTP boot, and the swarm's first seed.
    Serve(Box<Flags>),
    /// How the server is, and what it lacks.
    Status,
    /// Boot kits: what machines are network-booted with.
    #[command(subcommand)]
    Kit(Kit),
    /// Images: what is written to disks.
    #[command(subcommand)]
    Image(Image),
    /// Machines: who is there, and what may be done with them.
    #[command(subcommand)]
    Machine(Machine),
    /// Deployments: orders to write an image to machines.
    #[command(subcommand)]
    Deploy(Deploy),
    /// Relays: a branch's own server, which machines there boot from.
    #[command(subcommand)]
    Relay(Relay),
    /// Every step of every machine.
    Logs(Logs),
    /// Who holds which chunks of an image, and who was sent what.
    #[command(subcommand)]
    Swarm(Swarm),
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

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

/// Which machines.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Which {
    /// Ids, names, serials or Ethernet addresses; hostlists such as rack1-[01-16].
    #[arg(value_name = "MACHINE")]
    pub machines: Vec<String>,
    /// Machines with this label.
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
}

/// What can be done with machines.
#[derive(Debug, Subcommand)]
pub enum Machine {
    /// List machines.
    List {
        /// Only those with this label.
        #[arg(short, long = "label", value_name = "KEY=VALUE")]
        labels: Vec<String>,
    },
    /// Show one machine with its hardware.
    Show {
        /// Its id, name, serial or Ethernet address.
        machine: String,
    },
    /// Let open deployments take them.
    Approve(Change),
    /// Never answer them again (until `release`). Cancels their jobs, running or not.
    Reject(Change),
    /// Give one a name.
    Name {
        /// Its id, name, serial or Ethernet address.
        machine: String,
        /// The new name.
        name: String,
    },
    /// Set labels (`role=web`), or remove them (`role-`).
    Label {
        /// Its id, name, serial or Ethernet address; hostlists too.
        machine: String,
        /// Labels.
        #[arg(required = true)]
        labels: Vec<String>,
    },
    /// Order nothing for them and begin nothing until `release`. A job that runs
    /// goes on; `deploy cancel` stops it.
    Hold(Change),
    /// End a hold, a rejection, a failure, or a doubt (it is another machine).
    Release(Change),
    /// Say that one is another one, with a new board or NIC: that one keeps its
    /// name, labels and orders, and takes over what this one shows.
    Merge {
        /// Its id, name, serial or Ethernet address.
        machine: String,
        /// The machine that it is.
        #[arg(long, value_name = "MACHINE")]
        into: String,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete the records of them; their events stay.
    Forget(Change),
    /// Switch them on with magic packets: by their site's relays, or by the server
    /// on its own network.
    Wake(Change),
}

/// A change to machines.
#[derive(Debug, ClapArgs)]
pub struct Change {
    /// The machines that are meant.
    #[command(flatten)]
    pub which: Which,
    /// Only say what would be done.
    #[arg(long)]
    pub dry_run: bool,
}

/// What can be done with deployments.
#[derive(Debug, Subcommand)]
pub enum Deploy {
    /// Order an image for machines. Their disks will be overwritten.
    Start(Box<Start>),
    /// List deployments.
    List,
    /// Show a deployment and its jobs.
    Status {
        /// Which; the newest when not given.
        deployment: Option<DeploymentId>,
    },
    /// Watch a deployment until every job is over.
    Watch {
        /// Which; the newest when not given.
        deployment: Option<DeploymentId>,
    },
    /// Order again what was refused or has failed, after another look at the disks.
    Retry(Again),
    /// Stop everything new: no order is taken and no machine begins. What runs
    /// goes on. Holds until `unfreeze`, over restarts of the server too.
    Freeze {
        /// Why; goes to the log, to `status` and to whoever orders meanwhile.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Let new things begin again.
    Unfreeze {
        /// Why; goes to the log.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Cancel a deployment, or the jobs of some machines in it. Machines get the
    /// state back that they had before it.
    Cancel {
        /// The deployment, such as d3.
        deployment: DeploymentId,
        /// Only these machines.
        #[command(flatten)]
        which: Which,
        /// Why; goes to the log and to the machines' consoles.
        #[arg(long)]
        reason: Option<String>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Flags of `deploy retry`.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Example:\n  swarmboot deploy retry d3 --dry-run\n  swarmboot deploy retry --machines \
                        rack1-07"
)]
pub struct Again {
    /// All of this deployment that was refused or has failed.
    pub deployment: Option<DeploymentId>,
    /// Only these machines; of any deployment when none is named.
    #[arg(long, value_name = "MACHINE")]
    pub machines: Vec<String>,
    /// Only machines with this label.
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// Only say what would be done.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

/// Flags of `deploy start`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  swarmboot deploy start --image debian-12 --machines m1,m2 --dry-run\n  \
                        swarmboot deploy start --image debian-12 --machines rack1-[01-16] --disk bus=nvme")]
pub struct Start {
    /// The image, by name or the beginning of its id.
    #[arg(long)]
    pub image: String,
    /// Ids, names, serials or Ethernet addresses; hostlists such as rack1-[01-16].
    #[arg(long, value_name = "MACHINE")]
    pub machines: Vec<String>,
    /// Machines with this label.
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// Also take machines that appear later and match the labels: those that are
    /// approved, and others only when every disk of theirs is blank.
    #[arg(long)]
    pub open: bool,
    /// Take at most so many machines.
    #[arg(long, requires = "open")]
    pub limit: Option<u32>,
    /// Which disk, where there are several: serial=…, wwn=…, model=…, bus=nvme, size>=100G, comma-separated.
    #[arg(long, default_value = "", value_name = "RULE")]
    pub disk: String,
    /// Hostname; {name} and {id} stand for the machine's [default: {name}].
    #[arg(long, value_name = "PATTERN")]
    pub hostname: Option<String>,
    /// SSH public key for the image's default user: a key or a file of keys.
    #[arg(long, value_name = "KEY|FILE")]
    pub ssh_key: Vec<String>,
    /// cloud-init user-data.
    #[arg(long, value_name = "FILE")]
    pub user_data: Option<PathBuf>,
    /// Leave the image as it is: no hostname, no keys, no call home.
    #[arg(long)]
    pub no_personalise: bool,
    /// Do not wait for the installed OS to call home.
    #[arg(long)]
    pub no_confirm: bool,
    /// Switch machines off at the end instead of restarting them.
    #[arg(long)]
    pub power_off: bool,
    /// Hold the machines until so many have arrived, so that they transfer together.
    #[arg(long, value_name = "COUNT")]
    pub gather: Option<u32>,
    /// … or until so many seconds have passed since the first arrived [default: 600].
    #[arg(long, value_name = "SECONDS", requires = "gather")]
    pub gather_seconds: Option<u64>,
    /// End the order where nobody came for it within this time, such as 12h, 3d or
    /// never [default: as the server is set, else 7d].
    #[arg(long, value_name = "TIME")]
    pub expires: Option<String>,
    /// Order machines in spite of this warning; --dry-run says its word.
    #[arg(long, value_name = "WARNING", value_delimiter = ',')]
    pub accept: Vec<String>,
    /// Only say what would be done.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

/// Flags of `logs`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  swarmboot logs m1 --step transfer\n  swarmboot logs --follow -o json")]
pub struct Logs {
    /// Only of these machines.
    #[arg(value_name = "MACHINE")]
    pub machines: Vec<String>,
    /// Go on with new events as they happen.
    #[arg(short, long)]
    pub follow: bool,
    /// Only events of the last while (90s, 15m, 2h, 3d), or since a time (2026-11-22T10:00:00Z).
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// Only of this step.
    #[arg(long)]
    pub step: Option<Step>,
    /// Only of this deployment.
    #[arg(long)]
    pub deployment: Option<DeploymentId>,
    /// With progress, too.
    #[arg(long)]
    pub progress: bool,
}

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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_wrong_step_is_told_the_steps() {
        let typed = |step| Args::try_parse_from(["swarmboot", "logs", "--step", step]);
        assert!(typed("transfer").is_ok());
        let error = typed("transver").unwrap_err().to_string();
        assert!(error.contains("transver") && error.contains("transfer, verify"), "{error}");
    }

    #[test]
    fn every_help_fits_80_columns() {
        fn check(command: &mut clap::Command) {
            let help = command.render_long_help().to_string();
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
            }
            for sub in command.get_subcommands_mut() {
                check(sub);
            }
        }
        let mut command = Args::command();
        command.build();
        check(&mut command);
    }
}
