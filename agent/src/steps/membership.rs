//! The membership in the swarm: a task reads its events as they come, whatever step runs, so that none is dropped. Owns
//! the client and that task; touches the swarm and the event sink.

use std::sync::Arc;

use common::chunk::ChunkSet;
use common::step::{Sources, Step, What};
use common::wire::swarm::Personality;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::error::StepError;
use super::run::EventSink;
use crate::swarm::{SwarmClient, SwarmConfig, SwarmEnds, SwarmEvent, VerifiedChunk};

/// What the swarm's events have said so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard {
    pub(super) personality: Option<Personality>,
    /// Machines that have arrived, machines that are waited for, and seconds until the gate opens anyway.
    pub(super) gather: Option<(u32, u32, u64)>,
    pub(super) started: bool,
    pub(super) released: bool,
    pub(super) cancelled: Option<String>,
    pub(super) broken: Option<String>,
}

/// This machine's membership in the swarm of its image, from joining to leaving.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) client: SwarmClient,
    pub(super) heard: watch::Receiver<Heard>,
    /// Verified chunks, until the writer takes them.
    pub(super) chunks: Option<mpsc::Receiver<VerifiedChunk>>,
    /// The chunks that the swarm knows to be readable from the disk.
    pub(super) told: ChunkSet,
    pub(super) listening: JoinHandle<()>,
}

impl Membership {
    /// Joins; notes go to `sink` under the step that `now` has at that moment.
    pub(super) async fn join(
        config: SwarmConfig,
        sink: Arc<dyn EventSink>,
        now: watch::Receiver<Step>,
    ) -> Result<Self, StepError> {
        let told = config.held.clone();
        let (client, SwarmEnds { chunks, events }) = SwarmClient::start(config).await?;
        let (sender, heard) = watch::channel(Heard::default());
        let listening = tokio::spawn(listen(events, sender, sink, now));
        Ok(Self { client, heard, chunks: Some(chunks), told, listening })
    }

    pub(super) fn sources(&self) -> Sources {
        self.client.sources()
    }

    /// Leaves the swarm; the channel of chunks is closed.
    pub(super) async fn leave(self) {
        self.client.stop().await;
        self.listening.abort();
        // It ends because it was aborted or because the events have ended; both are expected.
        let _ = self.listening.await;
    }
}

async fn listen(
    mut events: mpsc::Receiver<SwarmEvent>,
    heard: watch::Sender<Heard>,
    sink: Arc<dyn EventSink>,
    now: watch::Receiver<Step>,
) {
    let note = |text: String| {
        let step = now.borrow().clone();
        sink.event(step, What::Note { text }, None);
    };
    while let Some(event) = events.recv().await {
        match event {
            SwarmEvent::Welcome(personality) => {
                heard.send_modify(|heard| heard.personality = personality.map(|personality| *personality));
            }
            SwarmEvent::Gather { arrived, wanted, seconds } => {
                heard.send_modify(|heard| heard.gather = Some((arrived, wanted, seconds)));
            }
            SwarmEvent::Start => heard.send_modify(|heard| heard.started = true),
            // The writer reports when every chunk is written, which is later.
            SwarmEvent::Complete => {}
            SwarmEvent::Corrupt { from, chunk, cause } => {
                note(format!("chunk {} from {from} was thrown away: {cause}", chunk.0));
            }
            SwarmEvent::Note(text) => note(text),
            SwarmEvent::Pace(pace) => sink.set_pace(pace),
            SwarmEvent::Release => heard.send_modify(|heard| heard.released = true),
            SwarmEvent::Cancel(reason) => heard.send_modify(|heard| heard.cancelled = Some(reason)),
            SwarmEvent::Broken(cause) => heard.send_modify(|heard| heard.broken = Some(cause)),
        }
    }
    let ended = || "the swarm ended".to_owned();
    heard.send_modify(|heard| heard.broken = Some(heard.broken.take().unwrap_or_else(ended)));
}
