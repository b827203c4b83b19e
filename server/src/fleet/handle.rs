//! The way to the fleet for all others: questions and orders as calls that wait for their answer. What takes
//! long (the tailor) is done on the caller's side, so that the fleet's own thread never waits. Touches the
//! fleet's thread, the provisioner, and the log in the records.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use common::hardware::CheckedHardware;
use common::id::{DeploymentId, Hash, ImageId, JobId, MachineId};
use common::plan::{Instruction, Verdict};
use common::step::{EventBatch, Step, UnknownStep, What};
use common::trust::{KeyPair, PublicKey, Signed};
use common::wire::call_home::CallHome;
use common::wire::http::{EventsTaken, Refused};
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot, watch};

use super::actor::{FleetError, Request, Work};
use super::boot_policy::{BootPolicies, Sighting};
use super::decide::{Fleet, REPORT_LIFE, Taken};
use super::nonce::Nonces;
use super::order::CheckedOrder;
use super::orders::{Candidate, hold_to};
use super::provisioner::{PlanRequest, Provisioner};
use super::reports::{Arrival, Decided, Next};
use super::retry::Again;
use crate::api::shapes::{
    Cancel, DeployAnswer, DeployLine, DeployOrder, DeploymentShown, Freeze, Frozen, JobState, LogEvent,
    LogQuery, MachineChanged, MachineCommand, MachineShown, Retry, RetryLine, Selection,
};
use crate::records::{LogFilter, LogReader};
use crate::swarm::Admission;

/// Orders that are looked at at once.
pub(super) const ORDERS_MAX: u32 = 64;

/// How long a verdict holds: an agent's bundle may take long over a thin line that forty machines share.
const VERDICT_SECONDS: u32 = 2 * 3600;

/// How a report came in.
#[derive(Debug, Clone, Copy)]
pub struct From {
    /// From which address.
    pub peer: IpAddr,
    /// To which of our addresses.
    pub server: Option<IpAddr>,
    /// When the machine began it.
    pub begun: Timestamp,
    /// The hash of the signed text.
    pub digest: Hash,
}

/// The way to the fleet. Cheap to clone.
#[derive(Clone)]
pub struct FleetHandle {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) policies: watch::Receiver<Arc<BootPolicies>>,
    pub(super) events: broadcast::Sender<Arc<LogEvent>>,
    pub(super) provisioner: Arc<dyn Provisioner>,
    pub(super) keys: KeyPair,
    pub(super) nonces: Nonces,
    pub(super) records: PathBuf,
    pub(super) tailors: Arc<Semaphore>,
    /// Held by each order from when it looks the image up until it is placed.
    pub(super) orders: Arc<Semaphore>,
}

impl std::fmt::Debug for FleetHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FleetHandle").field("records", &self.records).finish_non_exhaustive()
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

    /// A machine reported. Answers with the signed verdict, after the
    /// plan is made, its bundle is built, and the machine may enter the swarm.
    ///
    /// # Errors
    /// When it could not be written down.
    pub async fn report(&self, hardware: CheckedHardware, from: From) -> Result<Signed<Verdict>, FleetError> {
        let From { peer, server, begun, digest } = from;
        let key = hardware.report().key;
        let hardware = Arc::new(hardware);
        let arrival = Arrival { address: Some(peer), begun, gone: false };
        let arrive = |arrival| {
            let hardware = Arc::clone(&hardware);
            self.ask(move |fleet, now| fleet.arrived(&hardware, arrival, now))
        };
        let mut decided = arrive(arrival).await?;
        if let Next::AtWork(agent) = decided.next
            && !self.provisioner.is_here(agent.key).await
        {
            decided = arrive(Arrival { gone: true, ..arrival }).await?;
        }
        let Decided { machine, next } = decided;
        let order = match next {
            Next::Tell(order) => order,
            Next::AtWork(agent) => agent.order(),
            Next::Tailor(request, hardware) => {
                self.tailor(PlanRequest { server, ..*request }, hardware, key).await?
            }
        };
        Ok(self.keys.sign(&Verdict {
            key,
            report: digest,
            seconds: VERDICT_SECONDS,
            machine,
            instruction: order,
        }))
    }

    async fn tailor(
        &self,
        request: PlanRequest,
        hardware: Arc<CheckedHardware>,
        key: PublicKey,
    ) -> Result<Instruction, FleetError> {
        let job = request.job;
        let permit = self.tailors.acquire().await.map_err(|_| FleetError::Stopping)?;
        let provisioner = Arc::clone(&self.provisioner);
        let made = tokio::task::spawn_blocking(move || provisioner.tailor(&request, &hardware))
            .await
            .map_err(FleetError::Worker)?;
        drop(permit);
        let (order, admission) = self.ask(move |fleet, now| fleet.tailored(job, key, made, now)).await?;
        if let Some(admission) = admission {
            self.provisioner.admit(admission).await;
        }
        Ok(order)
    }

    /// Lets all running jobs into the swarm again: after a restart of the server, when the swarm is up.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn readmit(&self) -> Result<usize, FleetError> {
        let running = self
            .look(|fleet| -> Vec<Admission> {
                let jobs = fleet.state.jobs.values();
                let open = jobs.filter(|job| job.state == JobState::Running);
                open.filter_map(|job| fleet.admission(job)).collect()
            })
            .await?;
        let count = running.len();
        for admission in running {
            self.provisioner.admit(admission).await;
        }
        Ok(count)
    }

    /// A machine's events, in a batch that was signed by the key in it; `digest` is that of the signed batch.
    ///
    /// # Errors
    /// When nobody reported under that key, or they could not be written down.
    pub async fn events(&self, batch: EventBatch, digest: Hash) -> Result<Signed<EventsTaken>, FleetError> {
        let Taken { through, cancelled } = self.ask(move |fleet, now| fleet.events(batch, now)).await??;
        Ok(self.keys.sign(&EventsTaken { batch: digest, through, cancelled }))
    }

    /// An OS called home with `token`, and maybe said which disks it is on. The job it is of, if the token is right.
    ///
    /// # Errors
    /// When it could not be written down.
    pub async fn confirm(&self, token: String, call: Option<CallHome>) -> Result<Option<JobId>, FleetError> {
        self.ask(move |fleet, now| fleet.confirm(&token, call.as_ref(), now)).await
    }

    /// Another room (the swarm) has something for the log of a job.
    ///
    /// # Errors
    /// When it could not be written down.
    pub async fn remark(&self, job: JobId, step: Step, what: What) -> Result<(), FleetError> {
        self.tell(move |fleet, now| fleet.remark(job, step, what, now)).await
    }

    /// The open jobs that write this image.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn jobs_of_image(&self, image: ImageId) -> Result<Vec<JobId>, FleetError> {
        self.look(move |fleet| {
            let writes = |deployment| {
                fleet.state.deployments.get(&deployment).is_some_and(|order| order.image == image)
            };
            let open = fleet.state.jobs.values().filter(|job| job.is_open() || job.wants_plan());
            open.filter(|job| writes(job.deployment)).map(|job| job.id).collect()
        })
        .await
    }

    /// Keeps orders out for as long as the answer is kept: between asking what needs an image and removing it, none
    /// may come that needs it.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn keep_orders_out(&self) -> Result<OwnedSemaphorePermit, FleetError> {
        let all = Arc::clone(&self.orders).acquire_many_owned(ORDERS_MAX);
        all.await.map_err(|_| FleetError::Stopping)
    }

    /// What needs this image, in words: jobs that may still write it, and orders that still take machines.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn needs_image(&self, image: ImageId) -> Result<Option<String>, FleetError> {
        let jobs = self.jobs_of_image(image).await?;
        if let Some(job) = jobs.first() {
            return Ok(Some(format!("job {job} and {} more", jobs.len() - 1)));
        }
        self.look(move |fleet| {
            let mut open =
                fleet.state.deployments.values().filter(|order| order.open && order.image == image);
            open.next().map(|order| format!("deployment {}, which still takes machines", order.id))
        })
        .await
    }

    /// What a person calls the machine of a job.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn name_of_job(&self, job: JobId) -> Result<Option<String>, FleetError> {
        self.look(move |fleet| {
            let machine = fleet.state.jobs.get(&job).map(|job| job.machine)?;
            fleet.state.machines.get(&machine).map(super::machine::Machine::shown_name)
        })
        .await
    }

    /// At most `limit` machines without the devices of their hardware, by number from the first after `after`.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn machines_after(
        &self,
        after: MachineId,
        limit: usize,
    ) -> Result<Vec<MachineShown>, FleetError> {
        self.look(move |fleet| {
            use std::ops::Bound;
            let later = fleet.state.machines.range((Bound::Excluded(after), Bound::Unbounded));
            later.take(limit).map(|(_, machine)| fleet.state.show_machine(machine, false)).collect()
        })
        .await
    }

    /// The machines that `selection` means, without the devices of their hardware; all when it says nothing.
    ///
    /// # Errors
    /// When it names a machine that is not known.
    pub async fn machines(&self, selection: Selection) -> Result<Vec<MachineShown>, FleetError> {
        self.look(move |fleet| {
            let everyone = selection.machines.is_empty() && selection.labels.is_empty();
            let chosen = if everyone {
                fleet.state.machines.keys().copied().collect()
            } else {
                fleet.select(&selection).map_err(FleetError::Refused)?
            };
            let known = chosen.iter().filter_map(|id| fleet.state.machines.get(id));
            Ok(known.map(|machine| fleet.state.show_machine(machine, false)).collect())
        })
        .await?
    }

    /// What an admin should look at, each in one sentence.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn warnings(&self) -> Result<Vec<String>, FleetError> {
        self.look(Fleet::warnings).await
    }

    /// The sites that are known, machines there or not.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn sites(&self) -> Result<BTreeSet<String>, FleetError> {
        self.look(Fleet::sites).await
    }

    /// One machine with its hardware, by id, name, Ethernet address or serial number.
    ///
    /// # Errors
    /// When it is none or several.
    pub async fn machine(&self, name: String) -> Result<MachineShown, FleetError> {
        self.look(move |fleet| {
            let selection = Selection { machines: vec![name], labels: vec![] };
            let chosen = fleet.select(&selection).map_err(FleetError::Refused)?;
            let machine = chosen.first().and_then(|id| fleet.state.machines.get(id));
            machine.map(|machine| fleet.state.show_machine(machine, true)).ok_or_else(|| {
                FleetError::Refused(super::order::refused(
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
        self.ask(move |fleet, now| fleet.command(&command, now)).await?.map_err(FleetError::Refused)
    }

    /// Places an order, or says what it would do.
    ///
    /// # Errors
    /// When it makes no sense, no machine is left to order for, or it could not be written down.
    pub async fn order(&self, order: DeployOrder) -> Result<DeployAnswer, FleetError> {
        let _turn = self.orders.acquire().await.map_err(|_| FleetError::Stopping)?;
        let provisioner = Arc::clone(&self.provisioner);
        let (order, image) = tokio::task::spawn_blocking(move || {
            let order = CheckedOrder::check(order)?;
            let image = provisioner.image(&order.as_ordered().image)?;
            Ok((order, image))
        })
        .await
        .map_err(FleetError::Worker)?
        .map_err(FleetError::Refused)?;
        let (asked, shown) = (order.clone(), image.clone());
        let candidates = self.look(move |fleet| fleet.candidates(&asked, &shown)).await?;
        let accepted = order.as_ordered().accept.clone();
        let mut lines = self.preview(candidates.map_err(FleetError::Refused)?, accepted).await?;
        for (line, shown) in
            lines.iter_mut().zip(order.as_ordered().shown.iter().flat_map(|shown| &shown.machines))
        {
            hold_to(line, shown.disk.as_ref());
        }
        if order.as_ordered().dry_run {
            let frozen = self.frozen().await?;
            return Ok(DeployAnswer { deployment: None, image, machines: lines, frozen });
        }
        let shown = image.clone();
        let (deployment, lines) = self
            .ask(move |fleet, now| {
                let placed = fleet.place(order, &shown, &mut lines, now);
                placed.map(|deployment| (deployment, lines))
            })
            .await?
            .map_err(FleetError::Refused)?;
        Ok(DeployAnswer { deployment: Some(deployment), image, machines: lines, frozen: None })
    }

    /// Asks the tailor what it would write on each machine whose hardware is known.
    async fn preview(
        &self,
        candidates: Vec<Candidate>,
        accepted: Vec<String>,
    ) -> Result<Vec<DeployLine>, FleetError> {
        let provisioner = Arc::clone(&self.provisioner);
        tokio::task::spawn_blocking(move || {
            let line = |candidate: Candidate| {
                let asked = candidate.request.as_ref();
                let target = asked.map(|(request, hardware)| provisioner.target(request, hardware));
                candidate.line(target, &accepted)
            };
            candidates.into_iter().map(line).collect()
        })
        .await
        .map_err(FleetError::Worker)
    }

    /// Orders again what was refused or has failed; shows what that means.
    ///
    /// # Errors
    /// When it means nothing, all of it is refused, or it could not be written down.
    pub async fn retry(&self, retry: Retry) -> Result<Vec<RetryLine>, FleetError> {
        let _turn = self.orders.acquire().await.map_err(|_| FleetError::Stopping)?;
        let asked = retry.clone();
        let again = self.look(move |fleet| fleet.retryable(&asked)).await?.map_err(FleetError::Refused)?;
        let (jobs, candidates): (Vec<_>, Vec<_>) = again
            .into_iter()
            .map(|Again { job, deployment, image, candidate }| ((job, deployment, image), candidate))
            .unzip();
        let lines = self.preview(candidates, vec![]).await?;
        let again = |((job, deployment, image), line)| RetryLine { job, deployment, image, line };
        let mut lines: Vec<RetryLine> = jobs.into_iter().zip(lines).map(again).collect();
        for again in &mut lines {
            let shown = retry.shown.iter().flatten().find(|shown| shown.job == again.job);
            shown.into_iter().for_each(|shown| hold_to(&mut again.line, shown.disk.as_ref()));
        }
        if retry.dry_run {
            return Ok(lines);
        }
        self.ask(move |fleet, now| fleet.retry(&mut lines, now).map(|()| lines))
            .await?
            .map_err(FleetError::Refused)
    }

    /// Stops everything new, or lets it begin again; what holds then.
    ///
    /// # Errors
    /// When it could not be written down.
    pub async fn freeze(&self, order: Freeze) -> Result<Option<Frozen>, FleetError> {
        self.ask(move |fleet, now| fleet.freeze(order.freeze, order.reason, now)).await
    }

    /// Set while nothing new begins.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn frozen(&self) -> Result<Option<Frozen>, FleetError> {
        self.look(|fleet| fleet.state.frozen.clone()).await
    }

    /// What an admin should look at: machines that are silent or do not come up, a range that is full.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn notes(&self) -> Result<Vec<String>, FleetError> {
        self.ask(|fleet, now| fleet.notes(now)).await
    }

    /// All deployments.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn deployments(&self) -> Result<Vec<DeploymentShown>, FleetError> {
        self.look(|fleet| {
            fleet.state.deployments.values().map(|order| fleet.state.show_deployment(order)).collect()
        })
        .await
    }

    /// One deployment, if there is one with this number.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn deployment(&self, id: DeploymentId) -> Result<Option<DeploymentShown>, FleetError> {
        self.look(move |fleet| fleet.state.find_deployment(id)).await
    }

    /// Takes back an order, or its part for some machines.
    ///
    /// # Errors
    /// When there is no such deployment, the selection makes no sense, or it could not be written down.
    pub async fn cancel(&self, id: DeploymentId, cancel: Cancel) -> Result<DeploymentShown, FleetError> {
        let shown = self
            .ask(move |fleet, now| fleet.cancel(id, &cancel, now).map(|()| fleet.state.find_deployment(id)))
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
            Some(self.look(move |fleet| fleet.select(&selection)).await?.map_err(FleetError::Refused)?)
        };
        let step = query.step.filter(|step| !step.is_empty()).map(|step| step.parse());
        let step = step.transpose().map_err(|error: UnknownStep| {
            FleetError::Refused(Refused { error: error.to_string(), cause: None, hint: None })
        })?;
        Ok(LogFilter {
            machines: chosen,
            deployment: query.deployment,
            step,
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
