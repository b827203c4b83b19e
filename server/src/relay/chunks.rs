//! The chunks of the images that a relay keeps: files named by the hash of their own bytes, in the form in which they
//! came, each once for all images. Bounded in bytes. Every chunk is checked when it is read, so nothing is lost when the
//! power goes in the middle of a write: what is wrong is removed and fetched again. Owns its folder, which blocks.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::swarm::{HeldChunks, VerifiedChunk};
use common::chunk::{ChunkIndex, ChunkSet};
use common::id::{Hash, ImageId};
use common::limits::CHUNK_BYTES;
use common::manifest::{Encoding, Manifest, StoredChunk};
use common::swarm::serve::Frame;
use common::wire::swarm::Form;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Free bytes that are left to others on the disk that the cache is on.
const RESERVE: u64 = 64 << 20;

/// The store. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct ChunkStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The chunks by the hash of their files, with their lengths.
    kept: HashMap<Hash, u64>,
    bytes: u64,
    images: BTreeMap<ImageId, Kept>,
    uses: u64,
}

#[derive(Debug)]
struct Kept {
    manifest: Arc<Manifest>,
    /// Counts up with each use of any image.
    used: u64,
}

impl ChunkStore {
    /// Opens `dir`, creating it if needed, for at most `bytes_max` bytes of chunks. Chunks of no image are removed, and
    /// so is a manifest that is damaged.
    ///
    /// # Errors
    /// When it cannot be created or read.
    pub(super) fn open(dir: PathBuf, bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(dir.join("images"))?;
        fs::create_dir_all(dir.join("chunks"))?;
        let mut state = State::default();
        let mut found = vec![];
        for entry in fs::read_dir(dir.join("images"))? {
            let entry = entry?;
            let image = entry.file_name().to_str().and_then(|name| name.parse::<Hash>().ok()).map(ImageId);
            let manifest = image.map(|image| {
                Manifest::from_bytes_named(&fs::read(entry.path())?, image).map_err(io::Error::other)
            });
            match (image, manifest) {
                (Some(image), Some(Ok(manifest))) => {
                    found.push((entry.metadata()?.modified().ok(), image, Arc::new(manifest)));
                }
                _ => fs::remove_file(entry.path())?,
            }
        }
        found.sort_by_key(|(modified, ..)| *modified);
        for (_, image, manifest) in found {
            state.uses += 1;
            state.images.insert(image, Kept { manifest, used: state.uses });
        }
        let wanted = names(state.images.values());
        for folder in fs::read_dir(dir.join("chunks"))? {
            for entry in fs::read_dir(folder?.path())? {
                let entry = entry?;
                let hash = entry.file_name().to_str().and_then(|name| name.parse::<Hash>().ok());
                match hash.filter(|hash| wanted.contains(hash)) {
                    Some(hash) => {
                        let bytes = entry.metadata()?.len();
                        state.bytes += bytes;
                        state.kept.insert(hash, bytes);
                    }
                    None => fs::remove_file(entry.path())?,
                }
            }
        }
        Ok(Self(Arc::new(Shared { dir, bytes_max, state: Mutex::new(state) })))
    }

    /// How many images there are.
    pub(super) fn count(&self) -> usize {
        self.0.state.lock().images.len()
    }

    /// The manifest of `image`, which counts as used now.
    pub(super) fn manifest(&self, image: ImageId) -> Option<Arc<Manifest>> {
        let mut state = self.0.state.lock();
        state.uses += 1;
        let uses = state.uses;
        let kept = state.images.get_mut(&image)?;
        kept.used = uses;
        Some(Arc::clone(&kept.manifest))
    }

    /// Keeps the manifest of `image`, which `bytes` are.
    ///
    /// # Errors
    /// When it is another one, or cannot be written.
    pub(super) fn add(&self, image: ImageId, bytes: &[u8]) -> io::Result<Arc<Manifest>> {
        let manifest = Manifest::from_bytes_named(bytes, image).map_err(io::Error::other)?;
        let manifest = Arc::new(manifest);
        put(&self.0.dir.join("images").join(image.to_string()), bytes)?;
        let mut state = self.0.state.lock();
        state.uses += 1;
        let used = state.uses;
        state.images.insert(image, Kept { manifest: Arc::clone(&manifest), used });
        Ok(manifest)
    }

    /// The chunks of `manifest` that are here, of those that have to be fetched.
    pub(super) fn held(&self, manifest: &Manifest) -> ChunkSet {
        let state = self.0.state.lock();
        let mut held = ChunkSet::new(manifest.len());
        for chunk in manifest.places().into_keys() {
            let here =
                manifest.stored(chunk).is_some_and(|stored| state.has(&stored, manifest.raw_len(chunk)));
            if here {
                held.insert(chunk);
            }
        }
        held
    }

    /// Bytes of the chunks of `manifest` that are not here, as they are sent.
    pub(super) fn needed(&self, manifest: &Manifest) -> u64 {
        let held = self.held(manifest);
        let missing = manifest.places().into_keys().filter(|chunk| !held.contains(*chunk));
        missing.filter_map(|chunk| manifest.stored(chunk)).map(|stored| u64::from(stored.wire_len)).sum()
    }

    /// Bytes that may still be kept: of the bound, and of the disk.
    pub(super) fn free(&self) -> u64 {
        let state = self.0.state.lock();
        let bound = self.0.bytes_max.saturating_sub(state.bytes);
        let disk = nix::sys::statvfs::statvfs(&self.0.dir).map_or(u64::MAX, |about| {
            about.blocks_available().saturating_mul(about.fragment_size()).saturating_sub(RESERVE)
        });
        bound.min(disk)
    }

    /// Removes images that are not `listed`, the one not used for the longest time first, until `bytes` are free. False
    /// when even that is not enough; then nothing is removed.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub(super) fn make_room(&self, bytes: u64, listed: &BTreeSet<ImageId>) -> io::Result<bool> {
        let mut others: Vec<(u64, ImageId)> = {
            let state = self.0.state.lock();
            let others = state.images.iter().filter(|(image, _)| !listed.contains(image));
            others.map(|(image, kept)| (kept.used, *image)).collect()
        };
        others.sort_unstable();
        let could_be: u64 = others.iter().map(|(_, image)| self.0.state.lock().bytes_of(*image)).sum();
        if self.free().saturating_add(could_be) < bytes {
            return Ok(false);
        }
        for (_, image) in others {
            if self.free() >= bytes {
                break;
            }
            tracing::info!(%image, "an image that is not used here any more makes room for another");
            self.remove(image)?;
        }
        Ok(self.free() >= bytes)
    }

    /// Removes an image, and the chunks that no other one has.
    ///
    /// # Errors
    /// When something of it cannot be removed.
    pub(super) fn remove(&self, image: ImageId) -> io::Result<()> {
        let mut state = self.0.state.lock();
        let Some(gone) = state.images.remove(&image) else { return Ok(()) };
        let wanted = names(state.images.values());
        // The manifest goes first: chunks that are left behind by a power cut are found at the next start.
        fs::remove_file(self.0.dir.join("images").join(image.to_string()))?;
        for hash in names(std::iter::once(&gone)).difference(&wanted) {
            if let Some(bytes) = state.kept.remove(hash) {
                state.bytes -= bytes;
                fs::remove_file(self.path(*hash))?;
            }
        }
        Ok(())
    }

    /// Keeps a chunk of `manifest`.
    ///
    /// # Errors
    /// Of the kind `StorageFull` or `QuotaExceeded` when there is no room; other kinds when the disk fails.
    pub(super) fn put(&self, manifest: &Manifest, chunk: VerifiedChunk) -> io::Result<()> {
        let Some(stored) = manifest.stored(chunk.index()) else { return Ok(()) };
        let frame = chunk.into_frame();
        let hash = if frame.form == Form::Wire { stored.wire } else { stored.raw };
        let bytes = frame.bytes.len() as u64;
        if self.free() < bytes {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the cache has no room left"));
        }
        let path = self.path(hash);
        fs::create_dir_all(path.parent().unwrap_or(&self.0.dir))?;
        let written = write(&path, &frame.bytes);
        if written.is_err() {
            // A part of a chunk is of no use, and takes room where there is none.
            drop(fs::remove_file(&path));
        }
        written?;
        let mut state = self.0.state.lock();
        if state.kept.insert(hash, bytes).is_none() {
            state.bytes += bytes;
        }
        Ok(())
    }

    /// A chunk of `manifest`, in the form in which it is kept. One that is damaged is removed.
    ///
    /// # Errors
    /// Of the kind `InvalidData` when it was damaged; others when it is not here or cannot be read.
    pub(super) fn frame(&self, manifest: &Manifest, chunk: ChunkIndex) -> io::Result<Frame> {
        self.frame_of(&manifest.stored(chunk).ok_or(io::ErrorKind::NotFound)?)
    }

    /// The raw bytes of a chunk.
    ///
    /// # Errors
    /// As [`ChunkStore::frame`].
    pub(super) fn raw(&self, stored: &StoredChunk) -> io::Result<Vec<u8>> {
        let frame = self.frame_of(stored)?;
        if frame.form == Form::Wire && stored.encoding == Encoding::Zstd {
            return zstd::bulk::decompress(&frame.bytes, CHUNK_BYTES as usize);
        }
        Ok(Arc::unwrap_or_clone(frame.bytes))
    }

    /// For each of these hashes of raw bytes, a chunk of any image that has them and is here.
    pub(super) fn find(&self, raws: impl Iterator<Item = Hash>) -> Vec<Option<StoredChunk>> {
        let state = self.0.state.lock();
        let mut here = HashMap::new();
        for kept in state.images.values() {
            for (chunk, _) in kept.manifest.iter() {
                let stored = kept.manifest.stored(chunk);
                if let Some(stored) = stored.filter(|stored| state.has(stored, kept.manifest.raw_len(chunk)))
                {
                    here.insert(stored.raw, stored);
                }
            }
        }
        raws.map(|raw| here.get(&raw).copied()).collect()
    }

    fn frame_of(&self, stored: &StoredChunk) -> io::Result<Frame> {
        let (hash, form) = {
            let state = self.0.state.lock();
            let wire = state.kept.contains_key(&stored.wire);
            if wire { (stored.wire, Form::Wire) } else { (stored.raw, Form::Raw) }
        };
        let bytes = fs::read(self.path(hash))?;
        if Hash::of(&bytes) != hash {
            let mut state = self.0.state.lock();
            if let Some(bytes) = state.kept.remove(&hash) {
                state.bytes -= bytes;
            }
            drop(state);
            fs::remove_file(self.path(hash))?;
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the chunk was damaged on the relay's disk",
            ));
        }
        Ok(Frame { form, bytes: Arc::new(bytes) })
    }

    fn path(&self, hash: Hash) -> PathBuf {
        let name = hash.to_string();
        self.0.dir.join("chunks").join(&name[..2]).join(name)
    }
}

impl State {
    fn has(&self, stored: &StoredChunk, raw_len: u32) -> bool {
        let is = |hash: &Hash, len: u32| self.kept.get(hash) == Some(&u64::from(len));
        is(&stored.wire, stored.wire_len) || is(&stored.raw, raw_len)
    }

    /// Bytes that would be free without `image`: of the chunks that only it has.
    fn bytes_of(&self, image: ImageId) -> u64 {
        let others = names(self.images.iter().filter(|(other, _)| **other != image).map(|(_, kept)| kept));
        let own = self.images.get(&image).map(|kept| names(std::iter::once(kept))).unwrap_or_default();
        own.difference(&others).filter_map(|hash| self.kept.get(hash)).sum()
    }
}

/// The hashes of all chunks of some images, in both forms.
fn names<'a>(images: impl Iterator<Item = &'a Kept>) -> HashSet<Hash> {
    let stored =
        images.flat_map(|kept| kept.manifest.iter().filter_map(|(chunk, _)| kept.manifest.stored(chunk)));
    stored.flat_map(|stored| [stored.wire, stored.raw]).collect()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    File::create(path)?.write_all(bytes)
}

/// Writes a file so that a crash leaves all of it or nothing.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    write(&part, bytes)?;
    File::open(&part)?.sync_all()?;
    fs::rename(&part, path)
}

/// The chunks of one image, for the swarm.
#[derive(Debug)]
pub(super) struct ImageChunks {
    pub(super) store: ChunkStore,
    pub(super) manifest: Arc<Manifest>,
    /// How many chunks were found damaged: each has to be fetched again.
    pub(super) damaged: watch::Sender<u32>,
}

impl HeldChunks for ImageChunks {
    fn read(&self, chunk: ChunkIndex) -> io::Result<Vec<u8>> {
        self.store.raw(&self.manifest.stored(chunk).ok_or(io::ErrorKind::NotFound)?)
    }

    fn frame(&self, chunk: ChunkIndex) -> io::Result<Frame> {
        let frame = self.store.frame(&self.manifest, chunk);
        if frame.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::InvalidData) {
            self.damaged.send_modify(|count| *count += 1);
        }
        frame
    }
}

#[cfg(test)]
mod tests;
