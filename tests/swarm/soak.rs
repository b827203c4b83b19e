//! Bulk in both directions between every pair of nodes, for a long time: no stream freezes. yamux 0.14 can, when both
//! ends push on one connection (rust-yamux#227); here, as in the swarm, each connection carries bulk in one direction.
//!
//! The fault occurs when a ping meets full buffers. `tests/swarm/soak` builds this with yamux's ping interval shortened
//! from 10 s to 50 ms, so that ten minutes are worth a day.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::chunk::{ChunkIndex, ChunkSet};
use common::id::{Hash, ImageId};
use common::swarm::behaviour::{MeshEvent, Protocol, build, listen, peer_id};
use common::swarm::frame;
use common::swarm::serve::{ChunkProvider, Frame, Outlet, serve};
use common::swarm::slots::Slots;
use common::trust::PublicKey;
use common::wire::swarm::{Form, FromHolder, FromPuller};
use futures::{AsyncReadExt as _, StreamExt as _};
use libp2p::swarm::SwarmEvent;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::rack::key;

/// How many nodes there are; each pulls from each other.
const NODES: u8 = 4;

/// Open requests at once, as many as an agent has at one neighbour.
const AHEAD: u32 = 4;

/// A pair without a byte for this long is frozen. Twelve streams share the processors, and a frozen one never moves.
const FROZEN: Duration = Duration::from_secs(20);

const IMAGE: ImageId = ImageId(Hash([7; 32]));

/// A provider that has every chunk of an endless image.
struct Endless(Arc<Vec<u8>>, watch::Sender<usize>);

impl ChunkProvider for Endless {
    fn open(&self, _puller: &PublicKey, _image: ImageId) -> Option<(ChunkSet, usize)> {
        Some((ChunkSet::new(1), 0))
    }
    fn since(&self, _at: usize, _most: usize) -> Vec<ChunkIndex> {
        vec![]
    }
    fn news(&self) -> watch::Receiver<usize> {
        self.1.subscribe()
    }
    fn frame(&self, _puller: &PublicKey, _image: ImageId, _chunk: ChunkIndex) -> Option<Frame> {
        Some(Frame { form: Form::Wire, bytes: Arc::clone(&self.0) })
    }
    fn sent(&self, _puller: &PublicKey, _chunk: ChunkIndex, _bytes: usize, _done: bool) {}
}

/// Requests one chunk after the other for ever, and counts the bytes that come.
async fn pull(mut stream: libp2p::Stream, came: Arc<AtomicU64>) -> Result<(), frame::BadStream> {
    frame::write(&mut stream, &FromPuller::Open { image: IMAGE }).await?;
    let (mut from, mut to) = stream.split();
    let mut next = 0;
    loop {
        while next < AHEAD {
            frame::write(&mut to, &FromPuller::Get { chunk: ChunkIndex(next) }).await?;
            next += 1;
        }
        if let FromHolder::Chunk { len, .. } = frame::read(&mut from).await? {
            let count = |bytes| {
                came.fetch_add(bytes as u64, Ordering::Relaxed);
            };
            frame::read_chunk(&mut from, len, count).await?;
            frame::write(&mut to, &FromPuller::Get { chunk: ChunkIndex(next) }).await?;
        }
    }
}

type Counts = BTreeMap<(u8, u8), Arc<AtomicU64>>;

/// Starts every node, each pulling from each other; the counts of bytes, by puller and holder.
async fn start(tasks: &mut JoinSet<String>) -> Counts {
    let mut nodes = vec![];
    for number in 1..=NODES {
        let mut node = build(&key(number), None).unwrap();
        let addresses = listen(&mut node, "/ip4/127.0.0.1/tcp/0").await.unwrap();
        let all = (1..=NODES).filter_map(|number| peer_id(&key(number).public()).ok()).collect();
        node.behaviour_mut().allow(all);
        nodes.push((number, node, addresses));
    }
    let at: Vec<_> = nodes
        .iter()
        .map(|(number, _, addresses)| (*number, peer_id(&key(*number).public()).unwrap(), addresses.clone()))
        .collect();
    let mut counts = Counts::new();
    for (number, mut node, _) in nodes {
        let mut mine = BTreeMap::new();
        for (other, peer, addresses) in at.iter().filter(|(other, ..)| *other != number) {
            node.behaviour_mut().dial(*peer, addresses.clone(), Protocol::Pull);
            mine.insert(*peer, Arc::clone(counts.entry((number, *other)).or_default()));
        }
        let provider = Arc::new(Endless(Arc::new(vec![number; 1 << 20]), watch::Sender::new(0)));
        let outlet = Outlet { slots: Slots::new(4), lines: vec![] };
        tasks.spawn(async move {
            let mut streams = JoinSet::new();
            loop {
                tokio::select! {
                    event = node.select_next_some() => match event {
                        SwarmEvent::Behaviour(MeshEvent::Opened { peer, stream, .. }) => {
                            let came = Arc::clone(&mine[&peer]);
                            streams.spawn(async move { format!("{:?}", pull(stream, came).await) });
                        }
                        SwarmEvent::Behaviour(MeshEvent::Accepted { stream, .. }) => {
                            let (provider, outlet) = (Arc::clone(&provider), outlet.clone());
                            let puller = key(number).public();
                            streams.spawn(async move { format!("{:?}", serve(stream, puller, provider, outlet).await) });
                        }
                        SwarmEvent::ConnectionClosed { cause, .. } => break format!("closed: {cause:?}"),
                        _ => {}
                    },
                    Some(ended) = streams.join_next() => break format!("a stream ended: {ended:?}"),
                }
            }
        });
    }
    counts
}

async fn soak(time: Duration) {
    let mut tasks = JoinSet::new();
    let counts = start(&mut tasks).await;
    let begun = Instant::now();
    let mut seen: BTreeMap<(u8, u8), (u64, Instant)> =
        counts.keys().map(|pair| (*pair, (0, Instant::now()))).collect();
    while begun.elapsed() < time {
        tokio::time::sleep(Duration::from_millis(500)).await;
        for (pair, came) in &counts {
            let (came, seen) = (came.load(Ordering::Relaxed), seen.get_mut(pair).unwrap());
            if came > seen.0 {
                *seen = (came, Instant::now());
            }
            let still = seen.1.elapsed();
            assert!(still < FROZEN, "{pair:?} is frozen: {came} bytes, none for {still:?}");
        }
        if let Some(ended) = tasks.try_join_next() {
            panic!("a node ended: {ended:?}");
        }
    }
    let total: u64 = counts.values().map(|came| came.load(Ordering::Relaxed)).sum();
    println!("{} pairs, {} GiB in {:?}, nothing froze", counts.len(), total >> 30, begun.elapsed());
    assert!(counts.values().all(|came| came.load(Ordering::Relaxed) > 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_both_ways_does_not_freeze() {
    soak(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes ten minutes, and is of use with a shortened ping interval: tests/swarm/soak"]
async fn bulk_both_ways_does_not_freeze_for_ten_minutes() {
    soak(Duration::from_mins(10)).await;
}
