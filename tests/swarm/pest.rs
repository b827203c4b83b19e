//! An admitted machine that floods or misuses the server, one kind for each way of that. It connects again whenever it
//! is cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::chunk::{ChunkIndex, ChunkSet};
use common::id::{ImageId, JobId};
use common::swarm::behaviour::{self, MeshEvent, Protocol, build};
use common::swarm::frame::{self, BadStream};
use common::wire::swarm::{FromHolder, FromPuller, Member, ToAgent, ToServer};
use futures::{AsyncReadExt as _, StreamExt as _};
use libp2p::Stream;
use libp2p::swarm::SwarmEvent;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::rack::{PATIENCE, Rack, key};

/// How it misuses the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pest {
    /// It announces one chunk again and again.
    SaysItAgain,
    /// It announces chunks that no image has.
    SaysWhatIsNot,
    /// It sends speed reports as fast as it can.
    SpeaksWithoutEnd,
    /// It opens many streams, and reads a byte now and then.
    ReadsSlowly,
    /// It pulls a chunk that is leased to it again and again, and never announces it.
    PullsOneChunk,
}

/// A machine of this kind, running.
pub(crate) struct Running {
    pub(crate) task: JoinHandle<()>,
    /// How often it received the first chunk that was leased to it.
    pub(crate) pulled: Arc<AtomicU32>,
}

async fn control(
    stream: Stream,
    hello: ToServer,
    manner: Pest,
    leased: mpsc::Sender<ChunkIndex>,
) -> Result<(), BadStream> {
    let (mut from, mut to) = stream.split();
    frame::write(&mut to, &hello).await?;
    let listen = async {
        loop {
            if let ToAgent::Lease { chunks } = frame::read::<ToAgent>(&mut from).await? {
                for chunk in chunks {
                    leased.send(chunk).await.ok();
                }
            }
        }
    };
    let speed = ToServer::Speed {
        sent: 0,
        sending_millis: 0,
        from_peers: 0,
        from_server: 0,
        millis: 1000,
        bottleneck: None,
    };
    let speak = async {
        loop {
            match manner {
                Pest::SaysItAgain => {
                    frame::write(&mut to, &ToServer::Have { chunks: vec![ChunkIndex(0); 50] }).await?;
                }
                Pest::SaysWhatIsNot => {
                    frame::write(&mut to, &ToServer::Have { chunks: vec![ChunkIndex(4711)] }).await?;
                }
                Pest::SpeaksWithoutEnd => frame::write(&mut to, &speed).await?,
                Pest::ReadsSlowly | Pest::PullsOneChunk => {
                    frame::write(&mut to, &speed).await?;
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    };
    tokio::select! {
        ended = listen => ended,
        ended = speak => ended,
    }
}

async fn pull(
    stream: Stream,
    image: ImageId,
    chunk: ChunkIndex,
    manner: Pest,
    pulled: Arc<AtomicU32>,
) -> Result<(), BadStream> {
    let (mut from, mut to) = stream.split();
    frame::write(&mut to, &FromPuller::Open { image }).await?;
    frame::write(&mut to, &FromPuller::Coming { chunks: 0 }).await?;
    frame::write(&mut to, &FromPuller::Get { chunk }).await?;
    if manner == Pest::ReadsSlowly {
        let mut byte = [0];
        while from.read(&mut byte).await.is_ok() {
            sleep(Duration::from_millis(200)).await;
        }
        return Ok(());
    }
    loop {
        match frame::read(&mut from).await? {
            FromHolder::Chunk { len, .. } => {
                frame::read_chunk(&mut from, len, |_| {}).await?;
                pulled.fetch_add(1, Ordering::Relaxed);
            }
            FromHolder::Unavailable { .. } => sleep(Duration::from_millis(50)).await,
            FromHolder::Holding { .. } | FromHolder::Have { .. } | FromHolder::Waiting => continue,
        }
        frame::write(&mut to, &FromPuller::Get { chunk }).await?;
    }
}

/// Starts an admitted machine of this kind. Returns once it is at work.
pub(crate) async fn pest(rack: &Rack, number: u8, manner: Pest) -> Running {
    rack.admit(number, None).await;
    let mut node = build(&key(number), Some(&rack.seed.key)).unwrap();
    let server = behaviour::peer_id(&rack.seed.key).unwrap();
    let addresses: Vec<libp2p::Multiaddr> =
        rack.seed.addresses.iter().map(|address| address.parse().unwrap()).collect();
    let image = rack.image.id;
    let hello = ToServer::Hello {
        member: Member::Job(JobId(number.into())),
        image,
        addresses: vec![],
        held: ChunkSet::new(rack.image.manifest.len()),
        started: true,
        deltas: ChunkSet::new(0),
    };
    let pulled = Arc::new(AtomicU32::new(0));
    let (leases, mut leased) = mpsc::channel(64);
    let (at_work, mut ready) = mpsc::channel(1);
    let count = Arc::clone(&pulled);
    node.behaviour_mut().dial(server, addresses.clone(), Protocol::Control);
    let task = tokio::spawn(async move {
        let mut again = tokio::time::interval(Duration::from_millis(100));
        let (mut lost, mut chunk, mut streams) = (false, None, 0);
        loop {
            tokio::select! {
                _ = again.tick() => {
                    if std::mem::take(&mut lost) {
                        node.behaviour_mut().dial(server, addresses.clone(), Protocol::Control);
                    }
                    let most = if manner == Pest::ReadsSlowly { 16 } else { 1 };
                    if chunk.is_some() && streams < most {
                        streams += 1;
                        node.behaviour_mut().dial(server, addresses.clone(), Protocol::Pull);
                    }
                }
                Some(lease) = leased.recv() => { chunk.get_or_insert(lease); }
                event = node.select_next_some() => match event {
                    SwarmEvent::Behaviour(MeshEvent::Opened { stream, protocol: Protocol::Control, .. }) => {
                        let (hello, leases) = (hello.clone(), leases.clone());
                        at_work.try_send(()).ok();
                        tokio::spawn(control(stream, hello, manner, leases));
                    }
                    SwarmEvent::Behaviour(MeshEvent::Opened { stream, .. }) => {
                        if let Some(chunk) = chunk {
                            tokio::spawn(pull(stream, image, chunk, manner, Arc::clone(&count)));
                        }
                    }
                    SwarmEvent::ConnectionClosed { num_established: 0, .. }
                    | SwarmEvent::OutgoingConnectionError { .. } => lost = true,
                    _ => {}
                }
            }
        }
    });
    timeout(PATIENCE, ready.recv()).await.unwrap().unwrap();
    Running { task, pulled }
}
