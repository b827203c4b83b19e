//! The shared state of the machines' routes. Touches the fleet's handle and the boot source.

use std::collections::HashMap;
use std::sync::Arc;

use common::id::Mac;
use common::limits::BODIES_PARSED_MAX;
use common::trust::PublicKey;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::blocking::blocking;
use super::boot_source::BootSource;
use super::complaints::Complaints;
use super::intake::Intake;
use super::refusal::Refusal;
use super::replay::Seen;
use crate::boot::arguments::KernelArguments;
use crate::boot::small::Trials;
use crate::fleet::FleetHandle;
use crate::peers::Peers;

/// What the handlers of the machines' routes share.
pub(super) struct Public {
    pub(super) fleet: FleetHandle,
    boot_source: Arc<dyn BootSource>,
    /// Appended to the kernel command line of every loader.
    pub(super) kernel_arguments: KernelArguments,
    /// Whether machines are sent a loader that no admin has named, approved or ordered anything for.
    pub(super) discover: bool,
    pub(super) intake: Arc<Intake>,
    /// Limits how many bodies are parsed at once, which takes memory and CPU.
    pub(super) parsers: Semaphore,
    pub(super) complaints: Complaints,
    pub(super) peers: Peers,
    /// Whether the log has been told why some machines take nothing from neighbours.
    pub(super) unchecked: std::sync::Once,
    /// Which machines get a small loader, and when this server began to remember.
    trials: Mutex<Trials>,
    since: Instant,
    /// What relays have passed on, by their keys: only those of enrolled ones, so their number is bounded.
    pub(super) passed: Mutex<HashMap<PublicKey, Seen>>,
}

impl std::fmt::Debug for Public {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Public").field("fleet", &self.fleet).finish_non_exhaustive()
    }
}

impl Public {
    pub(super) fn new(
        fleet: FleetHandle,
        boot_source: Arc<dyn BootSource>,
        kernel_arguments: KernelArguments,
        discover: bool,
        peers: Peers,
    ) -> Self {
        Self {
            fleet,
            boot_source,
            kernel_arguments,
            discover,
            intake: Arc::default(),
            parsers: Semaphore::new(BODIES_PARSED_MAX),
            complaints: Complaints::default(),
            peers,
            unchecked: std::sync::Once::new(),
            trials: Mutex::default(),
            since: Instant::now(),
            passed: Mutex::default(),
        }
    }

    /// Whether the machine with this address, which asks for its script, gets a small loader.
    pub(super) fn gives_small_loader(&self, mac: Mac) -> bool {
        self.trials.lock().gives(mac, self.since.elapsed())
    }

    /// A machine with these addresses has reported.
    pub(super) fn has_reported(&self, macs: impl IntoIterator<Item = Mac>) {
        let mut trials = self.trials.lock();
        macs.into_iter().for_each(|mac| trials.reported(mac));
    }

    /// Calls the boot source on a blocking thread, because it may read a disk.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn BootSource) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let boot_source = Arc::clone(&self.boot_source);
        blocking(move || ask(&*boot_source)).await
    }
}
