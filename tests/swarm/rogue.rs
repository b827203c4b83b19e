//! An admitted node that breaks the rules, one kind for each way of that. It claims to hold every chunk, so that the
//! server leases nothing and the others ask it first.

use std::future::pending;
use std::sync::Arc;

use common::chunk::{ChunkIndex, ChunkSet};
use common::id::{ImageId, JobId};
use common::limits::CHUNK_BYTES;
use common::swarm::behaviour::{self, MeshEvent, Protocol, build, listen};
use common::swarm::frame::{self, BadStream};
use common::swarm::serve::{ChunkProvider, Frame, Outlet, serve};
use common::swarm::slots::Slots;
use common::trust::PublicKey;
use common::wire::swarm::{Form, FromHolder, FromPuller, Member, Neighbour, ToAgent, ToServer};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::Stream;
use libp2p::swarm::SwarmEvent;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::rack::{ANY, Image, PATIENCE, Rack, key};

/// How it breaks the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// One byte in each chunk is wrong.
    FlipsBytes,
    /// It refuses every request.
    RefusesAll,
    /// It accepts requests, and never sends anything.
    SendsNothing,
    /// It sends the first half of a chunk, and then nothing.
    SendsHalf,
    /// It announces a chunk of 4 GiB.
    SendsTooMuch,
    /// It sends bytes that are not a message.
    SendsNoise,
    /// It sends a chunk that was not requested.
    SendsAnother,
    /// It requests chunks, and reads none.
    AsksWithoutEnd,
    /// It announces one chunk again and again.
    SaysItAgain,
}

/// A chunk provider that holds everything, and gives it with a byte flipped, or not at all.
struct Shop {
    image: Arc<Image>,
    manner: Manner,
    news: watch::Sender<usize>,
}

impl Shop {
    fn all(&self) -> ChunkSet {
        let mut all = ChunkSet::new(self.image.manifest.len());
        self.image.manifest.iter().for_each(|(chunk, _)| {
            all.insert(chunk);
        });
        all
    }
}

impl ChunkProvider for Shop {
    fn open(&self, _puller: &PublicKey, _image: ImageId) -> Option<(ChunkSet, usize)> {
        Some((self.all(), 0))
    }
    fn since(&self, _at: usize, _most: usize) -> Vec<ChunkIndex> {
        vec![]
    }
    fn news(&self) -> watch::Receiver<usize> {
        self.news.subscribe()
    }
    fn frame(&self, _puller: &PublicKey, _image: ImageId, chunk: ChunkIndex) -> Option<Frame> {
        let mut bytes = self.image.chunk(chunk).to_vec();
        bytes[4711] ^= 1;
        let gives = self.manner == Manner::FlipsBytes;
        gives.then(|| Frame { form: Form::Wire, bytes: Arc::new(bytes) })
    }
    fn sent(&self, _puller: &PublicKey, _chunk: ChunkIndex, _bytes: usize, _done: bool) {}
}

/// Serves the first request in its manner, and none after it.
async fn answer(stream: Stream, shop: Arc<Shop>) -> Result<(), BadStream> {
    let (mut from, mut to) = stream.split();
    frame::read::<FromPuller>(&mut from).await?;
    frame::write(&mut to, &FromHolder::Holding { held: shop.all() }).await?;
    if shop.manner == Manner::SaysItAgain {
        loop {
            frame::write(&mut to, &FromHolder::Have { chunks: vec![ChunkIndex(0); 16] }).await?;
        }
    }
    let FromPuller::Get { chunk } = frame::read(&mut from).await? else { return Ok(()) };
    let header = |chunk, len| FromHolder::Chunk { chunk, form: Form::Wire, len };
    match shop.manner {
        Manner::SendsHalf => {
            frame::write(&mut to, &header(chunk, CHUNK_BYTES)).await?;
            frame::write_piece(&mut to, &shop.image.chunk(chunk)[..CHUNK_BYTES as usize / 2]).await?;
            frame::flush(&mut to).await?;
        }
        Manner::SendsTooMuch => frame::write(&mut to, &header(chunk, u32::MAX)).await?,
        Manner::SendsNoise => {
            let noise: Vec<u8> = [0, 0, 0, 200].into_iter().chain((0..200).map(|at| at ^ 0xa5)).collect();
            to.write_all(&noise).await.map_err(BadStream::Ended)?;
            to.flush().await.map_err(BadStream::Ended)?;
        }
        Manner::SendsAnother => {
            let another = ChunkIndex((chunk.0 + 12) % shop.image.manifest.len());
            frame::write(&mut to, &header(another, CHUNK_BYTES)).await?;
        }
        _ => {}
    }
    while frame::read::<FromPuller>(&mut from).await.is_ok() {}
    Ok(())
}

async fn flood(stream: Stream, image: ImageId) -> Result<(), BadStream> {
    let (_unread, mut to) = stream.split();
    frame::write(&mut to, &FromPuller::Open { image }).await?;
    for chunk in (0..24).cycle() {
        frame::write(&mut to, &FromPuller::Get { chunk: ChunkIndex(chunk) }).await?;
    }
    pending().await
}

/// Sends the hello, and reports each list of neighbours of the server.
async fn control(
    stream: Stream,
    hello: ToServer,
    known: mpsc::Sender<()>,
    met: mpsc::Sender<Vec<Neighbour>>,
) {
    let (mut from, mut to) = stream.split();
    frame::write(&mut to, &hello).await.unwrap();
    while let Ok(word) = frame::read::<ToAgent>(&mut from).await {
        match word {
            ToAgent::Start => known.send(()).await.unwrap(),
            ToAgent::Neighbours { list, .. } => met.send(list).await.unwrap(),
            _ => {}
        }
    }
}

/// Starts an admitted node of this kind. Returns once the server knows it.
pub(crate) async fn rogue(rack: &Rack, number: u8, manner: Manner) -> JoinHandle<()> {
    rack.admit(number, None).await;
    let mut node = build(&key(number), Some(&rack.seed.key)).unwrap();
    let own = listen(&mut node, ANY).await.unwrap();
    let server = behaviour::peer_id(&rack.seed.key).unwrap();
    let addresses = rack.seed.addresses.iter().map(|address| address.parse().unwrap()).collect();
    node.behaviour_mut().dial(server, addresses, Protocol::Control);
    let shop = Arc::new(Shop { image: Arc::clone(&rack.image), manner, news: watch::Sender::new(0) });
    let image = rack.image.id;
    let hello = ToServer::Hello {
        member: Member::Job(JobId(number.into())),
        image,
        addresses: own.iter().map(ToString::to_string).collect(),
        held: shop.all(),
        started: true,
        deltas: ChunkSet::new(0),
    };
    // It admits every node that the rack may start.
    let all = (1..10).filter_map(|number| behaviour::peer_id(&key(number).public()).ok()).collect();
    node.behaviour_mut().allow(all);
    let (known, mut wait) = mpsc::channel(1);
    let (met, mut meet) = mpsc::channel::<Vec<Neighbour>>(8);
    let task = tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                event = node.select_next_some() => event,
                Some(list) = meet.recv() => {
                    for other in list.into_iter().filter(|_| manner == Manner::AsksWithoutEnd) {
                        let addresses = other.addresses.iter().filter_map(|address| address.parse().ok());
                        let peer = behaviour::peer_id(&other.key).unwrap();
                        node.behaviour_mut().dial(peer, addresses.collect(), Protocol::Pull);
                    }
                    continue;
                }
            };
            match event {
                SwarmEvent::Behaviour(MeshEvent::Opened { stream, protocol: Protocol::Control, .. }) => {
                    tokio::spawn(control(stream, hello.clone(), known.clone(), met.clone()));
                }
                SwarmEvent::Behaviour(MeshEvent::Opened { stream, .. }) => {
                    tokio::spawn(flood(stream, image));
                }
                SwarmEvent::Behaviour(MeshEvent::Accepted { stream, peer, .. }) => match manner {
                    Manner::FlipsBytes | Manner::RefusesAll => {
                        let puller = behaviour::public_key(&peer).unwrap();
                        let outlet = Outlet { slots: Slots::new(4), lines: vec![] };
                        tokio::spawn(serve(stream, puller, Arc::clone(&shop), outlet));
                    }
                    _ => {
                        tokio::spawn(answer(stream, Arc::clone(&shop)));
                    }
                },
                _ => {}
            }
        }
    });
    timeout(PATIENCE, wait.recv()).await.unwrap().unwrap();
    task
}
