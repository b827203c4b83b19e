//! The server's end of one agent's control stream: reads its messages into the node's inbox and writes the node's
//! messages to it. Touches one stream, and the image store for the manifest of the image that the hello names.

use std::sync::Arc;
use std::time::Duration;

use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use common::chunk::ChunkSet;
use common::id::ImageId;
use common::limits::{CONTROL_WORD_EVERY, CONTROL_WORDS_BURST};
use common::swarm::frame::{self, BadStream};
use common::swarm::manners::{Budget, Told, message_bytes_max};
use common::trust::PublicKey;
use common::wire::swarm::{Member, OBJECTS_HELD_MAX, ToAgent, ToServer};

use super::handle::ChunkSource;
use super::image_swarm::{Hello, WireImage};

/// Read timeout: an agent reports its speed every second; one that sends nothing for this long is gone.
const SILENCE: Duration = Duration::from_secs(20);

/// Write timeout of one message: when it is over, the connection is taken to be gone.
const STALL: Duration = Duration::from_secs(15);

/// What a control stream's task reports to the node, with the stream's number: the node ignores a stream that the agent
/// has replaced by a newer one.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) agent: PublicKey,
    pub(super) stream: u64,
    pub(super) word: Word,
}

#[derive(Debug)]
pub(super) enum Word {
    Hello(Box<FirstWord>),
    Message(ToServer),
    Ended(String),
}

#[derive(Debug)]
pub(super) struct FirstWord {
    pub(super) member: Member,
    pub(super) image: ImageId,
    pub(super) hello: Hello,
    pub(super) wire_image: WireImage,
    pub(super) out: mpsc::Sender<ToAgent>,
}

/// Messages queued for one agent; an agent so slow that the queue is full is disconnected.
pub(super) const WAITING_MAX: usize = 256;

/// Serves the stream until it ends, and reports the end to the node.
pub(super) async fn run(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    agent: PublicKey,
    number: u64,
    source: Arc<dyn ChunkSource>,
    inbox: mpsc::Sender<Inbound>,
) {
    let (mut from, mut to) = stream.split();
    let (out, mut words) = mpsc::channel(WAITING_MAX);
    let tell = |word| inbox.send(Inbound { agent, stream: number, word });
    let listen = async {
        let first = first_word(&mut from, source, out).await?;
        let most = message_bytes_max(first.hello.held.len());
        let mut limits = Bounds::new(&first);
        tell(Word::Hello(Box::new(first))).await.ok();
        let began = Instant::now();
        loop {
            let message = timeout(SILENCE, frame::read_at_most(&mut from, most)).await;
            let message = message.map_err(|_| BadStream::Stalled(SILENCE.as_secs()))??;
            let wait = limits.hear(&message, began.elapsed())?;
            tell(Word::Message(message)).await.ok();
            // Not reading is the back-pressure: it slows only the agent that sends too much.
            tokio::time::sleep(wait).await;
        }
    };
    let speak = async {
        while let Some(word) = words.recv().await {
            let written = timeout(STALL, frame::write(&mut to, &word)).await;
            written.map_err(|_| BadStream::Stalled(STALL.as_secs()))??;
        }
        Ok(())
    };
    let ended: Result<(), BadStream> = tokio::select! {
        ended = listen => ended,
        ended = speak => ended,
    };
    let cause = match ended {
        Ok(()) => "told all there was to tell".to_owned(),
        Err(error) if error.breaks_the_protocol() => format!("breaks the protocol: {error}"),
        Err(error) => error.to_string(),
    };
    tell(Word::Ended(cause)).await.ok();
}

/// Limits on what an agent may still send on this stream: which chunks it may announce, and how many messages.
struct Bounds {
    told: Told,
    words: Budget,
}

impl Bounds {
    fn new(first: &FirstWord) -> Self {
        let words = Budget::new(CONTROL_WORDS_BURST, CONTROL_WORD_EVERY);
        Self { told: Told::first(first.hello.held.clone()), words }
    }

    /// Checks `message`, and returns how long to wait before the next one is read.
    fn hear(&mut self, message: &ToServer, now: Duration) -> Result<Duration, BadStream> {
        match message {
            ToServer::Hello { .. } => return Err(BadStream::Manners("said hello twice")),
            ToServer::Have { chunks } => self.told.more(chunks)?,
            ToServer::Holding { objects, .. } if objects.len() > OBJECTS_HELD_MAX => {
                return Err(BadStream::Manners("holds more files than an agent may"));
            }
            ToServer::Speed { .. }
            | ToServer::Corrupt { .. }
            | ToServer::Sealed
            | ToServer::Holding { .. } => {}
        }
        Ok(self.words.spend(now))
    }
}

async fn first_word(
    from: &mut (impl AsyncRead + Unpin + Send),
    source: Arc<dyn ChunkSource>,
    out: mpsc::Sender<ToAgent>,
) -> Result<FirstWord, BadStream> {
    let first = timeout(SILENCE, frame::read(from)).await;
    let ToServer::Hello { member, image, addresses, held, started, deltas } =
        first.map_err(|_| BadStream::Stalled(SILENCE.as_secs()))??
    else {
        return Err(BadStream::Manners("the first message is not a hello"));
    };
    // Counting the chunks of a large manifest takes a while, and reading it may touch the disk.
    let wire_image = tokio::task::spawn_blocking(move || {
        let manifest = source.manifest(image)?;
        let mut wanted = ChunkSet::new(manifest.len());
        manifest.places().into_keys().for_each(|chunk| {
            wanted.insert(chunk);
        });
        Some(WireImage { wanted, wire_bytes: manifest.wire_bytes() })
    });
    let Some(wire_image) = wire_image.await.ok().flatten() else {
        return Err(BadStream::Manners("wants an image that is not here"));
    };
    if held.len() != wire_image.wanted.len() || ![0, held.len()].contains(&deltas.len()) {
        return Err(BadStream::Manners("says it holds or can take chunks of another image"));
    }
    let mut own = ChunkSet::new(held.len());
    held.iter().filter(|chunk| wire_image.wanted.contains(*chunk)).for_each(|chunk| {
        own.insert(chunk);
    });
    let hello = Hello { addresses, held: own, started, deltas };
    Ok(FirstWord { member, image, hello, wire_image, out })
}
