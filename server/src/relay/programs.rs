//! The boot programs that DHCP names and TFTP serves at a site: fetched as soon as the server tells of them, because
//! firmware does not wait for a thin line. Touches the cache.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::causes::with_causes;
use common::wire::relay::{BootFile, SiteBoot};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::cache::{FileCache, NoFile, Wanted};
use super::site::Site;
use crate::boot::choose::Programs;
use crate::boot::tftp::Files;
use crate::boot::{AUTOEXEC, script};

/// The pause before files that could not be fetched are tried again.
const AGAIN: Duration = Duration::from_secs(15);

/// Publishes the boot programs, as they come.
pub(super) struct BootPrograms {
    pub(super) cache: FileCache,
    pub(super) site: watch::Receiver<Arc<Site>>,
    /// Where machines reach this relay over HTTP.
    pub(super) http: SocketAddr,
    /// The server's own address, which machines ask when this relay does not answer; `None` where it is a host name.
    pub(super) server: Option<SocketAddr>,
    pub(super) programs: watch::Sender<Programs>,
    pub(super) files: watch::Sender<Files>,
    /// Whether machines that are not on record are answered.
    pub(super) discovers: watch::Sender<bool>,
}

impl BootPrograms {
    /// Runs until `cancel`.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&mut self) {
        loop {
            let site = Arc::clone(&self.site.borrow_and_update());
            self.discovers.send_replace(site.discovers());
            let whole = match site.boot() {
                Some(boot) => self.fetch(boot).await,
                None => true,
            };
            let again =
                async { if whole { std::future::pending().await } else { tokio::time::sleep(AGAIN).await } };
            tokio::select! {
                changed = self.site.changed() => if changed.is_err() { return },
                () = again => {}
            }
        }
    }

    /// Fetches what `boot` names, and publishes it. False when something could not be had.
    async fn fetch(&self, boot: &SiteBoot) -> bool {
        let mut whole = true;
        let entry = Bytes::from(script::entry(self.http, self.server));
        let mut files = HashMap::from([(AUTOEXEC.to_owned(), entry)]);
        for program in &boot.programs {
            let wanted = Wanted::plain(program.hash, Some(program.bytes), program.path.clone());
            match self.cache.read(&wanted).await {
                Ok(bytes) => drop(files.insert(program.name.clone(), Bytes::from(bytes))),
                Err(error) => whole = lacks(program, &error),
            }
        }
        let names = files.keys().filter(|name| *name != AUTOEXEC).cloned();
        self.programs.send_replace(Programs::new(names, boot.prefer.clone()));
        self.files.send_replace(Arc::new(files));
        whole
    }
}

/// Says that a boot file could not be fetched; false.
pub(super) fn lacks(file: &BootFile, error: &NoFile) -> bool {
    tracing::warn!(file = file.name, error = with_causes(error), "a boot file is not here yet");
    false
}
