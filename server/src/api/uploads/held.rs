//! What has come of images that are sent in pieces: bytes in files without a name, which are gone with the process, so that
//! nothing is left to be found or removed after a restart. Bounded in number, in bytes by the free space, and in age.
//! Owns those files; touches the clock.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use common::id::Hash;
use common::limits::{UPLOAD_AGE, UPLOAD_BYTES_MAX, UPLOAD_SILENCE, UPLOAD_SPACE_LEFT, UPLOADS_MAX};
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::super::shapes::{UploadOrder, UploadShown};

/// How many bytes are written at once.
const WRITE_BYTES: usize = 1 << 20;
/// How long a request waits for the one before it, whose line broke, to end.
const TURN_TIME: Duration = Duration::from_secs(10);
/// How often uploads that nobody goes on with are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(600);

/// Why something of an upload was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotTaken {
    /// There are [`UPLOADS_MAX`] already.
    #[error("{UPLOADS_MAX} uploads are open already")]
    Many,
    /// More bytes than an image has, or than were announced.
    #[error("more than {0} bytes")]
    Long(u64),
    /// It would fill the disk of the image store.
    #[error("{wanted} bytes are to come, and {free} are free where images are kept")]
    Space {
        /// Bytes that are to come.
        wanted: u64,
        /// Bytes that may be taken.
        free: u64,
    },
    /// It was removed meanwhile.
    #[error("it was removed meanwhile")]
    Gone,
    /// Another request for the same upload is at work.
    #[error("another request goes on with this upload")]
    Busy,
    /// The piece does not begin where the last one ended.
    #[error("the piece begins at byte {from}, and {offset} have come")]
    Place {
        /// Where the piece begins.
        from: u64,
        /// Where it should.
        offset: u64,
    },
    /// The line broke; what came before is kept.
    #[error("the line broke after byte {0}")]
    Broke(u64),
    /// The file cannot be written.
    #[error("it cannot be written")]
    Unwritten(#[from] io::Error),
}

/// The uploads that are open. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Uploads(Arc<Mutex<HashMap<String, Arc<Upload>>>>);

/// One upload.
#[derive(Debug)]
pub(super) struct Upload {
    id: String,
    owner: String,
    pub(super) order: UploadOrder,
    opened: Timestamp,
    file: File,
    turn: Arc<Semaphore>,
    come: Mutex<Come>,
}

/// How far an upload is.
#[derive(Debug)]
struct Come {
    offset: u64,
    hash: blake3::Hasher,
    touched: Timestamp,
    /// Ends the request that is at work.
    at_work: CancellationToken,
}

impl Uploads {
    /// Opens an upload of `owner` into `file`, which has no name.
    pub(super) fn open(
        &self,
        owner: &str,
        order: UploadOrder,
        file: File,
        now: Timestamp,
    ) -> Result<Arc<Upload>, NotTaken> {
        self.tidy(now);
        if let Some(bytes) = order.bytes {
            if bytes > UPLOAD_BYTES_MAX {
                return Err(NotTaken::Long(UPLOAD_BYTES_MAX));
            }
            room(&file, self.promised().saturating_add(bytes))?;
        }
        let mut bits = [0; 16];
        getrandom::fill(&mut bits).map_err(|error| io::Error::other(error.to_string()))?;
        let id = hex::encode(bits);
        let come =
            Come { offset: 0, hash: blake3::Hasher::new(), touched: now, at_work: CancellationToken::new() };
        let (turn, owner) = (Arc::new(Semaphore::new(1)), owner.to_owned());
        let upload = Arc::new(Upload {
            id: id.clone(),
            owner,
            order,
            opened: now,
            file,
            turn,
            come: Mutex::new(come),
        });
        let mut open = self.0.lock();
        if open.len() >= UPLOADS_MAX {
            return Err(NotTaken::Many);
        }
        open.insert(id, Arc::clone(&upload));
        Ok(upload)
    }

    /// The upload of this id, if it is of `owner`.
    pub(super) fn get(&self, id: &str, owner: &str) -> Option<Arc<Upload>> {
        self.0.lock().get(id).filter(|upload| upload.owner == owner).cloned()
    }

    /// The uploads of `owner`.
    pub(super) fn of(&self, owner: &str) -> Vec<Arc<Upload>> {
        let open = self.0.lock();
        let mut mine: Vec<_> = open.values().filter(|upload| upload.owner == owner).cloned().collect();
        mine.sort_by(|a, b| a.id.cmp(&b.id));
        mine
    }

    /// Forgets an upload; its bytes are gone when nobody reads them any more. Whoever waits for its turn does in vain.
    pub(super) fn remove(&self, upload: &Upload) {
        self.0.lock().remove(&upload.id);
        upload.turn.close();
    }

    /// Removes uploads that nobody went on with, until `cancel`.
    pub async fn tend(self, cancel: CancellationToken) {
        while cancel.run_until_cancelled(tokio::time::sleep(TIDY_EVERY)).await.is_some() {
            self.tidy(Timestamp::now());
        }
    }

    fn tidy(&self, now: Timestamp) {
        self.0.lock().retain(|id, upload| {
            let kept = upload.expires() > now || upload.turn.available_permits() == 0;
            if !kept {
                tracing::info!(upload = id, image = upload.order.name, "an upload was given up");
            }
            kept
        });
    }

    /// Bytes that were announced and have not come yet.
    fn promised(&self) -> u64 {
        let open = self.0.lock();
        let left =
            |upload: &Arc<Upload>| upload.order.bytes.unwrap_or(0).saturating_sub(upload.come.lock().offset);
        open.values().map(left).sum()
    }
}

impl Upload {
    pub(super) fn shown(&self) -> UploadShown {
        let offset = self.come.lock().offset;
        let UploadOrder { name, bytes, sector_bytes, no_table } = self.order.clone();
        let (id, opened, expires) = (self.id.clone(), self.opened, self.expires());
        UploadShown { id, name, offset, bytes, sector_bytes, no_table, opened, expires }
    }

    fn expires(&self) -> Timestamp {
        let age = SignedDuration::try_from(UPLOAD_AGE).unwrap_or(SignedDuration::MAX);
        self.come.lock().touched.saturating_add(age).unwrap_or(Timestamp::MAX)
    }

    /// Ends the request that is at work and takes its place: its line may be dead without the server knowing.
    pub(super) async fn turn(&self) -> Result<(OwnedSemaphorePermit, CancellationToken), NotTaken> {
        let mine = CancellationToken::new();
        std::mem::replace(&mut self.come.lock().at_work, mine.clone()).cancel();
        let turn = tokio::time::timeout(TURN_TIME, Arc::clone(&self.turn).acquire_owned()).await;
        match turn {
            Ok(Ok(turn)) => Ok((turn, mine)),
            Ok(Err(_)) => Err(NotTaken::Gone),
            Err(_) => Err(NotTaken::Busy),
        }
    }

    /// Takes the piece that begins at `from`. What came of it is kept if the line breaks, or if `stop` or a later request
    /// ends it.
    pub(super) async fn append(
        self: &Arc<Self>,
        (from, len): (u64, Option<u64>),
        body: Body,
        stop: &CancellationToken,
    ) -> Result<(), NotTaken> {
        let (_turn, mine) = self.turn().await?;
        let offset = self.come.lock().offset;
        if from != offset {
            return Err(NotTaken::Place { from, offset });
        }
        let most = self.order.bytes.unwrap_or(UPLOAD_BYTES_MAX);
        if len.is_some_and(|len| len > most - offset.min(most)) {
            return Err(NotTaken::Long(most));
        }
        room(&self.file, len.unwrap_or(0))?;
        let (mut pieces, mut waiting) = (body.into_data_stream(), BytesMut::new());
        loop {
            let piece = tokio::select! {
                () = mine.cancelled() => Some(Err(())),
                () = stop.cancelled() => Some(Err(())),
                () = tokio::time::sleep(UPLOAD_SILENCE) => Some(Err(())),
                piece = pieces.next() => piece.map(|piece| piece.map_err(drop)),
            };
            if let Some(Ok(piece)) = &piece {
                waiting.extend_from_slice(piece);
            }
            let over = !matches!(piece, Some(Ok(_)));
            if over || waiting.len() >= WRITE_BYTES {
                let offset = self.written(waiting.split().freeze(), most).await?;
                match piece {
                    Some(Ok(_)) => {}
                    Some(Err(())) => return Err(NotTaken::Broke(offset)),
                    None => return Ok(()),
                }
            }
        }
    }

    /// Writes what came; returns how many bytes have come now.
    async fn written(self: &Arc<Self>, bytes: Bytes, most: u64) -> Result<u64, NotTaken> {
        let upload = Arc::clone(self);
        let write = move || {
            let offset = upload.come.lock().offset;
            let end = offset + bytes.len() as u64;
            if end > most {
                return Err(NotTaken::Long(most));
            }
            room(&upload.file, bytes.len() as u64)?;
            upload.file.write_all_at(&bytes, offset)?;
            let mut come = upload.come.lock();
            come.hash.update(&bytes);
            (come.offset, come.touched) = (end, Timestamp::now());
            Ok(end)
        };
        tokio::task::spawn_blocking(write).await.unwrap_or_else(|error| Err(io::Error::other(error).into()))
    }

    /// How many bytes came, and their hash.
    pub(super) fn whole(&self) -> (u64, Hash) {
        let come = self.come.lock();
        (come.offset, Hash(*come.hash.finalize().as_bytes()))
    }

    /// All that came, from its beginning.
    pub(super) fn reader(self: &Arc<Self>) -> impl Read + Send + use<> {
        Pieces { upload: Arc::clone(self), at: 0 }
    }
}

struct Pieces {
    upload: Arc<Upload>,
    at: u64,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.upload.file.read_at(out, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Whether `wanted` bytes fit beside what has to stay free.
fn room(file: &File, wanted: u64) -> Result<(), NotTaken> {
    let about = nix::sys::statvfs::fstatvfs(file).map_err(io::Error::from)?;
    let free =
        about.blocks_available().saturating_mul(about.fragment_size()).saturating_sub(UPLOAD_SPACE_LEFT);
    if wanted > free { Err(NotTaken::Space { wanted, free }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(
        uploads: &Uploads,
        owner: &str,
        bytes: Option<u64>,
        now: Timestamp,
    ) -> Result<Arc<Upload>, NotTaken> {
        let order = UploadOrder { name: "disk".to_owned(), bytes, sector_bytes: None, no_table: false };
        uploads.open(owner, order, tempfile::tempfile().unwrap(), now)
    }

    fn body(pieces: Vec<Result<&'static [u8], io::Error>>) -> Body {
        Body::from_stream(futures::stream::iter(
            pieces.into_iter().map(|piece| piece.map(Bytes::from_static)),
        ))
    }

    #[tokio::test]
    async fn what_came_before_a_break_is_kept_and_only_what_follows_is_taken() {
        let (uploads, stop) = (Uploads::default(), CancellationToken::new());
        let upload = open(&uploads, "anna", Some(10), Timestamp::now()).unwrap();
        let broken = body(vec![Ok(b"abc"), Ok(b"d"), Err(io::Error::other("line"))]);
        let ended = upload.append((0, Some(10)), broken, &stop).await;
        assert!(matches!(ended, Err(NotTaken::Broke(4))), "{ended:?}");
        for from in [0, 3, 5, u64::MAX] {
            let ended = upload.append((from, None), body(vec![Ok(b"x")]), &stop).await;
            assert!(matches!(ended, Err(NotTaken::Place { offset: 4, .. })), "{ended:?}");
        }
        let ended = upload.append((4, None), body(vec![Ok(b"efghijk")]), &stop).await;
        assert!(matches!(ended, Err(NotTaken::Long(10))), "{ended:?}");
        upload.append((4, Some(6)), body(vec![Ok(b"efg"), Ok(b"hij")]), &stop).await.unwrap();
        assert_eq!(upload.whole(), (10, Hash::of(b"abcdefghij")));
        let mut all = vec![];
        upload.reader().read_to_end(&mut all).unwrap();
        assert_eq!(all, b"abcdefghij");
    }

    #[tokio::test]
    async fn a_later_request_ends_one_whose_line_is_dead() {
        let (uploads, stop) = (Uploads::default(), CancellationToken::new());
        let upload = open(&uploads, "anna", None, Timestamp::now()).unwrap();
        let dead = futures::stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"abc"))])
            .chain(futures::stream::pending());
        let first = Arc::clone(&upload);
        let hangs =
            tokio::spawn(async move { first.append((0, None), Body::from_stream(dead), &stop).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(upload.turn().await.unwrap());
        assert!(matches!(hangs.await.unwrap(), Err(NotTaken::Broke(3))));
        assert_eq!(upload.shown().offset, 3);
    }

    #[test]
    fn uploads_are_bounded_in_number_in_bytes_and_in_age_and_each_has_its_owner() {
        let (uploads, now) = (Uploads::default(), Timestamp::now());
        assert!(matches!(open(&uploads, "anna", Some(1 << 60), now), Err(NotTaken::Long(_))));
        assert!(matches!(open(&uploads, "anna", Some(UPLOAD_BYTES_MAX), now), Err(NotTaken::Space { .. })));
        let first = open(&uploads, "anna", Some(1), now).unwrap().shown().id;
        assert!(uploads.get(&first, "anna").is_some() && uploads.get(&first, "bert").is_none());
        for _ in 1..UPLOADS_MAX {
            open(&uploads, "bert", None, now).unwrap();
        }
        assert!(matches!(open(&uploads, "bert", None, now), Err(NotTaken::Many)));
        assert_eq!((uploads.of("anna").len(), uploads.of("bert").len()), (1, UPLOADS_MAX - 1));
        let later = now + SignedDuration::try_from(UPLOAD_AGE).unwrap();
        assert!(open(&uploads, "bert", None, later).is_ok());
        assert_eq!(uploads.of("anna").len(), 0);
    }
}
