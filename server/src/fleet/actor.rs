//! The task that owns the fleet: one thread with the desk and the records, and a handle that all others
//! hold. What was decided is written down before anybody is told of it; many waiting requests share one
//! commit, so that a thousand agents cost the disk a few dozen syncs a second and not a thousand.
//!
//! If a commit fails, nobody is told anything but that, and the desk goes back to what the records say.
//! Touches the clock, the records, `fleet`'s cores, and the crew.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::hardware::CheckedHardware;
use common::id::{DeploymentId, ImageId, JobId, MachineId};
use common::plan::{Order, Verdict};
use common::step::{EventBatch, Step, What};
use common::trust::{KeyPair, PublicKey, Signed};
use common::wire::http::{EventsTaken, Refused};
use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::crew::{Admission, Commission, Crew};
use super::desk::{Aftermath, Desk, EventsRefused, Settings};
use super::orders::Candidate;
use super::reports::{Decided, Next};
use super::standing::{Sighting, Standings};
use super::state::Change;
use crate::api::{
    Cancel, DeployAnswer, DeployLine, DeployOrder, DeploymentShown, LogEvent, LogQuery, MachineChanged,
    MachineCommand, MachineShown, Selection,
};
use crate::records::{LogFilter, LogReader, Records, RecordsError};

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

/// How often old events are looked for.
const RETENTION: Duration = Duration::from_secs(3600);

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

type Work = Box<dyn FnOnce(&mut Desk, Timestamp) -> Answer + Send>;
/// Gives the answer once what it says is written down, or the reason why it is not.
type Answer = Box<dyn FnOnce(Result<(), FleetError>) + Send>;

/// What waits for the fleet.
enum Request {
    /// Look at or change what is known.
    Work(Work),
    /// Forget events from before this.
    Forget(Timestamp),
    /// End, once all that was asked before is written down.
    Stop,
}

/// The way to the fleet. Cheap to clone.
#[derive(Clone)]
pub struct FleetHandle {
    requests: mpsc::Sender<Request>,
    standings: watch::Receiver<Arc<Standings>>,
    events: broadcast::Sender<Arc<LogEvent>>,
    crew: Arc<dyn Crew>,
    keys: KeyPair,
    records: PathBuf,
    tailors: Arc<tokio::sync::Semaphore>,
}

impl std::fmt::Debug for FleetHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FleetHandle").field("records", &self.records).finish_non_exhaustive()
    }
}

/// The fleet's thread and what keeps it ticking.
#[derive(Debug)]
pub struct FleetTask {
    thread: std::thread::JoinHandle<()>,
    handle: FleetHandle,
    keep_events: Option<jiff::SignedDuration>,
}

/// Starts the fleet over `records`. The crew is asked for images, plans and admissions.
///
/// # Errors
/// When the records cannot be read or no thread can be started.
pub fn start(
    records: Records,
    crew: Arc<dyn Crew>,
    keys: KeyPair,
    settings: Settings,
) -> Result<(FleetHandle, FleetTask), FleetError> {
    let keep_events = settings.keep_events;
    let path = records.path().to_owned();
    let desk = Desk::new(records.load()?, settings);
    let (requests, waiting) = mpsc::channel(REQUESTS_MAX);
    let (publish, standings) = watch::channel(Arc::new(desk.state.standings(desk.settings.discover)));
    let (events, _) = broadcast::channel(FOLLOW_MAX);
    let office =
        Office { desk, records, standings: publish, events: events.clone(), crew: Arc::clone(&crew) };
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::Builder::new()
        .name("fleet".to_owned())
        .spawn(move || office.run(waiting, &runtime))
        .map_err(FleetError::Thread)?;
    let tailors = Arc::new(tokio::sync::Semaphore::new(TAILORS_MAX));
    let handle = FleetHandle { requests, standings, events, crew, keys, records: path, tailors };
    Ok((handle.clone(), FleetTask { thread, handle, keep_events }))
}

/// What the thread owns.
struct Office {
    desk: Desk,
    records: Records,
    standings: watch::Sender<Arc<Standings>>,
    events: broadcast::Sender<Arc<LogEvent>>,
    crew: Arc<dyn Crew>,
}

impl Office {
    fn run(mut self, mut waiting: mpsc::Receiver<Request>, runtime: &tokio::runtime::Handle) {
        // Dismissals go to the crew in the order in which they were decided.
        let (dismissals, mut leaving) = mpsc::channel::<(PublicKey, Option<String>)>(REQUESTS_MAX);
        let crew = Arc::clone(&self.crew);
        let porter = runtime.spawn(async move {
            while let Some((key, reason)) = leaving.recv().await {
                crew.dismiss(key, reason).await;
            }
        });
        let mut group = Vec::with_capacity(GROUP_MAX);
        let mut open = true;
        while open && waiting.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
            let mut answers = Vec::with_capacity(group.len());
            for request in group.drain(..) {
                match request {
                    Request::Work(work) => answers.push(work(&mut self.desk, Timestamp::now())),
                    Request::Forget(until) => self.forget(until),
                    Request::Stop => open = false,
                }
            }
            let Aftermath { changes, dismissed } = self.desk.take_aftermath();
            match self.records.commit(&changes) {
                Ok(()) => {
                    self.announce(changes);
                    for leaver in dismissed {
                        // Full only if the swarm hangs; then there is nobody to be told.
                        if dismissals.try_send(leaver).is_err() {
                            tracing::warn!("the swarm does not take dismissals");
                        }
                    }
                    answers.into_iter().for_each(|answer| answer(Ok(())));
                }
                Err(error) => self.fall_back(error, answers),
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
                Change::Machine(_) | Change::Job(_) | Change::Forget(_) => moved = true,
                Change::Hardware(..) | Change::Deployment(_) => {}
            }
        }
        if moved {
            self.standings.send_replace(Arc::new(self.desk.state.standings(self.desk.settings.discover)));
        }
    }

    fn fall_back(&mut self, error: RecordsError, answers: Vec<Answer>) {
        let error = Arc::new(error);
        tracing::error!(
            error = &*error as &dyn std::error::Error,
            "nothing was done: it could not be written down"
        );
        match self.records.load() {
            Ok(state) => self.desk.state = state,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the records cannot be read back");
            }
        }
        for answer in answers {
            answer(Err(FleetError::Unwritten(Arc::clone(&error))));
        }
    }

    fn forget(&mut self, until: Timestamp) {
        match self.records.forget_events(until) {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, %until, "old events were forgotten"),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "old events could not be forgotten")
            }
        }
    }
}

impl FleetTask {
    /// Lets time pass until `cancel`, and returns when all that was asked before is written down and the thread
    /// has ended. Who asks later is told that the server is stopping.
    ///
    /// # Errors
    /// When the fleet's thread ended by itself.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), FleetError> {
        let Self { thread, handle, keep_events } = self;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut retention = tokio::time::interval(RETENTION);
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                _ = tick.tick() => handle.tell(|desk, now| desk.tick(now)).await?,
                _ = retention.tick(), if keep_events.is_some() => {
                    let until = keep_events.and_then(|keep| Timestamp::now().checked_sub(keep).ok());
                    if let Some(until) = until {
                        handle.requests.send(Request::Forget(until)).await.map_err(|_| FleetError::Stopping)?;
                    }
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

impl FleetHandle {
    /// Does `work` at the desk and gives its result once it is written down.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Desk, Timestamp) -> T + Send + 'static,
    ) -> Result<T, FleetError> {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |desk, now| {
            let result = work(desk, now);
            Box::new(move |written: Result<(), FleetError>| drop(reply.send(written.map(|()| result))))
        });
        self.requests.send(Request::Work(work)).await.map_err(|_| FleetError::Stopping)?;
        answer.await.map_err(|_| FleetError::Stopping)?
    }

    async fn tell(&self, work: impl FnOnce(&mut Desk, Timestamp) + Send + 'static) -> Result<(), FleetError> {
        self.ask(work).await
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Desk) -> T + Send + 'static,
    ) -> Result<T, FleetError> {
        self.ask(move |desk, _| look(desk)).await
    }

    /// What the doors need to know, as it changes.
    #[must_use]
    pub fn standings(&self) -> watch::Receiver<Arc<Standings>> {
        self.standings.clone()
    }

    /// The server's key, which all its words are signed with.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.keys.public()
    }

    /// A door saw something. Never waits: doors must not.
    pub fn sighting(&self, sighting: Sighting) {
        let work: Work = Box::new(move |desk, now| {
            desk.sighting(sighting, now);
            Box::new(|_| ())
        });
        if self.requests.try_send(Request::Work(work)).is_err() {
            tracing::debug!("a sighting was dropped: the fleet is busy");
        }
    }

    /// A machine reported from `peer`, to our address `server`. Answers with the signed verdict, after the
    /// plan is made, its bundle is built, and the machine may enter the swarm.
    ///
    /// # Errors
    /// When it could not be written down.
    pub async fn report(
        &self,
        hardware: CheckedHardware,
        peer: IpAddr,
        server: Option<IpAddr>,
    ) -> Result<Signed<Verdict>, FleetError> {
        let key = hardware.report().key;
        let hardware = Arc::new(hardware);
        let decided = self.ask(move |desk, now| desk.report(&hardware, Some(peer), now)).await?;
        let Decided { machine, next } = decided;
        let order = match next {
            Next::Tell(order) => order,
            Next::Tailor(commission, hardware) => {
                self.tailor(Commission { server, ..*commission }, hardware, key).await?
            }
        };
        Ok(self.keys.sign(&Verdict { key, machine, order }))
    }

    async fn tailor(
        &self,
        commission: Commission,
        hardware: Arc<CheckedHardware>,
        key: PublicKey,
    ) -> Result<Order, FleetError> {
        let job = commission.job;
        let permit = self.tailors.acquire().await.map_err(|_| FleetError::Stopping)?;
        let crew = Arc::clone(&self.crew);
        let made = tokio::task::spawn_blocking(move || crew.tailor(&commission, &hardware))
            .await
            .map_err(FleetError::Worker)?;
        drop(permit);
        let (order, admission) = self.ask(move |desk, now| desk.tailored(job, key, made, now)).await?;
        if let Some(admission) = admission {
            self.crew.admit(admission).await;
        }
        Ok(order)
    }

    /// Lets all running jobs into the swarm again: after a restart of the server, when the swarm is up.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn readmit(&self) -> Result<usize, FleetError> {
        let running = self
            .look(|desk| -> Vec<Admission> {
                let open = desk.state.jobs.values().filter(|job| {
                    matches!(job.state, crate::api::JobState::Running | crate::api::JobState::Written)
                });
                open.filter_map(|job| desk.admission(job)).collect()
            })
            .await?;
        let count = running.len();
        for admission in running {
            self.crew.admit(admission).await;
        }
        Ok(count)
    }

    /// A machine's events, in a batch that was signed by the key in it.
    ///
    /// # Errors
    /// When nobody reported under that key, or they could not be written down.
    pub async fn events(&self, batch: EventBatch) -> Result<EventsTaken, FleetError> {
        Ok(self.ask(move |desk, now| desk.events(batch, now)).await??)
    }

    /// An installed OS called home with `token`. The job it is of, if the token is right.
    ///
    /// # Errors
    /// When it could not be written down.
    pub async fn confirm(&self, token: String) -> Result<Option<JobId>, FleetError> {
        self.ask(move |desk, now| desk.confirm(&token, now)).await
    }

    /// Another room (the swarm) has something for the log of a job.
    ///
    /// # Errors
    /// When it could not be written down.
    pub async fn remark(&self, job: JobId, step: Step, what: What) -> Result<(), FleetError> {
        self.tell(move |desk, now| desk.remark(job, step, what, now)).await
    }

    /// The open jobs that write this image.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn jobs_of_image(&self, image: ImageId) -> Result<Vec<JobId>, FleetError> {
        self.look(move |desk| {
            let writes = |deployment| {
                desk.state.deployments.get(&deployment).is_some_and(|order| order.image == image)
            };
            let open = desk.state.jobs.values().filter(|job| job.is_open() || job.wants_plan());
            open.filter(|job| writes(job.deployment)).map(|job| job.id).collect()
        })
        .await
    }

    /// What a person calls the machine of a job.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn name_of_job(&self, job: JobId) -> Result<Option<String>, FleetError> {
        self.look(move |desk| {
            let machine = desk.state.jobs.get(&job).map(|job| job.machine)?;
            desk.state.machines.get(&machine).map(super::machine::Machine::shown_name)
        })
        .await
    }

    /// The machines that `selection` means, without their hardware; all when it says nothing.
    ///
    /// # Errors
    /// When it names a machine that is not known.
    pub async fn machines(&self, selection: Selection) -> Result<Vec<MachineShown>, FleetError> {
        self.look(move |desk| {
            let everyone = selection.machines.is_empty() && selection.labels.is_empty();
            let chosen = if everyone {
                desk.state.machines.keys().copied().collect()
            } else {
                desk.select(&selection).map_err(FleetError::Refused)?
            };
            let known = chosen.iter().filter_map(|id| desk.state.machines.get(id));
            Ok(known.map(|machine| desk.state.show_machine(machine, false)).collect())
        })
        .await?
    }

    /// One machine with its hardware, by id, name, Ethernet address or serial number.
    ///
    /// # Errors
    /// When it is none or several.
    pub async fn machine(&self, name: String) -> Result<MachineShown, FleetError> {
        self.look(move |desk| {
            let selection = Selection { machines: vec![name], labels: vec![] };
            let chosen = desk.select(&selection).map_err(FleetError::Refused)?;
            let machine = chosen.first().and_then(|id| desk.state.machines.get(id));
            machine.map(|machine| desk.state.show_machine(machine, true)).ok_or_else(|| {
                FleetError::Refused(super::orders::refused(
                    "no machine, or several, are meant",
                    "name one machine",
                ))
            })
        })
        .await?
    }

    /// Does what an admin wants with machines.
    ///
    /// # Errors
    /// When it makes no sense, or could not be written down.
    pub async fn command(&self, command: MachineCommand) -> Result<Vec<MachineChanged>, FleetError> {
        self.ask(move |desk, now| desk.command(&command, now)).await?.map_err(FleetError::Refused)
    }

    /// Places an order, or says what it would do.
    ///
    /// # Errors
    /// When it makes no sense, no machine is left to order for, or it could not be written down.
    pub async fn order(&self, order: DeployOrder) -> Result<DeployAnswer, FleetError> {
        let crew = Arc::clone(&self.crew);
        let (name, rule) = (order.image.clone(), order.disk.clone());
        let image = tokio::task::spawn_blocking(move || {
            crew.check_disk_rule(&rule).map_err(|why| {
                super::orders::refused(
                    why,
                    "such as bus=nvme,size>=100G; leave it out where there is one disk",
                )
            })?;
            crew.image(&name)
        })
        .await
        .map_err(FleetError::Worker)?
        .map_err(FleetError::Refused)?;
        let (asked, shown) = (order.clone(), image.clone());
        let candidates = self.look(move |desk| desk.candidates(&asked, &shown)).await?;
        let mut lines = self.preview(candidates.map_err(FleetError::Refused)?).await?;
        if order.dry_run {
            return Ok(DeployAnswer { deployment: None, image, machines: lines });
        }
        let shown = image.clone();
        let (deployment, lines) = self
            .ask(move |desk, now| {
                let placed = desk.place(order, &shown, &mut lines, now);
                placed.map(|deployment| (deployment, lines))
            })
            .await?
            .map_err(FleetError::Refused)?;
        Ok(DeployAnswer { deployment: Some(deployment), image, machines: lines })
    }

    /// Asks the tailor what it would write on each machine whose hardware is known.
    async fn preview(&self, candidates: Vec<Candidate>) -> Result<Vec<DeployLine>, FleetError> {
        let crew = Arc::clone(&self.crew);
        tokio::task::spawn_blocking(move || {
            let line = |candidate: Candidate| {
                let asked = candidate.commission.as_ref();
                let target = asked.map(|(commission, hardware)| crew.target(commission, hardware));
                let (target, unfit) = match target {
                    Some(Ok(target)) => (Some(target), None),
                    Some(Err(reason)) => (None, Some(reason)),
                    None => (None, None),
                };
                DeployLine {
                    machine: candidate.machine,
                    name: candidate.name,
                    target,
                    refused: candidate.refused.or(unfit),
                }
            };
            candidates.into_iter().map(line).collect()
        })
        .await
        .map_err(FleetError::Worker)
    }

    /// All deployments.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn deployments(&self) -> Result<Vec<DeploymentShown>, FleetError> {
        self.look(|desk| {
            desk.state.deployments.values().map(|order| desk.state.show_deployment(order)).collect()
        })
        .await
    }

    /// One deployment, if there is one with this number.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn deployment(&self, id: DeploymentId) -> Result<Option<DeploymentShown>, FleetError> {
        self.look(move |desk| desk.state.find_deployment(id)).await
    }

    /// Takes back an order, or its part for some machines.
    ///
    /// # Errors
    /// When there is no such deployment, the selection makes no sense, or it could not be written down.
    pub async fn cancel(&self, id: DeploymentId, cancel: Cancel) -> Result<DeploymentShown, FleetError> {
        let shown = self
            .ask(move |desk, now| desk.cancel(id, &cancel, now).map(|()| desk.state.find_deployment(id)))
            .await?
            .map_err(FleetError::Refused)?;
        shown.ok_or(FleetError::Stopping)
    }

    /// New events as they happen. Who lags behind is told so and reads the records again.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Arc<LogEvent>> {
        self.events.subscribe()
    }

    /// What a log query asks for.
    ///
    /// # Errors
    /// When it names a machine that is not known.
    pub async fn log_filter(&self, query: LogQuery) -> Result<LogFilter, FleetError> {
        let machines: Vec<String> =
            super::hostlist::split(&query.machines).into_iter().map(str::to_owned).collect();
        let chosen: Option<Vec<MachineId>> = if machines.is_empty() {
            None
        } else {
            let selection = Selection { machines, labels: vec![] };
            Some(self.look(move |desk| desk.select(&selection)).await?.map_err(FleetError::Refused)?)
        };
        Ok(LogFilter {
            machines: chosen,
            deployment: query.deployment,
            step: query.step.filter(|step| !step.is_empty()).and_then(|step| step.parse().ok()),
            since: query.since,
            progress: query.progress,
        })
    }

    /// At most `limit` events of the log from the first after number `after`.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn log_page(
        &self,
        filter: LogFilter,
        after: u64,
        limit: u32,
    ) -> Result<Vec<LogEvent>, FleetError> {
        let path = self.records.clone();
        let page = move || LogReader::open(&path)?.page(&filter, after, limit);
        Ok(tokio::task::spawn_blocking(page).await.map_err(FleetError::Worker)??)
    }
}
