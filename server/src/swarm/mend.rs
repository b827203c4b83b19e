//! Repairs chunks that could not be read: by another read (a disk that failed once), from the file that the image was
//! made from, or from an agent that has the chunk. Owns the attempts under way; touches streams that the node opened,
//! and the image store. What an agent sends is not trusted: the store checks it against both hashes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use common::chunk::ChunkIndex;
use common::id::ImageId;
use common::swarm::behaviour::peer_id;
use common::swarm::frame::{self, BadStream};
use common::trust::PublicKey;
use common::wire::swarm::{Form, FromHolder, FromPuller};
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId, Stream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::handle::ChunkSource;
use super::image_swarm::Holder;

/// Timeout for an agent to send the chunk: it may have other peers to serve first.
const PATIENCE: Duration = Duration::from_secs(30);

/// Agents that are being dialled at once, over all images; fetches over open connections are not counted.
const AT_ONCE: usize = 16;

/// The outcome of one attempt to repair a chunk.
#[derive(Debug)]
pub(super) struct Mended {
    pub(super) image: ImageId,
    pub(super) chunk: ChunkIndex,
    pub(super) outcome: Outcome,
}

#[derive(Debug)]
pub(super) enum Outcome {
    /// It can be read again; the agent that sent it, or `None` when the store or the image's source had it.
    Whole(Option<PublicKey>),
    /// Neither the store nor the source has it: one of these agents is to be asked.
    Ask(Vec<Holder>),
}

/// Starts attempts, and keeps those that wait for a connection to an agent.
pub(super) struct Mends {
    source: Arc<dyn ChunkSource>,
    told: mpsc::Sender<Mended>,
    asked: HashMap<ConnectionId, (ImageId, ChunkIndex, PublicKey)>,
    turn: usize,
}

impl Mends {
    pub(super) fn new(source: Arc<dyn ChunkSource>, told: mpsc::Sender<Mended>) -> Self {
        Self { source, told, asked: HashMap::new(), turn: 0 }
    }

    /// Tries the store and the image's source, off the async threads; `holders` are asked later if both fail.
    pub(super) fn start(
        &mut self,
        image: ImageId,
        chunk: ChunkIndex,
        holders: Vec<Holder>,
        tasks: &mut JoinSet<()>,
    ) {
        let (source, told) = (Arc::clone(&self.source), self.told.clone());
        tasks.spawn(async move {
            let home = tokio::task::spawn_blocking(move || {
                source.wire_chunk(image, chunk).is_ok()
                    || source.mend(image, chunk).is_ok() && source.wire_chunk(image, chunk).is_ok()
            });
            let outcome =
                if home.await.unwrap_or(false) { Outcome::Whole(None) } else { Outcome::Ask(holders) };
            told.send(Mended { image, chunk, outcome }).await.ok();
        });
    }

    /// Dials one of the `holders`, another one each time. Does nothing while one is being dialled for the same chunk,
    /// or `AT_ONCE` are being dialled.
    pub(super) fn ask(
        &mut self,
        image: ImageId,
        chunk: ChunkIndex,
        holders: Vec<Holder>,
        dial: impl FnOnce(PeerId, Vec<Multiaddr>) -> ConnectionId,
    ) {
        let busy = self.asked.values().any(|(other, at, _)| (*other, *at) == (image, chunk));
        if holders.is_empty() || busy || self.asked.len() >= AT_ONCE {
            return;
        }
        self.turn = self.turn.wrapping_add(1);
        let Some(holder) = holders.get(self.turn % holders.len()) else { return };
        let addresses = holder.addresses.iter().filter_map(|address| address.parse().ok()).collect();
        if let Ok(peer) = peer_id(&holder.key) {
            self.asked.insert(dial(peer, addresses), (image, chunk, holder.key));
        }
    }

    /// A dialled connection is open: fetches the chunk over it. False if no attempt waits for this connection.
    pub(super) fn opened(
        &mut self,
        connection: ConnectionId,
        stream: Stream,
        tasks: &mut JoinSet<()>,
    ) -> bool {
        let Some((image, chunk, from)) = self.asked.remove(&connection) else {
            return false;
        };
        let (source, told) = (Arc::clone(&self.source), self.told.clone());
        tasks.spawn(async move {
            let fetched = timeout(PATIENCE, fetch(stream, image, chunk)).await;
            let fetched = fetched.unwrap_or(Err(BadStream::Stalled(PATIENCE.as_secs())));
            let kept = match fetched {
                Ok((form, bytes)) => {
                    let keep =
                        tokio::task::spawn_blocking(move || source.mend_with(image, chunk, form, bytes));
                    keep.await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
                }
                Err(error) => Err(std::io::Error::other(error)),
            };
            match kept {
                Ok(()) => {
                    told.send(Mended { image, chunk, outcome: Outcome::Whole(Some(from)) }).await.ok();
                }
                Err(error) => {
                    tracing::warn!(%error, from = %from.short(), chunk = chunk.0, "a damaged chunk was not mended");
                }
            }
        });
        true
    }

    /// A connection could not be opened, or ended: the attempt that waited for it is over.
    pub(super) fn failed(&mut self, connection: ConnectionId) {
        self.asked.remove(&connection);
    }
}

/// Fetches one chunk over a pull stream, in whatever form the holder has it.
async fn fetch(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    image: ImageId,
    wanted: ChunkIndex,
) -> Result<(Form, Vec<u8>), BadStream> {
    let (mut from, mut to) = stream.split();
    frame::write(&mut to, &FromPuller::Open { image }).await?;
    frame::write(&mut to, &FromPuller::Get { chunk: wanted }).await?;
    loop {
        match frame::read(&mut from).await? {
            FromHolder::Holding { .. } | FromHolder::Have { .. } | FromHolder::Waiting => {}
            FromHolder::Unavailable { .. } => {
                return Err(BadStream::Manners("does not have the chunk at hand"));
            }
            FromHolder::Chunk { chunk, form, len } if chunk == wanted => {
                return Ok((form, frame::read_chunk(&mut from, len, |_| {}).await?));
            }
            FromHolder::Chunk { .. } => {
                return Err(BadStream::Manners("sent a chunk that was not asked for"));
            }
        }
    }
}
