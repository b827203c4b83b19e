//! The way to the fleet for all others: questions and orders as calls that wait for their answer. Each part of it has a
//! file: what machines tell (`arrivals`), what admins want (`ordering`), what is known (`looking`), and the log. Touches
//! the fleet's thread.

// What machines tell.
mod arrivals;

// What admins want.
mod ordering;

// What is known.
mod looking;

// The log as it is read.
mod log;

use std::sync::Arc;

use common::trust::{KeyPair, PublicKey};
use jiff::Timestamp;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};

pub use arrivals::From;

use super::boot_policy::{BootPolicies, Sighting};
use super::decide::{Fleet, REPORT_LIFE};
use super::nonce::Nonces;
use super::provisioner::Provisioner;
use super::request::{FleetError, Request, Work};
use super::store::Log;
use crate::api::shapes::LogEvent;

/// Orders that are looked at at once.
pub(super) const ORDERS_MAX: u32 = 64;

/// The way to the fleet. Cheap to clone.
#[derive(Clone)]
pub struct FleetHandle {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) policies: watch::Receiver<Arc<BootPolicies>>,
    pub(super) events: broadcast::Sender<Arc<LogEvent>>,
    pub(super) provisioner: Arc<dyn Provisioner>,
    pub(super) keys: KeyPair,
    pub(super) nonces: Nonces,
    pub(super) log: Arc<dyn Log>,
    /// Held while a plan is made and its bundle is built.
    pub(super) tailors: Arc<Semaphore>,
    /// Held by each order from when it looks the image up until it is placed.
    pub(super) orders: Arc<Semaphore>,
}

impl std::fmt::Debug for FleetHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FleetHandle").finish_non_exhaustive()
    }
}

impl FleetHandle {
    /// Does `work` at the fleet and gives its result once it is written down.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Fleet, Timestamp) -> T + Send + 'static,
    ) -> Result<T, FleetError> {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |fleet, now| {
            let result = work(fleet, now);
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

    /// As if nothing had been heard of any agent for long.
    #[cfg(test)]
    pub(crate) async fn age(&self) {
        self.tell(|fleet, _| fleet.boots.age()).await.unwrap();
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Fleet) -> T + Send + 'static,
    ) -> Result<T, FleetError> {
        self.ask(move |fleet, _| look(fleet)).await
    }

    /// What the doors need to know, as it changes.
    #[must_use]
    pub fn policies(&self) -> watch::Receiver<Arc<BootPolicies>> {
        self.policies.clone()
    }

    /// The server's key, which all its words are signed with.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.keys.public()
    }

    /// A nonce for a report that is sent now.
    #[must_use]
    pub fn nonce(&self) -> String {
        self.nonces.give(Timestamp::now())
    }

    /// When the report with this nonce was begun; none where it is a repetition of an old one.
    #[must_use]
    pub fn begun(&self, nonce: &str) -> Option<Timestamp> {
        let now = Timestamp::now();
        self.nonces.given(nonce, now).filter(|begun| now.duration_since(*begun) <= REPORT_LIFE)
    }

    /// A door saw something. Never waits: doors must not.
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
