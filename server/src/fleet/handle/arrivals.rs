//! Requests of machines: reports, events and calls home, with their signed answers. The tailor is slow and runs on a
//! blocking thread of the caller, so that the fleet's own thread never waits. Touches the fleet's queue and the
//! provisioner.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use common::hardware::CheckedHardware;
use common::id::{DeploymentId, Hash, JobId};
use common::plan::{Instruction, Verdict};
use common::step::{EventBatch, Step, What};
use common::trust::{PublicKey, Signed};
use common::wire::call_home::CallHome;
use common::wire::http::{EventsTaken, News, WaitAnswer, WaitRequest};
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::super::decide::{Heard, Taken, Whose};
use super::super::provisioner::PlanRequest;
use super::super::reports::{Arrival, Decided, Next};
use super::super::request::{FleetError, Request, Waiter};
use super::FleetHandle;
use crate::api::shapes::JobState;
use crate::swarm::Admission;

/// How long a verdict is valid, in seconds: fetching an agent's bundle may take long over a slow line that forty
/// machines share.
const VERDICT_SECONDS: u32 = 2 * 3600;

/// How long a machine pauses whose server has no place for another open request.
const FULL_PAUSE: Duration = Duration::from_secs(30);

/// How long a machine pauses whose server stops: it may be restarted, which takes some seconds.
const STOPPING_PAUSE: Duration = Duration::from_secs(3);

/// The longest pause of a machine that has to report because the server was restarted.
const UNKNOWN_PAUSE_MS: u64 = 10_000;

/// How a report was received.
#[derive(Debug, Clone, Copy)]
pub struct From {
    /// The address that sent it.
    pub peer: IpAddr,
    /// The server's address that received it; `None` if that is not known.
    pub server: Option<IpAddr>,
    /// When the machine was given the nonce in it.
    pub begun: Timestamp,
    /// The hash of the signed text, by which the verdict names the report.
    pub digest: Hash,
}

impl FleetHandle {
    /// Takes a hardware report. Returns the signed verdict; if that is a plan, its bundle is built and the machine is
    /// admitted to the swarm before.
    ///
    /// # Errors
    /// When the changes could not be committed, or the server is stopping.
    pub async fn report(&self, hardware: CheckedHardware, from: From) -> Result<Signed<Verdict>, FleetError> {
        let From { peer, server, begun, digest } = from;
        let key = hardware.report().key;
        let hardware = Arc::new(hardware);
        let arrival = Arrival { address: Some(peer), begun, gone: false };
        let arrive = |arrival| {
            let hardware = Arc::clone(&hardware);
            self.ask(move |fleet, now| {
                let decided = fleet.arrived(&hardware, arrival, now);
                if let (true, Next::Tell(order)) = (decided.taken, &decided.next) {
                    fleet.answered(&key, digest, order);
                }
                decided
            })
        };
        let mut decided = arrive(arrival).await?;
        if let Next::AtWork(agent) = decided.next
            && !self.provisioner.is_here(agent.key).await
        {
            decided = arrive(Arrival { gone: true, ..arrival }).await?;
        }
        let Decided { machine, next, .. } = decided;
        let order = match next {
            Next::Tell(order) => order,
            Next::AtWork(agent) => agent.order(),
            Next::Tailor(request, hardware) => {
                let request = PlanRequest { server, reporter: Some(peer), ..*request };
                self.tailor(request, hardware, (key, digest)).await?
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
        (key, digest): (PublicKey, Hash),
    ) -> Result<Instruction, FleetError> {
        let job = request.job;
        let permit = self.tailors.acquire().await.map_err(|_| FleetError::Stopping)?;
        let provisioner = Arc::clone(&self.provisioner);
        let made = tokio::task::spawn_blocking(move || provisioner.tailor(&request, &hardware))
            .await
            .map_err(FleetError::Worker)?;
        drop(permit);
        let (order, admission) = self
            .ask(move |fleet, now| {
                let (order, admission) = fleet.tailored(job, key, made, now);
                fleet.answered(&key, digest, &order);
                (order, admission)
            })
            .await?;
        if let Some(admission) = admission {
            self.provisioner.admit(admission).await;
        }
        Ok(order)
    }

    /// Admits all running jobs to the swarm again, after a restart of the server, and returns how many.
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

    /// Waits with a machine for news: until a report of it would be answered otherwise, the settings' time is over, or
    /// `leaving` returns because the server stops. `digest` is the hash of the signed request.
    ///
    /// # Errors
    /// When the request is a replay, its arrival could not be committed, or the server is stopping.
    pub async fn wait(
        &self,
        request: WaitRequest,
        (address, digest): (IpAddr, Hash),
        leaving: impl Future<Output = ()>,
    ) -> Result<Signed<WaitAnswer>, FleetError> {
        let (woken, wake) = oneshot::channel();
        let (reply, heard) = oneshot::channel();
        let key = request.key;
        let waiter = Request::Wait(Box::new(Waiter { request, address, reply, woken }));
        self.requests.send(waiter).await.map_err(|_| FleetError::Stopping)?;
        let (news, pause) = match heard.await.map_err(|_| FleetError::Stopping)?? {
            Heard::Repeated => return Err(FleetError::Repeated),
            // Thousands may ask in the moment in which a restarted server is back.
            Heard::Unknown => (News::Unknown, Duration::from_millis(spread(&key, UNKNOWN_PAUSE_MS))),
            Heard::News => (News::Report, Duration::ZERO),
            Heard::Full => (News::None, FULL_PAUSE),
            Heard::Waits(time) => tokio::select! {
                woken = wake => match woken {
                    Ok(wake) => (News::Report, wake.pause),
                    // A later request of the same boot took its place.
                    Err(_) => (News::None, Duration::ZERO),
                },
                () = tokio::time::sleep(time) => (News::None, Duration::ZERO),
                () = leaving => (News::None, STOPPING_PAUSE),
            },
        };
        let pause_ms = u32::try_from(pause.as_millis()).unwrap_or(u32::MAX);
        Ok(self.keys.sign(&WaitAnswer { request: digest, news, pause_ms }))
    }

    /// Takes a batch of events whose signature by the key in it has been checked; `digest` is the hash of the signed
    /// batch.
    ///
    /// # Errors
    /// When no machine has reported under that key, or the events could not be committed.
    pub async fn events(&self, batch: EventBatch, digest: Hash) -> Result<Signed<EventsTaken>, FleetError> {
        let Taken { through, cancelled } = self.ask(move |fleet, now| fleet.events(batch, now)).await??;
        Ok(self.keys.sign(&EventsTaken { batch: digest, through, cancelled }))
    }

    /// Takes a call home with `token`; `call` says which disks the OS is on, if it was sent. Returns the job that the
    /// token is of, or `None` if it is wrong.
    ///
    /// # Errors
    /// When the changes could not be committed, or the server is stopping.
    pub async fn confirm(&self, token: String, call: Option<CallHome>) -> Result<Option<JobId>, FleetError> {
        self.ask(move |fleet, now| fleet.confirm(&token, call.as_ref(), now)).await
    }

    /// Logs something about a job that another part of the server observed, such as the swarm.
    ///
    /// # Errors
    /// When the changes could not be committed, or the server is stopping.
    pub async fn remark(&self, job: JobId, step: Step, what: What) -> Result<(), FleetError> {
        self.tell(move |fleet, now| fleet.remark(job, step, what, now)).await
    }

    /// Logs something about a deployment as a whole, when it is over.
    ///
    /// # Errors
    /// When the changes could not be committed, or the server is stopping.
    pub async fn remark_order(&self, deployment: DeploymentId, text: String) -> Result<(), FleetError> {
        let what = What::Note { text };
        self.tell(move |fleet, now| fleet.log(now, Whose::Order(deployment), Step::Confirm, what)).await
    }
}

/// A number below `below` that is another for each key: keys are random.
fn spread(key: &PublicKey, below: u64) -> u64 {
    let [a, b, ..] = key.bytes();
    u64::from(u16::from_be_bytes([a, b])) % below
}
