//! Core: the deltas of an image: for chunks that are like chunks of an earlier image, a second wire form, which is a
//! zstd frame with those earlier chunks as its prefix. Owns the table of an image's deltas with its binary form, and the
//! only coder of the frames. Touches `chunk`, `id`, `limits`.
//!
//! A frame is of use only to a machine that holds its bases: the old image's chunks, at their places on the disk. The
//! table is self-contained, so the old image itself may be gone from the server. Nothing depends on it: a chunk without
//! a delta, or with one whose bases are not there, is sent in its ordinary form, and its raw bytes are checked against
//! the manifest in either case.
//!
//! The form is little-endian: `SBDT` `u16 version` `u16 sets`, then per set the old image's id, `u32` count of bases,
//! for each its `u32` place and raw hash, `u32` count of deltas, for each its `u32` chunk, wire hash, `u32` wire
//! length, `u8` count of bases and their `u32` numbers.

use std::collections::BTreeMap;

use zstd::zstd_safe::{self, CCtx, CParameter, DCtx, DParameter};

use crate::chunk::ChunkIndex;
use crate::id::{Hash, ImageId};
use crate::limits::{CHUNK_BYTES, CHUNKS_MAX, DELTA_BASES_MAX, DELTA_SETS_MAX, WIRE_CHUNK_BYTES_MAX};

const MAGIC: &[u8; 4] = b"SBDT";
const VERSION: u16 = 1;

/// A power of two above the longest prefix and the chunk behind it: what a decoder has to look back over.
const WINDOW_LOG: u32 = 22;
const _: () = assert!((DELTA_BASES_MAX as u64 + 1) * (CHUNK_BYTES as u64) <= 1 << WINDOW_LOG);

/// A chunk of the old image that deltas build on. It is always 1 MiB long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Its place in the old image, and so on a disk that holds that image.
    pub place: ChunkIndex,
    /// The hash of its raw bytes.
    pub raw: Hash,
}

/// The second wire form of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The hash of the frame; checked before it is decoded, and the name under which it is requested.
    pub wire: Hash,
    /// Length of the frame in bytes; 1 to `WIRE_CHUNK_BYTES_MAX`.
    pub wire_len: u32,
    /// The bases, as indices into [`DeltaSet::bases`], in the order in which they make the prefix; 1 to
    /// `DELTA_BASES_MAX`.
    pub bases: Vec<u32>,
}

/// The deltas of an image over one old image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaSet {
    /// The old image.
    pub from: ImageId,
    /// Its chunks that any of the deltas needs.
    pub bases: Vec<Base>,
    /// The deltas, by the chunk of the new image; every base that they name is in `bases`.
    pub deltas: BTreeMap<ChunkIndex, Delta>,
}

/// All deltas of one image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeltaTable {
    /// One set for each old image; at most `DELTA_SETS_MAX`.
    pub sets: Vec<DeltaSet>,
}

/// Why bytes are not a table of deltas.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTable {
    /// The first bytes are not those of a table.
    #[error("not a table of deltas")]
    Magic,
    /// A version of the form that this program does not read.
    #[error("a table of deltas of version {0}; this program reads version {VERSION}")]
    Version(u16),
    /// The bytes end before the table does, or go on behind it.
    #[error("a table of deltas of the wrong length")]
    Length,
    /// A value outside its bounds.
    #[error("a table of deltas with {0}")]
    Value(&'static str),
}

/// Why a frame does not give a chunk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// The coder refused, in its words.
    #[error("the delta cannot be decoded: {0}")]
    Coder(&'static str),
}

impl DeltaTable {
    /// The binary form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&u16::try_from(self.sets.len()).unwrap_or(u16::MAX).to_le_bytes());
        let count = |out: &mut Vec<u8>, len: usize| {
            out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        };
        for set in &self.sets {
            out.extend_from_slice(&set.from.0.0);
            count(&mut out, set.bases.len());
            for base in &set.bases {
                out.extend_from_slice(&base.place.0.to_le_bytes());
                out.extend_from_slice(&base.raw.0);
            }
            count(&mut out, set.deltas.len());
            for (chunk, delta) in &set.deltas {
                out.extend_from_slice(&chunk.0.to_le_bytes());
                out.extend_from_slice(&delta.wire.0);
                out.extend_from_slice(&delta.wire_len.to_le_bytes());
                out.push(u8::try_from(delta.bases.len()).unwrap_or(u8::MAX));
                delta.bases.iter().for_each(|base| out.extend_from_slice(&base.to_le_bytes()));
            }
        }
        out
    }

    /// Reads the binary form.
    ///
    /// # Errors
    /// When the bytes are not exactly one well-formed table. Nothing is allocated by a length that the bytes
    /// themselves do not back.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadTable> {
        let mut reader = Reader(bytes);
        if reader.take::<4>().map_err(|_| BadTable::Magic)? != *MAGIC {
            return Err(BadTable::Magic);
        }
        let version = u16::from_le_bytes(reader.take()?);
        if version != VERSION {
            return Err(BadTable::Version(version));
        }
        let sets = u16::from_le_bytes(reader.take()?);
        if usize::from(sets) > DELTA_SETS_MAX {
            return Err(BadTable::Value("more old images than a table has"));
        }
        let sets = (0..sets).map(|_| reader.set()).collect::<Result<_, _>>()?;
        if reader.0.is_empty() { Ok(Self { sets }) } else { Err(BadTable::Length) }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadTable> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(BadTable::Length)?;
        self.0 = rest;
        Ok(*head)
    }

    fn number(&mut self) -> Result<u32, BadTable> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn place(&mut self) -> Result<ChunkIndex, BadTable> {
        let place = self.number()?;
        if place < CHUNKS_MAX {
            Ok(ChunkIndex(place))
        } else {
            Err(BadTable::Value("a place past any image"))
        }
    }

    fn set(&mut self) -> Result<DeltaSet, BadTable> {
        let from = ImageId(Hash(self.take()?));
        let mut bases = Vec::new();
        for _ in 0..self.number()? {
            bases.push(Base { place: self.place()?, raw: Hash(self.take()?) });
        }
        let mut deltas: BTreeMap<ChunkIndex, Delta> = BTreeMap::new();
        for _ in 0..self.number()? {
            let chunk = self.place()?;
            if deltas.last_key_value().is_some_and(|(last, _)| *last >= chunk) {
                return Err(BadTable::Value("deltas out of order"));
            }
            deltas.insert(chunk, self.delta(bases.len())?);
        }
        Ok(DeltaSet { from, bases, deltas })
    }

    fn delta(&mut self, bases: usize) -> Result<Delta, BadTable> {
        let wire = Hash(self.take()?);
        let wire_len = self.number()?;
        if wire_len == 0 || wire_len > WIRE_CHUNK_BYTES_MAX {
            return Err(BadTable::Value("a frame of a length that no frame has"));
        }
        let [count] = self.take()?;
        if count == 0 || usize::from(count) > DELTA_BASES_MAX {
            return Err(BadTable::Value("a delta with too many bases or none"));
        }
        let own = (0..count).map(|_| self.number()).collect::<Result<Vec<u32>, _>>()?;
        if own.iter().any(|base| *base as usize >= bases) {
            return Err(BadTable::Value("a delta over a base that is not listed"));
        }
        Ok(Delta { wire, wire_len, bases: own })
    }
}

/// Encodes `raw`, of at most 1 MiB, over `prefix`: the bases' bytes one after the other, at most `DELTA_BASES_MAX`.
///
/// # Errors
/// When the compressor lacks memory.
pub fn encode(raw: &[u8], prefix: &[u8], level: i32) -> Result<Vec<u8>, BadFrame> {
    let mut coder = CCtx::try_create().ok_or(BadFrame::Coder("no memory"))?;
    coder.set_parameter(CParameter::CompressionLevel(level)).map_err(said)?;
    coder.set_parameter(CParameter::WindowLog(WINDOW_LOG)).map_err(said)?;
    coder.ref_prefix(prefix).map_err(said)?;
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(raw.len()));
    coder.compress2(&mut frame, raw).map_err(said)?;
    Ok(frame)
}

/// Decodes `frame` over the same prefix. Never gives more than `raw_len` bytes, however the frame was made.
///
/// # Errors
/// When the frame is damaged, was made over another prefix, or holds more than `raw_len` bytes.
pub fn decode(frame: &[u8], prefix: &[u8], raw_len: u32) -> Result<Vec<u8>, BadFrame> {
    let mut coder = DCtx::try_create().ok_or(BadFrame::Coder("no memory"))?;
    coder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG)).map_err(said)?;
    coder.ref_prefix(prefix).map_err(said)?;
    let mut raw = Vec::with_capacity(raw_len as usize);
    coder.decompress(&mut raw, frame).map_err(said)?;
    Ok(raw)
}

fn said(code: zstd_safe::ErrorCode) -> BadFrame {
    BadFrame::Coder(zstd_safe::get_error_name(code))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        (0..len).map(|_| next()).collect()
    }

    fn table() -> DeltaTable {
        let base = |place: u32| Base { place: ChunkIndex(place), raw: Hash([7; 32]) };
        let delta = |bases: &[u32]| Delta { wire: Hash([9; 32]), wire_len: 5, bases: bases.to_vec() };
        let deltas = BTreeMap::from([(ChunkIndex(1), delta(&[0])), (ChunkIndex(8), delta(&[2, 1]))]);
        let set = DeltaSet { from: ImageId(Hash([3; 32])), bases: vec![base(4), base(5), base(9)], deltas };
        DeltaTable { sets: vec![set.clone(), set] }
    }

    #[test]
    fn what_is_like_the_old_costs_little_and_comes_back() {
        let old = noise(1, 2 << 20);
        // The old bytes, shifted and with a word changed: nothing of it lies where it lay.
        let mut new = old[12_345..12_345 + (1 << 20)].to_vec();
        new[500_000] ^= 1;
        let frame = encode(&new, &old, 9).unwrap();
        assert!(frame.len() < 1000, "{} bytes", frame.len());
        assert_eq!(decode(&frame, &old, CHUNK_BYTES).unwrap(), new);
    }

    #[test]
    fn another_prefix_or_a_longer_chunk_gives_no_bytes_past_the_bound() {
        let (old, new) = (noise(1, 1 << 20), noise(1, 1 << 20));
        let frame = encode(&new, &old, 9).unwrap();
        assert_ne!(decode(&frame, &noise(2, 1 << 20), CHUNK_BYTES).ok(), Some(new));
        // 64 MiB of zeros in a few kilobytes.
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
        assert!(bomb.len() < 1 << 14);
        assert!(decode(&bomb, &old, CHUNK_BYTES).is_err());
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        type Change = fn(&mut DeltaTable);
        let changes: [Change; 5] = [
            |table| table.sets = vec![table.sets[0].clone(); DELTA_SETS_MAX + 1],
            |table| table.sets[0].bases[0].place = ChunkIndex(CHUNKS_MAX),
            |table| table.sets[0].deltas.values_mut().for_each(|delta| delta.wire_len = 0),
            |table| table.sets[0].deltas.values_mut().for_each(|delta| delta.bases = vec![3]),
            |table| {
                let too_many = vec![0; DELTA_BASES_MAX + 1];
                table.sets[0].deltas.values_mut().for_each(|delta| delta.bases = too_many.clone());
            },
        ];
        assert_eq!(DeltaTable::from_bytes(&table().to_bytes()), Ok(table()));
        for (number, change) in changes.into_iter().enumerate() {
            let mut wrong = table();
            change(&mut wrong);
            assert!(matches!(DeltaTable::from_bytes(&wrong.to_bytes()), Err(BadTable::Value(_))), "{number}");
        }
    }

    proptest! {
        #[test]
        fn a_cut_or_changed_table_is_an_error_or_another_one(cut in 0usize..600, flip in 0usize..600) {
            let bytes = table().to_bytes();
            prop_assert!(DeltaTable::from_bytes(&bytes[..cut.min(bytes.len() - 1)]).is_err());
            let mut changed = bytes.clone();
            changed[flip % bytes.len()] ^= 0x55;
            prop_assert_ne!(DeltaTable::from_bytes(&changed), Ok(table()));
            prop_assert!(DeltaTable::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        }
    }
}
