//! The errors of steps, in kinds that code can tell apart, each with its source. Owns these types; touches nothing. The
//! log shows an error with all its causes, so that a disk's or the network's own error text is kept.

use std::io;

use common::step::Step;
use common::table::LayoutError;

use crate::disk::clear::ClearError;
use crate::disk::fault::Span;
use crate::disk::find::TargetError;
use crate::disk::nocloud::NoCloudError;
use crate::disk::seal::SealError;
use crate::disk::write::WriteError;
use crate::fetch::FetchError;
use crate::hooks::error::HookError;
use crate::swarm::SwarmError;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The error of one try of a step.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The manifest could not be fetched from the server, or is not the image's.
    #[error(transparent)]
    Manifest(#[from] FetchError),
    /// This machine could not join the swarm.
    #[error(transparent)]
    Join(#[from] SwarmError),
    /// The swarm ended during the step, with the reason that its task gave.
    #[error("{0}")]
    Broken(String),
    /// The swarm ended before it had delivered every chunk.
    #[error("the swarm ended with {0} chunks missing")]
    Missing(usize),
    /// One of the last writes failed; the places whose bytes let the disk boot were cleared again.
    #[error("{disk}")]
    Seal {
        /// The disk's name and marks, for the log.
        disk: String,
        /// Which of the writes failed, and how.
        source: SealError,
    },
    /// A blocking thread that did a step's work panicked.
    #[error(transparent)]
    Thread(#[from] tokio::task::JoinError),
    /// There is not exactly one disk that fits the order, or the disk was replaced since.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The old partition table could not be cleared.
    #[error("{disk}")]
    Clear {
        /// The disk's name and marks, for the log.
        disk: String,
        /// Which write failed, and how.
        source: ClearError,
    },
    /// A chunk could not be written.
    #[error("{disk}")]
    Write {
        /// The disk's name and marks, for the log.
        disk: String,
        /// Which write failed, and how.
        source: WriteError,
    },
    /// The kernel's cache of the disk could not be dropped, so reading back would prove nothing.
    #[error(transparent)]
    Cache(io::Error),
    /// Reading back gave other bytes than were written, even after repairs.
    #[error("{wrong}: it gives back other bytes than were written")]
    Differs {
        /// The disk, the count and the first of the chunks.
        wrong: WrongChunks,
    },
    /// Chunks that were written cannot be read back.
    #[error("{wrong}: {chunk} cannot be read")]
    Unreadable {
        /// The disk, the count and the first of the chunks.
        wrong: WrongChunks,
        /// The first chunk that cannot be read.
        chunk: Span,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A chunk that is written last, by the seal, is neither in memory nor on the disk.
    #[error(transparent)]
    Unsealable(SealError),
    /// The image's partition table cannot be made to fit this disk.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The file system for cloud-init cannot be made.
    #[error(transparent)]
    NoCloud(#[from] NoCloudError),
    /// A hook failed, or cannot be run.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// The kernel gave no random numbers.
    #[error(transparent)]
    Random(#[from] getrandom::Error),
    /// The plan has a step before `join` that needs what `join` provides.
    #[error("the plan's steps are out of order: `join` has to come before")]
    NotJoined,
    /// The plan has a step that this version does not know.
    #[error("this agent ({VERSION}) does not know the step {0}; it is older than its plan")]
    Unknown(Step),
    /// This process was told to stop, by a signal or by whoever started it.
    #[error("cancelled: the agent was told to stop")]
    Cancelled,
    /// The server has ended this attempt, with its reason. It knows what became of the job, which another attempt may
    /// have taken over: so this failure is not reported as the end of the job.
    #[error("cancelled: {0}")]
    Dismissed(String),
}

/// Chunks that are not on a disk as the manifest says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{disk}: {count} chunks are wrong, the first is {first}")]
pub struct WrongChunks {
    /// The disk's name and marks, for the log.
    pub disk: String,
    /// How many chunks differ or cannot be read.
    pub count: usize,
    /// The first of them, by place on the disk.
    pub first: Span,
}

impl StepError {
    /// Whether a retry may succeed: after trouble with the network, a server that restarts, or a disk that failed to
    /// keep its last writes. Every other error would be the same again.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Manifest(_)
            | Self::Join(_)
            | Self::Broken(_)
            | Self::Missing(_)
            | Self::Seal { .. }
            | Self::Thread(_) => true,
            Self::Target(_)
            | Self::Clear { .. }
            | Self::Write { .. }
            | Self::Cache(_)
            | Self::Differs { .. }
            | Self::Unreadable { .. }
            | Self::Unsealable(_)
            | Self::Layout(_)
            | Self::NoCloud(_)
            | Self::Hook(_)
            | Self::Random(_)
            | Self::NotJoined
            | Self::Unknown(_)
            | Self::Cancelled
            | Self::Dismissed(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use common::causes::with_causes;
    use common::chunk::ChunkIndex;

    use super::*;

    #[test]
    fn the_log_has_the_disk_what_failed_and_why() {
        let disk = || "sda (ata disk with 512 bytes)".to_owned();
        let broken = || io::Error::from_raw_os_error(5);
        let first = Span { chunk: ChunkIndex(1), len: 512 };
        let wrong = || WrongChunks { disk: disk(), count: 2, first };
        let seal = SealError::Write { offset: 0, len: 512, cause: broken() };
        let missing = TargetError::ReadOnly { disk: disk() };
        let table = [
            (
                StepError::Seal { disk: disk(), source: seal },
                true,
                "sda (ata disk with 512 bytes): cannot write 512 bytes at byte 0: Input/output error (os error 5)",
            ),
            (
                StepError::Differs { wrong: wrong() },
                false,
                "sda (ata disk with 512 bytes): 2 chunks are wrong, the first is chunk 1 (bytes 1048576 to 1049087): it \
                 gives back other bytes than were written",
            ),
            (
                StepError::Unreadable { wrong: wrong(), chunk: first, source: broken() },
                false,
                "sda (ata disk with 512 bytes): 2 chunks are wrong, the first is chunk 1 (bytes 1048576 to 1049087): \
                 chunk 1 (bytes 1048576 to 1049087) cannot be read: Input/output error (os error 5)",
            ),
            (StepError::Target(missing), false, "sda (ata disk with 512 bytes) is read-only"),
            (StepError::Broken("no answer".to_owned()), true, "no answer"),
            (StepError::Missing(3), true, "the swarm ended with 3 chunks missing"),
            (StepError::NotJoined, false, "the plan's steps are out of order: `join` has to come before"),
            (StepError::Cancelled, false, "cancelled: the agent was told to stop"),
            (StepError::Dismissed("by ada".to_owned()), false, "cancelled: by ada"),
        ];
        for (error, passes, words) in table {
            assert_eq!(with_causes(&error), words);
            assert_eq!(error.may_pass(), passes, "{words}");
        }
        let unknown = StepError::Unknown(Step::named("defragment")).to_string();
        assert!(unknown.contains("does not know the step defragment; it is older"), "{unknown}");
    }
}
