//! The writer: the one thread that writes chunks. Touches `device`, `fault` and `held`.
//!
//! The order of caution, and the invariant behind every line here, in `clear` and in `seal`: **a disk that boots is
//! whole**. First what would boot (the first MiB) and what firmware would repair it from (a GPT at the end) becomes
//! zeros, synced and read back. Then chunks are written, but those that would bring either back are held in memory.
//! Only `seal` writes them, after everything else has been read back from the disk.
//!
//! Chunks that wait are written ascending, so that a spinning disk sweeps and the page cache gives the device long
//! runs; zeros are written while nothing waits. A chunk counts as durable only after a sync.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use common::chunk::{ChunkIndex, ChunkSet};
use common::manifest::{Chunk, Manifest};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::device::Device;
use super::fault::{Lost, Span, lost};
use super::held::Held;
use crate::swarm::VerifiedChunk;

/// No chunk that reaches into this many bytes at the disk's end is written before the seal: a backup GPT there (33
/// sectors of 512 bytes, or 5 of 4096) lets UEFI firmware repair the table that was cleared.
pub(super) const GUARD_BYTES: u64 = 64 << 10;

/// The most chunks of zeros that are written at once, so that a chunk that arrives meanwhile waits only briefly.
const ZERO_PIECE_CHUNKS: u64 = 64;

/// Why the writer ended before every missing chunk was written and durable.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A chunk could not be written.
    #[error("cannot write {span}")]
    Chunk {
        /// The chunk, and its place on the disk.
        span: Span,
        /// The error of the operating system.
        #[source]
        cause: io::Error,
    },
    /// Zeros could not be written.
    #[error("cannot write zeros from {span} on, to byte {}", .end - 1)]
    Zeros {
        /// The first chunk of the zeros.
        span: Span,
        /// The offset on the disk right behind the zeros.
        end: u64,
        /// The error of the operating system.
        #[source]
        cause: io::Error,
    },
    /// A sync failed, so the disk lost writes.
    #[error("the disk failed to keep what was written: {lost}")]
    Sync {
        /// The first chunk that cannot be read back, and how many more.
        lost: Lost,
        /// The error of the operating system.
        #[source]
        cause: io::Error,
    },
    /// The token was cancelled: by whoever ended the job, or by the step before another try.
    #[error("writing was cancelled")]
    Cancelled,
    /// The thread panicked.
    #[error("the writing thread ended unexpectedly")]
    Thread(#[source] tokio::task::JoinError),
}

/// The chunks that stay in memory until the seal, on a disk of `disk_bytes`: the first, and those that reach into its
/// last 64 KiB. At most three.
#[must_use]
pub fn held_back(manifest: &Manifest, disk_bytes: u64) -> ChunkSet {
    let mut set = ChunkSet::new(manifest.len());
    set.insert(ChunkIndex(0));
    let guard = disk_bytes.saturating_sub(GUARD_BYTES);
    for back in 1..=2 {
        let Some(index) = manifest.len().checked_sub(back).map(ChunkIndex) else { break };
        if index.offset() + u64::from(manifest.raw_len(index)) > guard {
            set.insert(index);
        }
    }
    set
}

/// The writer's bounds, from the plan's tuning.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The most chunks that are taken from the channel for one sorted batch.
    pub backlog: usize,
    /// Bytes that are written between two syncs.
    pub sync_bytes: u64,
}

/// A handle of the writing thread.
#[derive(Debug)]
pub struct Writer {
    down: watch::Receiver<u64>,
    thread: tokio::task::JoinHandle<Result<(), WriteError>>,
}

impl Writer {
    /// Starts the thread. It writes what comes out of `chunks` and the image's zeros, and ends when no chunk is
    /// missing, all senders are gone, or `cancel` is cancelled.
    #[must_use]
    pub fn start(
        device: Arc<dyn Device>,
        manifest: Arc<Manifest>,
        held: Held,
        chunks: mpsc::Receiver<VerifiedChunk>,
        pace: Pace,
        cancel: CancellationToken,
    ) -> Self {
        let (down_sender, down) = watch::channel(0);
        let work = Work::new(device, manifest, held, pace, down_sender, cancel);
        let thread = tokio::task::spawn_blocking(move || work.run(chunks));
        Self { down, thread }
    }

    /// Raw bytes of the image that are written or held back, as they grow.
    #[must_use]
    pub fn down(&self) -> watch::Receiver<u64> {
        self.down.clone()
    }

    /// Waits for the end of the thread, after which everything that came is written and synced.
    ///
    /// # Errors
    /// When the disk failed, or the job was cancelled.
    pub async fn finish(self) -> Result<(), WriteError> {
        self.thread.await.map_err(WriteError::Thread)?
    }
}

struct Work {
    device: Arc<dyn Device>,
    manifest: Arc<Manifest>,
    held: Held,
    back: ChunkSet,
    /// The places of chunks with equal bytes, by the lowest number; only those with several places.
    places: HashMap<ChunkIndex, Vec<ChunkIndex>>,
    /// Zeros that are still to be written: first chunk and count.
    zeros: VecDeque<(ChunkIndex, u32)>,
    pace: Pace,
    unsynced: u64,
    /// The chunks that were written since the last sync.
    since_sync: Vec<ChunkIndex>,
    down: watch::Sender<u64>,
    cancel: CancellationToken,
}

impl Work {
    fn new(
        device: Arc<dyn Device>,
        manifest: Arc<Manifest>,
        held: Held,
        pace: Pace,
        down: watch::Sender<u64>,
        cancel: CancellationToken,
    ) -> Self {
        let mut places = manifest.places();
        places.retain(|_, all| all.len() > 1);
        let missing = held.missing();
        let left: u64 = missing.iter().map(|&chunk| u64::from(manifest.raw_len(chunk))).sum();
        down.send_replace(manifest.size() - left);
        let zeros = zero_runs(&manifest, &missing);
        let back = held_back(&manifest, device.size());
        Self {
            device,
            manifest,
            held,
            back,
            places,
            zeros,
            pace,
            unsynced: 0,
            since_sync: vec![],
            down,
            cancel,
        }
    }

    fn run(mut self, mut waiting: mpsc::Receiver<VerifiedChunk>) -> Result<(), WriteError> {
        let mut batch = BTreeMap::new();
        loop {
            let more = self.gather(&mut waiting, &mut batch)?;
            self.write_batch(std::mem::take(&mut batch))?;
            if self.unsynced >= self.pace.sync_bytes {
                self.sync()?;
            }
            if self.cancel.is_cancelled() {
                self.sync()?;
                return Err(WriteError::Cancelled);
            }
            if !more {
                break;
            }
        }
        while self.write_some_zeros()? {}
        self.sync()
    }

    /// Takes what waits into `batch`, writing zeros while nothing does. False when nothing more will come.
    fn gather(
        &mut self,
        waiting: &mut mpsc::Receiver<VerifiedChunk>,
        batch: &mut BTreeMap<ChunkIndex, Arc<Vec<u8>>>,
    ) -> Result<bool, WriteError> {
        let first = loop {
            match waiting.try_recv() {
                Ok(chunk) => break Some(chunk),
                Err(mpsc::error::TryRecvError::Disconnected) => break None,
                Err(mpsc::error::TryRecvError::Empty) if self.cancel.is_cancelled() => return Ok(false),
                Err(mpsc::error::TryRecvError::Empty) if self.write_some_zeros()? => {}
                Err(mpsc::error::TryRecvError::Empty) if self.complete() => break None,
                Err(mpsc::error::TryRecvError::Empty) => break waiting.blocking_recv(),
            }
        };
        let Some(first) = first else { return Ok(false) };
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(chunk) = next {
            self.place(chunk, batch);
            taken += 1;
            next = if taken < self.pace.backlog { waiting.try_recv().ok() } else { None };
        }
        Ok(true)
    }

    /// Puts the bytes of `chunk` into the batch, once for each place, or into memory if the place is held back.
    fn place(&self, chunk: VerifiedChunk, batch: &mut BTreeMap<ChunkIndex, Arc<Vec<u8>>>) {
        let only = [chunk.index()];
        let places = self.places.get(&chunk.index()).map_or(&only[..], Vec::as_slice);
        self.held.passed(chunk.index());
        let bytes = chunk.into_bytes();
        for &place in places {
            if self.held.has(place) {
                continue;
            }
            if self.back.contains(place) {
                self.held.hold_back(place, Arc::clone(&bytes));
                self.count(u64::from(self.manifest.raw_len(place)));
            } else {
                batch.insert(place, Arc::clone(&bytes));
            }
        }
    }

    fn write_batch(&mut self, batch: BTreeMap<ChunkIndex, Arc<Vec<u8>>>) -> Result<(), WriteError> {
        let mut run = 0..0;
        for (chunk, bytes) in batch {
            let offset = chunk.offset();
            let span = Span::of(&self.manifest, chunk);
            self.held.overwriting(chunk.0..=chunk.0);
            self.device.write_at(offset, &bytes).map_err(|cause| WriteError::Chunk { span, cause })?;
            self.held.wrote(chunk);
            self.since_sync.push(chunk);
            let len = bytes.len() as u64;
            self.unsynced += len;
            self.count(len);
            if run.end != offset {
                self.device.start_writeout(run.start, run.end - run.start);
                run.start = offset;
            }
            run.end = offset + len;
        }
        if !run.is_empty() {
            self.device.start_writeout(run.start, run.end - run.start);
        }
        Ok(())
    }

    /// Writes the next run of zeros. False when there is none left.
    fn write_some_zeros(&mut self) -> Result<bool, WriteError> {
        let Some((first, count)) = self.zeros.pop_front() else { return Ok(false) };
        let last = ChunkIndex(first.0 + count - 1);
        let (offset, end) = (first.offset(), last.offset() + u64::from(self.manifest.raw_len(last)));
        let span = Span::of(&self.manifest, first);
        self.held.overwriting(first.0..=last.0);
        self.device.zero_at(offset, end - offset).map_err(|cause| WriteError::Zeros { span, end, cause })?;
        for chunk in (first.0..=last.0).map(ChunkIndex) {
            self.held.wrote(chunk);
            self.since_sync.push(chunk);
        }
        self.count(end - offset);
        Ok(true)
    }

    fn sync(&mut self) -> Result<(), WriteError> {
        self.device.sync().map_err(|cause| WriteError::Sync {
            lost: lost(&*self.device, &self.manifest, &self.since_sync),
            cause,
        })?;
        self.held.synced();
        self.unsynced = 0;
        self.since_sync.clear();
        Ok(())
    }

    fn complete(&self) -> bool {
        *self.down.borrow() >= self.manifest.size()
    }

    fn count(&self, bytes: u64) {
        self.down.send_modify(|down| *down += bytes);
    }
}

/// The zero chunks among `missing` (ascending), in runs of at most 64.
fn zero_runs(manifest: &Manifest, missing: &[ChunkIndex]) -> VecDeque<(ChunkIndex, u32)> {
    let mut runs: VecDeque<(ChunkIndex, u32)> = VecDeque::new();
    for &chunk in missing.iter().filter(|&&chunk| manifest.get(chunk) == Some(Chunk::Zero)) {
        match runs.back_mut() {
            Some((first, count)) if first.0 + *count == chunk.0 && u64::from(*count) < ZERO_PIECE_CHUNKS => {
                *count += 1;
            }
            _ => runs.push_back((chunk, 1)),
        }
    }
    runs
}
