//! A relay in the real swarm of an image: with the server's node, and a machine's agent, over the loopback.

use std::collections::HashMap;
use std::time::Duration;

use agent::swarm::HeldChunks;
use common::chunk::ChunkIndex;
use common::id::{DeploymentId, Hash, JobId};
use common::limits::CHUNK_BYTES;
use common::manifest::{Chunk, Encoding, StoredChunk};
use common::step::Sources;
use common::swarm::splitmix::SplitMix64;
use common::wire::call_home::SeedMark;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::relay::upstream::Upstream;
use crate::swarm::{Admission, ChunkSource, MachinePart, Part, SwarmHandle, bind};

const PATIENCE: Duration = Duration::from_secs(60);
const CHUNKS: u32 = 6;

/// An image whose chunks zstd halves, so that the wire form is not the raw one.
struct Image {
    manifest: Arc<Manifest>,
    raw: Vec<Vec<u8>>,
    wire: Vec<Vec<u8>>,
}

fn image() -> Arc<Image> {
    let mut random = SplitMix64::new(5);
    let chunk = |_| {
        let half = CHUNK_BYTES as usize / 2;
        let noise: Vec<u8> =
            std::iter::repeat_with(|| random.next_u64().to_le_bytes()).flatten().take(half).collect();
        [noise, vec![7; half]].concat()
    };
    let raw: Vec<Vec<u8>> = (0..CHUNKS).map(chunk).collect();
    let wire: Vec<Vec<u8>> = raw.iter().map(|raw| zstd::bulk::compress(raw, 3).unwrap()).collect();
    let stored = |(raw, wire): (&Vec<u8>, &Vec<u8>)| {
        Chunk::Stored(StoredChunk {
            raw: Hash::of(raw),
            wire: Hash::of(wire),
            wire_len: u32::try_from(wire.len()).unwrap(),
            encoding: Encoding::Zstd,
        })
    };
    let size = u64::from(CHUNKS) * u64::from(CHUNK_BYTES);
    let manifest = Manifest::new(size, 512, raw.iter().zip(&wire).map(stored).collect()).unwrap();
    Arc::new(Image { manifest: Arc::new(manifest), raw, wire })
}

impl ChunkSource for Image {
    fn manifest(&self, image: ImageId) -> Option<Arc<Manifest>> {
        (image == self.manifest.id()).then(|| Arc::clone(&self.manifest))
    }

    fn wire_chunk(&self, _: ImageId, chunk: ChunkIndex) -> io::Result<Vec<u8>> {
        Ok(self.wire[chunk.at()].clone())
    }
}

struct Bench {
    image: Arc<Image>,
    seed: Seed,
    swarm: SwarmHandle,
    power: CancellationToken,
    store: ChunkStore,
    dir: tempfile::TempDir,
}

impl Bench {
    async fn new(bytes_max: u64) -> Self {
        let (image, keys, power) = (image(), KeyPair::from_secret([7; 32]), CancellationToken::new());
        let (facts, mut told) = mpsc::channel(64);
        let node = bind(&keys, "/ip4/127.0.0.1/tcp/0", Arc::<Image>::clone(&image), facts).await.unwrap();
        let swarm = node.handle();
        let seed = Seed { key: keys.public(), addresses: swarm.addresses().to_vec() };
        tokio::spawn(node.run(power.clone()));
        tokio::spawn(async move { while told.recv().await.is_some() {} });
        let dir = tempfile::tempdir().unwrap();
        let store = ChunkStore::open(dir.path().join("images"), bytes_max).unwrap();
        store.add(image.manifest.id(), &image.manifest.to_bytes()).unwrap();
        Self { image, seed, swarm, power, store, dir }
    }

    async fn admit(&self, key: PublicKey, part: Part) {
        let (image, name, site) = (self.image.manifest.id(), key.short(), "branch".to_owned());
        self.swarm.admit(Admission { key, image, name, site, part }).await.unwrap();
    }

    /// A relay that is admitted and fetches.
    async fn relay(&self) -> Relay {
        self.admit(key_of(&KeyPair::from_secret([9; 32]), self.image.manifest.id()).public(), Part::Relay)
            .await;
        self.started(0, vec![])
    }

    /// A relay that listens on `port`, and was told of `keys`.
    fn started(&self, port: u16, keys: Vec<PublicKey>) -> Relay {
        let image = self.image.manifest.id();
        let keypair = key_of(&KeyPair::from_secret([9; 32]), image);
        let order = Order { keys, fetch: true, limit: None, seed: self.seed.clone(), listed: Arc::default() };
        let (order, orders) = watch::channel(order);
        let (status, shown) = watch::channel(nothing(image, keypair.public()));
        let cancel = CancellationToken::new();
        let upstream = Upstream::new("http://127.0.0.1:1").unwrap();
        let cache = FileCache::open(self.dir.path().join("files"), 1 << 20, upstream.clone(), cancel.clone())
            .unwrap();
        let member = ImageMember {
            image,
            name: "debian".to_owned(),
            keypair,
            listen: format!("/ip4/127.0.0.1/tcp/{port}"),
            store: self.store.clone(),
            cache,
            upstream,
            order: orders,
            status,
            cancel: cancel.clone(),
        };
        Relay { order, status: shown, cancel, task: tokio::spawn(member.run()) }
    }

    /// A machine of the site fetches the whole image; where its bytes came from.
    async fn machine(&self, number: u8) -> Machine {
        let keypair = KeyPair::from_secret([number; 32]);
        let personality = common::wire::swarm::Personality {
            hostname: "m".to_owned(),
            ssh_keys: vec![],
            user_data: None,
            instance_id: "m".to_owned(),
            confirm_url: None,
            seed_mark: SeedMark::default(),
            boot_mac: None,
            hooks: None,
        };
        let job = JobId(number.into());
        let part = MachinePart { deployment: DeploymentId(1), job, personality, gather: None };
        self.admit(keypair.public(), Part::Machine(Box::new(part))).await;
        let disk = Arc::new(Disk::default());
        let config = SwarmConfig {
            keypair,
            member: swarm::Member::Job(job),
            image: self.image.manifest.id(),
            manifest: Arc::clone(&self.image.manifest),
            seed: self.seed.clone(),
            listen: "/ip4/127.0.0.1/tcp/0".to_owned(),
            tuning: Tuning::default(),
            held: ChunkSet::new(CHUNKS),
            disk: Arc::<Disk>::clone(&disk),
            boot_files: None,
            deltas: None,
            keep_wire: false,
            admitted: vec![],
        };
        let (client, ends) = SwarmClient::start(config).await.unwrap();
        Machine { client, ends, disk }
    }
}

struct Relay {
    order: watch::Sender<Order>,
    status: watch::Receiver<RelayImage>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Relay {
    async fn shows(&mut self, fits: impl FnMut(&RelayImage) -> bool) -> RelayImage {
        timeout(PATIENCE, self.status.wait_for(fits)).await.expect("it shows that").unwrap().clone()
    }

    async fn stop(self) {
        self.cancel.cancel();
        timeout(PATIENCE, self.task).await.unwrap().unwrap();
        drop(self.order);
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
}

impl Machine {
    async fn fetch(&mut self, image: &Image) -> Sources {
        let all = async {
            while let Some(chunk) = self.ends.chunks.recv().await {
                let index = chunk.index();
                self.disk.0.lock().insert(index, chunk.bytes().to_vec());
                self.client.held(vec![index]).await;
            }
        };
        timeout(PATIENCE, all).await.expect("the image comes");
        let disk = self.disk.0.lock();
        for (at, raw) in (0..).map(ChunkIndex).zip(&image.raw) {
            assert!(disk.get(&at) == Some(raw), "chunk {}", at.0);
        }
        self.client.sources()
    }
}

/// The files of the store's chunks.
fn files(bench: &Bench) -> Vec<std::path::PathBuf> {
    let chunks = std::fs::read_dir(bench.dir.path().join("images/chunks")).unwrap();
    let files = |folder: std::fs::DirEntry| {
        std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path())
    };
    chunks.flat_map(|folder| files(folder.unwrap())).collect()
}

#[tokio::test]
async fn a_relay_takes_one_copy_keeps_it_as_it_came_and_serves_on_without_the_server() {
    let bench = Bench::new(64 << 20).await;
    let mut relay = bench.relay().await;
    let whole = relay.shows(|image| image.held == CHUNKS).await;
    assert_eq!((whole.total, whole.trouble), (CHUNKS, None));
    let kept: u64 = files(&bench).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert_eq!(kept, bench.image.manifest.wire_bytes(), "in the wire form");

    let mut first = bench.machine(1).await;
    let sources = first.fetch(&bench.image).await;
    assert_eq!(
        (sources.server_chunks, sources.peer_chunks),
        (0, CHUNKS),
        "none of it came over the line again"
    );
    let injected = bench.swarm.status().await.unwrap()[0].injected_bytes;
    assert!(injected <= bench.image.manifest.wire_bytes() * 102 / 100, "{injected}");

    // The server is lost as soon as a second machine has met the relay.
    let mut second = bench.machine(2).await;
    let chunk = timeout(PATIENCE, second.ends.chunks.recv()).await.unwrap().unwrap();
    bench.power.cancel();
    second.disk.0.lock().insert(chunk.index(), chunk.bytes().to_vec());
    second.fetch(&bench.image).await;
    relay.stop().await;
}

#[tokio::test]
async fn a_relay_goes_on_after_a_restart_where_it_was() {
    let bench = Bench::new(64 << 20).await;
    let mut relay = bench.relay().await;
    relay.shows(|image| image.held >= 2).await;
    relay.stop().await;
    let held = bench.store.held(&bench.image.manifest).count();
    assert!(held >= 2);
    let before = bench.swarm.status().await.unwrap()[0].injected_bytes;
    let mut relay = bench.relay().await;
    let begun = relay.shows(|image| image.total > 0).await;
    assert!(begun.held >= held, "{} of {held}", begun.held);
    relay.shows(|image| image.held == CHUNKS).await;
    let after = bench.swarm.status().await.unwrap()[0].injected_bytes;
    let chunk = bench.image.manifest.wire_bytes() / u64::from(CHUNKS);
    assert!(after - before <= u64::from(CHUNKS - held + 1) * chunk, "only what was missing");
    relay.stop().await;
}

#[tokio::test]
async fn a_full_disk_is_said_with_what_is_needed_and_what_is_there_is_served() {
    let bench = Bench::new(64 << 20).await;
    let mut relay = bench.relay().await;
    relay.shows(|image| image.held >= 2).await;
    relay.stop().await;
    let held = bench.store.held(&bench.image.manifest).count();
    let needed = bench.store.needed(&bench.image.manifest);
    // Opened again with room for a part of one chunk more.
    let bound = bench.image.manifest.wire_bytes() - needed + 1000;
    let small = Bench { store: ChunkStore::open(bench.dir.path().join("images"), bound).unwrap(), ..bench };
    let mut relay = small.relay().await;
    if held == CHUNKS {
        return relay.stop().await;
    }
    let full = relay.shows(|image| image.trouble.is_some()).await;
    assert_eq!((full.held, full.trouble), (held, Some(Trouble::DiskFull { needed })));
    let mut machine = small.machine(1).await;
    let sources = machine.fetch(&small.image).await;
    assert!(
        sources.peer_chunks >= held,
        "what the relay has came from it, and what it had no room for as it passed"
    );
    assert_eq!(small.store.held(&small.image.manifest).count(), held, "nothing more is kept");
    relay.stop().await;
}

#[tokio::test]
async fn a_chunk_that_was_damaged_on_the_disk_is_fetched_again() {
    let bench = Bench::new(64 << 20).await;
    let mut relay = bench.relay().await;
    relay.shows(|image| image.held == CHUNKS).await;
    for path in files(&bench) {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[9] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    // The client's cache would hide it: a relay that was started again reads the disk.
    relay.stop().await;
    let relay = bench.relay().await;
    let mut machine = bench.machine(1).await;
    machine.fetch(&bench.image).await;
    let mended = async {
        while files(&bench).iter().any(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            Hash::of(&std::fs::read(path).unwrap_or_default()).to_string() != name
        }) || bench.store.needed(&bench.image.manifest) > 0
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, mended).await.expect("every chunk is right again");
    relay.stop().await;
}

#[tokio::test]
async fn a_relay_that_is_started_again_while_the_server_is_gone_serves_whom_it_was_told_of() {
    let bench = Bench::new(64 << 20).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let key = key_of(&KeyPair::from_secret([9; 32]), bench.image.manifest.id()).public();
    bench.admit(key, Part::Relay).await;
    let mut relay = bench.started(port, vec![]);
    relay.shows(|image| image.held == CHUNKS).await;
    let mut machine = bench.machine(1).await;
    let chunk = timeout(PATIENCE, machine.ends.chunks.recv()).await.unwrap().unwrap();
    machine.disk.0.lock().insert(chunk.index(), chunk.bytes().to_vec());
    bench.power.cancel();
    relay.stop().await;
    let relay = bench.started(port, vec![KeyPair::from_secret([1; 32]).public()]);
    machine.fetch(&bench.image).await;
    relay.stop().await;
}
