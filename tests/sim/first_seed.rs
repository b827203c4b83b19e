//! The world's server: queues and permissions around the server's own image swarm. Owns who may pull which chunk, and
//! the requests of each site; its actions in the world are in `drive`. Every decision is
//! `server::swarm::image_swarm`'s.

// Its actions in the world.
mod drive;

use std::collections::{BTreeMap, HashSet, VecDeque};

use common::chunk::ChunkIndex;
use common::trust::PublicKey;
use server::swarm::image_swarm::ImageSwarm;
use server::swarm::release::Linger;

use crate::names::{IMAGE, key};

/// The server of the world.
pub(crate) struct FirstSeed {
    pub(crate) key: PublicKey,
    pub(crate) swarm: ImageSwarm,
    granted: HashSet<(usize, ChunkIndex)>,
    /// Requests by site, and how many chunks are on their way to each site.
    queues: Vec<VecDeque<(usize, ChunkIndex)>>,
    sending: Vec<usize>,
    /// Sites to which another chunk may be sent.
    ready: Vec<bool>,
    /// Bytes that went into each site, and those to each machine since the swarm was last told.
    pub(crate) served: Vec<f64>,
    progress: BTreeMap<usize, f64>,
    /// When the server is switched off, and when it is back.
    pub(crate) gone: (f64, f64),
    lives: bool,
    rng_seed: u64,
}

impl FirstSeed {
    pub(crate) fn new(sites: usize, rng_seed: u64) -> Self {
        Self {
            key: key(usize::MAX),
            swarm: ImageSwarm::new(IMAGE, Linger::default(), rng_seed),
            granted: HashSet::new(),
            queues: vec![VecDeque::new(); sites],
            sending: vec![0; sites],
            ready: vec![false; sites],
            served: vec![0.0; sites],
            progress: BTreeMap::new(),
            gone: (f64::INFINITY, f64::INFINITY),
            lives: true,
            rng_seed,
        }
    }

    pub(crate) fn lives(&self) -> bool {
        self.lives
    }

    pub(crate) fn count(&mut self, to: usize, site: usize, bytes: f64) {
        self.served[site] += bytes;
        *self.progress.entry(to).or_default() += bytes;
    }

    /// The machines with an open request.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = usize> {
        self.queues.iter().flatten().map(|(to, _)| *to)
    }

    pub(crate) fn asked(&mut self, site: usize, by: usize, chunk: ChunkIndex) {
        self.queues[site].push_back((by, chunk));
        self.ready[site] = true;
    }

    pub(crate) fn retain(&mut self, site: usize, keep: impl Fn(&(usize, ChunkIndex)) -> bool) {
        self.queues[site].retain(keep);
    }

    pub(crate) fn free(&mut self, site: usize) {
        self.sending[site] -= 1;
        self.ready[site] = true;
    }
}
