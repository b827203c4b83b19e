//! `swarmboot deploy` as it is typed: orders. Touches `clap`'s types only.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use common::id::DeploymentId;

use super::machine::Which;
use super::profile::choice;
use crate::api::shapes::ProfileChoice;

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
        /// And all that was ordered together with it, by other profiles.
        #[arg(long)]
        together: bool,
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
    /// Hold a deployment back: nothing more of it begins, and what runs goes on.
    /// Holds until `resume`, over restarts of the server too.
    Pause {
        /// The deployment, such as d3.
        deployment: DeploymentId,
        /// And all that was ordered together with it, by other profiles.
        #[arg(long)]
        together: bool,
        /// Why; goes to the log.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Let a paused deployment go on.
    Resume {
        /// The deployment, such as d3.
        deployment: DeploymentId,
        /// And all that was ordered together with it, by other profiles.
        #[arg(long)]
        together: bool,
        /// Why; goes to the log.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Cancel a deployment, or the jobs of some machines in it. Machines get the
    /// state back that they had before it.
    Cancel {
        /// The deployment, such as d3.
        deployment: DeploymentId,
        /// And all that was ordered together with it, by other profiles.
        #[arg(long)]
        together: bool,
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
    /// Only what has failed, and nothing that was refused.
    #[arg(long)]
    pub failed: bool,
    /// Order so many, though that is more than one order may write.
    #[arg(long, value_name = "COUNT")]
    pub max_machines: Option<u32>,
    /// Only these machines; of any deployment when none is named.
    #[arg(long, value_name = "MACHINE")]
    pub machines: Vec<String>,
    /// Only machines that fit: role=web, 'memory>=16G', 'rack in (a, b)', with
    /// commas between.
    #[arg(short, long = "label", value_name = "SELECTOR")]
    pub labels: Vec<String>,
    /// Only say what would be done.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

/// What machines do at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AtEnd {
    /// Restart into the new OS.
    Reboot,
    /// Switch off.
    PowerOff,
    /// Stay on and do nothing.
    Stay,
}

/// Flags of `deploy start`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  swarmboot deploy start --image debian-12 --machines m1,m2 --dry-run\n  \
                        swarmboot deploy start --image debian-12 --machines rack1-[01-16] --disk bus=nvme\n  \
                        swarmboot deploy start --profile web --profile db=role=db --machines rack1-[01-16]")]
pub struct Start {
    /// The image, by name or the beginning of its id [default: the profile's].
    #[arg(long)]
    pub image: Option<String>,
    /// What this profile says, where no flag says anything else, for machines that
    /// fit it or SELECTOR. Several take the machines that fit each of them.
    #[arg(long = "profile", value_name = "NAME[=SELECTOR]", value_parser = choice)]
    pub profiles: Vec<ProfileChoice>,
    /// Ids, names, serials or Ethernet addresses; hostlists such as rack1-[01-16].
    #[arg(long, value_name = "MACHINE")]
    pub machines: Vec<String>,
    /// Machines that fit: role=web, 'memory>=16G', 'rack in (a, b)', with commas
    /// between.
    #[arg(short, long = "label", value_name = "SELECTOR")]
    pub labels: Vec<String>,
    /// Also take machines that appear later and match the labels: those that are
    /// approved, and others only when every disk of theirs is blank.
    #[arg(long)]
    pub open: bool,
    /// Take at most so many machines.
    #[arg(long, requires = "open")]
    pub limit: Option<u32>,
    /// Write so many machines, though that is more than one order may write.
    #[arg(long, value_name = "COUNT")]
    pub max_machines: Option<u32>,
    /// Write at most so many machines at once; the others wait for their turn.
    #[arg(long, value_name = "COUNT")]
    pub max_parallel: Option<u32>,
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
    /// Run this script in the new root before the disk can boot; 300 s, or as
    /// in FILE,timeout=60,on-failure=continue. In this order, where several are given.
    #[arg(long, value_name = "FILE[,KEY=VALUE]")]
    pub hook: Vec<String>,
    /// Which partition is that root: auto, its number, or label=NAME.
    #[arg(long, value_name = "WHICH", default_value = "auto")]
    pub hook_root: common::hooks::RootRule,
    /// Leave the image as it is: no hostname, no keys, no call home.
    #[arg(long)]
    pub no_personalise: bool,
    /// Do not wait for the installed OS to call home.
    #[arg(long)]
    pub no_confirm: bool,
    /// Switch machines off at the end instead of restarting them.
    #[arg(long, conflicts_with = "at_end")]
    pub power_off: bool,
    /// What machines do at the end [default: as the profile says, else reboot].
    #[arg(long, value_name = "WHAT", value_enum)]
    pub at_end: Option<AtEnd>,
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
