//! Core: the check of a chunk's bytes against the manifest. Owns [`VerifiedChunk`], which only this file can make, so
//! that no bytes are written to a disk but those of the image's name. Touches `common`.

use std::sync::Arc;

use common::chunk::ChunkIndex;
use common::deltas::decode;
use common::id::Hash;
use common::limits::CHUNK_BYTES;
use common::manifest::{Encoding, Manifest, StoredChunk};
use common::swarm::serve::Frame;
use common::wire::swarm::Form;

use super::deltas::DeltaBases;

/// Raw bytes of a chunk whose hash is the manifest's.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifiedChunk {
    index: ChunkIndex,
    bytes: Arc<Vec<u8>>,
    /// The wire form that it came in, where the receiver keeps that.
    wire: Option<Arc<Vec<u8>>>,
}

impl std::fmt::Debug for VerifiedChunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VerifiedChunk({}, {} bytes)", self.index.0, self.bytes.len())
    }
}

impl VerifiedChunk {
    /// The chunk's number: the lowest of its places ([`Manifest::places`]).
    #[must_use]
    pub fn index(&self) -> ChunkIndex {
        self.index
    }

    /// The chunk's raw bytes, decompressed.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The chunk as it can be sent on: in its wire form, if it came in that and the receiver asked for it
    /// ([`super::SwarmConfig::keep_wire`]), else raw.
    #[must_use]
    pub fn into_frame(self) -> Frame {
        match self.wire {
            Some(bytes) => Frame { form: Form::Wire, bytes },
            None => Frame { form: Form::Raw, bytes: self.bytes },
        }
    }

    /// The same chunk with the frame that it came in, if that is its wire form.
    pub(super) fn with(self, frame: Frame) -> Self {
        Self { wire: (frame.form == Form::Wire).then_some(frame.bytes), ..self }
    }

    /// The chunk's raw bytes, for as long as somebody else keeps them.
    pub(super) fn weak(&self) -> std::sync::Weak<Vec<u8>> {
        Arc::downgrade(&self.bytes)
    }

    /// The chunk's raw bytes; a chunk that came uncompressed shares them with the swarm's cache.
    #[must_use]
    pub fn into_bytes(self) -> Arc<Vec<u8>> {
        self.bytes
    }
}

/// Why bytes are not the chunk that they were sent as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTheChunk {
    /// The image has no such chunk, or only zeros at that place.
    #[error("the image has no chunk {0} to fetch")]
    Unknown(u32),
    /// The length differs from the manifest's.
    #[error("{got} bytes where the manifest says {wanted}")]
    Length {
        /// Length by the manifest, in bytes.
        wanted: u32,
        /// Length of what came, in bytes.
        got: usize,
    },
    /// The hash differs from the manifest's.
    #[error("the hash is {got}, not {wanted}")]
    Hash {
        /// Hash by the manifest.
        wanted: Hash,
        /// Hash of what came.
        got: Hash,
    },
    /// The wire form has the right hash but does not decompress to the right bytes: the image itself is damaged, and
    /// its sender is not to blame.
    #[error("the image's own wire form is damaged: {0}")]
    Image(String),
    /// A delta has the right hash, but its bases are not there any more: neither its sender nor the image is to blame,
    /// and the chunk is requested whole.
    #[error("{0}")]
    Undecoded(String),
}

/// Checks what came for `index`; `deltas` are those that this machine can decode. The wire form is checked before it is decompressed, so that only bytes
/// that the server has vouched for reach the decoder.
///
/// # Errors
/// When the bytes are not the chunk.
pub fn verify(
    manifest: &Manifest,
    index: ChunkIndex,
    form: Form,
    bytes: &Arc<Vec<u8>>,
    deltas: Option<&dyn DeltaBases>,
) -> Result<VerifiedChunk, NotTheChunk> {
    let stored = manifest.stored(index).ok_or(NotTheChunk::Unknown(index.0))?;
    let raw_len = manifest.raw_len(index);
    if form == Form::Raw {
        check(bytes, raw_len, stored.raw)?;
        return Ok(VerifiedChunk { index, bytes: Arc::clone(bytes), wire: None });
    }
    if form == Form::Delta {
        let deltas = deltas.ok_or(NotTheChunk::Unknown(index.0))?;
        return decoded(index, raw_len, &stored, bytes, deltas);
    }
    check(bytes, stored.wire_len, stored.wire)?;
    let raw = match stored.encoding {
        // Wire form and raw bytes are the same bytes with the same hash: checked once.
        Encoding::Raw if stored.raw == stored.wire && stored.wire_len == raw_len => {
            return Ok(VerifiedChunk { index, bytes: Arc::clone(bytes), wire: None });
        }
        Encoding::Raw => Arc::clone(bytes),
        Encoding::Zstd => {
            let raw = zstd::bulk::decompress(bytes, CHUNK_BYTES as usize)
                .map_err(|error| NotTheChunk::Image(error.to_string()))?;
            Arc::new(raw)
        }
    };
    check(&raw, raw_len, stored.raw).map_err(|error| NotTheChunk::Image(error.to_string()))?;
    Ok(VerifiedChunk { index, bytes: raw, wire: None })
}

/// Checks the frame of a delta that came for `index`, decodes it over the bases in `deltas`, and checks the raw bytes. If
/// they are not the chunk's, that delta is refused from then on.
fn decoded(
    index: ChunkIndex,
    raw_len: u32,
    stored: &StoredChunk,
    frame: &[u8],
    deltas: &dyn DeltaBases,
) -> Result<VerifiedChunk, NotTheChunk> {
    let (wire, wire_len) = deltas.known(index).ok_or(NotTheChunk::Unknown(index.0))?;
    check(frame, wire_len, wire)?;
    let decoded = deltas.decode(index, &mut |prefix| {
        let raw = decode(frame, prefix, raw_len).map_err(|error| error.to_string())?;
        check(&raw, raw_len, stored.raw).map_err(|error| format!("the delta gives other bytes: {error}"))?;
        Ok(raw)
    });
    match decoded {
        Ok(raw) => Ok(VerifiedChunk { index, bytes: Arc::new(raw), wire: None }),
        Err(why) => {
            deltas.refuse(index);
            Err(NotTheChunk::Undecoded(why))
        }
    }
}

fn check(bytes: &[u8], wanted: u32, hash: Hash) -> Result<(), NotTheChunk> {
    if bytes.len() != wanted as usize {
        return Err(NotTheChunk::Length { wanted, got: bytes.len() });
    }
    let got = Hash::of(bytes);
    if got == hash { Ok(()) } else { Err(NotTheChunk::Hash { wanted: hash, got }) }
}

#[cfg(test)]
mod tests {
    use common::manifest::Chunk;

    use super::*;

    fn image(raw: &[u8], encoding: Encoding) -> (Manifest, Arc<Vec<u8>>) {
        let wire = match encoding {
            Encoding::Raw => raw.to_vec(),
            Encoding::Zstd => zstd::bulk::compress(raw, 3).unwrap(),
        };
        let wire_len = u32::try_from(wire.len()).unwrap();
        let stored = StoredChunk { raw: Hash::of(raw), wire: Hash::of(&wire), wire_len, encoding };
        let chunks = vec![Chunk::Stored(stored)];
        (Manifest::new(raw.len() as u64, 512, chunks).unwrap(), Arc::new(wire))
    }

    #[test]
    fn the_right_bytes_pass_in_both_forms() {
        let raw = vec![7; 4096];
        for encoding in [Encoding::Raw, Encoding::Zstd] {
            let (manifest, wire) = image(&raw, encoding);
            let chunk = verify(&manifest, ChunkIndex(0), Form::Wire, &wire, None).unwrap();
            assert_eq!(chunk.bytes(), raw);
            let chunk = verify(&manifest, ChunkIndex(0), Form::Raw, &Arc::new(raw.clone()), None).unwrap();
            assert_eq!(chunk.bytes(), raw);
        }
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_found() {
        let raw: Vec<u8> = (0..4096u32).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
        let (manifest, wire) = image(&raw, Encoding::Zstd);
        for at in 0..wire.len() {
            let mut wrong = wire.to_vec();
            wrong[at] ^= 1;
            let refused = verify(&manifest, ChunkIndex(0), Form::Wire, &Arc::new(wrong), None);
            assert!(matches!(refused, Err(NotTheChunk::Hash { .. })), "{at}");
        }
        let short = Arc::new(wire[1..].to_vec());
        let refused = verify(&manifest, ChunkIndex(0), Form::Wire, &short, None);
        assert!(matches!(refused, Err(NotTheChunk::Length { .. })));
        let refused = verify(&manifest, ChunkIndex(1), Form::Wire, &wire, None);
        assert_eq!(refused, Err(NotTheChunk::Unknown(1)));
        // The wire form sent as if it were the raw bytes.
        assert!(verify(&manifest, ChunkIndex(0), Form::Raw, &wire, None).is_err());
    }

    #[test]
    fn an_image_whose_wire_form_is_wrong_in_itself_blames_no_sender() {
        let (good, wire) = image(&[1; 4096], Encoding::Zstd);
        let Some(mut stored) = good.stored(ChunkIndex(0)) else { panic!("stored") };
        stored.raw = Hash::of(b"other");
        let bad = Manifest::new(4096, 512, vec![Chunk::Stored(stored)]).unwrap();
        let refused = verify(&bad, ChunkIndex(0), Form::Wire, &wire, None);
        assert!(matches!(refused, Err(NotTheChunk::Image(_))));
    }
}
