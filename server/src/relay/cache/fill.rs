//! One file on its way from the server into the cache: a task fetches it once, hashes it and writes it, and all machines
//! that want it read what is there already. The last bytes are given only when the hash is right, so that a wrong file
//! never arrives whole. Touches the server and one file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::id::Hash;
use common::limits::BUNDLE_BYTES_MAX;
use hyper::body::Incoming;
use hyper::{Response, StatusCode, header};
use tokio::sync::watch;

use crate::http::content::{Growing, Pieces};
use crate::relay::upstream::{NoAnswer, Upstream, piece, refusal};

/// Bytes that are held back until the hash of all is right. Any number does.
const HELD_BACK: u64 = 4096;
/// Bytes of one read from the file.
const READ_BYTES: u64 = 256 << 10;
/// Tries in a row that brought nothing, after which the file is given up: with the pauses between them a line may be
/// down for half a minute.
const FRUITLESS_TRIES: u32 = 6;

/// A file that is wanted, by its hash, and where the server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::relay) struct Wanted {
    /// The BLAKE3 hash of its bytes.
    pub(in crate::relay) hash: Hash,
    /// Its length in bytes, where that is known beforehand.
    pub(in crate::relay) bytes: Option<u64>,
    /// Its path on the server's HTTP.
    pub(in crate::relay) path: String,
}

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
pub(in crate::relay) enum NoFile {
    /// The server has no such file.
    #[error("the server has no such file")]
    Absent,
    /// The server refuses it.
    #[error("the server refuses it: {0}")]
    Refused(String),
    /// The server cannot be reached, or its answers break off.
    #[error(transparent)]
    Line(NoAnswer),
    /// What came is longer or shorter than announced, or than any file may be.
    #[error("the server sends {got} bytes, where {wanted} are expected")]
    Length {
        /// What came, or was announced.
        got: u64,
        /// What is expected, or the most that is allowed.
        wanted: u64,
    },
    /// What came has another hash.
    #[error("what the server sent has the hash {}, not {}", got.short(), wanted.short())]
    Hash {
        /// The hash of what came.
        got: Hash,
        /// The hash that is wanted.
        wanted: Hash,
    },
    /// The cache has no room for it, or its disk cannot be written.
    #[error("the cache cannot take it")]
    Disk(#[source] io::Error),
    /// The task that fetched it has ended.
    #[error("{why}")]
    Ended {
        /// The reason.
        why: String,
        /// Whether the cache has no room for it, or its disk cannot be written.
        disk: bool,
    },
}

impl NoFile {
    /// Whether the cache is to blame, and not the file.
    pub(in crate::relay) fn is_disk(&self) -> bool {
        matches!(self, Self::Disk(_) | Self::Ended { disk: true, .. })
    }

    /// Whether trying the line again may help.
    fn is_line(&self) -> bool {
        matches!(self, Self::Line(error) if error.is_outage())
    }
}

/// How far a file has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// The file and its whole length, once the server has told it.
    file: Option<(Arc<File>, u64)>,
    /// Bytes that can be read.
    written: u64,
    /// How it ended: whole and right, or not.
    ended: Option<Result<(), Failed>>,
}

/// Why a file did not come, for all who wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failed {
    /// The server has no such file.
    Absent,
    /// Another reason; `disk` when it is the cache's.
    Other { why: String, disk: bool },
}

impl From<Failed> for NoFile {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Absent => Self::Absent,
            Failed::Other { why, disk } => Self::Ended { why, disk },
        }
    }
}

/// What those who wait are told when the relay stops.
pub(super) fn stopping() -> NoFile {
    NoFile::Ended { why: "the relay stops".to_owned(), disk: false }
}

impl Progress {
    pub(super) fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// How it ended; as when the relay stops while it has not.
    pub(super) fn outcome(&self) -> Result<(), NoFile> {
        self.ended.clone().map_or_else(|| Err(stopping()), |ended| ended.map_err(NoFile::from))
    }

    pub(super) fn fail(&mut self, error: &NoFile) {
        let why = common::causes::with_causes(error);
        let failed = match error {
            NoFile::Absent => Failed::Absent,
            _ => Failed::Other { why, disk: error.is_disk() },
        };
        self.ended = Some(Err(failed));
    }
}

/// A file that is on its way, for a machine.
#[derive(Debug)]
pub(in crate::relay) struct Coming {
    progress: watch::Receiver<Progress>,
    file: Arc<File>,
    bytes: u64,
}

impl Coming {
    /// Waits until the file's length is known.
    ///
    /// # Errors
    /// When it cannot be had.
    pub(super) async fn begun(mut progress: watch::Receiver<Progress>) -> Result<Self, NoFile> {
        let known = |progress: &Progress| progress.file.is_some() || progress.ended.is_some();
        let at = progress.wait_for(known).await.map_err(|_| stopping())?.clone();
        match (at.file, at.ended) {
            (_, Some(Err(failed))) => Err(failed.into()),
            (Some((file, bytes)), _) => Ok(Self { progress, file, bytes }),
            (None, _) => Err(stopping()),
        }
    }
}

impl Growing for Coming {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&self, start: u64, len: u64) -> Pieces {
        let state = (self.progress.clone(), Arc::clone(&self.file), start, self.bytes);
        let end = start + len;
        Box::pin(futures::stream::try_unfold(state, move |(mut progress, file, at, bytes)| async move {
            if at >= end {
                return Ok(None);
            }
            let there = there(&mut progress, at, bytes).await?;
            let count = (there - at).min(end - at).min(READ_BYTES);
            let source = Arc::clone(&file);
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; usize::try_from(count).unwrap_or(0)];
                source.read_exact_at(&mut piece, at).map(|()| Bytes::from(piece))
            });
            let piece = read.await.map_err(io::Error::other)??;
            Ok(Some((piece, (progress, file, at + count, bytes))))
        }))
    }
}

/// Waits until more than `at` bytes can be given, and says how many.
async fn there(progress: &mut watch::Receiver<Progress>, at: u64, bytes: u64) -> io::Result<u64> {
    let given = |progress: &Progress| match progress.ended {
        Some(Ok(())) => bytes,
        _ => progress.written.min(bytes.saturating_sub(HELD_BACK)),
    };
    let more = |progress: &Progress| given(progress) > at || progress.ended.is_some();
    let now = progress.wait_for(more).await.map_err(io::Error::other)?;
    match &now.ended {
        Some(Err(failed)) => Err(io::Error::other(NoFile::from(failed.clone()))),
        _ => Ok(given(&now)),
    }
}

/// The fetching of one file.
pub(super) struct Fill<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) wanted: &'a Wanted,
    /// Where it is written to until it is whole.
    pub(super) part: PathBuf,
    pub(super) progress: &'a watch::Sender<Progress>,
    /// Makes room for so many bytes; false when there could never be.
    pub(super) room: &'a (dyn Fn(u64) -> bool + Sync),
}

/// What of a file is there, and its hash so far.
struct Begun {
    file: Arc<File>,
    at: u64,
    hasher: blake3::Hasher,
}

impl Fill<'_> {
    /// Fetches the file, from where an earlier try stopped, and returns its length when its hash is right.
    ///
    /// # Errors
    /// When it cannot be had; what has come is left for the next try, unless it is wrong.
    pub(super) async fn run(&self) -> Result<u64, NoFile> {
        let part = self.part.clone();
        let mut begun = blocking(move || open(&part)).await?;
        let mut fruitless = 0;
        let bytes = loop {
            let before = begun.at;
            match self.fetch(&mut begun).await {
                Ok(bytes) => break bytes,
                Err(error) if error.is_line() => {
                    fruitless = if begun.at > before { 0 } else { fruitless + 1 };
                    if fruitless == FRUITLESS_TRIES {
                        return Err(error);
                    }
                    tokio::time::sleep(Duration::from_millis(250) * 2u32.pow(fruitless)).await;
                }
                Err(error) => return Err(self.spoiled(error)),
            }
        };
        let got = Hash(*begun.hasher.finalize().as_bytes());
        if got != self.wanted.hash {
            return Err(self.spoiled(NoFile::Hash { got, wanted: self.wanted.hash }));
        }
        let file = begun.file;
        blocking(move || file.sync_all()).await?;
        Ok(bytes)
    }

    /// Removes what is of no use to the next try.
    fn spoiled(&self, error: NoFile) -> NoFile {
        if matches!(error, NoFile::Hash { .. } | NoFile::Length { .. } | NoFile::Disk(_)) {
            // One that is left is found wrong by the next try.
            drop(std::fs::remove_file(&self.part));
        }
        error
    }

    /// One answer of the server: from `begun.at` to the end. Returns the whole length.
    async fn fetch(&self, begun: &mut Begun) -> Result<u64, NoFile> {
        let answer = self.upstream.get(&self.wanted.path, begun.at).await.map_err(NoFile::Line)?;
        let answer = match answer.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => answer,
            StatusCode::NOT_FOUND => return Err(NoFile::Absent),
            // What is there is longer than the file.
            StatusCode::RANGE_NOT_SATISFIABLE => {
                return Err(NoFile::Length { got: begun.at, wanted: self.wanted.bytes.unwrap_or(0) });
            }
            _ => return Err(NoFile::Refused(refusal(answer).await.1)),
        };
        let (start, bytes) = extent(&answer, begun.at)?;
        let most = self.wanted.bytes.unwrap_or(BUNDLE_BYTES_MAX);
        if bytes > most || self.wanted.bytes.is_some_and(|wanted| wanted != bytes) {
            return Err(NoFile::Length { got: bytes, wanted: most });
        }
        if start == 0 {
            // A server without ranges sends all of it again; what was given to machines stays as it is.
            (begun.at, begun.hasher) = (0, blake3::Hasher::new());
        }
        if !(self.room)(bytes) {
            let full = io::Error::new(io::ErrorKind::StorageFull, "it is larger than the cache may be");
            return Err(NoFile::Disk(full));
        }
        self.tell(begun, bytes);
        let mut body = answer.into_body();
        while begun.at < bytes {
            let piece = piece(&mut body).await.map_err(NoFile::Line)?;
            let piece = piece.ok_or(NoFile::Line(NoAnswer::BrokeOff(None)))?;
            if piece.len() as u64 > bytes - begun.at {
                return Err(NoFile::Length { got: begun.at + piece.len() as u64, wanted: bytes });
            }
            begun.hasher.update(&piece);
            let (file, at, len) = (Arc::clone(&begun.file), begun.at, piece.len() as u64);
            blocking(move || file.write_all_at(&piece, at)).await?;
            begun.at += len;
            self.tell(begun, bytes);
        }
        Ok(bytes)
    }

    fn tell(&self, begun: &Begun, bytes: u64) {
        self.progress.send_modify(|progress| {
            progress.file.get_or_insert_with(|| (Arc::clone(&begun.file), bytes));
            progress.written = progress.written.max(begun.at);
        });
    }
}

/// Says that the file is whole and right.
pub(super) fn whole(progress: &watch::Sender<Progress>) {
    progress.send_modify(|progress| progress.ended = Some(Ok(())));
}

/// Opens a file of which a part may be there, and hashes that.
fn open(path: &Path) -> io::Result<Begun> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let mut hasher = blake3::Hasher::new();
    let at = io::copy(&mut &file, &mut hasher)?;
    Ok(Begun { file: Arc::new(file), at, hasher })
}

/// Where the answer's body begins in the file, and the length of the whole file.
fn extent(answer: &Response<Incoming>, asked: u64) -> Result<(u64, u64), NoFile> {
    let unclear = || NoFile::Refused("its answer does not say how long the file is".to_owned());
    let text = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
    if answer.status() == StatusCode::PARTIAL_CONTENT {
        let range = text(header::CONTENT_RANGE).and_then(|range| range.strip_prefix("bytes "));
        let (range, bytes) = range.and_then(|range| range.split_once('/')).ok_or_else(unclear)?;
        let start =
            range.split('-').next().and_then(|start| start.trim().parse().ok()).ok_or_else(unclear)?;
        let bytes = bytes.trim().parse().map_err(|_| unclear())?;
        return if start == asked { Ok((start, bytes)) } else { Err(unclear()) };
    }
    let bytes = text(header::CONTENT_LENGTH).and_then(|bytes| bytes.parse().ok()).ok_or_else(unclear)?;
    Ok((0, bytes))
}

async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, NoFile> {
    let done = tokio::task::spawn_blocking(act).await;
    done.map_err(io::Error::other).and_then(|done| done).map_err(NoFile::Disk)
}
