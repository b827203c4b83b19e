//! Why a hook did not run, or failed. Owns these types; touches nothing.

use std::io;

use common::hooks::NoRoot;
use common::table::TableError;
use common::text::{harmless, some_of};

/// How many subvolumes an error names.
const NAMED: usize = 8;

/// The error of a hook, or of what it needs.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The plan has hooks and the server sent none.
    #[error("the plan has the step `hooks`, but the server sent no script")]
    NoScripts,
    /// The image's table cannot be read.
    #[error("the image's partition table cannot be read, so its root is not known")]
    Table(#[from] TableError),
    /// No partition is the root.
    #[error(transparent)]
    NoRoot(#[from] NoRoot),
    /// The root reaches beyond the disk's end.
    #[error("partition {0}, the root, ends behind the disk's end")]
    Beyond(u32),
    /// The disk is none that the kernel can mount from.
    #[error("hooks need a disk or a file that can be mounted")]
    NoBacking(#[source] io::Error),
    /// The agent runs as an ordinary process without root's rights.
    #[error("hooks mount the new root, and this agent may not: start it as root, or order without hooks")]
    NotRoot(#[source] io::Error),
    /// There is no loop device.
    #[error("there is no loop device for the root: {what}")]
    Loop {
        /// What was tried.
        what: &'static str,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// Something cannot be mounted.
    #[error("cannot mount {what}")]
    Mount {
        /// The file system or place.
        what: String,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The partition holds no system.
    #[error(
        "{0} holds no system: it has no etc/os-release; name the root with --hook-root, by number or label=NAME"
    )]
    NoSystem(String),
    /// Several subvolumes of a btrfs hold a system, and none is its default one.
    #[error(
        "the root's btrfs holds systems in the subvolumes {}: make the one that is meant its default one in the image \
         (btrfs subvolume set-default)",
        some_of(.0.iter().map(|name| harmless(name)), NAMED, ", ")
    )]
    SeveralSystems(Vec<String>),
    /// A folder that every system has is missing, or is no folder.
    #[error("the root has no folder /{0} to mount on")]
    NoPlace(&'static str),
    /// There is no shell for a script that needs it.
    #[error("the root has no /bin/sh, which runs the hook {0}")]
    NoShell(String),
    /// The script cannot be started: its interpreter is not there, most likely.
    #[error("cannot start the hook {hook}: {first}")]
    Start {
        /// The hook's name.
        hook: String,
        /// What was to run it.
        first: String,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// It ended with an error.
    #[error("the hook {hook} ended with {status}{said}")]
    Failed {
        /// The hook's name.
        hook: String,
        /// Its exit status or signal, in words.
        status: String,
        /// Its last words, with a colon before them; empty when it said nothing.
        said: String,
    },
    /// It did not end in time, and was killed with all that it started.
    #[error("the hook {hook} did not end within {seconds} s and was killed{said}")]
    Late {
        /// The hook's name.
        hook: String,
        /// Its limit.
        seconds: u32,
        /// As in [`HookError::Failed`].
        said: String,
    },
    /// The job was cancelled while the hook ran.
    #[error("the hook {0} was killed: the job was cancelled")]
    Stopped(String),
    /// The root could not be unmounted, so that what the hook wrote may not be on the disk.
    #[error("the root cannot be unmounted after the hook {hook}")]
    Busy {
        /// The hook's name.
        hook: String,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// A call that a hook needs failed.
    #[error("{what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The disk cannot be read or written at the root.
    #[error("the root on the disk cannot be read or written")]
    Disk(#[source] io::Error),
}

impl HookError {
    /// Whether the script itself is to blame, so that an order may go on without it.
    #[must_use]
    pub fn is_of_script(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Late { .. } | Self::Start { .. } | Self::NoShell(_))
    }
}
