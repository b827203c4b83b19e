//! Messages on their way between machines and server, and other things that will happen at a time, such as the end of a
//! chunk. They take no bandwidth. Owns their order: by time, then by when they were sent.

use std::collections::BTreeMap;

use agent::swarm::session::Dial;
use common::chunk::ChunkIndex;
use common::wire::swarm::{ToAgent, ToServer};

use crate::lines::Holder;

/// One thing that will happen.
#[derive(Debug)]
pub(crate) enum Message {
    /// A dial of `at` reaches its other end.
    Reached { at: usize, dial: Dial },
    /// `by` requests `chunk` of `holder`.
    Ask { holder: Holder, by: usize, chunk: ChunkIndex },
    /// `by` cancels its request.
    Cancel { holder: Holder, by: usize, chunk: ChunkIndex },
    /// `holder` will not send `chunk`.
    Unavailable { holder: Holder, to: usize, chunk: ChunkIndex },
    /// The last byte of `chunk` arrives.
    Landed { from: Holder, to: usize, chunk: ChunkIndex },
    /// It is time for `of` to announce new chunks to its neighbours.
    Gather { of: usize },
    /// The neighbours of `from` are told that it holds these.
    Have { from: usize, chunks: Vec<ChunkIndex> },
    /// It is time for `of` to tell its neighbours how many chunks are arriving at it.
    Count { of: usize },
    /// A neighbour is told that so many chunks are arriving at `to`.
    Coming { to: usize, chunks: u32 },
    /// A message to the server on a control stream.
    ToServer { from: usize, word: ToServer },
    /// A message to an agent on a control stream.
    ToAgent { to: usize, word: ToAgent },
}

impl Message {
    /// Whether it travels on a pull stream between the two.
    pub(crate) fn between(&self, machine: usize, other: Holder) -> bool {
        match self {
            Self::Ask { holder, by: at, .. }
            | Self::Cancel { holder, by: at, .. }
            | Self::Unavailable { holder, to: at, .. }
            | Self::Landed { from: holder, to: at, .. } => *at == machine && *holder == other,
            _ => false,
        }
    }

    /// Whether it is lost when the machine is switched off.
    pub(crate) fn concerns(&self, machine: usize) -> bool {
        match self {
            Self::Ask { holder, by: at, .. }
            | Self::Cancel { holder, by: at, .. }
            | Self::Unavailable { holder, to: at, .. }
            | Self::Landed { from: holder, to: at, .. } => {
                *at == machine || *holder == Holder::Machine(machine)
            }
            Self::Reached { at, .. }
            | Self::Gather { of: at }
            | Self::Have { from: at, .. }
            | Self::Count { of: at }
            | Self::Coming { to: at, .. }
            | Self::ToServer { from: at, .. }
            | Self::ToAgent { to: at, .. } => *at == machine,
        }
    }

    /// Whether it is lost when the server is switched off.
    pub(crate) fn of_server(&self) -> bool {
        match self {
            Self::Ask { holder, .. }
            | Self::Cancel { holder, .. }
            | Self::Unavailable { holder, .. }
            | Self::Landed { from: holder, .. } => *holder == Holder::Server,
            Self::ToServer { .. } | Self::ToAgent { .. } => true,
            Self::Reached { .. }
            | Self::Gather { .. }
            | Self::Have { .. }
            | Self::Count { .. }
            | Self::Coming { .. } => false,
        }
    }
}

/// Everything that will happen, by time.
#[derive(Debug, Default)]
pub(crate) struct Post {
    waiting: BTreeMap<(u64, u64), Message>,
    sent: u64,
}

fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

impl Post {
    /// Sends `message`, to arrive at `at` seconds.
    pub(crate) fn send(&mut self, at: f64, message: Message) {
        self.sent += 1;
        self.waiting.insert((nanos(at), self.sent), message);
    }

    /// The time at which the next one arrives.
    pub(crate) fn next(&self) -> f64 {
        self.waiting.first_key_value().map_or(f64::INFINITY, |((at, _), _)| *at as f64 / 1e9)
    }

    /// The next one that has arrived by `now`.
    pub(crate) fn due(&mut self, now: f64) -> Option<Message> {
        let first = self.waiting.first_entry()?;
        (first.key().0 <= nanos(now)).then(|| first.remove())
    }

    /// Drops the messages for which `lost` is true.
    pub(crate) fn lose(&mut self, lost: impl Fn(&Message) -> bool) {
        self.waiting.retain(|_, message| !lost(message));
    }
}
