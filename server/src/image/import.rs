//! Cuts raw bytes into chunks: zero test, hash, compression and storing of each chunk on all cores, with bounded
//! queues. Owns nothing that outlives one import; what a failed one has stored, the store deletes. Touches the store's
//! blobs and threads of its own.
//!
//! A chunk that any image has already keeps its wire form: one raw chunk has one wire form and one name in the store,
//! whatever version of the compressor made it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use common::chunk::{ChunkIndex, is_zero};
use common::filesystem;
use common::id::Hash;
use common::limits::{CHUNK_BYTES, CHUNKS_MAX};
use common::manifest::{Chunk, Encoding, Manifest, StoredChunk};
use parking_lot::Mutex;

use super::blobs::Blobs;
use super::error::ImageError;
use super::facts::Facts;
use super::foreign;
use super::info::{PartitionTable, Progress};
use super::keys::chunk_key;
use super::source::{Source, SourceError};

/// zstd's level. 1 MiB chunks of a Debian image (412 that are not zero), MB per CPU-second and wire MiB of the
/// whole: level 3 191 and 116.3, 6 70 and 109.6, 9 42 and 108.1, 12 26 and 107.6, 15 10 and 107.3; 17 and 19
/// give 5 and 8 % less than 9 for 8 and 15 times its time. At 9 an import still keeps up with a fast network
/// or a slow disk on two cores.
pub(super) const LEVEL: i32 = 9;

/// How many bytes of an image's end are inspected: the footers of VHD and dmg.
const TAIL_BYTES: usize = 512;

/// The parameters of one import.
pub(super) struct Import<'a> {
    /// The name of the source, for errors.
    pub name: &'a str,
    /// Where chunks are stored.
    pub blobs: &'a dyn Blobs,
    /// The wire form of every raw chunk that some image has already, by raw hash.
    pub known: HashMap<Hash, StoredChunk>,
    /// The image that has the name already, if any: the import fails at the first chunk that differs from it.
    pub expected: Option<(&'a str, &'a Manifest)>,
    /// The sector size in bytes, if the admin gave it.
    pub sector_size: Option<u32>,
    /// Whether an image without a partition table is accepted.
    pub no_table: bool,
    /// Set to cancel the import.
    pub stop: &'a AtomicBool,
}

/// A finished import; nothing refers to its chunks yet.
pub(super) struct Imported {
    pub manifest: Arc<Manifest>,
    pub facts: Facts,
    pub new_chunks: u32,
    pub new_bytes: u64,
    pub repaired_chunks: u32,
    pub notes: Vec<String>,
}

/// The state that the worker threads of one import share.
#[derive(Default)]
struct Shared {
    /// The finished chunks, by their place in the image.
    done: Mutex<Vec<Option<Chunk>>>,
    /// Distinct chunks of this import, by raw hash.
    seen: Mutex<HashMap<Hash, StoredChunk>>,
    error: Mutex<Option<ImageError>>,
    failed: AtomicBool,
    chunks: AtomicU32,
    zero_chunks: AtomicU32,
    new_chunks: AtomicU32,
    new_bytes: AtomicU64,
    repaired: AtomicU32,
}

struct Piece {
    index: ChunkIndex,
    bytes: Vec<u8>,
}

/// What reading the source has found.
struct Read {
    size: u64,
    sector_bytes: u32,
    facts: Facts,
    notes: Vec<String>,
}

impl Import<'_> {
    /// Cuts `source` into chunks and stores them.
    ///
    /// # Errors
    /// When the source fails, is empty, too large or cut short, or a chunk cannot be stored. Chunks that were stored by
    /// then stay, unreferenced: the caller deletes them.
    pub(super) fn run(
        &self,
        source: &mut Source,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Imported, ImageError> {
        let shared = Shared::default();
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let (pieces, queue) = sync_channel::<Piece>(workers);
        let queue = Mutex::new(queue);
        let read = std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| self.work(&queue, &shared));
            }
            self.read(source, pieces, &shared, progress)
        });
        if let Some(error) = shared.error.lock().take() {
            return Err(error);
        }
        let Read { size, sector_bytes, facts, mut notes } = read?;
        if shared.zero_chunks.load(Relaxed) == shared.chunks.load(Relaxed) {
            return Err(ImageError::Zeros { name: self.name.to_owned() });
        }
        progress(told(source, &shared));
        notes.extend(facts.notes.iter().cloned());
        let chunks = shared.done.lock().drain(..).map(|chunk| chunk.unwrap_or(Chunk::Zero)).collect();
        let manifest = Manifest::new(size, sector_bytes, chunks).map_err(|source| ImageError::Manifest {
            what: self.name.to_owned(),
            check: self.blobs.to_check(),
            source,
        })?;
        Ok(Imported {
            manifest: Arc::new(manifest),
            facts,
            new_chunks: shared.new_chunks.load(Relaxed),
            new_bytes: shared.new_bytes.load(Relaxed),
            repaired_chunks: shared.repaired.load(Relaxed),
            notes,
        })
    }

    /// Reads the source in order and queues its chunks for the workers. Ends early, without an error of its own, when a
    /// worker has failed.
    fn read(
        &self,
        source: &mut Source,
        pieces: SyncSender<Piece>,
        shared: &Shared,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Read, ImageError> {
        let (mut size, mut facts, mut sector_bytes, mut notes) = (0u64, None, 512u32, Vec::new());
        let mut tail = Vec::new();
        for index in 0.. {
            if self.stop.load(Relaxed) {
                return Err(ImageError::Stopped);
            }
            let mut bytes = vec![0; CHUNK_BYTES as usize];
            let got = source
                .fill(&mut bytes)
                .map_err(|source| ImageError::Source { name: self.name.to_owned(), source })?;
            if got == 0 || shared.failed.load(Relaxed) {
                break;
            }
            if index == CHUNKS_MAX {
                let max_gib = (u64::from(CHUNKS_MAX) * u64::from(CHUNK_BYTES)) >> 30;
                return Err(ImageError::TooLarge { name: self.name.to_owned(), max_gib });
            }
            bytes.truncate(got);
            if index == 0 {
                let found = self.facts(&bytes)?;
                sector_bytes = self.sector(&found, &mut notes);
                facts = Some(found);
            }
            tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
            tail.drain(..tail.len().saturating_sub(TAIL_BYTES));
            if let Some(short) = pad(&mut bytes, sector_bytes) {
                notes.push(format!(
                    "its last sector was short: {short} zero bytes were added to make whole sectors of {sector_bytes}"
                ));
            }
            size += bytes.len() as u64;
            let last = got < CHUNK_BYTES as usize;
            shared.done.lock().push(None);
            // Workers end only after this sender is dropped.
            if pieces.send(Piece { index: ChunkIndex(index), bytes }).is_err() {
                break;
            }
            progress(told(source, shared));
            if last {
                break;
            }
        }
        drop(pieces);
        let facts = facts.ok_or_else(|| ImageError::Empty { name: self.name.to_owned() })?;
        // A worker that failed has reported its error; here it would look like the end of the image.
        if !shared.failed.load(Relaxed) {
            self.check_end(&facts, &tail, sector_bytes, size)?;
        }
        Ok(Read { size, sector_bytes, facts, notes })
    }

    /// What the first chunk shows, unless that is no image for a disk.
    fn facts(&self, first: &[u8]) -> Result<Facts, ImageError> {
        let name = || self.name.to_owned();
        let facts = Facts::of(first).map_err(|source| ImageError::Table { name: name(), source })?;
        if facts.kind() == PartitionTable::None && !self.no_table {
            let holds = filesystem::identify(first).map(|found| found.kind);
            return Err(ImageError::NoTable { name: name(), holds });
        }
        Ok(facts)
    }

    /// Checks that need the end of the image: a foreign format with a footer, and partitions that are cut off.
    fn check_end(&self, facts: &Facts, tail: &[u8], sector_bytes: u32, size: u64) -> Result<(), ImageError> {
        if let Some((what, hint)) = foreign::by_end(tail) {
            let source = SourceError::Foreign { what, hint };
            return Err(ImageError::Source { name: self.name.to_owned(), source });
        }
        match facts.last_end(sector_bytes) {
            Some((partition, ends)) if ends > size => {
                Err(ImageError::CutShort { name: self.name.to_owned(), partition, ends, size })
            }
            _ => Ok(()),
        }
    }

    /// The sector size: the admin's, else the one that the partition table shows, else 512.
    fn sector(&self, facts: &Facts, notes: &mut Vec<String>) -> u32 {
        if let (Some(asked), Some(found)) = (self.sector_size, facts.sector_bytes)
            && asked != found
        {
            notes.push(format!(
                "its partition table was made for sectors of {found} bytes, not {asked}: firmware will not find it"
            ));
        }
        self.sector_size.or(facts.sector_bytes).unwrap_or(512)
    }

    fn work(&self, queue: &Mutex<Receiver<Piece>>, shared: &Shared) {
        let mut packer = zstd::bulk::Compressor::new(LEVEL);
        loop {
            let piece = queue.lock().recv();
            let Ok(piece) = piece else { return };
            // After a failure the queue is drained without work, so that the reader does not block for ever.
            if shared.failed.load(Relaxed) {
                continue;
            }
            let kept = match &mut packer {
                Ok(packer) => self.keep(&piece, packer, shared),
                Err(error) => {
                    let source = io::Error::new(error.kind(), error.to_string());
                    Err(self.blobs.not_written("a chunk", source))
                }
            };
            match kept {
                Ok(chunk) => {
                    if let Some(place) = shared.done.lock().get_mut(piece.index.at()) {
                        *place = Some(chunk);
                    }
                    shared.chunks.fetch_add(1, Relaxed);
                }
                Err(error) => {
                    shared.error.lock().get_or_insert(error);
                    shared.failed.store(true, Relaxed);
                }
            }
        }
    }

    /// Makes sure that the store has one chunk.
    fn keep(
        &self,
        piece: &Piece,
        packer: &mut zstd::bulk::Compressor<'_>,
        shared: &Shared,
    ) -> Result<Chunk, ImageError> {
        let zero = is_zero(&piece.bytes);
        let raw = if zero { None } else { Some(Hash::of(&piece.bytes)) };
        if let Some((name, expected)) = self.expected
            && expected.stored(piece.index).map(|chunk| chunk.raw) != raw
        {
            return Err(ImageError::Taken { name: name.to_owned(), has: expected.id() });
        }
        let Some(raw) = raw else {
            shared.zero_chunks.fetch_add(1, Relaxed);
            return Ok(Chunk::Zero);
        };
        if let Some(chunk) = shared.seen.lock().get(&raw) {
            return Ok(Chunk::Stored(*chunk));
        }
        let known = self.known.get(&raw);
        if let Some(chunk) = known
            && self.is_whole(chunk)?
        {
            shared.seen.lock().insert(raw, *chunk);
            return Ok(Chunk::Stored(*chunk));
        }
        let packed = packer.compress(&piece.bytes).ok().filter(|packed| packed.len() < piece.bytes.len());
        let (wire, encoding) =
            packed.as_ref().map_or((&piece.bytes, Encoding::Raw), |it| (it, Encoding::Zstd));
        let chunk = StoredChunk {
            raw,
            wire: Hash::of(wire),
            wire_len: u32::try_from(wire.len()).unwrap_or(u32::MAX),
            encoding,
        };
        self.blobs
            .put(&chunk_key(&chunk.wire), wire)
            .map_err(|source| self.blobs.not_written(format!("chunk {}", chunk.wire), source))?;
        // Two workers can meet the same chunk at once; they make the same file, and it counts once.
        if shared.seen.lock().insert(raw, chunk).is_none() {
            if known == Some(&chunk) {
                shared.repaired.fetch_add(1, Relaxed);
            } else {
                shared.new_chunks.fetch_add(1, Relaxed);
                shared.new_bytes.fetch_add(u64::from(chunk.wire_len), Relaxed);
            }
        }
        Ok(Chunk::Stored(chunk))
    }

    /// Whether the store still has a chunk as its manifest says. Checked before a chunk is reused: so adding an image
    /// again repairs it.
    fn is_whole(&self, chunk: &StoredChunk) -> Result<bool, ImageError> {
        match self.blobs.get(&chunk_key(&chunk.wire)) {
            Ok(found) => Ok(found.is_some_and(|bytes| Hash::of(&bytes) == chunk.wire)),
            // What is damaged where it lies is what a repair is for.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(false),
            Err(source) => Err(self.blobs.not_read(format!("chunk {}", chunk.wire), source)),
        }
    }
}

fn told(source: &Source, shared: &Shared) -> Progress {
    Progress {
        bytes_read: source.position(),
        total: source.total(),
        chunks: shared.chunks.load(Relaxed),
        stored_bytes: shared.new_bytes.load(Relaxed),
        zero_chunks: shared.zero_chunks.load(Relaxed),
    }
}

/// Adds zeros up to the next whole sector; returns how many, if any.
fn pad(bytes: &mut Vec<u8>, sector_bytes: u32) -> Option<usize> {
    let whole = bytes.len().next_multiple_of(sector_bytes as usize);
    let short = whole - bytes.len();
    bytes.resize(whole, 0);
    (short > 0).then_some(short)
}
