//! One file on its way from the server into the cache: a task fetches it once, hashes it and writes it, and says how far
//! it has come. Touches the server and one file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::id::Hash;
use common::limits::{BUNDLE_BYTES_MAX, DRIVER_BYTES_MAX};
use hyper::StatusCode;
use tokio::sync::watch;

use super::name::{Form, Name};
use crate::relay::upstream::{NoAnswer, Upstream, extent, piece, refusal};

/// Tries in a row that brought nothing, after which the file is given up: with the pauses between them a line may be
/// down for half a minute.
const FRUITLESS_TRIES: u32 = 6;

/// A file that is wanted, by its hash, and where the server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::relay) struct Wanted {
    /// The BLAKE3 hash of its bytes, or of what they are a frame of.
    pub(in crate::relay) hash: Hash,
    /// What the hash is of.
    pub(in crate::relay) form: Form,
    /// Its length in bytes, where that is known beforehand.
    pub(in crate::relay) bytes: Option<u64>,
    /// Its path on the server's HTTP.
    pub(in crate::relay) path: String,
}

impl Wanted {
    /// The file whose own bytes have this hash, at this path.
    pub(in crate::relay) fn plain(hash: Hash, bytes: Option<u64>, path: String) -> Self {
        Self { hash, form: Form::Plain, bytes, path }
    }

    pub(super) fn name(&self) -> Name {
        Name { hash: self.hash, form: self.form }
    }
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
    /// What came should be a zstd frame, and is none.
    #[error("what the server sent is no zstd frame")]
    Frame(#[source] io::Error),
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
    pub(super) file: Option<(Arc<File>, u64)>,
    /// Bytes that can be read.
    pub(super) written: u64,
    /// How it ended: whole and right, or not.
    pub(super) ended: Option<Result<(), Failed>>,
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
        let got = match self.wanted.form {
            Form::Plain => Hash(*begun.hasher.finalize().as_bytes()),
            Form::Frame => {
                let part = self.part.clone();
                let got = tokio::task::spawn_blocking(move || hash_of(&part, Form::Frame)).await;
                let got = got.map_err(io::Error::other).and_then(|got| got);
                got.map_err(|error| self.spoiled(NoFile::Frame(error)))?
            }
        };
        if got != self.wanted.hash {
            return Err(self.spoiled(NoFile::Hash { got, wanted: self.wanted.hash }));
        }
        let file = begun.file;
        blocking(move || file.sync_all()).await?;
        Ok(bytes)
    }

    /// Removes what is of no use to the next try.
    fn spoiled(&self, error: NoFile) -> NoFile {
        if matches!(error, NoFile::Hash { .. } | NoFile::Frame(_) | NoFile::Length { .. } | NoFile::Disk(_)) {
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
        let unclear = || NoFile::Refused("its answer does not say how long the file is".to_owned());
        let (start, bytes) = extent(&answer, begun.at).ok_or_else(unclear)?;
        let most = self.wanted.bytes.unwrap_or(BUNDLE_BYTES_MAX);
        if bytes > most || self.wanted.bytes.is_some_and(|wanted| wanted != bytes) {
            return Err(NoFile::Length { got: bytes, wanted: most });
        }
        if start == 0 {
            // A server without ranges sends all of it again; what was given to machines stays as it is.
            (begun.at, begun.hasher) = (0, blake3::Hasher::new());
        }
        if !(self.room)(bytes) {
            let full = io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than the cache may be");
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

async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, NoFile> {
    let done = tokio::task::spawn_blocking(act).await;
    done.map_err(io::Error::other).and_then(|done| done).map_err(NoFile::Disk)
}

/// The hash of a file, or of what it is a frame of, without reading more than a driver may have. Blocks.
pub(super) fn hash_of(path: &Path, form: Form) -> io::Result<Hash> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    match form {
        Form::Plain => io::copy(&mut file, &mut hasher)?,
        Form::Frame => {
            let plain = zstd::stream::read::Decoder::new(file)?;
            io::copy(&mut plain.take(DRIVER_BYTES_MAX + 1), &mut hasher)?
        }
    };
    Ok(Hash(*hasher.finalize().as_bytes()))
}
