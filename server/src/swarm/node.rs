//! The server's node: one task owns the libp2p swarm.
use std::sync::Arc;

use futures::StreamExt as _;
use libp2p::Swarm;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use common::swarm::behaviour::{Mesh, build, listen};
use common::trust::KeyPair;

use super::door::{ChunkSource, Command, SwarmError, SwarmFact, SwarmHandle};

/// A node that has its address and does not run yet.
#[derive(Debug)]
pub struct Bound {
    handle: SwarmHandle,
    commands: mpsc::Receiver<Command>,
    swarm: Box<SwarmBox>,
}

struct SwarmBox(Swarm<Mesh>);

impl std::fmt::Debug for SwarmBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Swarm")
    }
}

/// Listens on `address`, a multiaddr such as `/ip4/0.0.0.0/tcp/4001`.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn bind(
    keypair: &KeyPair,
    address: &str,
    _images: Arc<dyn ChunkSource>,
    _facts: mpsc::Sender<SwarmFact>,
) -> Result<Bound, SwarmError> {
    let mut swarm = build(keypair, None)?;
    let found = listen(&mut swarm, address).await?;
    let (send, commands) = mpsc::channel(64);
    let handle = SwarmHandle { commands: send, addresses: found.iter().map(ToString::to_string).collect() };
    Ok(Bound { handle, commands, swarm: Box::new(SwarmBox(swarm)) })
}

impl Bound {
    /// The way to the node.
    #[must_use]
    pub fn handle(&self) -> SwarmHandle {
        self.handle.clone()
    }

    /// Runs until `cancel`.
    pub async fn run(mut self, cancel: CancellationToken) {
        drop(self.handle);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(_) = self.commands.recv() => {}
                _ = self.swarm.0.select_next_some() => {}
            }
        }
    }
}
