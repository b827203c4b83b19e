//! `swarmboot machine` as it is typed, and how machines are named in other commands too. Touches `clap`'s types only.

use clap::{Args as ClapArgs, Subcommand};

/// Which machines.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Which {
    /// Ids, names, serials or Ethernet addresses; hostlists such as rack1-[01-16].
    #[arg(value_name = "MACHINE")]
    pub machines: Vec<String>,
    /// Machines that fit: role=web, 'memory>=16G', 'rack in (a, b)', with commas
    /// between.
    #[arg(short, long = "label", value_name = "SELECTOR")]
    pub labels: Vec<String>,
}

/// What can be done with machines.
#[derive(Debug, Subcommand)]
pub enum Machine {
    /// List machines.
    List {
        /// Only those that fit: role=web, role!=web, 'role in (web, db)', role, '!role';
        /// of what machines show: memory, disk, cpus (>=, <=, >, <), arch, vendor,
        /// model, nic, pci, firmware, state, held, os, site. Commas mean `and`.
        #[arg(short, long = "label", value_name = "SELECTOR")]
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
    /// Have them stay in the loader from their next network boot on, whatever is
    /// on their disks, to look at their hardware, until `release`.
    Inspect(Change),
    /// End a hold, an inspection, a rejection, a failure, or a doubt (it is
    /// another machine).
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
