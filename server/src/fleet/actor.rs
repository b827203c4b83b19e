//! The actor of the fleet: one thread owns the fleet's state and the writing end of the records. A decision is
//! committed before any request is answered; many waiting requests share one commit, so that a thousand agents cost the
//! disk a few dozen syncs a second and not a thousand.  If a commit fails, all its requests are answered with that
//! error, and the state is loaded from the records again. Touches the clock, the store, `fleet`'s cores, and the
//! provisioner.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use common::hardware::CheckedHardware;
use common::trust::{KeyPair, PublicKey};
use jiff::Timestamp;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::boot_policy::BootPolicies;
use super::decide::{Effects, Fleet, Heard, Settings, Wake};
use super::handle::FleetHandle;
use super::nonce::Nonces;
use super::provisioner::Provisioner;
use super::relays::RelayTable;
use super::request::{Answer, FleetError, Request, Waiter};
use super::state::Change;
use super::store::{KnownHardware, Store, StoreError};
use super::token::TokenTable;
use crate::api::shapes::LogEvent;

/// The length of the fleet's queue. When it is full, callers wait; only sightings do not wait, and are dropped.
const REQUESTS_MAX: usize = 1024;

/// The most requests that share one commit.
const GROUP_MAX: usize = 256;

/// Events that a slow reader who follows the log may lag behind before it has to read the records again.
const FOLLOW_MAX: usize = 4096;

/// Plans made and bundles built at once: each build takes a core and some tens of MiB.
const TAILORS_MAX: usize = 4;

/// The most machines of orders whose bundles are still to be built ahead.
const AHEAD_MAX: usize = 2048;

/// The interval of `Fleet::tick`.
const TICK: Duration = Duration::from_secs(1);

/// The interval at which old events are deleted, a part of them each time.
const RETENTION: Duration = Duration::from_secs(60);

/// The fleet's thread, and the handle that sends it its ticks.
#[derive(Debug)]
pub struct FleetTask {
    thread: std::thread::JoinHandle<()>,
    handle: FleetHandle,
    ahead: mpsc::Receiver<Arc<CheckedHardware>>,
}

/// Starts the fleet's thread with the state that `store` keeps. The provisioner is asked for images, plans and
/// admissions. Blocks until the records are read: call it off the async threads, but within a runtime.
///
/// # Errors
/// When the records cannot be read or no thread can be started.
pub fn start(
    store: Box<dyn Store>,
    provisioner: Arc<dyn Provisioner>,
    keys: KeyPair,
    settings: Settings,
) -> Result<(FleetHandle, FleetTask), FleetError> {
    let log = store.log();
    let (requests, waiting) = mpsc::channel(REQUESTS_MAX);
    let (events, _) = broadcast::channel(FOLLOW_MAX);
    let runtime = tokio::runtime::Handle::current();
    let (opened, ready) = std::sync::mpsc::channel();
    let beside = (events.clone(), Arc::clone(&provisioner));
    let thread = std::thread::Builder::new()
        .name("fleet".to_owned())
        .spawn(move || match Actor::over(store, settings, beside, &runtime) {
            Ok(actor) => {
                // The caller of `start` waits for this.
                let _ = opened.send(Ok(actor.published()));
                actor.run(waiting, &runtime);
            }
            Err(error) => drop(opened.send(Err(error))),
        })
        .map_err(FleetError::Thread)?;
    let (policies, relays, tokens) = ready.recv().map_err(|_| FleetError::Stopping)??;
    let nonces = Nonces::new(&keys.secret(), Timestamp::now());
    let tailors = Arc::new(Semaphore::new(TAILORS_MAX));
    let orders = Arc::new(Semaphore::new(super::handle::ORDERS_MAX as usize));
    let (ahead, asked_ahead) = mpsc::channel(AHEAD_MAX);
    let handle = FleetHandle {
        requests,
        policies,
        relays,
        tokens,
        caller: None,
        key: None,
        events,
        provisioner,
        nonces,
        keys,
        log,
        tailors,
        ahead,
        orders,
    };
    Ok((handle.clone(), FleetTask { thread, handle, ahead: asked_ahead }))
}

/// What the fleet publishes: boot policies, what relays are told, and tokens.
type Published =
    (watch::Receiver<Arc<BootPolicies>>, watch::Receiver<Arc<RelayTable>>, watch::Receiver<Arc<TokenTable>>);

/// Everything that the fleet's thread owns.
struct Actor {
    fleet: Fleet,
    store: Box<dyn Store>,
    policies: watch::Sender<Arc<BootPolicies>>,
    relays: watch::Sender<Arc<RelayTable>>,
    tokens: watch::Sender<Arc<TokenTable>>,
    events: broadcast::Sender<Arc<LogEvent>>,
    provisioner: Arc<dyn Provisioner>,
    /// Who is told of news, by the key of the machine that waits.
    waiters: HashMap<PublicKey, oneshot::Sender<Wake>>,
}

impl Actor {
    /// An actor with the state that `store` keeps.
    fn over(
        mut store: Box<dyn Store>,
        settings: Settings,
        (events, provisioner): (broadcast::Sender<Arc<LogEvent>>, Arc<dyn Provisioner>),
        runtime: &tokio::runtime::Handle,
    ) -> Result<Self, StoreError> {
        let fleet = Fleet::new(runtime.block_on(store.load(KnownHardware::new()))?, settings);
        for row in &fleet.state.set_aside {
            tracing::error!(what = row.words, "a record cannot be read and is set aside");
        }
        let policies = watch::Sender::new(Arc::new(fleet.state.policies(fleet.settings.discover)));
        let relays = watch::Sender::new(Arc::new(fleet.relay_table(Timestamp::now())));
        let tokens = watch::Sender::new(Arc::new(fleet.token_table()));
        Ok(Self { fleet, store, policies, relays, tokens, events, provisioner, waiters: HashMap::new() })
    }

    fn published(&self) -> Published {
        (self.policies.subscribe(), self.relays.subscribe(), self.tokens.subscribe())
    }

    fn run(mut self, mut waiting: mpsc::Receiver<Request>, runtime: &tokio::runtime::Handle) {
        // One task sends dismissals to the provisioner, in the order in which they were decided.
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
                    Request::Wait(waiter) => answers.push(self.wait(*waiter, Timestamp::now())),
                    Request::Tick(answer) => {
                        self.pass_time(Timestamp::now(), runtime);
                        answers.push(answer);
                    }
                    Request::Forget => self.forget(Timestamp::now(), runtime),
                    Request::Stop => open = false,
                }
            }
            let Effects { changes, dismissed, woken } = self.fleet.take_effects();
            match runtime.block_on(self.store.commit(&changes)) {
                Ok(()) => {
                    self.announce(changes);
                    // Waits when the queue is full: an agent whose dismissal were dropped would stay in the swarm. The
                    // swarm never waits for the fleet, so this cannot deadlock.
                    if !dismissed.is_empty() && dismissals.blocking_send(dismissed).is_err() {
                        tracing::warn!("the swarm does not take dismissals");
                    }
                    self.tell_relays();
                    answers.into_iter().for_each(|answer| answer(Ok(())));
                }
                Err(error) => self.fall_back(error, &changes, answers, runtime),
            }
            // Also after a failure: who is woken for nothing reports once, and who is not woken waits.
            for wake in woken {
                if let Some(waiter) = self.waiters.remove(&wake.key) {
                    let _ = waiter.send(wake);
                }
            }
        }
        drop(dismissals);
        let left = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(2), porter).await });
        if left.is_err() {
            tracing::warn!("the swarm was not told of all who left it");
        }
    }

    fn wait(&mut self, waiter: Waiter, now: Timestamp) -> Answer {
        let Waiter { request, address, reply, woken } = waiter;
        let heard = self.fleet.wait(&request, address, now);
        if let Heard::Waits(_) = heard {
            // An earlier request of the same boot is answered by this: its connection broke, or a copy of it came.
            self.waiters.insert(request.key, woken);
        }
        Box::new(move |written| drop(reply.send(written.map(|()| heard))))
    }

    /// Forgets the waiters whose connection has ended or whose time is over.
    fn let_waiters_go(&mut self) {
        for (key, _) in self.waiters.extract_if(|_, waiter| waiter.is_closed()) {
            self.fleet.waits_no_more(&key);
        }
    }

    /// Publishes what relays are told, if that has changed.
    fn tell_relays(&self) {
        if self.fleet.state.relays.is_empty() {
            return;
        }
        let table = self.fleet.relay_table(Timestamp::now());
        self.relays.send_if_modified(|published| {
            let is_news = **published != table;
            if is_news {
                *published = Arc::new(table);
            }
            is_news
        });
    }

    fn announce(&self, changes: Vec<Change>) {
        let (mut moved, mut given) = (false, false);
        for change in changes {
            match change {
                Change::Event(event) => drop(self.events.send(Arc::new(*event))),
                Change::Machine(_)
                | Change::Hardware(..)
                | Change::Job(_)
                | Change::Deployment(_)
                | Change::Forget(_)
                | Change::Frozen(_) => moved = true,
                Change::Token(_) | Change::TokenGone(_) => given = true,
                Change::Relay(_)
                | Change::Stage(_)
                | Change::Unstage(_)
                | Change::Profile(_)
                | Change::ProfileGone(_)
                | Change::Answer(_)
                | Change::AnswerGone { .. }
                | Change::Cursor { .. } => {}
            }
        }
        if given {
            self.tokens.send_replace(Arc::new(self.fleet.token_table()));
        }
        if moved {
            self.policies.send_replace(Arc::new(self.fleet.state.policies(self.fleet.settings.discover)));
        }
    }

    fn fall_back(
        &mut self,
        error: StoreError,
        changes: &[Change],
        answers: Vec<Answer>,
        runtime: &tokio::runtime::Handle,
    ) {
        let error = Arc::new(error);
        tracing::error!(
            error = &*error as &dyn std::error::Error,
            "nothing was done: it could not be written down"
        );
        // Reports in memory are kept: reading those of 2,000 machines again would cost seconds for each request while
        // the disk is full.
        let known = self.fleet.state.hardware_beside(changes);
        match runtime.block_on(self.store.load(known)) {
            Ok(state) => self.fleet.state = state,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the records cannot be read back");
            }
        }
        for answer in answers {
            answer(Err(FleetError::Unwritten(Arc::clone(&error))));
        }
    }

    fn pass_time(&mut self, now: Timestamp, runtime: &tokio::runtime::Handle) {
        let free = runtime.block_on(self.store.free_bytes());
        self.let_waiters_go();
        self.fleet.is_tight = free.is_some_and(|free| free < self.fleet.settings.reserve_bytes);
        self.fleet.tick(now);
    }

    fn forget(&mut self, now: Timestamp, runtime: &tokio::runtime::Handle) {
        let settings = &self.fleet.settings;
        let until = settings.keep_events.and_then(|keep| now.checked_sub(keep).ok());
        let old = until.map_or(Ok(0), |until| runtime.block_on(self.store.forget_before(until)));
        let most = settings.keep_bytes;
        let many = most.map_or(Ok(0), |most| runtime.block_on(self.store.forget_beyond(most)));
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

impl FleetTask {
    /// Sends ticks until `cancel`, and returns when all requests made before are committed and the thread has ended.
    /// Later requests fail with [`FleetError::Stopping`].
    ///
    /// # Errors
    /// When the fleet's thread ended by itself.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), FleetError> {
        let Self { thread, handle, ahead } = self;
        let building = tokio::spawn(build_ahead(ahead, handle.clone(), cancel.clone()));
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut retention = tokio::time::interval(RETENTION);
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                _ = tick.tick() => {
                    let (reply, done) = oneshot::channel();
                    let answer: Answer = Box::new(move |written| drop(reply.send(written)));
                    handle.requests.send(Request::Tick(answer)).await.map_err(|_| FleetError::Stopping)?;
                    match done.await.map_err(|_| FleetError::Stopping)? {
                        // A full disk ends no server: the fleet went back to what is written down and said so.
                        Ok(()) | Err(FleetError::Unwritten(_)) => {}
                        Err(error) => return Err(error),
                    }
                }
                _ = retention.tick() => {
                    handle.requests.send(Request::Forget).await.map_err(|_| FleetError::Stopping)?;
                }
            }
        }
        // Requests that are queued are still done: this one comes after all of them.
        handle.requests.send(Request::Stop).await.map_err(|_| FleetError::Stopping)?;
        drop(handle);
        building.await.map_err(FleetError::Worker)?;
        let join = tokio::task::spawn_blocking(move || thread.join()).await.map_err(FleetError::Worker)?;
        join.map_err(|_| FleetError::Stopping)
    }
}

/// Builds bundles ahead, one at a time, until `cancel`: so all but one of the tailors' places stay free for machines that
/// have asked for their plan.
async fn build_ahead(
    mut asked: mpsc::Receiver<Arc<CheckedHardware>>,
    handle: FleetHandle,
    cancel: CancellationToken,
) {
    while let Some(Some(hardware)) = cancel.run_until_cancelled(asked.recv()).await {
        let Ok(_permit) = handle.tailors.acquire().await else { return };
        let provisioner = Arc::clone(&handle.provisioner);
        if let Err(error) = tokio::task::spawn_blocking(move || provisioner.prepare(&hardware)).await {
            tracing::error!(%error, "building a bundle ahead failed");
        }
    }
}
