//! The fleet's handle for the rest of the server: requests as calls that wait for their answer. Each part has a file:
//! reports and events of machines (`arrivals`), orders of admins (`ordering`), queries (`looking`), and reading the log
//! (`log`). Touches the fleet's queue, the clock and the provisioner.

// Reports, events and calls home of machines.
pub(super) mod arrivals;

// Orders and commands of admins.
mod ordering;

// Queries about machines and deployments.
mod looking;

// Profiles.
mod profiles;

// Counts for monitoring.
mod census;

// Reading and following the log.
mod log;

// Tokens of the API.
mod tokens;

// Who is told of events, and how far each is.
mod subscribers;

// Relays: what admins order of them, and what they say.
mod relays;

use std::sync::Arc;

use common::hardware::CheckedHardware;
use common::trust::{KeyPair, PublicKey};
use jiff::Timestamp;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};

use super::boot_policy::{BootPolicies, Sighting};
use super::decide::{Fleet, REPORT_LIFE};
use super::nonce::Nonces;
use super::provisioner::Provisioner;
use super::relays::RelayTable;
use super::request::{FleetError, Request, Work};
use super::store::Log;
use super::token::TokenTable;
use crate::api::shapes::{Caller, LogEvent};

/// Orders that are checked and placed at once; further ones wait.
pub(super) const ORDERS_MAX: u32 = 64;

/// Sends requests to the fleet's thread. Cheap to clone.
#[derive(Clone)]
pub struct FleetHandle {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) policies: watch::Receiver<Arc<BootPolicies>>,
    pub(super) relays: watch::Receiver<Arc<RelayTable>>,
    pub(super) tokens: watch::Receiver<Arc<TokenTable>>,
    /// Who asks through this handle; `None` for the server itself.
    pub(super) caller: Option<Arc<Caller>>,
    /// The caller's key for this order: sent again under the same key, it is answered as before.
    pub(super) key: Option<Arc<str>>,
    pub(super) events: broadcast::Sender<Arc<LogEvent>>,
    pub(super) provisioner: Arc<dyn Provisioner>,
    pub(super) keys: KeyPair,
    pub(super) nonces: Nonces,
    pub(super) log: Arc<dyn Log>,
    /// A permit is held while a plan is made and its bundle is built.
    pub(super) tailors: Arc<Semaphore>,
    /// Hardware of machines that are about to be ordered something for, so that their bundles are built ahead.
    pub(super) ahead: mpsc::Sender<Arc<CheckedHardware>>,
    /// A permit is held by each order from when its image is looked up until it is placed.
    pub(super) orders: Arc<Semaphore>,
}

impl std::fmt::Debug for FleetHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FleetHandle").finish_non_exhaustive()
    }
}

impl FleetHandle {
    /// Runs `work` on the fleet's thread, and returns its result once the changes are committed.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Fleet, Timestamp) -> T + Send + 'static,
    ) -> Result<T, FleetError> {
        let (reply, answer) = oneshot::channel();
        let caller = self.caller.clone();
        let work: Work = Box::new(move |fleet, now| {
            fleet.caller = caller;
            let result = work(fleet, now);
            fleet.caller = None;
            Box::new(move |written: Result<(), FleetError>| drop(reply.send(written.map(|()| result))))
        });
        self.requests.send(Request::Work(work)).await.map_err(|_| FleetError::Stopping)?;
        answer.await.map_err(|_| FleetError::Stopping)?
    }

    pub(super) async fn tell(
        &self,
        work: impl FnOnce(&mut Fleet, Timestamp) + Send + 'static,
    ) -> Result<(), FleetError> {
        self.ask(work).await
    }

    /// Makes every agent look as if it had not been heard of for long.
    #[cfg(test)]
    pub(crate) async fn age(&self) {
        self.tell(|fleet, _| fleet.boots.age()).await.unwrap();
    }

    /// Makes the fleet's thread wait until the other end of `gate` is dropped; the future ends when it goes on.
    #[cfg(test)]
    pub(crate) fn hang(&self, gate: std::sync::mpsc::Receiver<()>) -> impl Future<Output = ()> + use<> {
        let fleet = self.clone();
        let hung = tokio::spawn(async move { fleet.tell(move |_, _| _ = gate.recv()).await.unwrap() });
        async move { hung.await.unwrap() }
    }

    /// How many machines wait with an open request.
    ///
    /// # Errors
    /// When the fleet has stopped.
    #[cfg(test)]
    pub(crate) async fn waiting(&self) -> Result<usize, FleetError> {
        self.look(Fleet::waiting).await
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Fleet) -> T + Send + 'static,
    ) -> Result<T, FleetError> {
        self.ask(move |fleet, _| look(fleet)).await
    }

    /// A handle through which `caller` asks: what it does is theirs in the log, and it sees only machines of their scope.
    #[must_use]
    pub fn asked_by(&self, caller: Arc<Caller>) -> Self {
        Self { caller: Some(caller), ..self.clone() }
    }

    /// A handle whose order has this key of its caller: sent again under it, nothing is done twice.
    #[must_use]
    pub fn under(self, key: Option<&str>) -> Self {
        Self { key: key.map(Arc::from), ..self }
    }

    /// The boot policies for DHCP, TFTP and the boot script, republished whenever they change.
    #[must_use]
    pub fn policies(&self) -> watch::Receiver<Arc<BootPolicies>> {
        self.policies.clone()
    }

    /// The server's public key: its answers to machines are signed with the secret one.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.keys.public()
    }

    /// A nonce for a machine that is about to report.
    #[must_use]
    pub fn nonce(&self) -> String {
        self.nonces.give(Timestamp::now())
    }

    /// When this nonce was given; `None` if it is not of this server or older than [`REPORT_LIFE`], as in a replay.
    #[must_use]
    pub fn begun(&self, nonce: &str) -> Option<Timestamp> {
        let now = Timestamp::now();
        self.nonces.given(nonce, now).filter(|begun| now.duration_since(*begun) <= REPORT_LIFE)
    }

    /// When this nonce was given, however long ago; `None` if it is not of this start of the server.
    #[must_use]
    pub fn given(&self, nonce: &str) -> Option<Timestamp> {
        self.nonces.given(nonce, Timestamp::now())
    }

    /// Queues a sighting of DHCP, TFTP or HTTP. Never waits, so that they do not: drops it when the queue is full.
    pub fn sighting(&self, sighting: Sighting) {
        let work: Work = Box::new(move |fleet, now| {
            fleet.sighting(sighting, now);
            Box::new(|_| ())
        });
        if self.requests.try_send(Request::Work(work)).is_err() {
            tracing::debug!("a sighting was dropped: the fleet is busy");
        }
    }
}
