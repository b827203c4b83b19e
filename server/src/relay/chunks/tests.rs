//! The chunk store: over restarts, with damage, and with too little room.

use common::manifest::Chunk;

use super::*;

/// An image of one chunk for each number of `seeds`, and its raw bytes; chunks of one number are equal in all images.
fn image(seeds: &[u8]) -> (Arc<Manifest>, Vec<Vec<u8>>) {
    let raw: Vec<Vec<u8>> = seeds.iter().map(|seed| noise(*seed)).collect();
    let stored = |bytes: &Vec<u8>| {
        let hash = Hash::of(bytes);
        Chunk::Stored(StoredChunk { raw: hash, wire: hash, wire_len: CHUNK_BYTES, encoding: Encoding::Raw })
    };
    let size = raw.len() as u64 * u64::from(CHUNK_BYTES);
    (Arc::new(Manifest::new(size, 512, raw.iter().map(stored).collect()).unwrap()), raw)
}

fn noise(seed: u8) -> Vec<u8> {
    let mut random = common::swarm::splitmix::SplitMix64::new(seed.into());
    std::iter::repeat_with(|| random.next_u64().to_le_bytes()).flatten().take(CHUNK_BYTES as usize).collect()
}

fn chunk(manifest: &Manifest, raw: &[Vec<u8>], at: u32) -> VerifiedChunk {
    let bytes = Arc::new(raw[at as usize].clone());
    agent::swarm::verify::verify(manifest, ChunkIndex(at), Form::Raw, &bytes, None).unwrap()
}

impl ChunkStore {
    fn images(&self) -> Vec<ImageId> {
        self.0.state.lock().images.keys().copied().collect()
    }
}

fn filled(store: &ChunkStore, seeds: &[u8]) -> Arc<Manifest> {
    let (manifest, raw) = image(seeds);
    store.add(manifest.id(), &manifest.to_bytes()).unwrap();
    for at in 0..manifest.len() {
        store.put(&manifest, chunk(&manifest, &raw, at)).unwrap();
    }
    manifest
}

const CHUNK: u64 = CHUNK_BYTES as u64;

#[test]
fn an_image_outlives_the_process_and_damage_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = ChunkStore::open(dir.path().to_owned(), 10 * CHUNK).unwrap();
    let manifest = filled(&store, &[1, 2, 3]);
    drop(store);
    // A power cut in the middle of a chunk, and of a manifest.
    let hash = manifest.stored(ChunkIndex(1)).unwrap().raw.to_string();
    fs::write(dir.path().join("chunks").join(&hash[..2]).join(&hash), [0; 77]).unwrap();
    fs::write(dir.path().join("images").join(Hash::of(b"x").to_string()), b"half").unwrap();
    let store = ChunkStore::open(dir.path().to_owned(), 10 * CHUNK).unwrap();
    assert_eq!(store.images(), [manifest.id()]);
    assert_eq!(store.held(&manifest).iter().collect::<Vec<_>>(), [ChunkIndex(0), ChunkIndex(2)]);
    assert_eq!(store.needed(&manifest), CHUNK);
    // One of the right length is found when it is read.
    let hash = manifest.stored(ChunkIndex(2)).unwrap().raw.to_string();
    fs::write(dir.path().join("chunks").join(&hash[..2]).join(&hash), noise(9)).unwrap();
    let (damaged, seen) = watch::channel(0);
    let chunks = ImageChunks { store: store.clone(), manifest: Arc::clone(&manifest), damaged };
    assert_eq!(chunks.frame(ChunkIndex(2)).unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!((*seen.borrow(), store.needed(&manifest)), (1, 2 * CHUNK));
    assert_eq!(chunks.read(ChunkIndex(0)).unwrap(), noise(1));
    assert_eq!(chunks.frame(ChunkIndex(1)).unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn equal_chunks_are_kept_once_and_go_with_the_last_image() {
    let dir = tempfile::tempdir().unwrap();
    let store = ChunkStore::open(dir.path().to_owned(), 10 * CHUNK).unwrap();
    let (first, second) = (filled(&store, &[1, 2, 3]), filled(&store, &[3, 2, 4]));
    assert_eq!(store.0.state.lock().bytes, 4 * CHUNK);
    store.remove(first.id()).unwrap();
    assert_eq!(store.0.state.lock().bytes, 3 * CHUNK);
    assert_eq!(store.needed(&second), 0);
    store.remove(second.id()).unwrap();
    assert_eq!(store.0.state.lock().bytes, 0);
    let left: usize = fs::read_dir(dir.path().join("chunks"))
        .unwrap()
        .map(|folder| fs::read_dir(folder.unwrap().path()).unwrap().count())
        .sum();
    assert_eq!(left, 0);
}

#[test]
fn room_is_made_of_images_that_nobody_names_and_of_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = ChunkStore::open(dir.path().to_owned(), 6 * CHUNK).unwrap();
    let (first, second) = (filled(&store, &[1, 2]), filled(&store, &[3, 4]));
    store.manifest(first.id());
    let both = BTreeSet::from([first.id(), second.id()]);
    assert!(!store.make_room(3 * CHUNK, &both).unwrap(), "both are named");
    assert!(!store.make_room(7 * CHUNK, &BTreeSet::new()).unwrap(), "it could never fit");
    assert_eq!(store.images().len(), 2, "and nothing went for it");
    assert!(store.make_room(3 * CHUNK, &BTreeSet::new()).unwrap());
    assert_eq!(store.images(), [first.id()], "the one used longest ago went");
    let (third, raw) = image(&[5, 6, 7, 8, 9]);
    for at in 0..4 {
        store.put(&third, chunk(&third, &raw, at)).unwrap();
    }
    let full = store.put(&third, chunk(&third, &raw, 4)).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(store.needed(&first), 0, "what is there is served on");
}
