//! The grammar of the command line. What a flag means is decided in `config` and on the server. The doc comments of its
//! types are the help that users read. Touches `clap`'s types only.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

pub use self::access::{Login, Token};
pub use self::backup::{Backup, Restore};
pub use self::config::Config;
pub use self::deploy::{Again, AtEnd, Deploy, Start};
pub use self::doctor::Doctor;
pub use self::image::Image;
pub use self::kit::Kit;
pub use self::logs::Logs;
pub use self::machine::{Change, Machine, Which};
pub use self::profile::Profile;
pub use self::relay::{Relay, Stage};
pub use self::swarm::Swarm;
use crate::config::Flags;

// One file for each noun.
mod access;
mod backup;
mod config;
mod deploy;
mod doctor;
mod image;
mod kit;
mod logs;
mod machine;
mod profile;
mod relay;
mod swarm;

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
    /// The server's admin socket [default: /run/swarmboot/swarmboot.sock].
    #[arg(long, global = true, env = "SWARMBOOT_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// A server on another host [default: that of `login`, where no socket is].
    #[arg(long, global = true, env = "SWARMBOOT_SERVER", value_name = "URL", conflicts_with = "socket")]
    pub server: Option<String>,

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

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server: DHCP or proxyDHCP, TFTP, HTTP boot, and the swarm's first seed.
    Serve(Box<Flags>),
    /// A request to a server.
    #[command(flatten)]
    Ask(Ask),
    /// Keep a server on another host and a token for it.
    Login(Login),
    /// Forget the server and the token that `login` kept.
    Logout,
    /// Make a state folder of a backup, without a server.
    Restore(Restore),
    /// The configuration: mistakes in it, and what holds.
    #[command(subcommand)]
    Config(Config),
    /// What is wrong on this host and its network, and what to do about it.
    Doctor(Doctor),
    /// Write the manual pages into a folder.
    #[command(hide = true)]
    Man {
        /// The folder, which is made if it is not there.
        folder: PathBuf,
    },
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// The nouns: what a server is asked.
#[derive(Debug, Subcommand)]
pub enum Ask {
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
    /// Profiles: what a kind of machine is to become.
    #[command(subcommand)]
    Profile(Profile),
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
    /// Tokens: who may do what from another host.
    #[command(subcommand)]
    Token(Token),
    /// Who you are to the server, and what you may do.
    Whoami,
    /// Write everything that the server keeps into one file.
    Backup(Backup),
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
