//! The manifest: an image as the ordered list of its chunks. Its hash is the image's name, so whoever knows
//! the name can check every byte. Owns the binary form and every check on it. Touches `chunk`, `limits`.
//!
//! The form is fixed and little-endian, with no choice left to an encoder, because its hash is a name:
//! `SBMF` `u16 version` `u16 0` `u64 size` `u32 sector size` `u32 chunk count`, then per chunk a byte
//! `0` (zeros) or `1`/`2` (stored raw/as a zstd frame) followed by raw hash, wire hash and `u32` wire length.

use std::collections::HashMap;

use crate::chunk::ChunkIndex;
use crate::id::{Hash, ImageId};
use crate::limits::{CHUNK_BYTES, CHUNKS_MAX, WIRE_CHUNK_BYTES_MAX};

const MAGIC: &[u8; 4] = b"SBMF";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 24;
const ENTRY_BYTES: usize = 1 + 32 + 32 + 4;

/// How a chunk is stored and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Raw: compression would not have made it smaller.
    Raw,
    /// As one zstd frame.
    Zstd,
}

/// One chunk that is not all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredChunk {
    /// Hash of the chunk's raw bytes; checked before they are written.
    pub raw: Hash,
    /// Hash of the wire form; checked before it is decompressed, and tells which sender was wrong.
    pub wire: Hash,
    /// Length of the wire form in bytes; 1 to `WIRE_CHUNK_BYTES_MAX`.
    pub wire_len: u32,
    /// Whether the wire form is raw or compressed.
    pub encoding: Encoding,
}

/// One entry of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    /// All zeros: never stored and never sent, but always written.
    Zero,
    /// Other bytes, which have to be fetched.
    Stored(StoredChunk),
}

/// The chunks of an image, in order. Can only be made complete and within bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    size: u64,
    sector_bytes: u32,
    chunks: Vec<Chunk>,
}

/// Why bytes are not a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadManifest {
    /// The first bytes are not those of a manifest.
    #[error("not a swarmboot manifest")]
    Magic,
    /// A version of the form that this program does not read.
    #[error("manifest version {0}; this program reads version {VERSION}")]
    Version(u16),
    /// Shorter or longer than its own header says.
    #[error("manifest of {got} bytes where {wanted} were expected")]
    Length {
        /// Length in bytes by the header.
        wanted: usize,
        /// Length of what is there, in bytes.
        got: usize,
    },
    /// A value outside its bounds.
    #[error("manifest with {0}")]
    Value(String),
    /// The hash of the bytes is not that of the image that was asked for.
    #[error("the manifest's hash is {got}, not {wanted}")]
    Name {
        /// The image that was asked for.
        wanted: ImageId,
        /// The hash of what came.
        got: ImageId,
    },
}

impl Manifest {
    /// The manifest of an image of `size` bytes with `chunks`.
    ///
    /// # Errors
    /// When the number of chunks does not fit the size, the size is 0 or not whole sectors, the sector size is
    /// neither 512 nor 4096, or a wire length is out of bounds.
    pub fn new(size: u64, sector_bytes: u32, chunks: Vec<Chunk>) -> Result<Self, BadManifest> {
        let value = |what: String| Err(BadManifest::Value(what));
        if sector_bytes != 512 && sector_bytes != 4096 {
            return value(format!("a sector size of {sector_bytes}"));
        }
        if size == 0 || !size.is_multiple_of(u64::from(sector_bytes)) {
            return value(format!("a size of {size} bytes, not whole sectors of {sector_bytes}"));
        }
        let wanted = size.div_ceil(u64::from(CHUNK_BYTES));
        if wanted > u64::from(CHUNKS_MAX) || chunks.len() as u64 != wanted {
            return value(format!("{} chunks for {size} bytes", chunks.len()));
        }
        for chunk in &chunks {
            if let Chunk::Stored(stored) = chunk
                && (stored.wire_len == 0 || stored.wire_len > WIRE_CHUNK_BYTES_MAX)
            {
                return value(format!("a wire length of {}", stored.wire_len));
            }
        }
        Ok(Self { size, sector_bytes, chunks })
    }

    /// Size of the raw image in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The sector size in bytes that the image's partition table was made for: 512 or 4096.
    #[must_use]
    pub fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    /// How many chunks the image has.
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.chunks.len()).unwrap_or(CHUNKS_MAX)
    }

    /// Always false: an image has at least one chunk.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The entry of `chunk`, if the image has it.
    #[must_use]
    pub fn get(&self, chunk: ChunkIndex) -> Option<Chunk> {
        self.chunks.get(chunk.at()).copied()
    }

    /// The stored form of `chunk`; none for zeros and for numbers past the end.
    #[must_use]
    pub fn stored(&self, chunk: ChunkIndex) -> Option<StoredChunk> {
        match self.get(chunk) {
            Some(Chunk::Stored(stored)) => Some(stored),
            Some(Chunk::Zero) | None => None,
        }
    }

    /// The raw length of `chunk` in bytes: 1 MiB, but for the last.
    #[must_use]
    pub fn raw_len(&self, chunk: ChunkIndex) -> u32 {
        let left = self.size.saturating_sub(chunk.offset());
        u32::try_from(left.min(u64::from(CHUNK_BYTES))).unwrap_or(CHUNK_BYTES)
    }

    /// All entries in order, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (ChunkIndex, Chunk)> + '_ {
        (0..).map(ChunkIndex).zip(self.chunks.iter().copied())
    }

    /// Wire bytes of all distinct stored chunks: what one copy of the image costs on a link.
    #[must_use]
    pub fn wire_bytes(&self) -> u64 {
        self.places()
            .keys()
            .filter_map(|&first| self.stored(first))
            .map(|chunk| u64::from(chunk.wire_len))
            .sum()
    }

    /// The chunks that have to be fetched, each with all its places: chunks with the same bytes are fetched
    /// once, under the lowest number (the key), and written everywhere.
    #[must_use]
    pub fn places(&self) -> HashMap<ChunkIndex, Vec<ChunkIndex>> {
        let mut first_of: HashMap<Hash, ChunkIndex> = HashMap::new();
        let mut places: HashMap<ChunkIndex, Vec<ChunkIndex>> = HashMap::new();
        for (index, chunk) in self.iter() {
            if let Chunk::Stored(stored) = chunk {
                let first = *first_of.entry(stored.raw).or_insert(index);
                places.entry(first).or_default().push(index);
            }
        }
        places
    }

    /// The image's name: the hash of its manifest.
    #[must_use]
    pub fn id(&self) -> ImageId {
        ImageId(Hash::of(&self.to_bytes()))
    }

    /// The binary form, whose hash is the image's name.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + self.chunks.len() * ENTRY_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&0u16.to_le_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.sector_bytes.to_le_bytes());
        out.extend_from_slice(&self.len().to_le_bytes());
        for chunk in &self.chunks {
            match chunk {
                Chunk::Zero => out.push(0),
                Chunk::Stored(stored) => {
                    out.push(match stored.encoding {
                        Encoding::Raw => 1,
                        Encoding::Zstd => 2,
                    });
                    out.extend_from_slice(&stored.raw.0);
                    out.extend_from_slice(&stored.wire.0);
                    out.extend_from_slice(&stored.wire_len.to_le_bytes());
                }
            }
        }
        out
    }

    /// Reads the binary form.
    ///
    /// # Errors
    /// When the bytes are not exactly one well-formed manifest. Nothing is allocated by a length that the
    /// bytes themselves do not back.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadManifest> {
        let mut reader = Reader { rest: bytes, total: bytes.len() };
        if reader.take::<4>().map_err(|_| BadManifest::Magic)? != *MAGIC {
            return Err(BadManifest::Magic);
        }
        let version = u16::from_le_bytes(reader.take()?);
        if version != VERSION {
            return Err(BadManifest::Version(version));
        }
        if reader.take::<2>()? != [0, 0] {
            return Err(BadManifest::Value("bytes set that are reserved".to_owned()));
        }
        let size = u64::from_le_bytes(reader.take()?);
        let sector_bytes = u32::from_le_bytes(reader.take()?);
        let count = u32::from_le_bytes(reader.take()?);
        if count > CHUNKS_MAX || reader.rest.len() < count as usize {
            return Err(BadManifest::Value(format!("{count} chunks")));
        }
        let chunks = (0..count).map(|_| reader.chunk()).collect::<Result<Vec<_>, _>>()?;
        if !reader.rest.is_empty() {
            return Err(BadManifest::Length { wanted: bytes.len() - reader.rest.len(), got: bytes.len() });
        }
        Self::new(size, sector_bytes, chunks)
    }

    /// Reads the binary form of exactly the image `wanted`.
    ///
    /// # Errors
    /// As `from_bytes`, and when the bytes have another hash.
    pub fn from_bytes_named(bytes: &[u8], wanted: ImageId) -> Result<Self, BadManifest> {
        let got = ImageId(Hash::of(bytes));
        if got == wanted { Self::from_bytes(bytes) } else { Err(BadManifest::Name { wanted, got }) }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    total: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadManifest> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(BadManifest::Length { wanted: self.total - self.rest.len() + N, got: self.total });
        };
        self.rest = rest;
        Ok(*head)
    }

    fn chunk(&mut self) -> Result<Chunk, BadManifest> {
        let encoding = match self.take::<1>()? {
            [0] => return Ok(Chunk::Zero),
            [1] => Encoding::Raw,
            [2] => Encoding::Zstd,
            [other] => return Err(BadManifest::Value(format!("a chunk of the unknown kind {other}"))),
        };
        let raw = Hash(self.take()?);
        let wire = Hash(self.take()?);
        let wire_len = u32::from_le_bytes(self.take()?);
        Ok(Chunk::Stored(StoredChunk { raw, wire, wire_len, encoding }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stored(seed: u8) -> Chunk {
        Chunk::Stored(StoredChunk {
            raw: Hash([seed; 32]),
            wire: Hash([seed ^ 1; 32]),
            wire_len: 1 + u32::from(seed),
            encoding: Encoding::Zstd,
        })
    }

    #[test]
    fn boundary_sizes() {
        let chunk = u64::from(CHUNK_BYTES);
        let cases = [(512, 1, 512), (chunk - 512, 1, chunk - 512), (chunk, 1, chunk), (chunk + 512, 2, 512)];
        for (size, chunks, last) in cases {
            let manifest = Manifest::new(size, 512, vec![Chunk::Zero; chunks]).unwrap();
            assert_eq!(u64::from(manifest.raw_len(ChunkIndex(manifest.len() - 1))), last, "{size}");
            assert!(Manifest::new(size, 512, vec![Chunk::Zero; chunks + 1]).is_err());
        }
        assert!(Manifest::new(0, 512, vec![]).is_err());
        assert!(Manifest::new(513, 512, vec![Chunk::Zero]).is_err());
        assert!(Manifest::new(512, 520, vec![Chunk::Zero]).is_err());
    }

    #[test]
    fn equal_chunks_are_fetched_once_and_written_everywhere() {
        let chunk = u64::from(CHUNK_BYTES);
        let manifest =
            Manifest::new(4 * chunk, 512, vec![stored(7), Chunk::Zero, stored(9), stored(7)]).unwrap();
        let places = manifest.places();
        assert_eq!(places.len(), 2);
        assert_eq!(places[&ChunkIndex(0)], [ChunkIndex(0), ChunkIndex(3)]);
        assert_eq!(manifest.wire_bytes(), 8 + 10);
    }

    #[test]
    fn another_name_is_refused() {
        let manifest = Manifest::new(512, 512, vec![stored(1)]).unwrap();
        let bytes = manifest.to_bytes();
        assert_eq!(Manifest::from_bytes_named(&bytes, manifest.id()), Ok(manifest));
        assert!(matches!(
            Manifest::from_bytes_named(&bytes, ImageId(Hash([0; 32]))),
            Err(BadManifest::Name { .. })
        ));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seeds in proptest::collection::vec(any::<Option<u8>>(), 1..40)) {
            let chunks: Vec<Chunk> = seeds.iter().map(|seed| seed.map_or(Chunk::Zero, stored)).collect();
            let size = chunks.len() as u64 * u64::from(CHUNK_BYTES);
            let manifest = Manifest::new(size, 4096, chunks).unwrap();
            prop_assert_eq!(Manifest::from_bytes(&manifest.to_bytes()), Ok(manifest));
        }

        #[test]
        fn a_cut_or_changed_manifest_is_an_error_or_another_one(cut in 0usize..200, flip in 0usize..200) {
            let manifest = Manifest::new(2 << 20, 512, vec![stored(3), stored(4)]).unwrap();
            let bytes = manifest.to_bytes();
            let short = &bytes[..cut.min(bytes.len() - 1)];
            prop_assert!(Manifest::from_bytes(short).is_err());
            let mut changed = bytes.clone();
            let at = flip % bytes.len();
            changed[at] ^= 0x55;
            prop_assert!(Manifest::from_bytes_named(&changed, manifest.id()).is_err());
            drop(Manifest::from_bytes(&changed));
        }
    }
}
