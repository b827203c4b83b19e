//! The agent's life around the steps: from an order to its end, and what comes after a failure. The machine as
//! PID 1 and the ordinary process live the same life; what differs between them is behind [`Host`].

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use common::causes::with_causes;
use common::hardware::{Disk, HardwareReport};
use common::id::MachineId;
use common::plan::{Finish, Instruction, Plan};
use common::step::StepEvent;
use common::trust::KeyPair;
use tokio::runtime::Runtime;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::machine::{Context, Machine};
use super::run::{Ended, EventSink, walk};
use super::shown::Shown;
use crate::fetch::{FetchError, Server};
use crate::outbox::{Attempt, Backlog, EventOutbox};

/// The pause before the second report after a failed one; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(2);

/// The longest pause between two reports.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How long the last events may take to the server before the end.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// Threads for the disk and for hashing, beside those of the runtime; each costs memory.
const BLOCKING_THREADS: usize = 16;

/// The runtime that jobs run on.
///
/// # Errors
/// When no thread can be started.
pub fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build()
}

/// How a job went.
#[derive(Debug)]
pub enum Outcome {
    /// Every step went well.
    Done,
    /// A step failed for good; the disk does not boot.
    Failed(Ended),
    /// A step failed after the disk was sealed: it boots the new OS all the same.
    FailedSealed(Ended),
}

/// Carries out `plan`, from its first step that is the agent's to its last.
async fn carry_out(plan: Plan, context: Context) -> Outcome {
    let (steps, sink, cancel) = (plan.steps.clone(), context.sink.clone(), context.cancel.clone());
    let mut machine = Machine::new(plan, context);
    let walked = walk(&steps, &mut machine, sink, &cancel).await;
    machine.leave().await;
    match walked {
        Ok(()) => Outcome::Done,
        Err(ended) if machine.is_sealed() => Outcome::FailedSealed(ended),
        Err(ended) => Outcome::Failed(ended),
    }
}

/// Where an agent lives: a machine of which it is the first process, or a host on which it is one of many.
pub trait Host: Send + Sync + 'static {
    /// Why the disks cannot be looked at.
    type Error;

    /// Progress is shown no more often than this.
    const PACE: Duration;

    /// Says something to whoever is there.
    fn say(&self, text: &str);

    /// Shows an event, as it happens.
    fn show(&self, event: &StepEvent);

    /// A plan came for this machine; what of it counts here.
    fn takes(&self, machine: MachineId, plan: Plan) -> Plan;

    /// An attempt begins: what is to be told before its first step.
    fn begins(&self, sink: &dyn EventSink);

    /// The disks as they are now.
    ///
    /// # Errors
    /// When they cannot be looked at.
    fn disks(&self) -> Result<Vec<Disk>, Self::Error>;

    /// Whether another order is waited for after this end of a job. Tells whoever is there of a failure.
    fn goes_on_after(&self, outcome: &Outcome) -> bool;
}

/// How an agent's life ended.
#[derive(Debug)]
pub enum End {
    /// With this job, whose plan says what comes then.
    Job(Outcome, Finish),
    /// The server has nothing to do for it here, and says why: a machine is to boot its own disk.
    BootDisk(String),
    /// It was told to stop while it waited for an order.
    Stopped,
}

/// An agent, from its start to its end.
#[derive(Debug)]
pub struct Life<H> {
    /// Who asks for orders, and where.
    pub asking: Asking,
    /// Where to listen for peers, as a multiaddr.
    pub listen: String,
    /// Ends the job where that is safe, and the waiting at once.
    pub cancel: CancellationToken,
    /// Where it lives.
    pub host: Arc<H>,
}

impl<H: Host> Life<H> {
    /// Lives on `runtime`: carries out `first`, or else the first order that comes, and after a failure the next
    /// one. `backlog` is what the program before this one left to tell. Blocks.
    ///
    /// # Errors
    /// When the disks cannot be looked at.
    pub fn live(
        &self,
        runtime: &Runtime,
        first: Option<Box<Plan>>,
        mut backlog: Backlog,
    ) -> Result<End, H::Error> {
        let mut plan = match first.map_or_else(|| self.order(runtime, None), ControlFlow::Continue) {
            ControlFlow::Continue(plan) => plan,
            ControlFlow::Break(end) => return Ok(end),
        };
        loop {
            let (attempt, finish) = (Attempt::of(&plan), plan.finish);
            let Asking { server, key, .. } = &self.asking;
            let outbox = EventOutbox::start(server.clone(), key.clone(), Some(attempt), backlog);
            let context = self.context(&outbox)?;
            self.host.begins(&*context.sink);
            let outcome = runtime.block_on(carry_out(*plan, context));
            if !outbox.flush(LAST_WORDS) {
                self.host.say("the server did not take the last events");
            }
            if !self.host.goes_on_after(&outcome) {
                // A delivery that is under way may still come through.
                drop(outbox.stop());
                return Ok(End::Job(outcome, finish));
            }
            // The outbox lives on while this waits: what the server did not take yet it is still to have.
            let next = self.order(runtime, Some(attempt));
            backlog = outbox.stop();
            plan = match next {
                ControlFlow::Continue(plan) => plan,
                ControlFlow::Break(end) => return Ok(end),
            };
        }
    }

    /// The next plan, which is not of the attempt `done`; or the end.
    fn order(&self, runtime: &Runtime, done: Option<Attempt>) -> ControlFlow<End, Box<Plan>> {
        let mut say = |text: &str| self.host.say(text);
        match runtime.block_on(self.asking.order(done, &self.cancel, &mut say)) {
            Answer::Plan(machine, plan) => ControlFlow::Continue(Box::new(self.host.takes(machine, *plan))),
            Answer::BootDisk(reason) => ControlFlow::Break(End::BootDisk(reason)),
            Answer::Stopped => ControlFlow::Break(End::Stopped),
        }
    }

    /// With what a job is carried out whose events go to `outbox`.
    fn context(&self, outbox: &EventOutbox) -> Result<Context, H::Error> {
        let host = Arc::clone(&self.host);
        let show = move |event: &StepEvent| host.show(event);
        Ok(Context {
            server: self.asking.server.clone(),
            key: self.asking.key.clone(),
            sink: Arc::new(Shown::new(outbox.clone(), H::PACE, show)),
            disks: self.host.disks()?,
            listen: self.listen.clone(),
            cancel: self.cancel.clone(),
        })
    }
}

/// What the server answered to a report.
#[derive(Debug)]
enum Answer {
    /// A plan for this boot.
    Plan(MachineId, Box<Plan>),
    /// Nothing to do here: the machine is to boot its own disk.
    BootDisk(String),
    /// The waiting was cancelled, which PID 1 never does.
    Stopped,
}

/// Who asks, and where.
#[derive(Clone)]
pub struct Asking {
    /// Who is asked.
    pub server: Server,
    /// The key of this boot.
    pub key: KeyPair,
    /// The report as it is at that moment. May block.
    pub report: Arc<dyn Fn() -> HardwareReport + Send + Sync>,
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asking").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Asking {
    /// Reports until the server has a plan that is not of the attempt `done`, or sends the machine to its own
    /// disk. `say` gets what a person should know, each thing once.
    async fn order(
        &self,
        done: Option<Attempt>,
        cancel: &CancellationToken,
        say: &mut dyn FnMut(&str),
    ) -> Answer {
        let mut said = String::new();
        let mut pause = PAUSE;
        loop {
            let asking = self.clone();
            let asked = spawn_blocking(move || asking.server.report(&asking.key, &(asking.report)())).await;
            let (text, wait) = match asked {
                Ok(Ok((verdict, _))) => match verdict.instruction {
                    Instruction::Deploy(plan) if done != Some(Attempt::of(&plan)) => {
                        return Answer::Plan(verdict.machine, plan);
                    }
                    Instruction::BootDisk { reason } => return Answer::BootDisk(reason),
                    Instruction::Deploy(plan) => {
                        (format!("{} has ended here; waiting for another order", plan.job), PAUSE_MAX)
                    }
                    Instruction::Wait { seconds, reason } => {
                        let wait = Duration::from_secs(u64::from(seconds.clamp(1, 600)));
                        (format!("this is machine {}: waiting ({reason})", verdict.machine), wait)
                    }
                },
                Ok(Err(error)) => {
                    pause = (pause * 2).min(PAUSE_MAX);
                    (unanswered(&error), pause)
                }
                Err(error) => (error.to_string(), pause),
            };
            if text != said {
                say(&text);
                said = text;
            }
            if cancel.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return Answer::Stopped;
            }
        }
    }
}

fn unanswered(error: &FetchError) -> String {
    format!("{} ({}); trying again", with_causes(error), error.hint())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use common::hardware::SentReport;
    use common::plan::Verdict;
    use common::step::{EventBatch, Step, What};
    use common::testing;
    use common::trust::Signed;
    use common::wire::http::{EVENTS, EventsTaken, IDENTITY, Identity};
    use parking_lot::Mutex;

    use super::*;
    use crate::disk::recording::manifest_of;
    use crate::fetch::testing::{Answer as Http, Request, TestServer};
    use crate::steps::whole::plan_for;

    fn keys() -> (KeyPair, KeyPair) {
        (KeyPair::from_secret([1; 32]), KeyPair::from_secret([2; 32]))
    }

    /// A plan whose only step is of a later version: its job fails before anything is touched.
    fn plan() -> Plan {
        plan_for(&testing::disk("sda"), &manifest_of(&[1; 4096], 512), &[Step::named("defragment")])
    }

    /// A server that has this to say to one report after the other.
    fn server(mut instructions: Vec<Instruction>) -> TestServer {
        let key = keys().0;
        TestServer::start(move |request: &Request| {
            if request.path == IDENTITY {
                let (version, nonce) = ("1".to_owned(), "n".to_owned());
                return Http::json(&Identity { key: key.public(), version, nonce });
            }
            if request.path == EVENTS {
                let signed: Signed<EventBatch> = serde_json::from_slice(&request.body).unwrap();
                let through = signed.open(&keys().1.public()).unwrap().events.last().unwrap().number;
                let taken = EventsTaken { batch: signed.digest(), through, cancelled: None };
                return Http::json(&key.sign(&taken));
            }
            let signed: Signed<SentReport> = serde_json::from_slice(&request.body).unwrap();
            Http::json(&key.sign(&Verdict {
                key: keys().1.public(),
                report: signed.digest(),
                seconds: 60,
                machine: MachineId(7),
                instruction: instructions.remove(0),
            }))
        })
    }

    struct Told {
        lines: Mutex<Vec<String>>,
        goes_on: bool,
    }

    impl Told {
        fn line(&self, line: String) {
            self.lines.lock().push(line);
        }
    }

    impl Host for Told {
        type Error = Infallible;

        const PACE: Duration = Duration::ZERO;

        fn say(&self, text: &str) {
            self.line(text.to_owned());
        }

        fn show(&self, event: &StepEvent) {
            self.line(event.on_console());
        }

        fn takes(&self, machine: MachineId, plan: Plan) -> Plan {
            self.line(format!("{machine} takes {}", plan.job));
            Plan { finish: Finish::PowerOff, ..plan }
        }

        fn begins(&self, sink: &dyn EventSink) {
            sink.event(Step::Agent, What::Started, None);
        }

        fn disks(&self) -> Result<Vec<Disk>, Infallible> {
            Ok(vec![])
        }

        fn goes_on_after(&self, outcome: &Outcome) -> bool {
            matches!(outcome, Outcome::Failed(_)) && self.goes_on
        }
    }

    fn live(server: &TestServer, first: Option<Plan>, goes_on: bool) -> (End, Vec<String>) {
        let (theirs, ours) = keys();
        let report = HardwareReport { key: ours.public(), ..testing::report() };
        let life = Life {
            asking: Asking {
                server: Server::new(&server.url, theirs.public()).unwrap(),
                key: ours,
                report: Arc::new(move || report.clone()),
            },
            listen: "/ip4/127.0.0.1/tcp/0".to_owned(),
            cancel: CancellationToken::new(),
            host: Arc::new(Told { lines: Mutex::default(), goes_on }),
        };
        let runtime = runtime().unwrap();
        let Ok(end) = life.live(&runtime, first.map(Box::new), Backlog::default());
        (end, life.host.lines.lock().clone())
    }

    #[test]
    fn after_a_failure_the_next_order_decides() {
        let nothing = Instruction::BootDisk { reason: "nothing is ordered".to_owned() };
        let server = server(vec![Instruction::Deploy(Box::new(plan())), nothing]);
        let (end, lines) = live(&server, None, true);
        assert!(matches!(&end, End::BootDisk(reason) if reason == "nothing is ordered"), "{end:?}");
        let [taken, begun, started, failed] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!((taken.as_str(), begun.as_str()), ("m7 takes j1", "agent: started"));
        assert_eq!(started, "defragment: started");
        assert!(failed.starts_with("defragment: failed: this agent"), "{failed}");
        let events = server.requests().into_iter().filter(|request| request.path == EVENTS).count();
        assert!(events > 0, "the log has what happened before the next order is asked for");
    }

    #[test]
    fn a_plan_that_is_there_already_is_carried_out_unasked() {
        let server = server(vec![]);
        let (end, lines) = live(&server, Some(plan()), false);
        let finish = plan().finish;
        assert!(matches!(&end, End::Job(Outcome::Failed(_), then) if *then == finish), "{end:?}");
        assert_eq!(lines.first().map(String::as_str), Some("agent: started"));
    }
}
