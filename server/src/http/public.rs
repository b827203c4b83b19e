//! The shared state of the machines' routes. Touches the fleet's handle and the boot source.

use std::collections::HashMap;
use std::sync::Arc;

use common::limits::BODIES_PARSED_MAX;
use common::trust::PublicKey;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::blocking::blocking;
use super::boot_source::BootSource;
use super::complaints::Complaints;
use super::intake::Intake;
use super::refusal::Refusal;
use super::replay::Seen;
use crate::boot::arguments::KernelArguments;
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
            passed: Mutex::default(),
        }
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
