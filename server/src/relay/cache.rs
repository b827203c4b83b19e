//! Files by their hash: fetched from the server once, however many machines ask for one at the same time, and given on
//! while they come. Kept on the disk within a bound, over restarts, and checked before they are served again. Owns its
//! folder; touches the server.

// Core: which files are kept, and which goes first.
mod index;

// One file on its way from the server.
mod fill;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::id::Hash;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::fill::{Coming, Fill, Progress};
pub(super) use self::fill::{NoFile, Wanted};
use self::index::Index;
use super::upstream::Upstream;
use crate::http::content::Bytestore;

/// How long a file that was checked is served without another check: thirty machines that boot at once read it thirty
/// times, and a disk that spoils files does not do it in that minute.
const CHECKED: Duration = Duration::from_secs(60);

/// The cache. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct FileCache(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    upstream: Upstream,
    state: Mutex<State>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

#[derive(Debug)]
struct State {
    index: Index,
    checked: HashMap<Hash, Instant>,
    /// Files on their way. Each entry is removed by its task, before that says how it ended.
    coming: HashMap<Hash, watch::Receiver<Progress>>,
}

impl FileCache {
    /// Opens the folder `dir`, creating it if needed, for at most `bytes_max` bytes. Fetching ends with `cancel`.
    ///
    /// # Errors
    /// When it cannot be created or read.
    pub(super) fn open(
        dir: PathBuf,
        bytes_max: u64,
        upstream: Upstream,
        cancel: CancellationToken,
    ) -> io::Result<Self> {
        fs::create_dir_all(dir.join("part"))?;
        let mut found = vec![];
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let hash = entry.file_name().to_str().and_then(|name| name.parse::<Hash>().ok());
            let about = entry.metadata()?;
            if let Some(hash) = hash.filter(|_| about.is_file()) {
                found.push((about.modified().ok(), hash, about.len()));
            }
        }
        found.sort_by_key(|(modified, ..)| *modified);
        let mut index = Index::new(bytes_max);
        found.iter().for_each(|(_, hash, bytes)| index.insert(*hash, *bytes));
        // The bound may be smaller than in the last run.
        for hash in index.make_room(0).unwrap_or_default() {
            fs::remove_file(dir.join(hash.to_string()))?;
        }
        let state = State { index, checked: HashMap::new(), coming: HashMap::new() };
        let shared = Shared { dir, upstream, state: Mutex::new(state), tasks: TaskTracker::new(), cancel };
        Ok(Self(Arc::new(shared)))
    }

    /// The file, from the disk or as it comes. Returns as soon as its length is known.
    ///
    /// # Errors
    /// When it is not here and cannot be had.
    pub(super) async fn get(&self, wanted: &Wanted) -> Result<Bytestore, NoFile> {
        loop {
            if let Some(path) = self.kept(wanted.hash).await {
                return Ok(Bytestore::File(path));
            }
            if let Some(coming) = self.coming(wanted) {
                return Ok(Bytestore::Growing(Arc::new(Coming::begun(coming).await?)));
            }
        }
    }

    /// The file's bytes, once it is here whole.
    ///
    /// # Errors
    /// When it is not here and cannot be had, or cannot be read.
    pub(super) async fn read(&self, wanted: &Wanted) -> Result<Vec<u8>, NoFile> {
        let path = self.fetched(wanted).await?;
        tokio::task::spawn_blocking(move || fs::read(path))
            .await
            .map_err(io::Error::other)
            .and_then(|read| read)
            .map_err(NoFile::Disk)
    }

    /// Waits until the file is here whole, and gives its path.
    ///
    /// # Errors
    /// When it cannot be had.
    pub(super) async fn fetched(&self, wanted: &Wanted) -> Result<PathBuf, NoFile> {
        loop {
            if let Some(path) = self.kept(wanted.hash).await {
                return Ok(path);
            }
            if let Some(mut coming) = self.coming(wanted) {
                let ended = coming.wait_for(Progress::is_over).await.map(|progress| progress.outcome());
                ended.unwrap_or_else(|_| Err(fill::stopping()))?;
                return Ok(self.path(wanted.hash));
            }
        }
    }

    /// Ends what is being fetched, and waits for that.
    pub(super) async fn close(&self) {
        self.0.cancel.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn path(&self, hash: Hash) -> PathBuf {
        self.0.dir.join(hash.to_string())
    }

    /// The path of a kept file whose bytes are right. One that is damaged is removed, and fetched again by who asks.
    async fn kept(&self, hash: Hash) -> Option<PathBuf> {
        let path = self.path(hash);
        {
            let mut state = self.0.state.lock();
            state.index.get(&hash)?;
            state.index.used(&hash);
            if state.checked.get(&hash).is_some_and(|at| at.elapsed() < CHECKED) {
                return Some(path);
            }
        }
        let read = path.clone();
        let got = tokio::task::spawn_blocking(move || hash_of(&read)).await.map_err(io::Error::other);
        match got.and_then(|got| got) {
            Ok(got) if got == hash => {
                self.0.state.lock().checked.insert(hash, Instant::now());
                return Some(path);
            }
            Ok(got) => {
                tracing::warn!(file = %hash, got = %got.short(), "a file of the cache was damaged, and is fetched again");
            }
            Err(error) => {
                tracing::warn!(file = %hash, %error, "a file of the cache cannot be read, and is fetched again");
            }
        }
        self.0.state.lock().index.remove(&hash);
        // If it stays, the fetched one takes its place.
        drop(fs::remove_file(&path));
        None
    }

    /// The file on its way: one that comes already, or a new task that fetches it. `None` when it has just arrived.
    fn coming(&self, wanted: &Wanted) -> Option<watch::Receiver<Progress>> {
        let mut state = self.0.state.lock();
        if let Some(coming) = state.coming.get(&wanted.hash) {
            return Some(coming.clone());
        }
        if state.index.get(&wanted.hash).is_some() {
            return None;
        }
        let (progress, coming) = watch::channel(Progress::default());
        state.coming.insert(wanted.hash, coming.clone());
        drop(state);
        let (shared, wanted) = (Arc::clone(&self.0), wanted.clone());
        self.0.tasks.spawn(async move {
            let cancel = shared.cancel.clone();
            tokio::select! {
                () = shared.fetch(&wanted, &progress) => {}
                () = cancel.cancelled() => {}
            }
        });
        Some(coming)
    }
}

impl Shared {
    async fn fetch(&self, wanted: &Wanted, progress: &watch::Sender<Progress>) {
        let part = self.dir.join("part").join(wanted.hash.to_string());
        let room = |bytes| self.make_room(bytes);
        let fill = Fill { upstream: &self.upstream, wanted, part: part.clone(), progress, room: &room };
        let kept = match fill.run().await {
            Ok(bytes) => self.keep(wanted.hash, &part, bytes).map_err(NoFile::Disk),
            Err(error) => Err(error),
        };
        self.state.lock().coming.remove(&wanted.hash);
        match kept {
            Ok(()) => fill::whole(progress),
            Err(error) => {
                tracing::warn!(
                    file = wanted.path,
                    error = &error as &dyn std::error::Error,
                    "a file could not be fetched"
                );
                progress.send_modify(|progress| progress.fail(&error));
            }
        }
    }

    fn keep(&self, hash: Hash, part: &Path, bytes: u64) -> io::Result<()> {
        fs::rename(part, self.dir.join(hash.to_string()))?;
        let mut state = self.state.lock();
        state.index.insert(hash, bytes);
        state.checked.insert(hash, Instant::now());
        Ok(())
    }

    fn make_room(&self, bytes: u64) -> bool {
        let dropped = self.state.lock().index.make_room(bytes);
        for hash in dropped.iter().flatten() {
            if let Err(error) = fs::remove_file(self.dir.join(hash.to_string())) {
                tracing::warn!(file = %hash, %error, "a file of the cache could not be removed");
            }
        }
        dropped.is_some()
    }
}

fn hash_of(path: &Path) -> io::Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut fs::File::open(path)?, &mut hasher)?;
    Ok(Hash(*hasher.finalize().as_bytes()))
}

#[cfg(test)]
mod tests;
