//! The agent's life around the steps: from an order to its end, and what comes after a failure. The machine as
//! PID 1 and the ordinary process differ only in where events are shown and in what a plan's finish means.

use std::sync::Arc;
use std::time::Duration;

use common::causes::with_causes;
use common::hardware::HardwareReport;
use common::id::{JobId, MachineId};
use common::plan::{Instruction, Plan};
use common::trust::KeyPair;
use tokio_util::sync::CancellationToken;

use super::machine::{Context, Machine, blocking};
use super::run::{Ended, walk};
use crate::fetch::{FetchError, Server};

/// The pause before the second report after a failed one; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(2);

/// The longest pause between two reports.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How long the last events may take to the server before the end.
pub const LAST_WORDS: Duration = Duration::from_secs(30);

/// Threads for the disk and for hashing, beside those of the runtime; each costs memory.
const BLOCKING_THREADS: usize = 16;

/// The runtime that jobs run on.
///
/// # Errors
/// When no thread can be started.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build()
}

/// How a job went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every step went well.
    Done,
    /// A step failed for good; the disk does not boot.
    Failed(Ended),
    /// A step failed after the disk was sealed: it boots the new OS all the same.
    FailedSealed(Ended),
}

/// Carries out `plan`, from its first step that is the agent's to its last.
pub async fn carry_out(plan: Plan, context: Context) -> Outcome {
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

/// What the server answered to a report.
#[derive(Debug)]
pub enum Answer {
    /// A plan for this boot.
    Plan(MachineId, Box<Plan>),
    /// Nothing to do here: the machine is to boot its own disk.
    BootDisk(String),
    /// The waiting was cancelled.
    Stopped,
}

/// Who asks, and where.
#[derive(Clone)]
pub struct Asking {
    /// The server.
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
    /// Reports until the server has a plan that is not `done` (a job and its attempt), or sends the machine to
    /// its own disk. `say` gets what a person should know, each thing once.
    pub async fn order(
        &self,
        done: Option<(JobId, u32)>,
        cancel: &CancellationToken,
        say: &mut dyn FnMut(&str),
    ) -> Answer {
        let mut said = String::new();
        let mut pause = PAUSE;
        loop {
            let asking = self.clone();
            let asked = blocking(move || asking.server.report(&asking.key, &(asking.report)())).await;
            let (text, wait) = match asked {
                Ok(Ok((verdict, _))) => match verdict.instruction {
                    Instruction::Deploy(plan) if done != Some((plan.job, plan.attempt)) => {
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
