//! Sends an image in pieces to a server on another host. A piece whose line broke is gone on with from where the server
//! says; a file whose sending was given up earlier is gone on with too. Touches the connection and what is read.

use std::io::SeekFrom;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::id::Hash;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::{Body, Client, Sent, empty, json, task_end, whole};
use crate::api::shapes::{ImageShown, TaskLine, UploadEnd, UploadOrder, UploadShown};
use crate::fault::Fault;

/// Bytes of a piece, which is held in memory until the server has it.
const PIECE_BYTES: usize = 16 << 20;
/// Bytes that are given to the connection at once: each is a sign of life.
const SLICE_BYTES: usize = 64 << 10;
/// How long nothing of a piece may go out before its line is taken for dead.
const SILENCE: Duration = Duration::from_secs(120);
/// The pauses before the first tries after a break; then the last again and again.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];
/// How many tries without a byte more before it is given up: ten minutes and what the tries take.
const TRIES: usize = 25;
/// How often an image is begun again whose beginning the server no longer has.
const BEGINS: usize = 3;

/// What is told meanwhile: progress and notes.
type Told<'a> = &'a mut (dyn FnMut(TaskLine<ImageShown>) + Send);

/// The file that an image is read from.
struct Source {
    file: File,
    /// Where it begins and how long it is, where it can be read again from there.
    again: Option<(u64, u64)>,
}

impl Source {
    async fn of(mut file: File) -> std::io::Result<Self> {
        let about = file.metadata().await?;
        let again = match file.stream_position().await {
            Ok(from) if about.is_file() => Some((from, about.len().saturating_sub(from))),
            _ => None,
        };
        Ok(Self { file, again })
    }

    fn bytes(&self) -> Option<u64> {
        self.again.map(|(_, bytes)| bytes)
    }

    /// The next piece; shorter than [`PIECE_BYTES`] only at the end.
    async fn piece(&mut self) -> Result<Bytes, Fault> {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read = (&mut self.file).take(PIECE_BYTES as u64).read_to_end(&mut piece).await;
        read.map_err(|error| Fault::failed("cannot read the image").because(&error))?;
        Ok(piece.into())
    }
}

/// Why an image was not wholly sent.
enum Ended {
    /// The server has nothing of it any more.
    Gone,
    /// It is given up.
    Failed(Fault),
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

/// Counts tries without success.
#[derive(Default)]
struct Patience(usize);

impl Patience {
    /// Waits before the next try; the reason for the last one when there were too many.
    async fn wait(&mut self, why: Fault, upload: &UploadShown) -> Result<(), Fault> {
        let pause = PAUSES.get(self.0).or(PAUSES.last()).copied().unwrap_or_default();
        self.0 += 1;
        if self.0 > TRIES {
            let is_known = upload.bytes.is_some();
            let hint = "what came is kept for a day: the same command goes on from there";
            return Err(if is_known { why.hint(hint) } else { why });
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

impl Client {
    /// Sends the image in `file` and adds it as `order` says, whose `bytes` are set here. Goes on by itself after a break.
    ///
    /// # Errors
    /// When `file` cannot be read, the server refuses, or it does not answer for ten minutes.
    pub async fn send_image(
        &self,
        order: UploadOrder,
        file: File,
        mut told: impl FnMut(TaskLine<ImageShown>) + Send,
    ) -> Result<ImageShown, Fault> {
        let unread = |error| Fault::failed("cannot read the image").because(&error);
        let mut source = Source::of(file).await.map_err(unread)?;
        let order = UploadOrder { bytes: source.bytes(), ..order };
        for _ in 0..BEGINS {
            match self.send_once(&order, &mut source, &mut told).await {
                Ok(image) => return Ok(image),
                Err(Ended::Failed(fault)) => return Err(fault),
                Err(Ended::Gone) => {}
            }
            let gone = Fault::failed("the server no longer has what was sent of the image");
            let Some((from, _)) = source.again else {
                return Err(gone.hint("was it restarted? a pipe cannot be read twice: begin again"));
            };
            source.file.seek(SeekFrom::Start(from)).await.map_err(unread)?;
            told(TaskLine::Note("the server no longer has what was sent: beginning again".to_owned()));
        }
        Err(Fault::failed("the server lost what was sent of the image again and again")
            .hint("see the server's own log"))
    }

    async fn send_once(
        &self,
        order: &UploadOrder,
        source: &mut Source,
        told: Told<'_>,
    ) -> Result<ImageShown, Ended> {
        let mut upload = self.taken_up(order).await?;
        if upload.offset > 0 {
            let has = common::text::bytes(upload.offset);
            told(TaskLine::Note(format!("the server has {has} of it from before: going on from there")));
        }
        let (mut hash, mut at) = (blake3::Hasher::new(), 0);
        loop {
            let piece = source.piece().await?;
            if piece.is_empty() {
                break;
            }
            hash.update(&piece);
            self.send_piece(&mut upload, (at, &piece), told).await?;
            at += piece.len() as u64;
        }
        let end = UploadEnd { bytes: at, blake3: Hash(*hash.finalize().as_bytes()) };
        self.added(&upload, &end, told).await
    }

    /// An upload of this image that was begun before, or a new one. What fails here is not tried again: nothing is sent yet.
    async fn taken_up(&self, order: &UploadOrder) -> Result<UploadShown, Fault> {
        if order.bytes.is_some() {
            let mine: Vec<UploadShown> = self.get("/uploads").await?;
            if let Some(upload) = mine.into_iter().find(|one| one.fits(order)) {
                return Ok(upload);
            }
        }
        self.post("/uploads", order).await
    }

    /// Sends the piece that begins at `start`, as far as the server does not have it.
    async fn send_piece(
        &self,
        upload: &mut UploadShown,
        (start, piece): (u64, &Bytes),
        told: Told<'_>,
    ) -> Result<(), Ended> {
        let path = format!("/uploads/{}", upload.id);
        let end = start + piece.len() as u64;
        let mut patience = Patience::default();
        while upload.offset < end {
            let Some(done) = upload.offset.checked_sub(start) else { return Err(Ended::Gone) };
            let rest = piece.slice(usize::try_from(done).unwrap_or(usize::MAX).min(piece.len())..);
            let from = upload.offset.to_string();
            let sent = Arc::new(AtomicU64::new(0));
            let patch = self.tried(Method::PATCH, &path, slices(rest, &sent), Some(&from));
            let answer = tokio::select! {
                answer = patch => answer?,
                () = silent(&sent) => Tried::Busy(dead()),
            };
            let before = upload.offset;
            match answer {
                Tried::Answer(shown) => *upload = shown,
                Tried::Gone => return Err(Ended::Gone),
                Tried::Busy(why) => {
                    patience.wait(why, upload).await?;
                    match self.tried(Method::GET, &path, empty(), None).await? {
                        Tried::Answer(shown) => {
                            *upload = shown;
                            let has = common::text::bytes(upload.offset);
                            told(TaskLine::Note(format!("the line broke; going on after {has}")));
                        }
                        Tried::Gone => return Err(Ended::Gone),
                        Tried::Busy(..) => {}
                    }
                }
            }
            if upload.offset > before {
                patience = Patience::default();
            }
            told(TaskLine::Progress { done: upload.offset, total: upload.bytes, text: "sent".to_owned() });
        }
        Ok(())
    }

    /// Has the image added that is wholly sent, and waits for it. When the line breaks meanwhile, asks again.
    async fn added(
        &self,
        upload: &UploadShown,
        end: &UploadEnd,
        told: Told<'_>,
    ) -> Result<ImageShown, Ended> {
        let path = format!("/uploads/{}/image", upload.id);
        let (mut patience, mut asked) = (Patience::default(), false);
        loop {
            let why = match self.send_with(Method::POST, &path, json(end)?, None).await {
                Ok(Sent::Answer(answer)) => match task_end(answer, &mut *told).await {
                    Ok(added) => return added.map_err(|refused| Ended::Failed(refused.into())),
                    Err(lost) => lost,
                },
                Ok(Sent::Refused(StatusCode::NOT_FOUND, _)) if asked => return self.found(upload).await,
                Ok(Sent::Refused(StatusCode::NOT_FOUND, _)) => return Err(Ended::Gone),
                Ok(Sent::Refused(StatusCode::CONFLICT, busy)) if asked => {
                    // It is still being added, which may take longer than any patience.
                    patience = Patience(patience.0.min(PAUSES.len()));
                    busy
                }
                Ok(Sent::Refused(status, busy)) if passes(status) => busy,
                Ok(Sent::Refused(_, fault)) => return Err(fault.into()),
                Ok(Sent::Lost(why)) | Err(why) => why,
            };
            asked = true;
            patience.wait(why, upload).await?;
        }
    }

    /// The image that was added while nobody heard of it.
    async fn found(&self, upload: &UploadShown) -> Result<ImageShown, Ended> {
        let path = format!("/images/{}", super::url_part(&upload.name));
        let unknown = || {
            Fault::failed("the line broke while the image was added, and it is not there")
                .hint("see `swarmboot logs` for what became of it")
        };
        match self.tried::<ImageShown>(Method::GET, &path, empty(), None).await? {
            Tried::Answer(image) if image.added >= upload.opened => Ok(image),
            Tried::Answer(_) | Tried::Gone => Err(unknown().into()),
            Tried::Busy(fault) => Err(fault.into()),
        }
    }

    /// Sends one request, and says whether trying again can help.
    async fn tried<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Body,
        from: Option<&str>,
    ) -> Result<Tried<T>, Fault> {
        match self.send_with(method, path, body, from.map(|from| ("upload-offset", from))).await {
            Ok(Sent::Answer(answer)) => match whole(answer).await {
                Ok(shown) => Ok(Tried::Answer(shown)),
                Err(lost) => Ok(Tried::Busy(lost)),
            },
            Ok(Sent::Refused(StatusCode::NOT_FOUND, _)) => Ok(Tried::Gone),
            Ok(Sent::Refused(status, fault)) if passes(status) => Ok(Tried::Busy(fault)),
            Ok(Sent::Refused(_, fault)) => Err(fault),
            Ok(Sent::Lost(lost)) | Err(lost) => Ok(Tried::Busy(lost)),
        }
    }
}

/// What became of a request that may be tried again.
enum Tried<T> {
    Answer(T),
    /// There is nothing at this path.
    Gone,
    /// The line broke, or the server or something before it has no time.
    Busy(Fault),
}

/// Whether a refusal may be another one in a while: a place that is taken, or a proxy without its server.
fn passes(status: StatusCode) -> bool {
    status == StatusCode::CONFLICT || matches!(status.as_u16(), 408 | 429 | 502..=504)
}

fn dead() -> Fault {
    Fault::failed("the line is dead").hint("nothing went out for two minutes")
}

/// `piece` as a body of slices that are counted as they go out.
fn slices(piece: Bytes, sent: &Arc<AtomicU64>) -> Body {
    let (sent, len) = (Arc::clone(sent), piece.len());
    let slices = (0..len).step_by(SLICE_BYTES).map(move |from| {
        sent.fetch_add(1, Ordering::Relaxed);
        Ok(Frame::data(piece.slice(from..(from + SLICE_BYTES).min(len))))
    });
    StreamBody::new(futures::stream::iter(slices)).boxed_unsync()
}

/// Ends when the count has stood still for [`SILENCE`].
async fn silent(sent: &AtomicU64) {
    let mut before = None;
    loop {
        let now = sent.load(Ordering::Relaxed);
        if before.replace(now) == Some(now) {
            return;
        }
        tokio::time::sleep(SILENCE).await;
    }
}
