//! A relay's part in the swarm of one image: fetches what its site lacks, keeps it, and serves it for as long as the
//! server names it for this site. One task, which starts again after whatever ends an attempt. Touches the chunk store,
//! and the swarm through the agent's client.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use agent::swarm::{DeltaBases, SwarmClient, SwarmConfig, SwarmEnds, SwarmEvent, VerifiedChunk};
use common::causes::with_causes;
use common::chunk::ChunkSet;
use common::deltas::DeltaTable;
use common::id::ImageId;
use common::limits::DELTA_TABLE_BYTES_MAX;
use common::line::{Class, Line};
use common::manifest::Manifest;
use common::plan::{Seed, Tuning};
use common::trust::{KeyPair, PublicKey};
use common::wire::http::{DELTAS, MANIFEST};
use common::wire::relay::{RelayImage, Trouble};
use common::wire::swarm;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::bases::KeptBases;
use super::cache::{FileCache, Wanted};
use super::chunks::{ChunkStore, ImageChunks};
use super::upstream::{Upstream, whole};

/// The pause before another attempt, after the swarm or the server ended one.
const AGAIN: Duration = Duration::from_secs(15);
/// The pause before another look for room on a full disk.
const FULL_AGAIN: Duration = Duration::from_secs(60);
/// How often a chunk that was found damaged may start an attempt anew.
const DAMAGED_AGAIN: Duration = Duration::from_secs(5);

/// What a member is to do; the server may change it at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    /// Whether what is missing is fetched; what is here is served in any case.
    pub(super) fetch: bool,
    /// The most bytes per second that fetching from the server may take; none for no bound.
    pub(super) limit: Option<u64>,
    /// The server as the swarm's first seed.
    pub(super) seed: Seed,
    /// Machines and relays of the site, which may connect although the server cannot be asked.
    pub(super) keys: Vec<PublicKey>,
    /// The images that the server names for this site: none of them is removed to make room.
    pub(super) listed: Arc<BTreeSet<ImageId>>,
}

/// A relay as the member of one image's swarm.
pub(super) struct ImageMember {
    pub(super) image: ImageId,
    /// The image's name, for log lines.
    pub(super) name: String,
    /// The relay's key in this swarm.
    pub(super) keypair: KeyPair,
    /// Where it listens, as a multiaddr.
    pub(super) listen: String,
    pub(super) store: ChunkStore,
    pub(super) cache: FileCache,
    pub(super) upstream: Upstream,
    pub(super) order: watch::Receiver<Order>,
    pub(super) status: watch::Sender<RelayImage>,
    pub(super) cancel: CancellationToken,
}

/// Why an attempt has ended.
enum Ended {
    /// The member is to stop.
    Cancelled,
    /// It can go on at once, with what has changed.
    Changed,
    /// It can be tried again after a while.
    Later(Duration),
}

/// The key pair of a relay with the key pair `relay` in the swarm of `image`: libp2p knows a node by its key, and one
/// node takes part in one image.
pub(super) fn key_of(relay: &KeyPair, image: ImageId) -> KeyPair {
    let material = [&relay.secret()[..], &image.0.0[..]].concat();
    KeyPair::from_secret(blake3::derive_key("swarmboot 2026 relay key of an image 1", &material))
}

/// What the server is told of an image that nothing has come of yet.
pub(super) fn nothing(image: ImageId, key: PublicKey) -> RelayImage {
    RelayImage { image, key, held: 0, total: 0, trouble: None }
}

impl ImageMember {
    /// Takes part until it is cancelled.
    pub(super) async fn run(mut self) {
        loop {
            let pause = match self.attempt().await {
                Ended::Cancelled => return,
                Ended::Changed => continue,
                Ended::Later(pause) => pause,
            };
            let cancel = self.cancel.clone();
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                // When the sender is gone, the member is being cancelled.
                changed = self.order.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn attempt(&mut self) -> Ended {
        let cancel = self.cancel.clone();
        let manifest = tokio::select! {
            () = cancel.cancelled() => return Ended::Cancelled,
            manifest = self.manifest() => match manifest {
                Ok(manifest) => manifest,
                Err(why) => return self.in_trouble(Trouble::Other { text: why }, AGAIN),
            },
        };
        let order = self.order.borrow_and_update().clone();
        let (store, whole, listed) = (self.store.clone(), Arc::clone(&manifest), Arc::clone(&order.listed));
        let fetch = order.fetch;
        let looked = tokio::task::spawn_blocking(move || {
            let needed = store.needed(&whole);
            let room = needed == 0 || !fetch || store.make_room(needed, &listed)?;
            Ok::<_, io::Error>((store.held(&whole), needed, room))
        });
        let (held, needed, room) = match looked.await.map_err(io::Error::other).and_then(|looked| looked) {
            Ok(looked) => looked,
            Err(error) => return self.in_trouble(Trouble::Other { text: error.to_string() }, FULL_AGAIN),
        };
        let total = u32::try_from(manifest.places().len()).unwrap_or(u32::MAX);
        let trouble = (!room).then_some(Trouble::DiskFull { needed });
        if !room {
            tracing::warn!(
                image = self.name,
                needed,
                "the cache has no room for an image, and serves what it has of it"
            );
        }
        self.status.send_modify(|status| {
            (status.held, status.total, status.trouble) = (held.count(), total, trouble);
        });
        if held.is_empty() && !room {
            return Ended::Later(FULL_AGAIN);
        }
        let (damaged, found) = watch::channel(0);
        let deltas = if order.fetch && room && needed > 0 { self.deltas(&held).await } else { None };
        let config = SwarmConfig { deltas, ..self.config(&order, &manifest, held, damaged) };
        let (client, ends) = match SwarmClient::start(config).await {
            Ok(started) => started,
            Err(error) => return self.in_trouble(Trouble::Other { text: with_causes(&error) }, AGAIN),
        };
        let line = Line::new(order.limit);
        let mut attempt = Attempt {
            member: self,
            manifest,
            client,
            line,
            paid: 0,
            fetches: fetch && room,
            whole: needed == 0,
        };
        let ended = attempt.run(ends, found, &order).await;
        attempt.client.stop().await;
        ended
    }

    fn config(
        &self,
        order: &Order,
        manifest: &Arc<Manifest>,
        held: ChunkSet,
        damaged: watch::Sender<u32>,
    ) -> SwarmConfig {
        // Under a limit, few chunks at once: each that is asked for comes at the line's full rate.
        let few = |many: u32| if order.limit.is_some() { 2 } else { many };
        let tuning = Tuning::default();
        let tuning = Tuning {
            fetch_parallel: few(tuning.fetch_parallel),
            write_backlog: few(tuning.write_backlog),
            upload_parallel: 16,
            ..tuning
        };
        let (store, chunks) = (self.store.clone(), Arc::clone(manifest));
        SwarmConfig {
            keypair: self.keypair.clone(),
            member: swarm::Member::Relay,
            image: self.image,
            manifest: Arc::clone(manifest),
            seed: order.seed.clone(),
            listen: self.listen.clone(),
            tuning,
            held,
            disk: Arc::new(ImageChunks { store, manifest: chunks, damaged }),
            deltas: None,
            keep_wire: true,
            admitted: order.keys.clone(),
            // Boot files come from the relay's own cache.
            boot_files: None,
        }
    }

    fn in_trouble(&self, trouble: Trouble, pause: Duration) -> Ended {
        if let Trouble::Other { text } = &trouble {
            tracing::warn!(image = self.name, "an image is not served for now: {text}");
        }
        self.status.send_modify(|status| status.trouble = Some(trouble));
        Ended::Later(pause)
    }

    /// What the store has of an earlier build, over which what is missing can be taken as deltas. The table is not signed,
    /// and need not be: a chunk is taken by its own hash, however it was made.
    async fn deltas(&self, held: &ChunkSet) -> Option<Arc<dyn DeltaBases>> {
        if self.store.count() < 2 {
            return None;
        }
        let answer = self.upstream.get(&format!("{DELTAS}/{}", self.image), 0).await.ok()?;
        let answer = Some(answer).filter(|answer| answer.status() == hyper::StatusCode::OK)?;
        let max = usize::try_from(DELTA_TABLE_BYTES_MAX).unwrap_or(usize::MAX);
        let table = DeltaTable::from_bytes(&whole(answer.into_body(), max).await.ok()?).ok()?;
        let (store, held) = (self.store.clone(), held.clone());
        let bases =
            tokio::task::spawn_blocking(move || KeptBases::find(&store, table, &held)).await.ok()??;
        tracing::info!(
            image = self.name,
            chunks = bases.chunks().count(),
            "an earlier build is here: only differences are fetched"
        );
        Some(Arc::new(bases))
    }

    /// The manifest, from the store or from the server.
    async fn manifest(&self) -> Result<Arc<Manifest>, String> {
        if let Some(manifest) = self.store.manifest(self.image) {
            return Ok(manifest);
        }
        let wanted = Wanted::plain(self.image.0, None, format!("{MANIFEST}/{}", self.image));
        let bytes = self.cache.read(&wanted).await.map_err(|error| with_causes(&error))?;
        let (store, image) = (self.store.clone(), self.image);
        let added = tokio::task::spawn_blocking(move || store.add(image, &bytes)).await;
        added.map_err(io::Error::other).and_then(|added| added).map_err(|error| error.to_string())
    }
}

/// One stay in the swarm.
struct Attempt<'a> {
    member: &'a mut ImageMember,
    manifest: Arc<Manifest>,
    client: SwarmClient,
    /// What the order lets it take from the server.
    line: Line,
    /// Bytes from the server that the limit has been applied to.
    paid: u64,
    /// Whether chunks are taken: there is room. While they are not, the client soon stops to ask for more.
    fetches: bool,
    whole: bool,
}

impl Attempt<'_> {
    async fn run(&mut self, ends: SwarmEnds, mut damaged: watch::Receiver<u32>, order: &Order) -> Ended {
        let SwarmEnds { mut chunks, mut events } = ends;
        let cancel = self.member.cancel.clone();
        let full = tokio::time::sleep(FULL_AGAIN);
        tokio::pin!(full);
        loop {
            let fetches = self.fetches && !self.whole;
            tokio::select! {
                () = cancel.cancelled() => return Ended::Cancelled,
                chunk = chunks.recv(), if fetches => match chunk {
                    Some(chunk) => {
                        if let Err(error) = self.keep(chunk).await {
                            self.stop_fetching(&error);
                            full.as_mut().reset(tokio::time::Instant::now() + FULL_AGAIN);
                        }
                    }
                    None => self.completed(),
                },
                event = events.recv() => match event {
                    Some(event) => if let Some(ended) = self.heard(event) { return ended },
                    None => return Ended::Later(AGAIN),
                },
                changed = self.member.order.changed() => {
                    let now = self.member.order.borrow_and_update().clone();
                    if changed.is_err() {
                        return Ended::Cancelled;
                    }
                    if (now.fetch, now.limit, &now.seed) != (order.fetch, order.limit, &order.seed) {
                        return Ended::Changed;
                    }
                }
                Ok(()) = damaged.changed() => {
                    self.look_through().await;
                    tracing::warn!(image = self.member.name, "chunks on the relay's disk were damaged, and are fetched again");
                    return Ended::Later(DAMAGED_AGAIN);
                }
                () = full.as_mut(), if order.fetch && !self.fetches => return Ended::Changed,
            }
        }
    }

    /// Keeps a chunk on the disk, and waits for as long as the limit wants.
    async fn keep(&mut self, chunk: VerifiedChunk) -> io::Result<()> {
        let (store, manifest, index) = (self.member.store.clone(), Arc::clone(&self.manifest), chunk.index());
        let kept = tokio::task::spawn_blocking(move || store.put(&manifest, chunk));
        kept.await.map_err(io::Error::other).and_then(|kept| kept)?;
        self.client.held(vec![index]).await;
        self.member.status.send_modify(|status| status.held += 1);
        let server = self.client.sources().server;
        let due = usize::try_from(server.saturating_sub(self.paid)).unwrap_or(usize::MAX);
        self.paid = server;
        tokio::select! {
            () = self.line.pass(Class::Chunks, due) => {}
            () = self.member.cancel.cancelled() => {}
        }
        Ok(())
    }

    /// Reads every chunk that is kept: those that are damaged are removed. A disk that has spoiled one has spoiled others,
    /// and they would be found one by one, by machines.
    async fn look_through(&self) {
        let (store, manifest) = (self.member.store.clone(), Arc::clone(&self.manifest));
        let read = tokio::task::spawn_blocking(move || {
            store.held(&manifest).iter().for_each(|chunk| drop(store.frame(&manifest, chunk)));
        });
        // If it panicked, chunks stay to be found when they are asked for.
        let _ = read.await;
    }

    fn stop_fetching(&mut self, error: &io::Error) {
        self.fetches = false;
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let trouble = if full {
            Trouble::DiskFull { needed: self.member.store.needed(&self.manifest) }
        } else {
            Trouble::Other { text: format!("a chunk could not be kept: {error}") }
        };
        tracing::warn!(image = self.member.name, %error, "an image is not fetched further for now");
        self.member.status.send_modify(|status| status.trouble = Some(trouble));
    }

    fn completed(&mut self) {
        self.whole = true;
        tracing::info!(image = self.member.name, "the image is here whole");
    }

    fn heard(&self, event: SwarmEvent) -> Option<Ended> {
        let image = &self.member.name;
        match event {
            SwarmEvent::Note(text) => tracing::info!(image, "{text}"),
            SwarmEvent::Corrupt { from, chunk, cause } => {
                tracing::warn!(image, from, chunk = chunk.0, cause, "a wrong chunk was refused");
            }
            SwarmEvent::Cancel(reason) => {
                tracing::info!(image, reason, "the server does not want this relay in the image's swarm");
                return Some(Ended::Later(AGAIN));
            }
            SwarmEvent::Broken(reason) => {
                return Some(self.member.in_trouble(Trouble::Other { text: reason }, AGAIN));
            }
            // A relay serves for ever, and writes nothing that an OS would want to be told.
            SwarmEvent::Welcome(_)
            | SwarmEvent::Gather { .. }
            | SwarmEvent::Start
            | SwarmEvent::Pace(_)
            | SwarmEvent::Complete
            | SwarmEvent::Release => {}
        }
        None
    }
}

#[cfg(test)]
mod tests;
