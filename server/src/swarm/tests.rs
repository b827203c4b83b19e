//! A rebuilt image over the real swarm: the server's node, machines that hold the earlier build, and others that do not.
//! Touches ports of the loopback.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use agent::swarm::{DeltaBases, HeldChunks, SwarmClient, SwarmConfig, SwarmEnds, SwarmEvent};
use common::chunk::{ChunkIndex, ChunkSet};
use common::deltas::{Delta, DeltaSet, encode};
use common::id::{DeploymentId, Hash, ImageId, JobId};
use common::limits::CHUNK_BYTES;
use common::manifest::{Chunk, Encoding, Manifest, StoredChunk};
use common::plan::{Seed, Tuning};
use common::swarm::splitmix::SplitMix64;
use common::trust::KeyPair;
use common::wire::call_home::SeedMark;
use common::wire::swarm::{Member, Personality};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Admission, ChunkSource, MachinePart, Part, SwarmHandle, bind};

const PATIENCE: Duration = Duration::from_secs(60);
const CHUNKS: u32 = 4;

/// An image of which each chunk is one of an earlier build with some bytes changed, and so has a small delta.
struct Image {
    manifest: Arc<Manifest>,
    old: Vec<Vec<u8>>,
    raw: Vec<Vec<u8>>,
    deltas: Vec<Vec<u8>>,
    /// A chunk whose delta the store has lost.
    lost: Option<ChunkIndex>,
}

fn image(lost: Option<ChunkIndex>) -> Arc<Image> {
    let mut random = SplitMix64::new(5);
    let noise = |_| (0..CHUNK_BYTES / 8).flat_map(|_| random.next_u64().to_le_bytes()).collect();
    let old: Vec<Vec<u8>> = (0..CHUNKS).map(noise).collect();
    let changed = |old: &Vec<u8>| [&[7; 500], &old[500..]].concat();
    let raw: Vec<Vec<u8>> = old.iter().map(changed).collect();
    let deltas = raw.iter().zip(&old).map(|(raw, old)| encode(raw, old, 3).unwrap()).collect();
    let stored = |raw: &Vec<u8>| {
        let (raw, wire_len) = (Hash::of(raw), CHUNK_BYTES);
        Chunk::Stored(StoredChunk { raw, wire: raw, wire_len, encoding: Encoding::Raw })
    };
    let size = u64::from(CHUNKS) * u64::from(CHUNK_BYTES);
    let manifest = Arc::new(Manifest::new(size, 512, raw.iter().map(stored).collect()).unwrap());
    Arc::new(Image { manifest, old, raw, deltas, lost })
}

impl ChunkSource for Image {
    fn manifest(&self, image: ImageId) -> Option<Arc<Manifest>> {
        (image == self.manifest.id()).then(|| Arc::clone(&self.manifest))
    }

    fn wire_chunk(&self, _: ImageId, chunk: ChunkIndex) -> io::Result<Vec<u8>> {
        Ok(self.raw[chunk.at()].clone())
    }

    fn delta(&self, _: ImageId, chunk: ChunkIndex, delta: Hash) -> Option<Vec<u8>> {
        let frame = &self.deltas[chunk.at()];
        (self.lost != Some(chunk) && Hash::of(frame) == delta).then(|| frame.clone())
    }
}

/// The earlier build as a machine holds it, of which one chunk turns out to be another one.
struct Bases {
    image: Arc<Image>,
    set: DeltaSet,
    decoding: Mutex<()>,
    open: Mutex<BTreeSet<ChunkIndex>>,
    changed: Option<ChunkIndex>,
}

impl DeltaBases for Bases {
    fn chunks(&self) -> ChunkSet {
        let mut chunks = ChunkSet::new(CHUNKS);
        self.open.lock().iter().for_each(|chunk| {
            chunks.insert(*chunk);
        });
        chunks
    }

    fn usable(&self, chunk: ChunkIndex) -> Option<Hash> {
        self.open.lock().contains(&chunk).then(|| Hash::of(&self.image.deltas[chunk.at()]))
    }

    fn set(&self) -> &DeltaSet {
        &self.set
    }

    fn base(&self, number: u32) -> Result<Vec<u8>, String> {
        if self.changed == Some(ChunkIndex(number)) {
            return Err("the earlier build is changed".to_owned());
        }
        Ok(self.image.old[ChunkIndex(number).at()].clone())
    }

    fn decoding(&self) -> &Mutex<()> {
        &self.decoding
    }

    fn refuse(&self, chunk: ChunkIndex) {
        self.open.lock().remove(&chunk);
    }
}

/// The server's node over an image.
struct Server {
    image: Arc<Image>,
    seed: Seed,
    swarm: SwarmHandle,
    power: CancellationToken,
}

impl Server {
    async fn start(image: Arc<Image>) -> Self {
        let (keys, power) = (KeyPair::from_secret([7; 32]), CancellationToken::new());
        let (facts, mut told) = mpsc::channel(64);
        let node = bind(&keys, "/ip4/127.0.0.1/tcp/0", Arc::<Image>::clone(&image), facts).await.unwrap();
        let swarm = node.handle();
        let seed = Seed { key: keys.public(), addresses: swarm.addresses().to_vec() };
        tokio::spawn(node.run(power.clone()));
        tokio::spawn(async move { while told.recv().await.is_some() {} });
        Self { image, seed, swarm, power }
    }

    /// The deltas of a machine that holds the earlier build.
    fn bases(&self, changed: Option<ChunkIndex>) -> Option<Arc<dyn DeltaBases>> {
        let open = Mutex::new((0..CHUNKS).map(ChunkIndex).collect());
        let delta = |number: u32| {
            let frame = &self.image.deltas[ChunkIndex(number).at()];
            let wire_len = u32::try_from(frame.len()).unwrap();
            (ChunkIndex(number), Delta { wire: Hash::of(frame), wire_len, bases: vec![number] })
        };
        let from = ImageId(Hash([1; 32]));
        let set = DeltaSet { from, bases: vec![], deltas: (0..CHUNKS).map(delta).collect() };
        Some(Arc::new(Bases {
            image: Arc::clone(&self.image),
            set,
            decoding: Mutex::default(),
            open,
            changed,
        }))
    }

    async fn machine(&self, number: u8, deltas: Option<Arc<dyn DeltaBases>>) -> Machine {
        let (keypair, job) = (KeyPair::from_secret([number; 32]), JobId(number.into()));
        let personality = Personality {
            hostname: "m".to_owned(),
            ssh_keys: vec![],
            user_data: None,
            instance_id: "m".to_owned(),
            confirm_url: None,
            seed_mark: SeedMark::default(),
            boot_mac: None,
            hooks: None,
        };
        let part = MachinePart { deployment: DeploymentId(1), job, personality, gather: None };
        let (key, image, name) = (keypair.public(), self.image.manifest.id(), format!("m{number}"));
        let part = Part::Machine(Box::new(part));
        self.swarm.admit(Admission { key, image, name, site: "lab".to_owned(), part }).await.unwrap();
        let disk = Arc::new(Disk::default());
        let config = SwarmConfig {
            keypair,
            member: Member::Job(job),
            image,
            manifest: Arc::clone(&self.image.manifest),
            seed: self.seed.clone(),
            listen: "/ip4/127.0.0.1/tcp/0".to_owned(),
            tuning: Tuning::default(),
            held: ChunkSet::new(CHUNKS),
            disk: Arc::<Disk>::clone(&disk),
            keep_wire: false,
            admitted: vec![],
            boot_files: None,
            deltas,
        };
        let (client, ends) = SwarmClient::start(config).await.unwrap();
        Machine { client, ends, disk, heard: vec![] }
    }
}

#[derive(Default)]
struct Disk(Mutex<HashMap<ChunkIndex, Vec<u8>>>);

impl HeldChunks for Disk {
    fn read(&self, chunk: ChunkIndex) -> io::Result<Vec<u8>> {
        self.0.lock().get(&chunk).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

struct Machine {
    client: SwarmClient,
    ends: SwarmEnds,
    disk: Arc<Disk>,
    heard: Vec<SwarmEvent>,
}

impl Machine {
    /// Takes every chunk and compares it with the image; how many bytes came from the server, and how many from peers.
    async fn fetch(&mut self, image: &Image) -> (u64, u64) {
        let all = async {
            while !self.heard.contains(&SwarmEvent::Complete) {
                tokio::select! {
                    Some(chunk) = self.ends.chunks.recv() => {
                        let index = chunk.index();
                        assert!(chunk.bytes() == image.raw[index.at()], "chunk {}", index.0);
                        self.disk.0.lock().insert(index, chunk.bytes().to_vec());
                        self.client.held(vec![index]).await;
                    }
                    Some(event) = self.ends.events.recv() => self.heard.push(event),
                }
            }
        };
        timeout(PATIENCE, all).await.expect("it has all chunks");
        while let Ok(chunk) = self.ends.chunks.try_recv() {
            self.disk.0.lock().insert(chunk.index(), chunk.bytes().to_vec());
        }
        assert_eq!(self.disk.0.lock().len(), CHUNKS as usize, "each was handed over to be written");
        let sources = self.client.sources();
        (sources.server, sources.peers)
    }

    /// How many notes for the log have these words.
    fn notes(&self, words: &str) -> usize {
        let has = |event: &&SwarmEvent| matches!(event, SwarmEvent::Note(text) if text.contains(words));
        self.heard.iter().filter(has).count()
    }

    fn blames_somebody(&self) -> bool {
        self.heard.iter().any(|event| matches!(event, SwarmEvent::Corrupt { .. }))
    }
}

#[tokio::test]
async fn who_holds_the_earlier_build_is_sent_deltas_and_gives_others_whole_chunks() {
    let server = Server::start(image(None)).await;
    let deltas: u64 = server.image.deltas.iter().map(|frame| frame.len() as u64).sum();
    assert!(deltas < 10_000, "{deltas}");
    let mut first = server.machine(1, server.bases(None)).await;
    assert_eq!(first.fetch(&server.image).await, (deltas, 0));
    let mut second = server.machine(2, None).await;
    let (_, from_peers) = second.fetch(&server.image).await;
    assert!(from_peers >= u64::from(CHUNK_BYTES), "{from_peers}: it takes them from the first");
    assert!(!first.blames_somebody() && !second.blames_somebody(), "{:?}", second.heard);
    server.power.cancel();
}

#[tokio::test]
async fn a_chunk_whose_delta_is_of_no_use_comes_whole_and_nobody_is_blamed() {
    let one = Some(ChunkIndex(2));
    // What the machine holds is changed, or the server's delta is damaged.
    for (changed, lost, noted) in [(one, None, 1), (None, one, 0)] {
        let server = Server::start(image(lost)).await;
        let mut machine = server.machine(1, server.bases(changed)).await;
        let (from_server, _) = machine.fetch(&server.image).await;
        let whole = u64::from(CHUNK_BYTES);
        assert!((whole..whole + 10_000).contains(&from_server), "{from_server}");
        assert!(!machine.blames_somebody(), "{:?}", machine.heard);
        assert_eq!(machine.notes("fetched whole"), noted, "{:?}", machine.heard);
        server.power.cancel();
    }
}
