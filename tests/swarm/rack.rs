//! A rack in one process: the server's node over an image in memory, and agents with targets in memory.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::swarm::{HeldChunks, SwarmClient, SwarmConfig, SwarmEnds, SwarmEvent};
use common::chunk::{ChunkIndex, ChunkSet};
use common::id::{DeploymentId, Hash, ImageId, JobId};
use common::limits::CHUNK_BYTES;
use common::manifest::{Chunk, Encoding, Manifest, StoredChunk};
use common::plan::{Seed, Tuning};
use common::swarm::splitmix::SplitMix64;
use common::trust::KeyPair;
use common::wire::swarm::{Form, Member, Personality};
use server::swarm::{
    Admission, Bound, ChunkSource, Gather, MachinePart, Part, Party, SwarmFact, SwarmHandle, bind,
};
use server::traffic::{LimitOrder, Traffic};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The timeout of every wait, long enough for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) const ANY: &str = "/ip4/127.0.0.1/tcp/0";

/// An image in memory: its manifest, its bytes, and the wire form of its chunks.
pub(crate) struct Image {
    pub(crate) id: ImageId,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) raw: Vec<u8>,
}

/// An image of `chunks` random chunks, the last one of `last` bytes.
pub(crate) fn image(seed: u64, chunks: u32, last: u32) -> Arc<Image> {
    let mut rng = SplitMix64::new(seed);
    let len = (chunks as usize - 1) * CHUNK_BYTES as usize + last as usize;
    let raw: Vec<u8> = std::iter::repeat_with(|| rng.next_u64().to_le_bytes()).flatten().take(len).collect();
    let entries = raw.chunks(CHUNK_BYTES as usize).map(|bytes| {
        let hash = Hash::of(bytes);
        let wire_len = u32::try_from(bytes.len()).unwrap();
        Chunk::Stored(StoredChunk { raw: hash, wire: hash, wire_len, encoding: Encoding::Raw })
    });
    let manifest = Manifest::new(raw.len() as u64, 512, entries.collect()).unwrap();
    Arc::new(Image { id: manifest.id(), manifest: Arc::new(manifest), raw })
}

impl Image {
    pub(crate) fn chunk(&self, chunk: ChunkIndex) -> &[u8] {
        let start = chunk.at() * CHUNK_BYTES as usize;
        &self.raw[start..start + self.manifest.raw_len(chunk) as usize]
    }
}

struct Images {
    image: Arc<Image>,
    /// Chunks that the store cannot read.
    rotten: Rotten,
}

type Rotten = Arc<Mutex<HashSet<ChunkIndex>>>;

impl ChunkSource for Images {
    fn manifest(&self, image: ImageId) -> Option<Arc<Manifest>> {
        (image == self.image.id).then(|| Arc::clone(&self.image.manifest))
    }
    fn wire_chunk(&self, _image: ImageId, chunk: ChunkIndex) -> io::Result<Vec<u8>> {
        if self.rotten.lock().unwrap().contains(&chunk) {
            return Err(io::Error::other("rotten"));
        }
        Ok(self.image.chunk(chunk).to_vec())
    }
    fn mend_with(&self, _image: ImageId, chunk: ChunkIndex, _form: Form, bytes: Vec<u8>) -> io::Result<()> {
        if bytes != self.image.chunk(chunk) {
            return Err(io::Error::other("another chunk"));
        }
        self.rotten.lock().unwrap().remove(&chunk);
        Ok(())
    }
}

/// The key of the machine with this number.
pub(crate) fn key(number: u8) -> KeyPair {
    KeyPair::from_secret([number; 32])
}

struct Running {
    cancel: CancellationToken,
    task: JoinHandle<()>,
    handle: SwarmHandle,
}

/// The server's node and its image.
pub(crate) struct Rack {
    pub(crate) image: Arc<Image>,
    pub(crate) seed: Seed,
    running: Mutex<Option<Running>>,
    facts: Arc<Mutex<Vec<SwarmFact>>>,
    rotten: Rotten,
    traffic: Traffic,
}

async fn bound(
    image: &Arc<Image>,
    address: &str,
    facts: &Arc<Mutex<Vec<SwarmFact>>>,
    rotten: &Rotten,
) -> Bound {
    let (sender, mut receiver) = mpsc::channel(64);
    let kept = Arc::clone(facts);
    tokio::spawn(async move {
        while let Some(fact) = receiver.recv().await {
            kept.lock().unwrap().push(fact);
        }
    });
    let images = Images { image: Arc::clone(image), rotten: Arc::clone(rotten) };
    bind(&key(200), address, Arc::new(images), sender).await.unwrap()
}

fn run(bound: Bound) -> Running {
    let (cancel, handle) = (CancellationToken::new(), bound.handle());
    let task = tokio::spawn(bound.run(cancel.clone()));
    Running { cancel, task, handle }
}

impl Rack {
    pub(crate) async fn start(image: Arc<Image>) -> Self {
        let (facts, rotten) = (Arc::default(), Rotten::default());
        let traffic = Traffic::default();
        let bound = bound(&image, ANY, &facts, &rotten).await.with_traffic(traffic.clone());
        let addresses = bound.handle().addresses().to_vec();
        let seed = Seed { key: key(200).public(), addresses };
        Self { image, seed, running: Mutex::new(Some(run(bound))), facts, rotten, traffic }
    }

    pub(crate) async fn kill_server(&self) {
        let running = self.running.lock().unwrap().take().unwrap();
        running.cancel.cancel();
        running.task.await.unwrap();
    }

    pub(crate) async fn restart_server(&mut self) {
        let bound = bound(&self.image, &self.seed.addresses[0], &self.facts, &self.rotten).await;
        let bound = bound.with_traffic(self.traffic.clone());
        *self.running.lock().unwrap() = Some(run(bound));
    }

    fn handle(&self) -> SwarmHandle {
        self.running.lock().unwrap().as_ref().unwrap().handle.clone()
    }

    /// Makes this chunk unreadable in the store from now on.
    pub(crate) fn rot(&self, chunk: u32) {
        self.rotten.lock().unwrap().insert(ChunkIndex(chunk));
    }

    /// How many chunks the store cannot read.
    pub(crate) fn rotten(&self) -> usize {
        self.rotten.lock().unwrap().len()
    }

    /// Waits for a fact, unless it has come already.
    pub(crate) async fn hears(&self, wanted: impl Fn(&SwarmFact) -> bool) {
        let found = async {
            while !self.facts.lock().unwrap().iter().any(&wanted) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let found = timeout(PATIENCE, found).await;
        assert!(found.is_ok(), "not heard: {:?}", self.facts.lock().unwrap());
    }

    /// How many facts of a kind have come.
    pub(crate) fn count(&self, wanted: impl Fn(&SwarmFact) -> bool) -> usize {
        self.facts.lock().unwrap().iter().filter(|fact| wanted(fact)).count()
    }

    /// How long the server takes to answer a status request.
    pub(crate) async fn answers(&self) -> Duration {
        let begun = std::time::Instant::now();
        self.handle().status().await.unwrap();
        begun.elapsed()
    }

    pub(crate) async fn admit(&self, number: u8, wanted: Option<u32>) {
        self.admit_at(number, wanted, "lab").await;
    }

    pub(crate) async fn admit_at(&self, number: u8, wanted: Option<u32>, site: &str) {
        let name = format!("machine-{number}");
        let personality = Personality {
            hostname: name.clone(),
            ssh_keys: vec![],
            user_data: None,
            instance_id: name.clone(),
            confirm_url: None,
            seed_mark: common::wire::call_home::SeedMark::default(),
            boot_mac: None,
            hooks: None,
        };
        let admission = Admission {
            key: key(number).public(),
            image: self.image.id,
            name,
            site: site.to_owned(),
            part: Part::Machine(Box::new(MachinePart {
                deployment: DeploymentId(1),
                job: JobId(number.into()),
                personality,
                gather: wanted.map(|wanted| Gather { wanted, seconds: 60 }),
            })),
        };
        self.handle().admit(admission).await.unwrap();
    }

    pub(crate) async fn expel(&self, number: u8, reason: &str) {
        self.handle().expel(key(number).public(), Some(reason.to_owned())).await.unwrap();
    }

    /// Limits what is sent into the machines' site, or all that the server sends.
    pub(crate) fn limit(&self, site: bool, rate: Option<&str>) {
        let rate = rate.map(|rate| rate.parse().unwrap());
        let order = LimitOrder { site: site.then(|| "lab".to_owned()), rate };
        self.traffic.limit(order);
    }

    /// How many copies of the image have left the server.
    pub(crate) async fn copies(&self) -> f64 {
        // The last bytes sent are counted at the next tick.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let status = self.handle().status().await.unwrap();
        let of = |bytes: u64| f64::from(u32::try_from(bytes / 1024).unwrap());
        of(status[0].injected_bytes) / of(status[0].wire_bytes)
    }

    pub(crate) async fn accused(&self, number: u8) -> bool {
        let guilty = |fact: &SwarmFact| matches!(fact, SwarmFact::Corrupt { from, .. } if *from == Some(Party::Job(JobId(number.into()))));
        let found = async {
            while !self.facts.lock().unwrap().iter().any(guilty) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, found).await.is_ok()
    }

    pub(crate) async fn stop(&self, machines: Vec<Machine>) {
        for machine in machines {
            timeout(PATIENCE, machine.client.stop()).await.unwrap();
        }
        timeout(PATIENCE, self.kill_server()).await.unwrap();
    }
}

/// A target in memory: the chunks that were written.
#[derive(Default)]
struct Target(Mutex<HashMap<ChunkIndex, Vec<u8>>>);

impl HeldChunks for Target {
    fn read(&self, chunk: ChunkIndex) -> io::Result<Vec<u8>> {
        self.0.lock().unwrap().get(&chunk).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// An agent's client, its channels and its target.
pub(crate) struct Machine {
    pub(crate) client: SwarmClient,
    ends: SwarmEnds,
    target: Arc<Target>,
    heard: Vec<SwarmEvent>,
    pause: Duration,
}

impl Machine {
    pub(crate) async fn start(rack: &Rack, number: u8, gather: Option<u32>) -> Self {
        rack.admit(number, gather).await;
        Self::start_unknown(rack, number).await
    }

    /// Starts one whose disk takes `pause` for each chunk.
    pub(crate) async fn start_slow(rack: &Rack, number: u8, pause: Duration) -> Self {
        let mut machine = Self::start(rack, number, None).await;
        machine.pause = pause;
        machine
    }

    /// Starts one that the server was not told of.
    pub(crate) async fn start_unknown(rack: &Rack, number: u8) -> Self {
        let target = Arc::new(Target::default());
        // So little memory that chunks are also served from the target.
        let tuning = Tuning { cache_bytes: 8 << 20, write_backlog: 4, ..Tuning::default() };
        let config = SwarmConfig {
            keypair: key(number),
            member: Member::Job(JobId(number.into())),
            image: rack.image.id,
            manifest: Arc::clone(&rack.image.manifest),
            seed: rack.seed.clone(),
            listen: ANY.to_owned(),
            tuning,
            held: ChunkSet::new(rack.image.manifest.len()),
            disk: Arc::<Target>::clone(&target),
            keep_wire: false,
            admitted: vec![],
            boot_files: None,
            deltas: None,
        };
        let (client, ends) = SwarmClient::start(config).await.unwrap();
        Self { client, ends, target, heard: vec![], pause: Duration::ZERO }
    }

    /// Writes up to `most` chunks.
    pub(crate) async fn chunks(&mut self, most: usize) {
        for _ in 0..most {
            let Some(chunk) = timeout(PATIENCE, self.ends.chunks.recv()).await.unwrap() else { return };
            tokio::time::sleep(self.pause).await;
            let index = chunk.index();
            let old = self.target.0.lock().unwrap().insert(index, chunk.bytes().to_vec());
            assert!(old.is_none(), "each chunk comes once");
            self.client.held(vec![index]).await;
        }
    }

    /// Writes all chunks and compares them with the image.
    pub(crate) async fn finish(&mut self, rack: &Rack) {
        self.chunks(usize::MAX).await;
        self.hears(|event| *event == SwarmEvent::Complete).await;
        let target = self.target.0.lock().unwrap();
        for (index, _) in rack.image.manifest.iter() {
            assert!(target[&index] == rack.image.chunk(index), "chunk {index:?}");
        }
    }

    /// The events that have come so far.
    pub(crate) fn heard(&mut self) -> &[SwarmEvent] {
        while let Ok(event) = self.ends.events.try_recv() {
            self.heard.push(event);
        }
        &self.heard
    }

    /// Waits for an event, unless it has come already.
    pub(crate) async fn hears(&mut self, wanted: impl Fn(&SwarmEvent) -> bool) {
        let hearing = async {
            while !self.heard.iter().any(&wanted) {
                let event = self.ends.events.recv().await;
                self.heard.push(event.expect("the swarm goes on"));
            }
        };
        timeout(PATIENCE, hearing).await.unwrap_or_else(|_| panic!("not heard"));
    }
}
