//! A test's disk in memory whose power can be cut: after a set number of operations every call fails, and writes that
//! were not synced survive in part, as a volatile write cache leaves them: torn at any sector, in another order, or not
//! at all. It may also have one sector that does not keep what is written. Owns the bytes.

use std::io;

use common::id::Hash;
use common::manifest::{Chunk, Encoding, Manifest, StoredChunk};
use common::swarm::splitmix::SplitMix64;
use parking_lot::Mutex;

use super::device::Device;

#[derive(Debug)]
struct State {
    /// What a read returns.
    seen: Vec<u8>,
    /// What survives a power cut in any case.
    durable: Vec<u8>,
    /// Writes since the last sync: offset and bytes.
    volatile: Vec<(usize, Vec<u8>)>,
    /// Whether a write was lost that the next sync is to report.
    untold: bool,
    /// Writes and syncs left before the power is cut.
    left: usize,
    reads: usize,
    operations: usize,
}

/// A sector that does not keep what is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BadSector {
    /// The offset of any byte of the sector.
    pub(crate) at: usize,
    /// Whether the next sync reports the loss, as the kernel does; otherwise only reading back shows it.
    pub(crate) told: bool,
}

#[derive(Debug)]
pub(crate) struct Recording {
    sector: u32,
    size: u64,
    bad: Option<BadSector>,
    state: Mutex<State>,
}

/// Random numbers for where a power cut happens and what it tears: the same seed repeats the run.
#[derive(Debug, Clone)]
pub(crate) struct Random(SplitMix64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }

    fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }
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
            untold: false,
            left: operations,
            reads: 0,
            operations: 0,
        };
        Self { sector, size, bad: None, state: Mutex::new(state) }
    }

    pub(crate) fn with_bad_sector(self, bad: BadSector) -> Self {
        Self { bad: Some(bad), ..self }
    }

    /// Whether the power was cut.
    pub(crate) fn is_off(&self) -> bool {
        self.state.lock().left == 0
    }

    pub(crate) fn reads(&self) -> usize {
        self.state.lock().reads
    }

    /// Writes and syncs so far.
    pub(crate) fn operations(&self) -> usize {
        self.state.lock().operations
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.state.lock().seen.clone()
    }

    /// The disk's bytes when the power comes back: what was synced, and of the other writes what `random` leaves.
    pub(crate) fn after_cut(&self, random: &mut Random) -> Vec<u8> {
        let state = self.state.lock();
        let mut left = state.durable.clone();
        let mut writes: Vec<&(usize, Vec<u8>)> = state.volatile.iter().collect();
        let kind = random.next() % 5;
        match kind {
            // The whole cache was lost.
            0 => return left,
            // The writes went down in order, up to some point.
            1 => writes.truncate(random.below(writes.len() + 1)),
            // The writes went down in any order: of two writes to one sector the older one may be the last.
            _ => (1..writes.len()).for_each(|at| writes.swap(at, random.below(at + 1))),
        }
        let last = writes.len().saturating_sub(1);
        for (at, (offset, bytes)) in writes.into_iter().enumerate() {
            let forgotten = kind == 2 && random.coin();
            // A write that was going down at the power cut is torn.
            let torn = kind >= 3 || (kind == 1 && at == last);
            for (part, bytes) in bytes.chunks(self.sector as usize).enumerate() {
                if !forgotten && (!torn || random.coin()) {
                    let start = offset + part * self.sector as usize;
                    left[start..start + bytes.len()].copy_from_slice(bytes);
                }
            }
        }
        left
    }

    fn operate(&self, then: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.left == 0 {
            return Err(io::Error::other("no power"));
        }
        state.left -= 1;
        state.operations += 1;
        then(&mut state)
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
        let mut state = self.state.lock();
        if state.left == 0 {
            return Err(io::Error::other("no power"));
        }
        state.reads += 1;
        let from = usize::try_from(offset).unwrap();
        let there = state.seen.get(from..from + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(there);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap();
        let mut bytes = bytes.to_vec();
        self.operate(|state| {
            if let Some(bad) = self.bad.filter(|bad| (from..from + bytes.len()).contains(&bad.at)) {
                let start = (bad.at / self.sector as usize * self.sector as usize).max(from);
                let end = (start + self.sector as usize).min(from + bytes.len());
                bytes[start - from..end - from].copy_from_slice(&state.seen[start..end]);
                state.untold |= bad.told;
            }
            state.seen[from..from + bytes.len()].copy_from_slice(&bytes);
            state.volatile.push((from, bytes));
            Ok(())
        })
    }

    fn zero_at(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_at(offset, &vec![0; usize::try_from(len).unwrap()])
    }

    fn sync(&self) -> io::Result<()> {
        self.operate(|state| {
            for (offset, bytes) in std::mem::take(&mut state.volatile) {
                state.durable[offset..offset + bytes.len()].copy_from_slice(&bytes);
            }
            // Reported once, as Linux does.
            match std::mem::take(&mut state.untold) {
                true => Err(io::Error::from_raw_os_error(nix::libc::EIO)),
                false => Ok(()),
            }
        })
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }
}

/// An image with one chunk per entry, zeros where it is none, otherwise bytes made from its number; its manifest, and
/// its raw bytes.
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

/// The manifest of an image with the bytes `raw`.
pub(crate) fn manifest_of(raw: &[u8], sector: u32) -> Manifest {
    let entry = |bytes: &[u8]| match common::chunk::is_zero(bytes) {
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

/// The chunk `index` of `raw`, as the swarm hands it over.
pub(crate) fn verified(manifest: &Manifest, raw: &[u8], index: u32) -> crate::swarm::VerifiedChunk {
    let start = (index as usize) << 20;
    let bytes = &raw[start..raw.len().min(start + (1 << 20))];
    let (chunk, bytes) = (common::chunk::ChunkIndex(index), std::sync::Arc::new(bytes.to_vec()));
    crate::swarm::verify::verify(manifest, chunk, common::wire::swarm::Form::Raw, &bytes, None).unwrap()
}
