//! The agent's main loop around the steps: gets a plan, carries it out, and after a failure asks for the next one. PID
//! 1 and the ordinary process share it; what differs between them is behind [`Host`]. Owns the runtime's size and the
//! outbox of each attempt; touches the server through `fetch` and the console through [`Host`].

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
use crate::boot_files::BootFiles;
use crate::fetch::again::Again;
use crate::fetch::wait::{Lookout, ToldToWait};
use crate::fetch::{FetchError, Server};
use crate::outbox::{Attempt, Backlog, EventOutbox};

/// The back-off after the first report that fails.
const PAUSE: Duration = Duration::from_secs(4);

/// The longest back-off between two reports, each of which may cross a thin line with 60 KiB.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Seconds between two reports, where the server keeps no request open, of an agent whose job has ended while the server
/// does not know that yet.
const ENDED_SECONDS: u32 = 60;

/// How long a job that has ended waits for the server to take its last events.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// The most blocking threads, for the disk and for hashing, beside those of the runtime; each costs memory.
const BLOCKING_THREADS: usize = 16;

/// Builds the tokio runtime that jobs run on.
///
/// # Errors
/// When no thread can be started.
pub fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build()
}

/// How a job ended.
#[derive(Debug)]
pub enum Outcome {
    /// Every step succeeded.
    Done,
    /// A step failed for good; the disk does not boot.
    Failed(Ended),
    /// A step failed after the disk was sealed: it boots the new OS all the same.
    FailedSealed(Ended),
}

/// Carries out the agent's steps of `plan`, in order, and leaves the swarm.
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

/// The surroundings of an agent: a machine whose PID 1 it is, or a host on which it is an ordinary process.
pub trait Host: Send + Sync + 'static {
    /// Why the disks cannot be listed.
    type Error;

    /// The shortest time between two shown progress events.
    const PACE: Duration;

    /// Shows a line of text to a person: on the console, or on standard error.
    fn say(&self, text: &str);

    /// Shows an event when it is reported.
    fn show(&self, event: &StepEvent);

    /// Takes in the plan that the server has for `machine`, and returns it with what the host overrides.
    fn takes(&self, machine: MachineId, plan: Plan) -> Plan;

    /// Called before the first step of an attempt; may report events of its own to `sink`.
    fn begins(&self, sink: &dyn EventSink);

    /// Lists the disks as they are now.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn disks(&self) -> Result<Vec<Disk>, Self::Error>;

    /// Whether this agent lacks what the plan needs, and the machine has to boot again to get another one.
    fn lacks(&self, _: &Plan) -> bool {
        false
    }

    /// Whether to ask for another order after this outcome. Also shows a failure to a person.
    fn goes_on_after(&self, outcome: &Outcome) -> bool;
}

/// Why the main loop ended.
#[derive(Debug)]
pub enum End {
    /// A job ended, and the machine is to do what its plan says comes then.
    Job(Outcome, Finish),
    /// The server has no job for this machine, with its reason: the machine is to boot its own disk.
    BootDisk(String),
    /// The next order needs another agent than this one: the machine is to boot again. Nothing was written for it.
    AnotherAgent,
    /// Cancelled while waiting for an order.
    Stopped,
}

/// The agent's main loop, with what it needs.
#[derive(Debug)]
pub struct Life<H> {
    /// How it reports to the server and asks for orders.
    pub asking: Asking,
    /// Where it listens for peers, as a multiaddr.
    pub listen: String,
    /// The small files that it gives out; none if it does not.
    pub boot_files: Option<BootFiles>,
    /// Ends a job at a point where that is safe, and a wait for orders at once.
    pub cancel: CancellationToken,
    /// The surroundings: PID 1 or an ordinary process.
    pub host: Arc<H>,
}

impl<H: Host> Life<H> {
    /// Runs on `runtime`: carries out `first`, or else the first order that comes, and after a failure the next one.
    /// `backlog` has the events that the loader could not deliver. Blocks until the loop ends.
    ///
    /// # Errors
    /// When the disks cannot be listed.
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
                // The thread may still be waiting for the server's answer, which may come.
                drop(outbox.stop());
                return Ok(End::Job(outcome, finish));
            }
            // The outbox is kept while this waits, so that it goes on delivering.
            let next = self.order(runtime, Some(attempt));
            backlog = outbox.stop();
            plan = match next {
                ControlFlow::Continue(plan) => plan,
                ControlFlow::Break(end) => return Ok(end),
            };
        }
    }

    /// Waits for a plan that is not of the attempt `done`; or for the end of the loop.
    fn order(&self, runtime: &Runtime, done: Option<Attempt>) -> ControlFlow<End, Box<Plan>> {
        let mut say = |text: &str| self.host.say(text);
        match runtime.block_on(self.asking.order(done, &self.cancel, &mut say)) {
            Answer::Plan(_, plan) if self.host.lacks(&plan) => ControlFlow::Break(End::AnotherAgent),
            Answer::Plan(machine, plan) => ControlFlow::Continue(Box::new(self.host.takes(machine, *plan))),
            Answer::BootDisk(reason) => ControlFlow::Break(End::BootDisk(reason)),
            Answer::Stopped => ControlFlow::Break(End::Stopped),
        }
    }

    /// The context of a job whose events go to `outbox`.
    fn context(&self, outbox: &EventOutbox) -> Result<Context, H::Error> {
        let host = Arc::clone(&self.host);
        let show = move |event: &StepEvent| host.show(event);
        Ok(Context {
            server: self.asking.server.clone(),
            key: self.asking.key.clone(),
            sink: Arc::new(Shown::new(outbox.clone(), H::PACE, show)),
            disks: self.host.disks()?,
            listen: self.listen.clone(),
            boot_files: self.boot_files.clone(),
            run_script: crate::hooks::script::run,
            cancel: self.cancel.clone(),
        })
    }
}

/// What came of asking for an order.
#[derive(Debug)]
enum Answer {
    /// A plan for this machine, with the machine's id.
    Plan(MachineId, Box<Plan>),
    /// No job: the machine is to boot its own disk, with the server's reason.
    BootDisk(String),
    /// Cancelled while waiting, which never happens to PID 1.
    Stopped,
}

/// How an agent reports to the server to be given an order.
#[derive(Clone)]
pub struct Asking {
    /// The server that is asked.
    pub server: Server,
    /// The machine's boot key, made anew at each boot.
    pub key: KeyPair,
    /// Makes the hardware report of this moment. May block.
    pub report: Arc<dyn Fn() -> HardwareReport + Send + Sync>,
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asking").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Asking {
    /// Reports again and again until the server has a plan that is not of the attempt `done`, or sends the machine to
    /// its own disk. `say` is given the state for a person, each text once in a row.
    async fn order(
        &self,
        done: Option<Attempt>,
        cancel: &CancellationToken,
        say: &mut dyn FnMut(&str),
    ) -> Answer {
        let mut said = String::new();
        let mut again = Again::new(PAUSE, PAUSE_MAX, &self.key.public());
        loop {
            let asking = self.clone();
            let asked = spawn_blocking(move || {
                let report = (asking.report)();
                (asking.server.report(&asking.key, &report), report)
            })
            .await;
            let (text, rest) = match asked {
                Ok((Ok((verdict, _)), report)) => {
                    again.answered();
                    let wait = |seconds| {
                        Rest::Open(ToldToWait { report: verdict.report, seconds }, Box::new(report))
                    };
                    match verdict.instruction {
                        Instruction::Deploy(plan) if done != Some(Attempt::of(&plan)) => {
                            return Answer::Plan(verdict.machine, plan);
                        }
                        Instruction::BootDisk { reason } => return Answer::BootDisk(reason),
                        Instruction::Deploy(plan) => (
                            format!("{} has ended here; waiting for another order", plan.job),
                            wait(ENDED_SECONDS),
                        ),
                        Instruction::Wait { seconds, reason } => (
                            format!("this is machine {}: waiting ({reason})", verdict.machine),
                            wait(seconds),
                        ),
                    }
                }
                Ok((Err(error), _)) => (unanswered(&error), Rest::BackOff(again.failed(error.is_unsent()))),
                Err(error) => (error.to_string(), Rest::BackOff(again.failed(false))),
            };
            if text != said {
                say(&text);
                said = text;
            }
            if cancel.run_until_cancelled(self.rest(rest, cancel)).await.is_none() {
                return Answer::Stopped;
            }
        }
    }

    /// Waits until the next report. When that is cancelled, the blocking thread ends with its open request.
    async fn rest(&self, rest: Rest, cancel: &CancellationToken) {
        let (told, reported) = match rest {
            Rest::BackOff(pause) => return tokio::time::sleep(pause).await,
            Rest::Open(told, reported) => (told, reported),
        };
        let (asking, cancel) = (self.clone(), cancel.clone());
        let make = Arc::clone(&self.report);
        let waited = spawn_blocking(move || {
            asking.server.wait(&asking.key, told, &mut Hardware { reported, make, cancel });
        });
        if waited.await.is_err() {
            // The panic was shown; a report that panics as well must not be made again and again without a pause.
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// What is done until the next report.
enum Rest {
    /// There was no answer to the last one.
    BackOff(Duration),
    /// The answer to this one was to wait.
    Open(ToldToWait, Box<HardwareReport>),
}

/// The hardware as it was reported, to be compared with what is there.
struct Hardware {
    reported: Box<HardwareReport>,
    make: Arc<dyn Fn() -> HardwareReport + Send + Sync>,
    cancel: CancellationToken,
}

impl Lookout for Hardware {
    fn has_changed(&mut self) -> bool {
        (self.make)() != *self.reported
    }

    fn is_over(&self) -> bool {
        self.cancel.is_cancelled()
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

    /// A plan whose only step this version does not know: its job fails before anything is written.
    fn plan() -> Plan {
        plan_for(&testing::disk("sda"), &manifest_of(&[1; 4096], 512), &[Step::named("defragment")])
    }

    /// A server that answers one report after the other with these instructions.
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

        fn lacks(&self, plan: &Plan) -> bool {
            plan.steps.contains(&Step::Hooks)
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
            boot_files: None,
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
    fn an_order_for_which_this_agent_lacks_something_is_left_to_the_next_boot() {
        let hooked = Plan { steps: vec![Step::Hooks], attempt: 2, ..plan() };
        let server = server(vec![Instruction::Deploy(Box::new(hooked))]);
        let (end, lines) = live(&server, Some(plan()), true);
        assert!(matches!(end, End::AnotherAgent), "{end:?}");
        assert!(!lines.iter().any(|line| line.starts_with("hooks")), "{lines:?}");
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
