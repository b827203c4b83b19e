//! Files by their hash: fetched from the server once, however many machines ask for one at the same time, and given on
//! while they come. Kept on the disk within a bound, over restarts, and checked before they are served again. Owns its
//! folder; touches the server.

// Core: what a file is known by.
mod name;

// Core: which files are kept, and which goes first.
mod index;

// One file on its way from the server.
mod fill;

// The same, for one of the machines that want it.
mod coming;

// What the disk could not take of it.
mod passed;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::coming::Coming;
use self::fill::{Fill, Progress, hash_of};
pub(super) use self::fill::{NoFile, Wanted};
use self::index::Index;
pub(super) use self::name::Form;
use self::name::Name;
use self::passed::Source;
use super::upstream::Upstream;
use crate::http::content::Bytestore;

/// How long a file that was checked is served without another check: thirty machines that boot at once read it thirty
/// times, and a disk that spoils files does not do it in that minute.
const CHECKED: Duration = Duration::from_secs(60);

/// How long nothing is fetched into the cache after its disk could not be written: each try would take a file over the
/// line as far as the disk goes, beside the machine that gets it passed through.
const FULL: Duration = Duration::from_secs(60);

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
    checked: HashMap<Name, Instant>,
    /// Files on their way. Each entry is removed by its task, before that says how it ended.
    coming: HashMap<Name, watch::Receiver<Progress>>,
    /// When the disk could last not be written.
    full: Option<Instant>,
    /// When a machine last asked for a file.
    asked: Option<Instant>,
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
            let name = entry.file_name().to_str().and_then(Name::of);
            let about = entry.metadata()?;
            if let Some(name) = name.filter(|_| about.is_file()) {
                found.push((about.modified().ok(), name, about.len()));
            }
        }
        found.sort_by_key(|(modified, ..)| *modified);
        let mut index = Index::new(bytes_max);
        found.iter().for_each(|(_, name, bytes)| index.insert(*name, *bytes));
        // The bound may be smaller than in the last run.
        for name in index.make_room(0).unwrap_or_default() {
            fs::remove_file(dir.join(name.to_string()))?;
        }
        let state = State { index, checked: HashMap::new(), coming: HashMap::new(), full: None, asked: None };
        let shared = Shared { dir, upstream, state: Mutex::new(state), tasks: TaskTracker::new(), cancel };
        Ok(Self(Arc::new(shared)))
    }

    /// The file for a machine, from the disk or as it comes. Returns as soon as its length is known.
    ///
    /// # Errors
    /// When it is not here and cannot be had.
    pub(super) async fn get(&self, wanted: &Wanted) -> Result<Bytestore, NoFile> {
        self.0.state.lock().asked = Some(Instant::now());
        loop {
            if let Some(path) = self.kept(wanted.name()).await {
                return Ok(Bytestore::File(path));
            }
            if let Some(coming) = self.coming(wanted)? {
                let source = Source {
                    upstream: self.0.upstream.clone(),
                    path: wanted.path.clone(),
                    hash: Some(wanted.hash).filter(|_| wanted.form == Form::Plain),
                };
                return Ok(Bytestore::Growing(Arc::new(Coming::begun(coming, source).await?)));
            }
        }
    }

    /// When a machine last asked for a file; `None` if none has.
    pub(super) fn asked(&self) -> Option<Instant> {
        self.0.state.lock().asked
    }

    /// The most bytes that are kept.
    pub(super) fn bytes_max(&self) -> u64 {
        self.0.state.lock().index.bytes_max()
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
            if let Some(path) = self.kept(wanted.name()).await {
                return Ok(path);
            }
            if let Some(mut coming) = self.coming(wanted)? {
                let ended = coming.wait_for(Progress::is_over).await.map(|progress| progress.outcome());
                ended.unwrap_or_else(|_| Err(fill::stopping()))?;
                return Ok(self.path(wanted.name()));
            }
        }
    }

    /// Ends what is being fetched, and waits for that.
    pub(super) async fn close(&self) {
        self.0.cancel.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn path(&self, name: Name) -> PathBuf {
        self.0.dir.join(name.to_string())
    }

    /// The path of a kept file whose bytes are right. One that is damaged is removed, and fetched again by who asks.
    async fn kept(&self, name: Name) -> Option<PathBuf> {
        let path = self.path(name);
        {
            let mut state = self.0.state.lock();
            state.index.get(&name)?;
            state.index.used(&name);
            if state.checked.get(&name).is_some_and(|at| at.elapsed() < CHECKED) {
                return Some(path);
            }
        }
        let read = path.clone();
        let got =
            tokio::task::spawn_blocking(move || hash_of(&read, name.form)).await.map_err(io::Error::other);
        match got.and_then(|got| got) {
            Ok(got) if got == name.hash => {
                self.0.state.lock().checked.insert(name, Instant::now());
                return Some(path);
            }
            Ok(got) => {
                tracing::warn!(file = %name, got = %got.short(), "a file of the cache was damaged, and is fetched again");
            }
            Err(error) => {
                tracing::warn!(file = %name, %error, "a file of the cache cannot be read, and is fetched again");
            }
        }
        self.0.state.lock().index.remove(&name);
        // If it stays, the fetched one takes its place.
        drop(fs::remove_file(&path));
        None
    }

    /// The file on its way: one that comes already, or a new task that fetches it. `None` when it has just arrived.
    ///
    /// # Errors
    /// When the disk could not be written a moment ago.
    fn coming(&self, wanted: &Wanted) -> Result<Option<watch::Receiver<Progress>>, NoFile> {
        let (mut state, name) = (self.0.state.lock(), wanted.name());
        if let Some(coming) = state.coming.get(&name) {
            return Ok(Some(coming.clone()));
        }
        if state.index.get(&name).is_some() {
            return Ok(None);
        }
        if state.full.is_some_and(|at| at.elapsed() < FULL) {
            let why = "its disk could not be written a moment ago";
            return Err(NoFile::Disk(io::Error::new(io::ErrorKind::StorageFull, why)));
        }
        let (progress, coming) = watch::channel(Progress::default());
        state.coming.insert(name, coming.clone());
        drop(state);
        let (shared, wanted) = (Arc::clone(&self.0), wanted.clone());
        self.0.tasks.spawn(async move {
            let cancel = shared.cancel.clone();
            tokio::select! {
                () = shared.fetch(&wanted, &progress) => {}
                () = cancel.cancelled() => {}
            }
        });
        Ok(Some(coming))
    }
}

impl Shared {
    async fn fetch(&self, wanted: &Wanted, progress: &watch::Sender<Progress>) {
        let name = wanted.name();
        let part = self.dir.join("part").join(name.to_string());
        let room = |bytes| self.make_room(bytes);
        let fill = Fill { upstream: &self.upstream, wanted, part: part.clone(), progress, room: &room };
        let kept = match fill.run().await {
            Ok(bytes) => self.keep(name, &part, bytes).map_err(NoFile::Disk),
            Err(error) => Err(error),
        };
        {
            let mut state = self.state.lock();
            state.coming.remove(&name);
            if matches!(&kept, Err(NoFile::Disk(error)) if error.kind() != io::ErrorKind::FileTooLarge) {
                state.full = Some(Instant::now());
            }
        }
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

    fn keep(&self, name: Name, part: &Path, bytes: u64) -> io::Result<()> {
        fs::rename(part, self.dir.join(name.to_string()))?;
        let mut state = self.state.lock();
        state.index.insert(name, bytes);
        state.checked.insert(name, Instant::now());
        Ok(())
    }

    fn make_room(&self, bytes: u64) -> bool {
        let dropped = self.state.lock().index.make_room(bytes);
        for name in dropped.iter().flatten() {
            if let Err(error) = fs::remove_file(self.dir.join(name.to_string())) {
                tracing::warn!(file = %name, %error, "a file of the cache could not be removed");
            }
        }
        dropped.is_some()
    }
}

#[cfg(test)]
mod tests;
