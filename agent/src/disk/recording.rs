//! A disk in memory that loses its power: after a set number of operations every call fails, and what was
//! not synced survives in part, sector by sector, as a volatile write cache leaves it.

use std::io;
use std::sync::Mutex;

use common::id::Hash;
use common::manifest::{Chunk, Encoding, Manifest, StoredChunk};

use super::device::Device;

#[derive(Debug)]
struct State {
    /// What a read sees.
    seen: Vec<u8>,
    /// What survives for certain.
    durable: Vec<u8>,
    /// Writes since the last sync: offset and length.
    volatile: Vec<(usize, usize)>,
    /// Writes and syncs left before the power goes.
    left: usize,
    reads: usize,
    operations: usize,
}

#[derive(Debug)]
pub(crate) struct Recording {
    sector: u32,
    size: u64,
    state: Mutex<State>,
}

impl Recording {
    pub(crate) fn holding(bytes: Vec<u8>, sector: u32) -> Self {
        Self::cut_after(bytes, sector, usize::MAX)
    }

    pub(crate) fn cut_after(bytes: Vec<u8>, sector: u32, operations: usize) -> Self {
        let size = bytes.len() as u64;
        let state = State {
            durable: bytes.clone(),
            seen: bytes,
            volatile: vec![],
            left: operations,
            reads: 0,
            operations: 0,
        };
        Self { sector, size, state: Mutex::new(state) }
    }

    pub(crate) fn reads(&self) -> usize {
        self.state.lock().unwrap().reads
    }

    /// Writes and syncs so far.
    pub(crate) fn operations(&self) -> usize {
        self.state.lock().unwrap().operations
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.state.lock().unwrap().seen.clone()
    }

    /// What is on the disk when the power comes back: what was synced, and of the rest those sectors for
    /// which `survives` says so.
    pub(crate) fn after_cut(&self, mut survives: impl FnMut() -> bool) -> Vec<u8> {
        let state = self.state.lock().unwrap();
        let mut left = state.durable.clone();
        for &(offset, len) in &state.volatile {
            for at in (offset..offset + len).step_by(self.sector as usize) {
                let end = (at + self.sector as usize).min(offset + len);
                if survives() {
                    left[at..end].copy_from_slice(&state.seen[at..end]);
                }
            }
        }
        left
    }

    fn operate(&self, then: impl FnOnce(&mut State)) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        if state.left == 0 {
            return Err(io::Error::other("no power"));
        }
        state.left -= 1;
        state.operations += 1;
        then(&mut state);
        Ok(())
    }
}

impl Device for Recording {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector_bytes(&self) -> u32 {
        self.sector
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.reads += 1;
        let from = usize::try_from(offset).unwrap();
        let there = state.seen.get(from..from + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(there);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap();
        self.operate(|state| {
            state.seen[from..from + bytes.len()].copy_from_slice(bytes);
            state.volatile.push((from, bytes.len()));
        })
    }

    fn zero_at(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_at(offset, &vec![0; usize::try_from(len).unwrap()])
    }

    fn sync(&self) -> io::Result<()> {
        self.operate(|state| {
            for (offset, len) in std::mem::take(&mut state.volatile) {
                let (seen, durable) = (&state.seen, &mut state.durable);
                durable[offset..offset + len].copy_from_slice(&seen[offset..offset + len]);
            }
        })
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }
}

/// An image with one chunk per entry, zeros where it is none, otherwise bytes that differ by their number;
/// its manifest, and its raw bytes.
pub(crate) fn image(chunks: &[Option<u8>], sector: u32) -> (Manifest, Vec<u8>) {
    let raw: Vec<u8> = chunks
        .iter()
        .flat_map(|kind| match kind {
            None => vec![0; 1 << 20],
            Some(seed) => [vec![1; 512], vec![*seed; (1 << 20) - 512]].concat(),
        })
        .collect();
    (manifest_of(&raw, sector), raw)
}

/// The manifest of `raw`.
pub(crate) fn manifest_of(raw: &[u8], sector: u32) -> Manifest {
    let entry = |bytes: &[u8]| match bytes.iter().all(|&byte| byte == 0) {
        true => Chunk::Zero,
        false => Chunk::Stored(StoredChunk {
            raw: Hash::of(bytes),
            wire: Hash::of(bytes),
            wire_len: u32::try_from(bytes.len()).unwrap(),
            encoding: Encoding::Raw,
        }),
    };
    Manifest::new(raw.len() as u64, sector, raw.chunks(1 << 20).map(entry).collect()).unwrap()
}

/// The chunk of `raw` that stands at `index`, as the swarm hands it over.
pub(crate) fn verified(manifest: &Manifest, raw: &[u8], index: u32) -> crate::swarm::VerifiedChunk {
    let start = (index as usize) << 20;
    let bytes = &raw[start..raw.len().min(start + (1 << 20))];
    let (chunk, bytes) = (common::chunk::ChunkIndex(index), std::sync::Arc::new(bytes.to_vec()));
    crate::swarm::verify::verify(manifest, chunk, common::wire::swarm::Form::Raw, &bytes).unwrap()
}
