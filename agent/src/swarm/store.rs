//! The chunks that this agent can serve: those in memory, as they came, and those on the disk. Shared between the
//! node, which adds chunks, and the tasks that serve peers. Owns the cache and its bound; reads the disk through
//! [`HeldChunks`].

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::watch;

use common::chunk::{ChunkIndex, ChunkSet};
use common::id::{Hash, ImageId};
use common::swarm::serve::{ChunkProvider, Frame};
use common::trust::PublicKey;
use common::wire::swarm::Form;

use super::client::HeldChunks;

/// The cache may exceed its bound by one part in this many (a half) for chunks that are not on the disk yet.
const UNWRITTEN_PART: u64 = 2;

/// A cache of frames, bounded in bytes. Evicts the least recently used of those on the disk first, then of the others.
#[derive(Debug, Default)]
struct Cache {
    frames: HashMap<ChunkIndex, (Frame, u64)>,
    order: BTreeMap<u64, ChunkIndex>,
    uses: u64,
    bytes: u64,
    bytes_max: u64,
}

impl Cache {
    fn get(&mut self, chunk: ChunkIndex) -> Option<Frame> {
        let (frame, used) = self.frames.get_mut(&chunk)?;
        self.uses += 1;
        self.order.remove(used);
        self.order.insert(self.uses, chunk);
        *used = self.uses;
        Some(frame.clone())
    }

    fn put(&mut self, chunk: ChunkIndex, frame: Frame, on_disk: &ChunkSet) {
        if self.frames.contains_key(&chunk) {
            return;
        }
        self.uses += 1;
        self.bytes += frame.bytes.len() as u64;
        self.frames.insert(chunk, (frame, self.uses));
        self.order.insert(self.uses, chunk);
        while self.bytes > self.bytes_max {
            let written = self.order.iter().find(|(_, chunk)| on_disk.contains(**chunk));
            let over = self.bytes > self.bytes_max + self.bytes_max / UNWRITTEN_PART;
            let oldest = self.order.first_key_value().filter(|_| over);
            let Some(used) = written.or(oldest).map(|(used, _)| *used) else { return };
            self.drop_used(used);
        }
    }

    fn drop_used(&mut self, used: u64) {
        if let Some((frame, _)) = self.order.remove(&used).and_then(|chunk| self.frames.remove(&chunk)) {
            self.bytes -= frame.bytes.len() as u64;
        }
    }
}

#[derive(Debug)]
struct State {
    held: ChunkSet,
    on_disk: ChunkSet,
    /// Every chunk held, in the order in which it came to be held.
    log: Vec<ChunkIndex>,
    cache: Cache,
    /// Raw bytes of chunks that came as deltas, for as long as they wait for the disk: for pullers without the bases.
    raws: HashMap<ChunkIndex, Weak<Vec<u8>>>,
    sent: u64,
}

/// The chunks of one image that can be served.
pub(super) struct Store {
    image: ImageId,
    disk: Arc<dyn HeldChunks>,
    state: Mutex<State>,
    news: watch::Sender<usize>,
}

impl Store {
    pub(super) fn new(image: ImageId, chunks: u32, cache_bytes: u64, disk: Arc<dyn HeldChunks>) -> Self {
        let state = State {
            held: ChunkSet::new(chunks),
            on_disk: ChunkSet::new(chunks),
            log: Vec::new(),
            cache: Cache { bytes_max: cache_bytes, ..Cache::default() },
            raws: HashMap::new(),
            sent: 0,
        };
        Self { image, disk, state: Mutex::new(state), news: watch::Sender::new(0) }
    }

    // The lock is held for a look-up or an insertion, never over an await or a read of the disk.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock())
    }

    fn hold(&self, state: &mut State, chunk: ChunkIndex) -> bool {
        let news = state.held.insert(chunk);
        if news {
            state.log.push(chunk);
            self.news.send_replace(state.log.len());
        }
        news
    }

    /// Adds a verified chunk, in the form in which it came; `raw` are its raw bytes on their way to the disk. True if it was not held before.
    pub(super) fn put(&self, chunk: ChunkIndex, frame: Frame, raw: Weak<Vec<u8>>) -> bool {
        self.with(|state| {
            let State { cache, on_disk, raws, .. } = state;
            if frame.form == Form::Delta {
                raws.insert(chunk, raw);
            }
            cache.put(chunk, frame, on_disk);
            self.hold(state, chunk)
        })
    }

    /// Records that the disk can give this chunk. True if it was not held before.
    pub(super) fn on_disk(&self, chunk: ChunkIndex) -> bool {
        self.with(|state| {
            state.on_disk.insert(chunk);
            state.raws.remove(&chunk);
            self.hold(state, chunk)
        })
    }

    /// Bytes sent to peers so far.
    pub(super) fn uploaded(&self) -> u64 {
        self.with(|state| state.sent)
    }
}

impl ChunkProvider for Store {
    fn open(&self, _puller: &PublicKey, image: ImageId) -> Option<(ChunkSet, usize)> {
        (image == self.image).then(|| self.with(|state| (state.held.clone(), state.log.len())))
    }

    fn since(&self, at: usize, most: usize) -> Vec<ChunkIndex> {
        self.with(|state| state.log.iter().skip(at).take(most).copied().collect())
    }

    fn news(&self) -> watch::Receiver<usize> {
        self.news.subscribe()
    }

    fn frame(&self, _puller: &PublicKey, _image: ImageId, chunk: ChunkIndex) -> Option<Frame> {
        self.send(chunk, None)
    }

    fn delta(&self, _: &PublicKey, _: ImageId, chunk: ChunkIndex, delta: Hash) -> Option<Frame> {
        self.send(chunk, Some(delta))
    }

    fn sent(&self, _puller: &PublicKey, _chunk: ChunkIndex, bytes: usize, _done: bool) {
        self.with(|state| state.sent += bytes as u64);
    }
}

impl Store {
    /// What is sent of `chunk` to a puller that can decode the delta `delta`: the form in memory, unless that is another
    /// delta; then the raw bytes.
    fn send(&self, chunk: ChunkIndex, delta: Option<Hash>) -> Option<Frame> {
        let (cached, on_disk, raw) = self.with(|state| {
            (state.cache.get(chunk), state.on_disk.contains(chunk), state.raws.get(&chunk).cloned())
        });
        let fits = |frame: &Frame| frame.form != Form::Delta || delta == Some(Hash::of(&frame.bytes));
        if let Some(frame) = cached.filter(fits) {
            return Some(frame);
        }
        if let Some(bytes) = raw.as_ref().and_then(Weak::upgrade) {
            return Some(Frame { form: Form::Raw, bytes });
        }
        // The disk may have it a little before the session is told so.
        if !on_disk && raw.is_none() {
            return None;
        }
        match self.disk.frame(chunk) {
            Ok(frame) => Some(frame),
            Err(error) => {
                tracing::warn!(chunk = chunk.0, %error, "a chunk cannot be read back for a peer");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::id::Hash;
    use common::trust::KeyPair;
    use common::wire::swarm::Form;

    struct Disk;
    impl HeldChunks for Disk {
        fn read(&self, chunk: ChunkIndex) -> std::io::Result<Vec<u8>> {
            Ok(vec![chunk.0.to_le_bytes()[0]; 3])
        }
    }

    #[test]
    fn the_cache_stays_within_its_bound_and_the_disk_takes_over() {
        let image = ImageId(Hash([1; 32]));
        let puller = KeyPair::from_secret([1; 32]).public();
        let store = Store::new(image, 10, 20, Arc::new(Disk));
        let frame = |byte| Frame { form: Form::Wire, bytes: Arc::new(vec![byte; 10]) };
        assert!(store.put(ChunkIndex(0), frame(0), Weak::new()));
        assert!(store.put(ChunkIndex(1), frame(1), Weak::new()));
        let get = |chunk| store.frame(&puller, image, ChunkIndex(chunk)).map(|frame| frame.form);
        assert_eq!(get(0), Some(Form::Wire));
        assert!(store.put(ChunkIndex(2), frame(2), Weak::new()));
        let wire = Some(Form::Wire);
        assert_eq!(
            (get(0), get(1), get(2)),
            (wire, wire, wire),
            "none is on the disk yet: half as much again"
        );
        assert!(store.put(ChunkIndex(3), frame(3), Weak::new()));
        assert_eq!((get(0), get(1), get(3)), (None, wire, wire));
        assert!(!store.on_disk(ChunkIndex(0)) && !store.on_disk(ChunkIndex(3)));
        assert_eq!(get(0), Some(Form::Raw));
        assert!(store.put(ChunkIndex(4), frame(4), Weak::new()));
        assert_eq!((get(1), get(3), get(4)), (wire, Some(Form::Raw), wire), "what is on the disk goes first");
        assert_eq!(store.since(1, 2), [ChunkIndex(1), ChunkIndex(2)]);
        assert_eq!(store.open(&puller, ImageId(Hash([2; 32]))), None);
    }

    #[test]
    fn a_delta_goes_to_who_asks_for_it_and_raw_bytes_to_all_others() {
        let image = ImageId(Hash([1; 32]));
        let puller = KeyPair::from_secret([1; 32]).public();
        let store = Store::new(image, 10, 20, Arc::new(Disk));
        let raw = Arc::new(vec![5; 30]);
        let frame = Frame { form: Form::Delta, bytes: Arc::new(vec![9; 4]) };
        let (own, other) = (Hash::of(&frame.bytes), Hash([4; 32]));
        store.put(ChunkIndex(2), frame, Arc::downgrade(&raw));
        let form = |delta: Option<Hash>| {
            let frame = match delta {
                Some(delta) => store.delta(&puller, image, ChunkIndex(2), delta),
                None => store.frame(&puller, image, ChunkIndex(2)),
            };
            frame.map(|frame| (frame.form, frame.bytes.len()))
        };
        assert_eq!(form(Some(own)), Some((Form::Delta, 4)));
        assert_eq!((form(None), form(Some(other))), (Some((Form::Raw, 30)), Some((Form::Raw, 30))));
        drop(raw);
        assert_eq!(form(None), Some((Form::Raw, 3)), "written, though the store was not told yet");
        store.on_disk(ChunkIndex(2));
        assert_eq!((form(None), form(Some(own))), (Some((Form::Raw, 3)), Some((Form::Delta, 4))));
    }
}
