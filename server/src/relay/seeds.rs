//! Which images a relay takes part in, and with which orders: one member for each image that the server names for its
//! site, each on a port of its own. Touches the members' tasks and the chunk store.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use common::id::ImageId;
use common::limits::RELAY_IMAGES_MAX;
use common::plan::Seed;
use common::trust::{KeyPair, PublicKey};
use common::wire::relay::{RelayImage, SiteImage, SiteWork};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::cache::FileCache;
use super::chunks::ChunkStore;
use super::member::{ImageMember, Order, key_of, nothing};
use super::site::Site;
use super::upstream::Upstream;

/// What members are made with.
pub(super) struct Seeds {
    pub(super) keys: KeyPair,
    /// The server's key.
    pub(super) server: PublicKey,
    /// The address that members listen on, and the first of their ports.
    pub(super) listen: (Ipv4Addr, u16),
    pub(super) store: ChunkStore,
    pub(super) cache: FileCache,
    pub(super) upstream: Upstream,
    pub(super) site: watch::Receiver<Arc<Site>>,
    /// How far each image has come, for the server.
    pub(super) images: watch::Sender<Vec<RelayImage>>,
}

/// A member that runs.
struct Running {
    port: u16,
    order: watch::Sender<Order>,
    status: watch::Receiver<RelayImage>,
    cancel: CancellationToken,
}

impl Seeds {
    /// Runs until `cancel`; every member has ended when it returns.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let (mut running, mut tasks) = (BTreeMap::new(), JoinSet::new());
        let (news, mut progress) = watch::channel(());
        loop {
            let site = Arc::clone(&self.site.borrow_and_update());
            if let Some(work) = site.work() {
                self.heed(work, &mut running, &mut tasks, &news, &cancel);
            }
            self.tell(&site, &running);
            tokio::select! {
                () = cancel.cancelled() => break,
                changed = self.site.changed() => if changed.is_err() { break },
                Ok(()) = progress.changed() => {}
                Some(_) = tasks.join_next() => {}
            }
        }
        cancel.cancel();
        while tasks.join_next().await.is_some() {}
    }

    /// Starts members for images that are new, changes the orders of others, and ends those that are not wanted.
    fn heed(
        &self,
        work: &SiteWork,
        running: &mut BTreeMap<ImageId, Running>,
        tasks: &mut JoinSet<()>,
        news: &watch::Sender<()>,
        cancel: &CancellationToken,
    ) {
        let listed: Arc<BTreeSet<ImageId>> = Arc::new(work.images.iter().map(|image| image.image).collect());
        let wanted: BTreeSet<ImageId> = work
            .images
            .iter()
            .filter(|image| self.takes_part(image))
            .take(RELAY_IMAGES_MAX)
            .map(|image| image.image)
            .collect();
        running.retain(|image, member| {
            let stays = wanted.contains(image);
            if !stays {
                tracing::info!(%image, "the server does not name the image for this site any more: it is not served");
                member.cancel.cancel();
            }
            stays
        });
        for image in work.images.iter().filter(|image| wanted.contains(&image.image)) {
            let order = Order {
                fetch: image.stage.as_ref().is_none_or(|stage| stage.due),
                limit: image.stage.as_ref().and_then(|stage| stage.limit),
                seed: Seed { key: self.server, addresses: work.seeds.clone() },
                keys: image.keys.clone(),
                listed: Arc::clone(&listed),
            };
            match running.get(&image.image) {
                Some(member) => drop(member.order.send_if_modified(|last| {
                    let news = *last != order;
                    *last = order;
                    news
                })),
                None => {
                    let Some(port) = self.free_port(running) else { continue };
                    let started = self.start(image, port, order, tasks, news, cancel.child_token());
                    running.insert(image.image, started);
                }
            }
        }
    }

    /// Whether the image is fetched or served now: its time has come, machines take it, or some of it is here.
    fn takes_part(&self, image: &SiteImage) -> bool {
        let due = image.stage.as_ref().is_none_or(|stage| stage.due);
        due || self.store.manifest(image.image).is_some_and(|manifest| !self.store.held(&manifest).is_empty())
    }

    fn free_port(&self, running: &BTreeMap<ImageId, Running>) -> Option<u16> {
        let taken: BTreeSet<u16> = running.values().map(|member| member.port).collect();
        (self.listen.1..=u16::MAX).find(|port| !taken.contains(port))
    }

    fn start(
        &self,
        image: &SiteImage,
        port: u16,
        order: Order,
        tasks: &mut JoinSet<()>,
        news: &watch::Sender<()>,
        cancel: CancellationToken,
    ) -> Running {
        let keypair = key_of(&self.keys, image.image);
        let (status, shown) = watch::channel(nothing(image.image, keypair.public()));
        let (orders, order) = watch::channel(order);
        let member = ImageMember {
            image: image.image,
            name: image.name.clone(),
            keypair,
            listen: format!("/ip4/{}/tcp/{port}", self.listen.0),
            store: self.store.clone(),
            cache: self.cache.clone(),
            upstream: self.upstream.clone(),
            order,
            status,
            cancel: cancel.clone(),
        };
        tracing::info!(
            image = image.name,
            port,
            staged = image.stage.is_some(),
            "takes part in the image's swarm"
        );
        tasks.spawn(member.run());
        let (mut progress, news) = (shown.clone(), news.clone());
        tasks.spawn(async move {
            while progress.changed().await.is_ok() {
                news.send_replace(());
            }
        });
        Running { port, order: orders, status: shown, cancel }
    }

    /// Tells the server of all images: those that run, and those whose time has not come.
    fn tell(&self, site: &Site, running: &BTreeMap<ImageId, Running>) {
        let listed = site.work().map(|work| work.images.as_slice()).unwrap_or_default();
        let status = |image: &SiteImage| match running.get(&image.image) {
            Some(member) => member.status.borrow().clone(),
            None => nothing(image.image, key_of(&self.keys, image.image).public()),
        };
        let images: Vec<RelayImage> = listed.iter().take(RELAY_IMAGES_MAX).map(status).collect();
        self.images.send_if_modified(|last| {
            let news = *last != images;
            *last = images;
            news
        });
    }
}
