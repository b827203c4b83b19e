//! The agent's node: one task owns the libp2p swarm.
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use common::step::Sources;
use common::swarm::behaviour::{build, listen};

use super::client::{SwarmClient, SwarmConfig, SwarmEnds, SwarmError};

/// See [`SwarmClient::start`].
pub(super) async fn start(config: SwarmConfig) -> Result<(SwarmClient, SwarmEnds), SwarmError> {
    let mut swarm = build(&config.keypair, Some(&config.seed.key))?;
    listen(&mut swarm, &config.listen).await?;
    let (commands, _inbox) = mpsc::channel(64);
    let (_chunks_out, chunks) = mpsc::channel(config.tuning.write_backlog.max(1) as usize);
    let (_events_out, events) = mpsc::channel(64);
    let sources = Arc::new(Mutex::new(Sources::default()));
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    let task = tokio::spawn(async move {
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                _ = swarm.select_next_some() => {}
            }
        }
    });
    Ok((SwarmClient { commands, sources, cancel, task }, SwarmEnds { chunks, events }))
}
