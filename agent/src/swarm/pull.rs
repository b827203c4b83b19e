//! The puller's side of a pull stream: writes the node's requests, and reads the holder's messages and chunks into
//! the node's inbox. Touches one stream. A chunk that was not requested ends the stream, so memory holds no more than
//! was requested.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::coming::{Coming, News};
use super::session::Dial;
use common::chunk::{ChunkIndex, ChunkSet};
use common::id::ImageId;
use common::swarm::frame::{self, BadStream};
use common::swarm::manners::{Told, message_bytes_max};
use common::trust::PublicKey;
use common::wire::swarm::{Form, FromHolder, FromPuller, PULL_QUEUE_MAX};

/// The timeout of writing one request: after it the connection counts as broken.
const STALL: Duration = Duration::from_secs(10);

/// The shortest time between two reports to the node that bytes of a chunk arrive.
pub const MOVED: Duration = Duration::from_millis(200);

/// What a stream tells the node, with the dial that opened it: the neighbour may have been dialled anew since.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) from: PublicKey,
    pub(super) dial: Dial,
    pub(super) word: Word,
}

#[derive(Debug)]
pub(super) enum Word {
    Up(ChunkSet),
    Have(Vec<ChunkIndex>),
    Moved,
    Chunk {
        chunk: ChunkIndex,
        form: Form,
        bytes: Vec<u8>,
    },
    Unavailable(ChunkIndex),
    /// `broken` says that the other end broke the protocol.
    Ended {
        cause: String,
        broken: bool,
    },
}

/// The node at the other end, from which this stream pulls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holder {
    pub(super) key: PublicKey,
    /// The dial that opened the stream.
    pub(super) dial: Dial,
    /// Whether it is the server. The server is not told how many chunks arrive from peers: its link may be slow, and it
    /// sends what it leased in any case.
    pub(super) seed: bool,
}

/// Requests that may wait to be written; the scheduler keeps fewer open at one holder.
pub(super) const REQUESTS_MAX: usize = PULL_QUEUE_MAX;

/// Reads and writes until either end closes the stream, and tells the node why it ended.
pub(super) async fn run(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    holder: Holder,
    (image, chunks): (ImageId, u32),
    requests: mpsc::Receiver<FromPuller>,
    inbox: mpsc::Sender<Inbound>,
    coming: Arc<Coming>,
) {
    let (reader, writer) = stream.split();
    let news = coming.news();
    let puller = Puller { holder, asked: Mutex::default(), inbox, coming };
    let ended: Result<(), BadStream> = tokio::select! {
        ended = puller.listen(reader, chunks) => ended,
        ended = puller.ask(writer, image, requests, news) => ended,
    };
    let (cause, broken) = match ended {
        Ok(()) => ("no longer needed".to_owned(), false),
        Err(error) => (error.to_string(), error.breaks_the_protocol()),
    };
    puller.tell(Word::Ended { cause, broken }).await;
}

/// What the reading and the writing half of a stream share.
struct Puller {
    holder: Holder,
    /// Requested chunks that have not begun to arrive; the lock is held for a look-up, never over an await.
    asked: Mutex<HashSet<ChunkIndex>>,
    inbox: mpsc::Sender<Inbound>,
    coming: Arc<Coming>,
}

impl Puller {
    /// Writes the node's requests, and the count of arriving chunks, until the node drops its sender.
    async fn ask(
        &self,
        mut writer: impl AsyncWrite + Unpin + Send,
        image: ImageId,
        mut requests: mpsc::Receiver<FromPuller>,
        mut news: News,
    ) -> Result<(), BadStream> {
        write(&mut writer, &FromPuller::Open { image }).await?;
        loop {
            let asked = !self.asked.lock().is_empty();
            tokio::select! {
                request = requests.recv() => {
                    let Some(request) = request else { return Ok(()) };
                    if let FromPuller::Get { chunk } | FromPuller::GetDelta { chunk, .. } = request {
                        self.asked.lock().insert(chunk);
                    }
                    write(&mut writer, &request).await?;
                }
                chunks = news.changed(), if asked && !self.holder.seed => {
                    write(&mut writer, &FromPuller::Coming { chunks }).await?;
                }
            }
        }
    }

    /// Reads the messages of a holder of an image of `chunks` chunks, and passes them on, until the stream ends.
    async fn listen(&self, mut reader: impl AsyncRead + Unpin + Send, chunks: u32) -> Result<(), BadStream> {
        let most = message_bytes_max(chunks);
        let mut told: Option<Told> = None;
        loop {
            let word = match frame::read_at_most(&mut reader, most).await? {
                FromHolder::Holding { held } => {
                    if told.is_some() || held.len() != chunks {
                        return Err(BadStream::Manners("says twice what it holds, or of another image"));
                    }
                    told = Some(Told::first(held.clone()));
                    Word::Up(held)
                }
                FromHolder::Have { chunks } => {
                    let told = told.as_mut();
                    told.ok_or(BadStream::Manners("says news before what it holds"))?.more(&chunks)?;
                    Word::Have(chunks)
                }
                FromHolder::Waiting => Word::Moved,
                FromHolder::Unavailable { chunk } => {
                    self.asked.lock().remove(&chunk);
                    Word::Unavailable(chunk)
                }
                FromHolder::Chunk { chunk, form, len } => {
                    if !self.asked.lock().remove(&chunk) {
                        return Err(BadStream::Manners("sent a chunk that was not asked for"));
                    }
                    let _arriving = self.coming.one();
                    let mut told = Instant::now();
                    let moved = |_| {
                        if told.elapsed() >= MOVED {
                            told = Instant::now();
                            // With a full inbox the node has enough to do; this report may be lost.
                            self.inbox.try_send(self.inbound(Word::Moved)).ok();
                        }
                    };
                    let bytes = frame::read_chunk(&mut reader, len, moved).await?;
                    Word::Chunk { chunk, form, bytes }
                }
            };
            self.tell(word).await;
        }
    }

    async fn tell(&self, word: Word) {
        // Fails only when the node has ended, and this task ends with it.
        self.inbox.send(self.inbound(word)).await.ok();
    }

    fn inbound(&self, word: Word) -> Inbound {
        Inbound { from: self.holder.key, dial: self.holder.dial, word }
    }
}

async fn write(writer: &mut (impl AsyncWrite + Unpin + Send), request: &FromPuller) -> Result<(), BadStream> {
    let written = timeout(STALL, frame::write(writer, request)).await;
    written.map_err(|_| BadStream::Stalled(STALL.as_secs()))?
}
