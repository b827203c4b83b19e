//! The image store of this server: its images, and their stored chunks. Owns everything in its blobs, which one process
//! has open at a time. Touches the blobs, and the clock for the date of an image.
//!
//! ```text
//! chunks/ab/<wire hash>   the wire form of a chunk; its name is its checksum
//! manifests/<image id>    likewise
//! deltas/<image id>       the table of its deltas; their frames are among the chunks
//! names/<name>.json       an `ImageInfo`; written last: what has no name does not exist
//! unclean                 there while an add or a remove is under way
//! ```
//!
//! Invariants: a name is written only after its manifest and all its chunks are durable; a chunk is deleted
//! only while no add is under way and when no manifest has it; if any name or manifest cannot be read,
//! nothing is deleted.

// The second wire form of chunks that are like an earlier image's.
mod deltas;
mod mend_deltas;
mod table;

// Which names are allowed, and their records.
mod names;

// Deletes what no image has.
mod sweep;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use common::id::{Hash, ImageId};
use common::manifest::{Chunk, Manifest, StoredChunk};
use parking_lot::{Mutex, RwLock};

use super::blobs::{Blobs, Files};
use super::error::ImageError;
use super::format::ImageFormat;
use super::import::{Import, Imported};
use super::info::{AddSpec, Added, ImageInfo, Progress, Removed};
use super::keys::{UNCLEAN, chunk_key, manifest_key, name_key};
use super::source::Source;
use crate::api::shapes::{BiosBoot, ImageTraits, UefiBoot};
use names::{check_name, read_names};
use table::Stored;

/// A shorter beginning of an id would match too many images.
const PREFIX_DIGITS_MIN: usize = 4;

/// Where an image came from, for its record.
struct Origin {
    name: String,
    path: Option<PathBuf>,
}

/// The image store. Cheap to clone; all methods block.
#[derive(Debug, Clone)]
pub struct Images(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    blobs: Box<dyn Blobs>,
    names: RwLock<BTreeMap<String, ImageInfo>>,
    manifests: Mutex<HashMap<ImageId, (Arc<Manifest>, Bytes)>>,
    tables: Mutex<HashMap<ImageId, Option<Arc<Stored>>>>,
    /// The first chunk that was read last, by [`Images::first_bytes`].
    first: Mutex<Option<(ImageId, Bytes)>>,
    /// Held for reading by every add, and for writing while unneeded blobs are deleted.
    gate: RwLock<()>,
    /// Set when there may be chunks that no image has.
    sweep: AtomicBool,
    /// Held while a name is added or removed.
    commit: Mutex<()>,
    stop: AtomicBool,
    /// Set when some record could not be read: then nothing may be deleted.
    doubtful: bool,
}

impl Images {
    /// Opens the store in the folder `images` of `state`, creates it if needed, and deletes what an earlier process
    /// left unfinished.
    ///
    /// # Errors
    /// When the folder cannot be created or read, or another process has it open.
    pub fn open(state: &Path) -> Result<Self, ImageError> {
        Self::over(Box::new(Files::open(&state.join("images"))?))
    }

    /// Opens the store over `blobs`, which nothing else has open, and deletes what an earlier process left unfinished.
    ///
    /// # Errors
    /// When the blobs cannot be read.
    pub fn over(blobs: Box<dyn Blobs>) -> Result<Self, ImageError> {
        let (names, doubtful) = read_names(&*blobs)?;
        let read = |source| blobs.not_read("a mark", source);
        let is_unclean = blobs.get(UNCLEAN).map_err(read)?.is_some();
        let images = Self(Arc::new(Inner {
            blobs,
            names: RwLock::new(names),
            manifests: Mutex::default(),
            tables: Mutex::default(),
            first: Mutex::default(),
            gate: RwLock::default(),
            sweep: AtomicBool::new(is_unclean),
            commit: Mutex::default(),
            stop: AtomicBool::new(false),
            doubtful,
        }));
        images.tidy();
        Ok(images)
    }

    /// Checks that an image may have this name.
    ///
    /// # Errors
    /// When it is not allowed.
    pub fn check_name(&self, name: &str) -> Result<(), ImageError> {
        check_name(name)
    }

    /// An empty file without a name where images are kept, for one that has not wholly come; it is gone when it is
    /// closed.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn scratch(&self) -> io::Result<File> {
        self.0.blobs.scratch()
    }

    /// Cancels every running add, verify and export; each fails with `ImageError::Stopped`.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn stopping(&self) -> bool {
        self.0.stop.load(Ordering::Relaxed)
    }

    /// Adds an image. Adding the same image under the same name succeeds, and repairs what is damaged in the store.
    ///
    /// # Errors
    /// When the name is not allowed or taken by another image, the source cannot be read to its end or is no image, or
    /// it cannot be stored. Nothing of it is left in the store then.
    pub fn add(&self, spec: AddSpec, progress: &mut dyn FnMut(Progress)) -> Result<Added, ImageError> {
        check_name(&spec.name)?;
        if let Some(wrong) = spec.sector_size.filter(|size| *size != 512 && *size != 4096) {
            return Err(ImageError::SectorSize(wrong));
        }
        let added = {
            let _adding = self.0.gate.read();
            self.mark_unclean()?;
            self.add_inside(spec, progress)
        };
        if added.is_err() {
            self.0.sweep.store(true, Ordering::SeqCst);
        }
        self.tidy();
        added
    }

    fn add_inside(&self, spec: AddSpec, progress: &mut dyn FnMut(Progress)) -> Result<Added, ImageError> {
        let origin = Origin { name: spec.source.name(), path: spec.source.path() };
        let source_name = origin.name.clone();
        let mut source = Source::open(spec.source, &|| self.0.blobs.scratch(), &mut |bytes_read, total| {
            progress(Progress { bytes_read, total, ..Progress::default() });
            if self.stopping() { Err(io::Error::other("the server is stopping")) } else { Ok(()) }
        })
        .map_err(|source| ImageError::Source { name: source_name.clone(), source })?;
        let expected = match self.named(&spec.name).map(|image| self.manifest(image.id)) {
            // Adding the image again is what repairs its manifest, too.
            None | Some(Err(ImageError::ManifestMissing { .. } | ImageError::Manifest { .. })) => None,
            Some(manifest) => Some(manifest?),
        };
        let import = Import {
            name: &source_name,
            blobs: &*self.0.blobs,
            known: self.known_chunks()?,
            expected: expected.as_deref().map(|manifest| (spec.name.as_str(), manifest)),
            sector_size: spec.sector_size,
            no_table: spec.no_table,
            stop: &self.0.stop,
        };
        let imported = import.run(&mut source, progress)?;
        let traits = self.look(&imported.manifest)?;
        let mut added = self.commit(spec.name, origin, source.format(), imported, traits)?;
        let not_made = self.make_deltas(added.image.id);
        added.notes.extend(not_made);
        Ok(added)
    }

    /// Makes an image of a finished import: the manifest is written first, the name last.
    fn commit(
        &self,
        name: String,
        origin: Origin,
        format: ImageFormat,
        imported: Imported,
        traits: ImageTraits,
    ) -> Result<Added, ImageError> {
        let Imported { manifest, facts, new_chunks, new_bytes, repaired_chunks, mut notes } = imported;
        let _one = self.0.commit.lock();
        let bytes = Bytes::from(manifest.to_bytes());
        let id = ImageId(Hash::of(&bytes));
        let write = |what: &'static str| move |source| self.0.blobs.not_written(what, source);
        let existing = self.named(&name);
        if let Some(other) = existing.as_ref().filter(|other| other.id != id) {
            return Err(ImageError::Taken { name, has: other.id });
        }
        self.0.blobs.put(&manifest_key(id), &bytes).map_err(write("the manifest"))?;
        self.0.blobs.settle().map_err(write("the image"))?;
        let existed = existing.is_some();
        let image = existing.unwrap_or_else(|| {
            let (zero_chunks, stored_chunks) = count(&manifest);
            ImageInfo {
                name: name.clone(),
                id,
                size_bytes: manifest.size(),
                sector_bytes: manifest.sector_bytes(),
                chunks: manifest.len(),
                zero_chunks,
                stored_chunks,
                wire_bytes: manifest.wire_bytes(),
                source: origin.name,
                path: origin.path,
                format,
                added_at_ms: now_ms(),
                partition_table: facts.kind(),
                boots_bios: traits.bios == BiosBoot::Yes,
                boots_uefi: traits.uefi == UefiBoot::Yes,
                traits: Some(traits),
            }
        });
        if existed {
            notes.push(match repaired_chunks {
                0 => "it was here already; nothing was changed".to_owned(),
                n => format!("it was here already; {n} damaged chunks were repaired"),
            });
        } else {
            let record = serde_json::to_vec_pretty(&image).map_err(io::Error::from);
            record
                .and_then(|record| self.0.blobs.put(&name_key(&name), &record))
                .and_then(|()| self.0.blobs.settle())
                .map_err(write("the image's name"))?;
            self.0.names.write().insert(name, image.clone());
        }
        self.cache(id, manifest, bytes);
        Ok(Added { image, existed, new_chunks, new_bytes, repaired_chunks, notes })
    }

    /// Saves the traits of an image that an earlier version added. If that fails, it is inspected again next time.
    pub(super) fn keep_traits(&self, id: ImageId, traits: &ImageTraits) {
        let _one = self.0.commit.lock();
        for mut image in self.list().into_iter().filter(|image| image.id == id) {
            image.boots_bios = traits.bios == BiosBoot::Yes;
            image.boots_uefi = traits.uefi == UefiBoot::Yes;
            image.traits = Some(traits.clone());
            let record = serde_json::to_vec_pretty(&image).map_err(io::Error::from);
            if let Err(error) = record.and_then(|record| self.0.blobs.put(&name_key(&image.name), &record)) {
                tracing::warn!(image = image.name, %error, "what an image can do is not kept");
            }
            self.0.names.write().insert(image.name.clone(), image);
        }
    }

    /// The records of all images, sorted by name.
    #[must_use]
    pub fn list(&self) -> Vec<ImageInfo> {
        self.0.names.read().values().cloned().collect()
    }

    pub(super) fn first_kept(&self) -> &Mutex<Option<(ImageId, Bytes)>> {
        &self.0.first
    }

    fn named(&self, name: &str) -> Option<ImageInfo> {
        self.0.names.read().get(name).cloned()
    }

    /// Finds the image of this name, or whose id begins with it (at least four digits).
    ///
    /// # Errors
    /// When there is none, or several ids begin with it.
    pub fn get(&self, asked: &str) -> Result<ImageInfo, ImageError> {
        let names = self.0.names.read();
        if let Some(image) = names.get(asked) {
            return Ok(image.clone());
        }
        let long_enough = asked.len() >= PREFIX_DIGITS_MIN;
        let matches: Vec<&ImageInfo> =
            names.values().filter(|image| long_enough && image.id.to_string().starts_with(asked)).collect();
        match matches.as_slice() {
            [] => {
                Err(ImageError::Unknown { asked: asked.to_owned(), known: names.keys().cloned().collect() })
            }
            // One image may have several names.
            [first, rest @ ..] if rest.iter().all(|other| other.id == first.id) => Ok((*first).clone()),
            several => Err(ImageError::Ambiguous {
                asked: asked.to_owned(),
                matches: several
                    .iter()
                    .map(|image| format!("{} ({})", image.name, image.id.0.short()))
                    .collect(),
            }),
        }
    }

    /// The manifest of an image, checked against its hash; cached in memory from then on.
    ///
    /// # Errors
    /// When it is missing or damaged.
    pub fn manifest(&self, id: ImageId) -> Result<Arc<Manifest>, ImageError> {
        self.load(id).map(|(manifest, _)| manifest)
    }

    /// The binary form of an image's manifest.
    ///
    /// # Errors
    /// As [`Images::manifest`].
    pub fn manifest_bytes(&self, id: ImageId) -> Result<Bytes, ImageError> {
        self.load(id).map(|(_, bytes)| bytes)
    }

    fn load(&self, id: ImageId) -> Result<(Arc<Manifest>, Bytes), ImageError> {
        if let Some(found) = self.0.manifests.lock().get(&id) {
            return Ok(found.clone());
        }
        let found = self.read_manifest(id)?;
        self.cache(id, found.0.clone(), found.1.clone());
        Ok(found)
    }

    /// Reads a manifest from the store, even if it is cached.
    pub(super) fn read_manifest(&self, id: ImageId) -> Result<(Arc<Manifest>, Bytes), ImageError> {
        let bytes = self
            .0
            .blobs
            .get(&manifest_key(id))
            .map_err(|source| self.0.blobs.not_read(format!("manifest {}", id.0.short()), source))?
            .ok_or_else(|| self.no_manifest(id))?;
        let check = self.0.blobs.to_check();
        let manifest = Manifest::from_bytes_named(&bytes, id).map_err(|source| ImageError::Manifest {
            what: id.0.short(),
            check,
            source,
        })?;
        Ok((Arc::new(manifest), Bytes::from(bytes)))
    }

    /// The error that the manifest of an image is missing, with what is to be checked.
    pub(super) fn no_manifest(&self, id: ImageId) -> ImageError {
        ImageError::ManifestMissing { id, check: self.0.blobs.to_check() }
    }

    fn cache(&self, id: ImageId, manifest: Arc<Manifest>, bytes: Bytes) {
        self.0.manifests.lock().insert(id, (manifest, bytes));
    }

    /// The wire form of a chunk, checked against its hash, so that damage on the disk is not served.
    ///
    /// # Errors
    /// When it is missing, damaged, or cannot be read.
    pub fn wire_chunk(&self, chunk: &StoredChunk) -> Result<Bytes, ImageError> {
        let wire = chunk.wire;
        let bytes = self
            .0
            .blobs
            .get(&chunk_key(&wire))
            .map_err(|source| self.0.blobs.not_read(format!("chunk {wire}"), source))?
            .ok_or(ImageError::ChunkMissing { wire })?;
        if Hash::of(&bytes) != wire || bytes.len() != chunk.wire_len as usize {
            return Err(ImageError::ChunkDamaged { wire, why: "its bytes have another hash" });
        }
        Ok(Bytes::from(bytes))
    }

    /// Replaces the wire form of a chunk in the store.
    pub(super) fn replace_chunk(&self, chunk: &StoredChunk, wire: &[u8]) -> Result<(), ImageError> {
        if Hash::of(wire) != chunk.wire || wire.len() != chunk.wire_len as usize {
            return Err(ImageError::ChunkDamaged {
                wire: chunk.wire,
                why: "and what was to mend it has another hash",
            });
        }
        // Held like by an add: nothing is deleted meanwhile.
        let _adding = self.0.gate.read();
        let write = |source| self.0.blobs.not_written(format!("chunk {}", chunk.wire), source);
        self.0.blobs.put(&chunk_key(&chunk.wire), wire).map_err(write)?;
        self.0.blobs.settle().map_err(write)
    }

    /// The names of all images that have one of the chunks `wires`, by chunk.
    pub(super) fn images_with(&self, wires: &HashSet<Hash>) -> HashMap<Hash, Vec<String>> {
        let mut found: HashMap<Hash, Vec<String>> = HashMap::new();
        for image in self.list().into_iter().filter(|_| !wires.is_empty()) {
            let Ok((manifest, _)) = self.read_manifest(image.id) else { continue };
            let its: HashSet<Hash> = stored(&manifest).map(|chunk| chunk.wire).collect();
            for wire in wires.intersection(&its) {
                found.entry(*wire).or_default().push(image.name.clone());
            }
        }
        found
    }

    /// Removes a name, and the image with its last name. `in_use` says in words what needs the image, if anything does;
    /// then its last name is not removed.
    ///
    /// # Errors
    /// When there is no such image, it is in use, or the store cannot be written.
    pub fn remove(&self, asked: &str, in_use: Option<&str>) -> Result<Removed, ImageError> {
        let image = self.get(asked)?;
        let one = self.0.commit.lock();
        let others = self.list().iter().any(|other| other.id == image.id && other.name != image.name);
        if let Some(by) = in_use.filter(|_| !others) {
            return Err(ImageError::InUse { name: image.name, by: by.to_owned() });
        }
        self.mark_unclean()?;
        let write = |source| self.0.blobs.not_written("the removal", source);
        self.0.blobs.delete(&name_key(&image.name)).map_err(write)?;
        self.0.names.write().remove(&image.name);
        if !others {
            self.0.blobs.delete(&manifest_key(image.id)).map_err(write)?;
            self.0.manifests.lock().remove(&image.id);
            self.0.tables.lock().remove(&image.id);
        }
        self.0.blobs.settle().map_err(write)?;
        drop(one);
        self.0.sweep.store(true, Ordering::SeqCst);
        Ok(Removed { image, freed_bytes: self.tidy() })
    }

    /// The stored form of every chunk that some image has, by raw hash. Damaged manifests are left out.
    fn known_chunks(&self) -> Result<HashMap<Hash, StoredChunk>, ImageError> {
        let mut known = HashMap::new();
        for image in self.list() {
            match self.manifest(image.id) {
                Ok(manifest) => known.extend(stored(&manifest).map(|chunk| (chunk.raw, chunk))),
                Err(error @ ImageError::Read { .. }) => return Err(error),
                Err(error) => tracing::warn!(image = image.name, %error, "image cannot be shared with"),
            }
        }
        Ok(known)
    }
}

fn stored(manifest: &Manifest) -> impl Iterator<Item = StoredChunk> + '_ {
    manifest.iter().filter_map(|(_, chunk)| match chunk {
        Chunk::Stored(stored) => Some(stored),
        Chunk::Zero => None,
    })
}

/// How many chunks are zeros, and how many distinct ones are stored.
fn count(manifest: &Manifest) -> (u32, u32) {
    let zero = manifest.iter().filter(|(_, chunk)| *chunk == Chunk::Zero).count();
    let distinct = stored(manifest).map(|chunk| chunk.raw).collect::<HashSet<_>>().len();
    (u32::try_from(zero).unwrap_or(u32::MAX), u32::try_from(distinct).unwrap_or(u32::MAX))
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}
