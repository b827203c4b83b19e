//! The task that owns the fleet: one thread with the fleet and the records. What was decided is written down
//! before anybody is told of it; many waiting requests share one commit, so that a thousand agents cost the
//! disk a few dozen syncs a second and not a thousand.
//!
//! If a commit fails, nobody is told anything but that, and the fleet goes back to what the records say.
//! Touches the clock, the records, `fleet`'s cores, and the provisioner.

use std::sync::Arc;
use std::time::Duration;

use common::trust::{KeyPair, PublicKey};
use common::wire::http::Refused;
use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::boot_policy::BootPolicies;
use super::decide::{Effects, EventsRefused, Fleet, Settings};
use super::handle::FleetHandle;
use super::nonce::Nonces;
use super::provisioner::Provisioner;
use super::state::Change;
use crate::api::shapes::LogEvent;
use crate::records::{Records, RecordsError};

/// Requests that may wait for the fleet. When it is full, who asks waits; doors do not, and drop.
const REQUESTS_MAX: usize = 1024;

/// The most requests that share one commit.
const GROUP_MAX: usize = 256;

/// Events that a slow follower of the log may lag behind before it has to read the records again.
const FOLLOW_MAX: usize = 4096;

/// Bundles are built by at most so many threads at once: each takes a core and some tens of MiB.
const TAILORS_MAX: usize = 4;

/// How often time passes.
const TICK: Duration = Duration::from_secs(1);

/// How often old events are looked for; a part of them goes each time.
const RETENTION: Duration = Duration::from_secs(60);

/// Why the fleet did not answer.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
    /// Nothing was done, because it could not be written down.
    #[error("what was asked for could not be written down")]
    Unwritten(#[source] Arc<RecordsError>),
    /// The records could not be read.
    #[error("the records could not be read")]
    Records(#[from] RecordsError),
    /// The events are of no machine that reported.
    #[error(transparent)]
    Events(#[from] EventsRefused),
    /// What was asked for makes no sense.
    #[error("{}", .0.error)]
    Refused(Refused),
    /// A thread ended that should not have.
    #[error("a worker thread failed")]
    Worker(#[source] tokio::task::JoinError),
    /// The fleet's thread could not be started.
    #[error("cannot start the fleet's thread")]
    Thread(#[source] std::io::Error),
}

pub(super) type Work = Box<dyn FnOnce(&mut Fleet, Timestamp) -> Answer + Send>;
/// Gives the answer once what it says is written down, or the reason why it is not.
pub(super) type Answer = Box<dyn FnOnce(Result<(), FleetError>) + Send>;

/// What waits for the fleet.
pub(super) enum Request {
    /// Look at or change what is known.
    Work(Work),
    /// Forget events that are too old or too many.
    Forget,
    /// End, once all that was asked before is written down.
    Stop,
}

/// The fleet's thread and what keeps it ticking.
#[derive(Debug)]
pub struct FleetTask {
    thread: std::thread::JoinHandle<()>,
    handle: FleetHandle,
}

/// Starts the fleet over `records`. The provisioner is asked for images, plans and admissions.
///
/// # Errors
/// When the records cannot be read or no thread can be started.
pub fn start(
    records: Records,
    provisioner: Arc<dyn Provisioner>,
    keys: KeyPair,
    settings: Settings,
) -> Result<(FleetHandle, FleetTask), FleetError> {
    let path = records.path().to_owned();
    let fleet = Fleet::new(records.load()?, settings);
    for row in &fleet.state.set_aside {
        tracing::error!(what = row.words, "a record cannot be read and is set aside");
    }
    let (requests, waiting) = mpsc::channel(REQUESTS_MAX);
    let (publish, policies) = watch::channel(Arc::new(fleet.state.policies(fleet.settings.discover)));
    let (events, _) = broadcast::channel(FOLLOW_MAX);
    let office = Actor {
        fleet,
        records,
        policies: publish,
        events: events.clone(),
        provisioner: Arc::clone(&provisioner),
    };
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::Builder::new()
        .name("fleet".to_owned())
        .spawn(move || office.run(waiting, &runtime))
        .map_err(FleetError::Thread)?;
    let nonces = Nonces::new(&keys.secret(), Timestamp::now());
    let tailors = Arc::new(tokio::sync::Semaphore::new(TAILORS_MAX));
    let orders = Arc::new(tokio::sync::Semaphore::new(super::handle::ORDERS_MAX as usize));
    let handle =
        FleetHandle { requests, policies, events, provisioner, nonces, keys, records: path, tailors, orders };
    Ok((handle.clone(), FleetTask { thread, handle }))
}

/// What the thread owns.
struct Actor {
    fleet: Fleet,
    records: Records,
    policies: watch::Sender<Arc<BootPolicies>>,
    events: broadcast::Sender<Arc<LogEvent>>,
    provisioner: Arc<dyn Provisioner>,
}

impl Actor {
    fn run(mut self, mut waiting: mpsc::Receiver<Request>, runtime: &tokio::runtime::Handle) {
        // Dismissals go to the provisioner in the order in which they were decided.
        let (dismissals, mut leaving) = mpsc::channel::<Vec<(PublicKey, Option<String>)>>(REQUESTS_MAX);
        let provisioner = Arc::clone(&self.provisioner);
        let porter = runtime.spawn(async move {
            while let Some(leavers) = leaving.recv().await {
                for (key, reason) in leavers {
                    provisioner.dismiss(key, reason).await;
                }
            }
        });
        let mut group = Vec::with_capacity(GROUP_MAX);
        let mut open = true;
        while open && waiting.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
            let mut answers = Vec::with_capacity(group.len());
            for request in group.drain(..) {
                match request {
                    Request::Work(work) => answers.push(work(&mut self.fleet, Timestamp::now())),
                    Request::Forget => self.forget(Timestamp::now()),
                    Request::Stop => open = false,
                }
            }
            let Effects { changes, dismissed } = self.fleet.take_aftermath();
            match self.records.commit(&changes) {
                Ok(()) => {
                    self.announce(changes);
                    // All of them, however many: who is not dismissed stays let in. The swarm waits for nobody, so it is
                    // not waited for in vain.
                    if !dismissed.is_empty() && dismissals.blocking_send(dismissed).is_err() {
                        tracing::warn!("the swarm does not take dismissals");
                    }
                    answers.into_iter().for_each(|answer| answer(Ok(())));
                }
                Err(error) => self.fall_back(error, &changes, answers),
            }
        }
        drop(dismissals);
        let left = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(2), porter).await });
        if left.is_err() {
            tracing::warn!("the swarm was not told of all who left it");
        }
    }

    fn announce(&self, changes: Vec<Change>) {
        let mut moved = false;
        for change in changes {
            match change {
                Change::Event(event) => drop(self.events.send(Arc::new(*event))),
                Change::Machine(_) | Change::Job(_) | Change::Forget(_) | Change::Frozen(_) => moved = true,
                Change::Hardware(..) | Change::Deployment(_) => {}
            }
        }
        if moved {
            self.policies.send_replace(Arc::new(self.fleet.state.policies(self.fleet.settings.discover)));
        }
    }

    fn fall_back(&mut self, error: RecordsError, changes: &[Change], answers: Vec<Answer>) {
        let error = Arc::new(error);
        tracing::error!(
            error = &*error as &dyn std::error::Error,
            "nothing was done: it could not be written down"
        );
        match self.records.load_again(&self.fleet.state, changes) {
            Ok(state) => self.fleet.state = state,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the records cannot be read back");
            }
        }
        for answer in answers {
            answer(Err(FleetError::Unwritten(Arc::clone(&error))));
        }
    }

    fn forget(&mut self, now: Timestamp) {
        let settings = &self.fleet.settings;
        let old = settings.keep_events.and_then(|keep| now.checked_sub(keep).ok());
        let old = old.map_or(Ok(0), |until| self.records.forget_events(until));
        let many = settings.keep_bytes.map_or(Ok(0), |most| self.records.shrink_events(most));
        for (forgotten, why) in [(old, "they are old"), (many, "the records are large")] {
            match forgotten {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, why, "events were forgotten"),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, why, "events could not be forgotten");
                }
            }
        }
    }
}

/// Bytes that are free on the disk of `file`.
fn free_bytes(file: &std::path::Path) -> Option<u64> {
    let there = nix::sys::statvfs::statvfs(file).ok()?;
    Some(there.blocks_available().saturating_mul(there.fragment_size()))
}

impl FleetTask {
    /// Lets time pass until `cancel`, and returns when all that was asked before is written down and the thread
    /// has ended. Who asks later is told that the server is stopping.
    ///
    /// # Errors
    /// When the fleet's thread ended by itself.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), FleetError> {
        let Self { thread, handle } = self;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut retention = tokio::time::interval(RETENTION);
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                _ = tick.tick() => {
                    let records = handle.records.clone();
                    let pass = move |fleet: &mut Fleet, now| {
                        fleet.is_tight = free_bytes(&records).is_some_and(|free| free < fleet.settings.reserve_bytes);
                        fleet.tick(now);
                    };
                    handle.tell(pass).await?;
                }
                _ = retention.tick() => {
                    handle.requests.send(Request::Forget).await.map_err(|_| FleetError::Stopping)?;
                }
            }
        }
        // What waits in the channel is still done: this request is behind all of it.
        handle.requests.send(Request::Stop).await.map_err(|_| FleetError::Stopping)?;
        drop(handle);
        let join = tokio::task::spawn_blocking(move || thread.join()).await.map_err(FleetError::Worker)?;
        join.map_err(|_| FleetError::Stopping)
    }
}
