//! The holder's side of a pull stream, the same on server and agents: tells which chunks it holds and sends requested
//! chunks, one at a time. What there is and who may have it is behind [`ChunkProvider`]. Touches one stream; keeps no
//! chunk longer than it takes to send it.

use std::collections::VecDeque;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, interval, sleep_until, timeout};

use crate::chunk::{ChunkIndex, ChunkSet};
use crate::id::{Hash, ImageId};
use crate::limits::CHUNK_PATIENCE;
use crate::line::{Class, Line};
use crate::swarm::frame::{self, BadStream};
use crate::swarm::slots::Slots;
use crate::trust::PublicKey;
use crate::wire::swarm::{Form, FromHolder, FromPuller, PULL_QUEUE_MAX};

/// The timeout of a write: after it the other end counts as gone or frozen.
const STALL: Duration = Duration::from_secs(8);

/// The timeout of a puller's first message, which names the image.
const HELLO: Duration = Duration::from_secs(10);

/// The shortest time between two `Have` messages: one for each chunk and neighbour costs more than it gains.
pub const NEWS: Duration = Duration::from_millis(20);

/// The interval of `Waiting` messages to a puller whose turn has not come, so that it knows the holder is alive.
pub const WAITING: Duration = Duration::from_secs(1);

/// The most chunks in one `Have` message.
const NEWS_MAX: usize = 65_536;

/// A chunk's bytes as they are sent.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Whether the bytes are the wire form or raw.
    pub form: Form,
    /// The bytes, shared with the cache that they come from.
    pub bytes: Arc<Vec<u8>>,
}

/// The chunks that a node serves. The calls are short, except [`ChunkProvider::frame`], which may read a disk and is
/// made on a blocking thread.
pub trait ChunkProvider: Send + Sync + 'static {
    /// The chunks of `image` that `puller` is told of, and the length of the list of [`ChunkProvider::since`] at that
    /// moment; none when `puller` may have nothing of it.
    fn open(&self, puller: &PublicKey, image: ImageId) -> Option<(ChunkSet, usize)>;
    /// The list of chunks in the order in which they came to be held, from the `at`th on, at most `most` of them.
    fn since(&self, at: usize, most: usize) -> Vec<ChunkIndex>;
    /// The length of the list of [`ChunkProvider::since`], whenever it grows.
    fn news(&self) -> watch::Receiver<usize>;
    /// The chunk, if it is held and `puller` may have it now.
    fn frame(&self, puller: &PublicKey, image: ImageId, chunk: ChunkIndex) -> Option<Frame>;
    /// The chunk as the delta of this hash; unless the provider has deltas, and this one at hand, as
    /// [`ChunkProvider::frame`] gives it.
    fn delta(&self, puller: &PublicKey, image: ImageId, chunk: ChunkIndex, _delta: Hash) -> Option<Frame> {
        self.frame(puller, image, chunk)
    }
    /// Counts `bytes` more of `chunk` that were sent to `puller`; `done` with the last of them.
    fn sent(&self, puller: &PublicKey, chunk: ChunkIndex, bytes: usize, done: bool);
}

/// Bounds on sending to a puller; its parts are shared with other pullers.
#[derive(Debug, Clone)]
pub struct Outlet {
    /// How many chunks are sent at once, and to whom next.
    pub slots: Slots,
    /// The lines that chunks are sent over, whose limits may change at any time; the thinnest first, so that a piece
    /// takes its turn on a line that others need only when it can go on.
    pub lines: Vec<Line>,
}

/// A requested chunk, and the delta as which it may be sent.
type Wanted = (ChunkIndex, Option<Hash>);

/// Chunks that one puller requested and that are not sent yet.
#[derive(Debug, Default)]
struct Queue {
    chunks: Mutex<VecDeque<Wanted>>,
    filled: Notify,
    /// Chunks that are arriving at the puller from all holders, by its last `Coming` message.
    coming: Arc<AtomicU32>,
}

impl Queue {
    // The lock is held for a push or a pop, never over an await.
    fn with<T>(&self, act: impl FnOnce(&mut VecDeque<Wanted>) -> T) -> T {
        act(&mut self.chunks.lock())
    }

    fn add(&self, wanted: Wanted) -> Result<(), BadStream> {
        let fits = self.with(|list| {
            let fits = list.len() < PULL_QUEUE_MAX;
            if fits {
                list.push_back(wanted);
            }
            fits
        });
        if !fits {
            return Err(BadStream::Manners("more chunks asked for than may be at once"));
        }
        self.filled.notify_one();
        Ok(())
    }
}

/// Serves `puller` on `stream` until either end closes it, within the bounds of `outlet`.
///
/// # Errors
/// When the stream ends, which it always does in the end, or the puller breaks the protocol.
pub async fn serve<S: ChunkProvider>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    puller: PublicKey,
    provider: Arc<S>,
    outlet: Outlet,
) -> Result<(), BadStream> {
    let (mut from, mut out) = stream.split();
    // A connection that ends before its first message breaks no protocol.
    let hello = timeout(HELLO, frame::read(&mut from)).await;
    let FromPuller::Open { image } = hello.map_err(|_| BadStream::Stalled(HELLO.as_secs()))?? else {
        return Err(BadStream::Manners("the first message is not which image"));
    };
    let Some((held, told)) = provider.open(&puller, image) else {
        return Err(BadStream::Manners("asked for an image that it may not have"));
    };
    watched(frame::write(&mut out, &FromHolder::Holding { held })).await?;
    let queue = Queue::default();
    let mut sender = Sender { out, puller, image, provider, outlet, queue: &queue, told };
    tokio::select! {
        ended = listen(&mut from, &queue) => ended,
        ended = sender.run() => ended,
    }
}

async fn listen(from: &mut (impl AsyncRead + Unpin + Send), queue: &Queue) -> Result<(), BadStream> {
    loop {
        match frame::read(from).await? {
            FromPuller::Open { .. } => return Err(BadStream::Manners("opened twice")),
            FromPuller::Get { chunk } => queue.add((chunk, None))?,
            FromPuller::GetDelta { chunk, delta } => queue.add((chunk, Some(delta)))?,
            FromPuller::Cancel { chunk } => queue.with(|list| list.retain(|(other, _)| *other != chunk)),
            FromPuller::Coming { chunks } => queue.coming.store(chunks, Ordering::Relaxed),
        }
    }
}

struct Sender<'a, W, S> {
    out: W,
    puller: PublicKey,
    image: ImageId,
    provider: Arc<S>,
    outlet: Outlet,
    queue: &'a Queue,
    told: usize,
}

impl<W: AsyncWrite + Unpin + Send, S: ChunkProvider> Sender<'_, W, S> {
    async fn run(&mut self) -> Result<(), BadStream> {
        let mut news = self.provider.news();
        let mut next_news = Instant::now();
        loop {
            if self.queue.with(|list| list.is_empty()) {
                tokio::select! {
                    () = self.queue.filled.notified() => {}
                    () = fresh(&mut news, self.told, next_news) => {}
                }
            } else {
                self.next().await?;
            }
            if Instant::now() >= next_news && *news.borrow() > self.told {
                self.tell().await?;
                next_news = Instant::now() + NEWS;
            }
        }
    }

    async fn tell(&mut self) -> Result<(), BadStream> {
        let chunks = self.provider.since(self.told, NEWS_MAX);
        self.told += chunks.len();
        watched(frame::write(&mut self.out, &FromHolder::Have { chunks })).await
    }

    /// Sends the chunk whose turn it is, when there is a free slot.
    async fn next(&mut self) -> Result<(), BadStream> {
        let slots = self.outlet.slots.clone();
        let mut tick = interval(WAITING);
        tick.tick().await;
        let mut turn = pin!(slots.take(&self.queue.coming));
        let _slot = loop {
            tokio::select! {
                slot = &mut turn => break slot,
                _ = tick.tick() => watched(frame::write(&mut self.out, &FromHolder::Waiting)).await?,
            }
        };
        // Taken from the queue only now, so that a puller can still cancel it.
        let Some((chunk, delta)) = self.queue.with(VecDeque::pop_front) else {
            return Ok(());
        };
        let (provider, puller, image) = (Arc::clone(&self.provider), self.puller, self.image);
        let read = tokio::task::spawn_blocking(move || match delta {
            Some(delta) => provider.delta(&puller, image, chunk, delta),
            None => provider.frame(&puller, image, chunk),
        });
        let read = read.await;
        match read.ok().flatten() {
            Some(frame) => self.send(chunk, &frame).await,
            None => watched(frame::write(&mut self.out, &FromHolder::Unavailable { chunk })).await,
        }
    }

    async fn send(&mut self, chunk: ChunkIndex, frame: &Frame) -> Result<(), BadStream> {
        let len = u32::try_from(frame.bytes.len()).map_err(|_| BadStream::ChunkLength(u32::MAX))?;
        watched(frame::write(&mut self.out, &FromHolder::Chunk { chunk, form: frame.form, len })).await?;
        let mut left = frame.bytes.len();
        // Waiting for our own rate limits is not counted as the reader's slowness.
        let mut waited = Duration::ZERO;
        let most = self.outlet.lines.iter().map(Line::piece).min().unwrap_or(frame::STRIDE);
        for piece in frame.bytes.chunks(most.min(frame::STRIDE)) {
            for line in &self.outlet.lines {
                line.pass(Class::Chunks, piece.len()).await;
            }
            let begun = Instant::now();
            watched(frame::write_piece(&mut self.out, piece)).await?;
            waited += begun.elapsed();
            if waited > CHUNK_PATIENCE {
                return Err(BadStream::Slow(CHUNK_PATIENCE.as_secs()));
            }
            left -= piece.len();
            self.provider.sent(&self.puller, chunk, piece.len(), left == 0);
        }
        watched(frame::flush(&mut self.out)).await
    }
}

/// Returns when there are chunks to announce and it is time to announce them.
async fn fresh(news: &mut watch::Receiver<usize>, told: usize, at: Instant) {
    if news.wait_for(|len| *len > told).await.is_err() {
        // The provider is gone: nothing is announced any more, and only requests wake the sender.
        pending::<()>().await;
    }
    sleep_until(at).await;
}

async fn watched(write: impl Future<Output = Result<(), BadStream>>) -> Result<(), BadStream> {
    timeout(STALL, write).await.unwrap_or(Err(BadStream::Stalled(STALL.as_secs())))
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read as _};
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    use tokio::time::{Sleep, sleep};

    use super::*;
    use crate::id::Hash;
    use crate::limits::CHUNK_BYTES;
    use crate::trust::KeyPair;

    /// A puller that has sent its requests, and reads 64 KiB in each `pause`.
    struct Slow {
        says: Cursor<Vec<u8>>,
        pause: Duration,
        wait: Pin<Box<Sleep>>,
    }

    impl AsyncRead for Slow {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            into: &mut [u8],
        ) -> Poll<std::io::Result<usize>> {
            match self.says.read(into)? {
                0 => Poll::Pending,
                some => Poll::Ready(Ok(some)),
            }
        }
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            from: &[u8],
        ) -> Poll<std::io::Result<usize>> {
            ready!(self.wait.as_mut().poll(context));
            self.wait = Box::pin(sleep(self.pause));
            Poll::Ready(Ok(from.len().min(frame::STRIDE)))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// A provider of one chunk, and whether it was sent whole.
    struct One(watch::Sender<usize>, watch::Sender<bool>);

    impl ChunkProvider for One {
        fn open(&self, _: &PublicKey, _: ImageId) -> Option<(ChunkSet, usize)> {
            Some((ChunkSet::new(1), 0))
        }
        fn since(&self, _: usize, _: usize) -> Vec<ChunkIndex> {
            vec![]
        }
        fn news(&self) -> watch::Receiver<usize> {
            self.0.subscribe()
        }
        fn frame(&self, _: &PublicKey, _: ImageId, _: ChunkIndex) -> Option<Frame> {
            Some(Frame { form: Form::Raw, bytes: Arc::new(vec![7; CHUNK_BYTES as usize]) })
        }
        fn sent(&self, _: &PublicKey, _: ChunkIndex, _: usize, done: bool) {
            self.1.send_if_modified(|sent| std::mem::replace(sent, done) != done);
        }
    }

    /// How serving a puller ends that reads 64 KiB in each `pause`; none when it got the chunk.
    async fn ends(pause: Duration) -> Option<BadStream> {
        let mut says = vec![];
        frame::write(&mut says, &FromPuller::Open { image: ImageId(Hash([1; 32])) }).await.unwrap();
        frame::write(&mut says, &FromPuller::Get { chunk: ChunkIndex(0) }).await.unwrap();
        let stream = Slow { says: Cursor::new(says), pause, wait: Box::pin(sleep(pause)) };
        let (sent, mut whole) = watch::channel(false);
        let provider = Arc::new(One(watch::channel(0).0, sent));
        let outlet = Outlet { slots: Slots::new(1), lines: vec![] };
        let puller = KeyPair::from_secret([1; 32]).public();
        tokio::select! {
            ended = serve(stream, puller, provider, outlet) => ended.err(),
            _ = whole.wait_for(|whole| *whole) => None,
        }
    }

    #[tokio::test]
    async fn a_puller_that_goes_before_its_first_word_breaks_no_protocol() {
        let serves = async |says: Vec<u8>| {
            let stream = futures::io::Cursor::new(says);
            let provider = Arc::new(One(watch::channel(0).0, watch::channel(false).0));
            let outlet = Outlet { slots: Slots::new(1), lines: vec![] };
            serve(stream, KeyPair::from_secret([1; 32]).public(), provider, outlet).await.unwrap_err()
        };
        let gone = serves(vec![]).await;
        assert!(matches!(gone, BadStream::Ended(_)) && !gone.breaks_the_protocol(), "{gone:?}");
        let mut other = vec![];
        frame::write(&mut other, &FromPuller::Get { chunk: ChunkIndex(0) }).await.unwrap();
        assert!(serves(other).await.breaks_the_protocol());
    }

    /// A provider of one chunk that has it as a delta, too, and tells which form it was asked for.
    struct Two(watch::Sender<usize>, Mutex<Vec<Option<Hash>>>);

    impl ChunkProvider for Two {
        fn open(&self, _: &PublicKey, _: ImageId) -> Option<(ChunkSet, usize)> {
            Some((ChunkSet::new(1), 0))
        }
        fn since(&self, _: usize, _: usize) -> Vec<ChunkIndex> {
            vec![]
        }
        fn news(&self) -> watch::Receiver<usize> {
            self.0.subscribe()
        }
        fn frame(&self, _: &PublicKey, _: ImageId, _: ChunkIndex) -> Option<Frame> {
            self.1.lock().push(None);
            Some(Frame { form: Form::Raw, bytes: Arc::new(vec![7]) })
        }
        fn delta(&self, _: &PublicKey, _: ImageId, _: ChunkIndex, delta: Hash) -> Option<Frame> {
            self.1.lock().push(Some(delta));
            Some(Frame { form: Form::Delta, bytes: Arc::new(vec![8]) })
        }
        fn sent(&self, _: &PublicKey, _: ChunkIndex, _: usize, _: bool) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_chunk_is_given_in_the_form_in_which_it_was_asked_for() {
        let (chunk, delta) = (ChunkIndex(0), Hash([9; 32]));
        let mut says = vec![];
        frame::write(&mut says, &FromPuller::Open { image: ImageId(Hash([1; 32])) }).await.unwrap();
        for asks in [FromPuller::Get { chunk }, FromPuller::GetDelta { chunk, delta }] {
            frame::write(&mut says, &asks).await.unwrap();
        }
        let pause = Duration::from_millis(1);
        let stream = Slow { says: Cursor::new(says), pause, wait: Box::pin(sleep(pause)) };
        let provider = Arc::new(Two(watch::channel(0).0, Mutex::default()));
        let outlet = Outlet { slots: Slots::new(1), lines: vec![] };
        let served = serve(stream, KeyPair::from_secret([1; 32]).public(), Arc::clone(&provider), outlet);
        assert!(timeout(Duration::from_secs(5), served).await.is_err(), "it goes on serving");
        assert_eq!(*provider.1.lock(), [None, Some(delta)]);
    }

    /// M11: a reader that reads 64 KiB within each write timeout, but takes minutes for the chunk, kept one of the few
    /// slots of a site.
    #[tokio::test(start_paused = true)]
    async fn a_reader_that_trickles_does_not_keep_a_place() {
        let strides = CHUNK_BYTES / u32::try_from(frame::STRIDE).unwrap();
        let patient = CHUNK_PATIENCE / (strides + 2);
        assert!(ends(patient).await.is_none(), "a line that carries a chunk within the time keeps its place");
        let trickle = STALL - Duration::from_millis(1);
        assert!(trickle * strides > CHUNK_PATIENCE);
        let ended = ends(trickle).await;
        assert!(matches!(ended, Some(BadStream::Slow(_))), "{ended:?}");
        let ended = ends(STALL + Duration::from_secs(1)).await;
        assert!(matches!(ended, Some(BadStream::Stalled(_))), "{ended:?}");
    }
}
