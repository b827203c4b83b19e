//! Why a step failed, by kinds that code can tell apart, each with what stands behind it. What the log shows is
//! the error with its causes, so the words of a disk's or the network's error stay those of its own room.

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
use crate::swarm::SwarmError;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The manifest did not come from the server.
    #[error(transparent)]
    Manifest(#[from] FetchError),
    /// This machine did not get into the swarm.
    #[error(transparent)]
    Join(#[from] SwarmError),
    /// The swarm ended under the step; why, as the swarm's task said it.
    #[error("{0}")]
    Broken(String),
    /// The swarm ended with its work undone.
    #[error("the swarm ended with {0} chunks missing")]
    Missing(usize),
    /// One of the last writes failed, and what would let the disk boot was cleared again.
    #[error("{disk}")]
    Seal {
        /// The disk, in words.
        disk: String,
        /// What the disk refused.
        source: SealError,
    },
    /// A thread that did a step's work panicked.
    #[error(transparent)]
    Thread(#[from] tokio::task::JoinError),
    /// There is not exactly one disk that suits, or it is another one by now.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The old partition table could not be cleared.
    #[error("{disk}")]
    Clear {
        /// The disk, in words.
        disk: String,
        /// What the disk refused.
        source: ClearError,
    },
    /// A chunk could not be written.
    #[error("{disk}")]
    Write {
        /// The disk, in words.
        disk: String,
        /// What the disk refused.
        source: WriteError,
    },
    /// The disk could not be made to show what it holds instead of what memory remembers of it.
    #[error(transparent)]
    Cache(io::Error),
    /// The disk holds other bytes than were written.
    #[error("{wrong}: it gives back other bytes than were written")]
    Differs {
        /// Which of them, and on which disk.
        wrong: WrongChunks,
    },
    /// What was written cannot be read.
    #[error("{wrong}: {chunk} cannot be read")]
    Unreadable {
        /// Which of them, and on which disk.
        wrong: WrongChunks,
        /// The first that cannot be read.
        chunk: Span,
        /// What the operating system answered.
        source: io::Error,
    },
    /// What is sealed last is not there.
    #[error(transparent)]
    Unsealable(SealError),
    /// The image's partition table cannot be made to fit this disk.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// What cloud-init is to find cannot be made.
    #[error(transparent)]
    NoCloud(#[from] NoCloudError),
    /// The kernel has no random numbers.
    #[error(transparent)]
    Random(#[from] getrandom::Error),
    /// The plan has a step before the one that it needs.
    #[error("the plan's steps are out of order: `join` has to come before")]
    NotJoined,
    /// The plan has a step of a later version.
    #[error("this agent ({VERSION}) does not know the step {0}; it is older than its plan")]
    Unknown(Step),
    /// The job was cancelled here, by who started this process.
    #[error("cancelled: the agent was told to stop")]
    Cancelled,
    /// The server wants no more of this attempt, and says why. It knows what became of the job, which another attempt
    /// may have taken over: this one's end is not the job's.
    #[error("cancelled: {0}")]
    Dismissed(String),
}

/// Chunks that do not stand on a disk as the manifest says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{disk}: {count} chunks are wrong, the first is {first}")]
pub struct WrongChunks {
    /// The disk, in words.
    pub disk: String,
    /// How many chunks differ or cannot be read.
    pub count: usize,
    /// The first of them on the disk.
    pub first: Span,
}

impl StepError {
    /// Whether another try may go well: the network, a server that restarts, a disk that failed to keep its last
    /// writes. Everything else fails the same way every time.
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
