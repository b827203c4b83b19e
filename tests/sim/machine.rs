//! The machines of the world: lines and a disk around the agent's own session. Owns each machine's session, the chunks
//! it holds, and the machines it sends to; its actions in the world are in `drive`. Every decision is
//! `agent::swarm::session`'s.

// Its actions in the world.
mod drive;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use agent::swarm::session::{Dial, Load, Session, SessionConfig};
use common::chunk::{ChunkIndex, ChunkSet};
use common::plan::Tuning;
use common::swarm::behaviour::Protocol;
use common::swarm::splitmix::SplitMix64;
use common::trust::PublicKey;
use common::wire::swarm::Member;

use crate::lines::Holder;
use crate::names::{IMAGE, full, job};
use crate::spec::{Fate, Spec};

/// One machine of the world.
pub(crate) struct Machine {
    pub(crate) spec: Spec,
    pub(crate) key: PublicKey,
    pub(crate) session: Session,
    config: SessionConfig,
    /// The chunks on its disk, and those of them that came from an honest sender.
    pub(crate) held: ChunkSet,
    pub(crate) right: ChunkSet,
    pub(crate) here: bool,
    pub(crate) done: Option<f64>,
    /// Whether it need not serve any longer.
    released: bool,
    stalled: bool,
    pub(crate) life: Life,
}

/// The state that is lost when a machine is switched off.
#[derive(Default)]
pub(crate) struct Life {
    began: f64,
    /// Its open dials: to whom, and for which protocol.
    dials: BTreeMap<Dial, (Holder, Protocol)>,
    /// The keys that it admits, and the machines that pull from it.
    allowed: BTreeSet<PublicKey>,
    pullers: BTreeSet<usize>,
    queue: VecDeque<(usize, ChunkIndex)>,
    pub(crate) uploading: Vec<usize>,
    slots: usize,
    pub(crate) uploaded: f64,
    pub(crate) news: Vec<ChunkIndex>,
    pub(crate) next_news: f64,
    /// How many chunks are arriving here, as its neighbours were last told.
    pub(crate) coming: u32,
    /// Whether they are to be told again, and the earliest time for that.
    pub(crate) counting: bool,
    pub(crate) next_count: f64,
}

impl Machine {
    pub(crate) fn new(number: usize, spec: Spec, keys: [PublicKey; 2], chunks: u32, rng_seed: u64) -> Self {
        let [own, seed] = keys;
        let tuning = Tuning::default();
        // Addresses mean nothing here: the other end of a dial is found by its key.
        let address = "/ip4/10.0.0.1/tcp/4001";
        let config = SessionConfig {
            own,
            seed,
            seed_addresses: Vec::from_iter(address.parse()),
            listening: vec![address.to_owned()],
            member: Member::Job(job(number)),
            image: IMAGE,
            wanted: full(chunks),
            deltas: ChunkSet::new(0),
            fetch_parallel: tuning.fetch_parallel as usize,
            upload_parallel: tuning.upload_parallel as usize,
            write_backlog: tuning.write_backlog as usize,
            cores: 1,
            rng_seed,
        };
        Self {
            spec,
            key: own,
            session: Session::new(config.clone()),
            config,
            held: ChunkSet::new(chunks),
            right: ChunkSet::new(chunks),
            here: false,
            done: None,
            released: false,
            stalled: false,
            life: Life::default(),
        }
    }

    pub(crate) fn lies(&self) -> bool {
        self.spec.fate == Fate::Liar
    }

    /// Restarts the process, with nothing but the chunks on the disk.
    fn start_again(&mut self, now: f64) {
        self.config.rng_seed = SplitMix64::new(self.config.rng_seed).next_u64();
        self.session = Session::new(self.config.clone());
        self.life = Life { began: now, slots: self.config.upload_parallel, ..Life::default() };
        self.here = true;
    }

    fn load(&self) -> Load {
        let Life { uploaded, uploading, .. } = &self.life;
        Load { uploaded: *uploaded as u64, sending: !uploading.is_empty(), cpu: Duration::ZERO }
    }

    /// Its last dial to `holder` for `protocol`.
    fn dial(&self, holder: Holder, protocol: Protocol) -> Option<Dial> {
        let dials = self.life.dials.iter();
        dials.rev().find(|(_, other)| **other == (holder, protocol)).map(|(dial, _)| *dial)
    }
}
