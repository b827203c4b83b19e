//! Fetches what the server says that this machine is to hold, one file after the other: from neighbours that have it, or
//! from the server, once for the whole site. Touches the network.

use common::causes::with_causes;
use tokio::task::spawn_blocking;

use super::held::{BootFiles, Hold};
use crate::fetch::{Failed, Server};

/// Fetches the files of `hold` that fit. What fails is given again by the server, to this machine or another.
pub(super) async fn gather(files: &BootFiles, hold: Hold, server: &Server) {
    let Hold { objects, peers, nets } = hold;
    files.allow(nets);
    for object in objects {
        if files.get(object.hash).is_some() || !files.has_room(object.bytes) {
            continue;
        }
        let (server, peers) = (server.clone(), peers.clone());
        let fetched = spawn_blocking(move || {
            let mut failed = |failed: &Failed| {
                tracing::warn!(%failed, "going on with another, or with the server");
            };
            server.object("a boot file", object, &peers, &mut failed)
        });
        match fetched.await {
            Ok(Ok(bytes)) => files.put(bytes),
            Ok(Err(error)) => {
                tracing::warn!(hash = %object.hash, cause = with_causes(&error), "a boot file cannot be fetched");
                return;
            }
            // It panicked, which was printed.
            Err(_) => return,
        }
    }
}
