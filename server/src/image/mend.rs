//! Repairs damaged chunks: with bytes that a machine has, or from the file that the image was made from. Owns no state.
//! Touches the store, and reads that file. Neither is trusted: a chunk is stored only if it has the hashes of the
//! manifest.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use common::chunk::ChunkIndex;
use common::id::{Hash, ImageId};
use common::manifest::{Encoding, StoredChunk};
use common::wire::swarm::Form;

use super::error::ImageError;
use super::format::{Format, ImageFormat};
use super::hint::io_hint;
use super::import::LEVEL;
use super::store::Images;

impl Images {
    /// Repairs a chunk with `bytes`, which are given in the form `form`.
    ///
    /// # Errors
    /// When they have another hash, when this server's compressor makes another wire form of them, or they cannot be
    /// stored.
    pub fn mend_with(
        &self,
        id: ImageId,
        index: ChunkIndex,
        form: Form,
        bytes: Vec<u8>,
    ) -> Result<(), ImageError> {
        let (manifest, _) = self.read_manifest(id)?;
        let chunk = manifest.stored(index).ok_or_else(|| self.no_manifest(id))?;
        let wire = match form {
            Form::Wire => bytes,
            Form::Raw => wire_form(&chunk, bytes)?,
            // Was not asked for.
            Form::Delta => {
                return Err(ImageError::ChunkDamaged { wire: chunk.wire, why: "and a delta came" });
            }
        };
        self.replace_chunk(&chunk, &wire)
    }

    /// Repairs a chunk from the file that the image was made from, if that still exists and is a raw disk image.
    ///
    /// # Errors
    /// When it does not exist, is of another format, or has other bytes by now.
    pub fn mend(&self, id: ImageId, index: ChunkIndex) -> Result<(), ImageError> {
        let (manifest, _) = self.read_manifest(id)?;
        let chunk = manifest.stored(index).ok_or_else(|| self.no_manifest(id))?;
        let named = self.list().into_iter().filter(|image| image.id == id);
        let plain = named.filter(|image| image.format == ImageFormat::Raw(Format::Raw));
        let sources: Vec<PathBuf> = plain.filter_map(|image| image.path).collect();
        let absent =
            |wire| ImageError::ChunkDamaged { wire, why: "and what the image was made from is not there" };
        let mut last = absent(chunk.wire);
        for path in sources {
            let what = || format!("the image's source {}", path.display());
            let raw = read_at(&path, index.offset(), manifest.raw_len(index))
                .map_err(|source| ImageError::Read { what: what(), hint: io_hint(&source), source });
            match raw.and_then(|raw| self.replace_chunk(&chunk, &wire_form(&chunk, raw)?)) {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Compresses `raw` to the wire form that it had when the image was added.
fn wire_form(chunk: &StoredChunk, raw: Vec<u8>) -> Result<Vec<u8>, ImageError> {
    let damaged = |why| ImageError::ChunkDamaged { wire: chunk.wire, why };
    if Hash::of(&raw) != chunk.raw {
        return Err(damaged("and what was to mend it has another hash"));
    }
    match chunk.encoding {
        Encoding::Raw => Ok(raw),
        Encoding::Zstd => zstd::bulk::compress(&raw, LEVEL)
            .map_err(|_| damaged("and what was to mend it cannot be compressed")),
    }
}

fn read_at(path: &Path, offset: u64, len: u32) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    file.seek(SeekFrom::Start(offset))?;
    let mut raw = Vec::new();
    file.take(u64::from(len)).read_to_end(&mut raw)?;
    // The importer fills the last sector up with zeros.
    raw.resize(len as usize, 0);
    Ok(raw)
}
