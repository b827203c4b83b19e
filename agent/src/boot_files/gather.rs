//! Fetches what the server says that this machine is to hold, one file after the other: from neighbours that have it, or
//! where nobody at its site has it from the server, once for all of them. Touches the network.

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
            let mut failed = |failed: &Failed| tracing::warn!(%failed, "going on with another");
            if peers.is_empty() {
                return server.object("a boot file", object).map(Some);
            }
            // Neighbours that thirty firmwares ask at once may be slow. Another copy is not worth the site's line: in the
            // benchmark of a site, those that gave up fetched one and a half sets from the server.
            Ok(server.object_near("a boot file", object, &peers, &mut failed))
        });
        match fetched.await {
            Ok(Ok(Some(bytes))) => files.put(bytes),
            Ok(Ok(None)) => return,
            Ok(Err(error)) => {
                tracing::warn!(hash = %object.hash, cause = with_causes(&error), "a boot file cannot be fetched");
                return;
            }
            // It panicked, which was printed.
            Err(_) => return,
        }
    }
}
