//! The runner: carries out the plan's steps in order, reports the beginning and end of each, and retries where that may
//! help. Touches neither disk nor network: what a step does is behind [`Work`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use common::causes::with_causes;
use common::step::{Owner, Sources, Step, What};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::StepError;

/// The most tries of one step before the job fails.
const TRIES: u32 = 3;

/// The back-off before the second try; each further one is four times as long.
const PAUSE: Duration = Duration::from_secs(2);

/// Takes the events of a job: the outbox, or a test's list.
pub trait EventSink: Send + Sync {
    /// Takes an event, without waiting for the network.
    fn event(&self, step: Step, what: What, sources: Option<Sources>);

    /// The server's reason for cancelling the job; none while it has not.
    fn cancelled(&self) -> Option<String>;

    /// The shortest time between two progress events of a step.
    fn pace(&self) -> Duration;

    /// Sets that time, as the server wants it.
    fn set_pace(&self, pace: Duration);
}

impl EventSink for crate::outbox::EventOutbox {
    fn event(&self, step: Step, what: What, sources: Option<Sources>) {
        Self::event(self, step, what, sources);
    }

    fn cancelled(&self) -> Option<String> {
        Self::cancelled(self)
    }

    fn pace(&self) -> Duration {
        Self::pace(self)
    }

    fn set_pace(&self, pace: Duration) {
        Self::set_pace(self, pace);
    }
}

/// Reports a running step's progress and notes. Clones share the limit on progress events.
#[derive(Clone)]
pub struct StepReporter {
    sink: Arc<dyn EventSink>,
    step: Step,
    told: Arc<Mutex<Option<Instant>>>,
}

impl std::fmt::Debug for StepReporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StepReporter").field(&self.step).finish()
    }
}

impl StepReporter {
    /// A reporter of `step`, whose events go to `sink`.
    #[must_use]
    pub fn new(sink: Arc<dyn EventSink>, step: Step) -> Self {
        Self { sink, step, told: Arc::default() }
    }

    /// Reports that `done` of `total` is done. As often as the server wants it at the most; calls in between are dropped.
    pub fn progress(&self, done: u64, total: u64, sources: Option<Sources>) {
        let now = Instant::now();
        {
            let mut told = self.told.lock();
            if told.is_some_and(|last| now - last < self.sink.pace()) {
                return;
            }
            *told = Some(now);
        }
        self.sink.event(self.step.clone(), What::Progress { done, total }, sources);
    }

    /// Reports something that belongs in the log and is not a failure.
    pub fn note(&self, text: impl Into<String>) {
        self.sink.event(self.step.clone(), What::Note { text: text.into() }, None);
    }
}

/// Carries out single steps for the runner: the machine, or a test's fake.
pub trait Work {
    /// Carries out `step`, and returns a short text for the log.
    fn carry_out(
        &mut self,
        step: &Step,
        reporter: &StepReporter,
    ) -> impl Future<Output = Result<String, StepError>>;

    /// Where the bytes came from so far; none where nothing counts them.
    fn sources(&self) -> Option<Sources>;
}

/// The failure that ended a job before its last step.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub struct Ended {
    /// The step that failed.
    pub step: Step,
    /// The error of its last try.
    #[source]
    pub error: StepError,
}

/// Carries out those of `steps` that are the agent's, and those that this version does not know, which `work` is to
/// refuse. `cancel` shortens the pauses between tries; the step itself has to observe it.
///
/// # Errors
/// When a step failed for good; `sink` has been told.
pub async fn walk(
    steps: &[Step],
    work: &mut impl Work,
    sink: Arc<dyn EventSink>,
    cancel: &CancellationToken,
) -> Result<(), Ended> {
    for step in steps.iter().filter(|step| step.owner().is_none_or(|owner| owner == Owner::Agent)) {
        let mut pause = PAUSE;
        for attempt in 1.. {
            sink.event(step.clone(), What::Started, None);
            let reporter = StepReporter::new(Arc::clone(&sink), step.clone());
            let error = match work.carry_out(step, &reporter).await {
                Ok(text) => {
                    sink.event(step.clone(), What::Done { text }, counted(step, work.sources()));
                    break;
                }
                Err(error) => error,
            };
            let last = attempt >= TRIES || !error.may_pass();
            let cause = with_causes(&error);
            let sources = counted(step, work.sources());
            let ends_job = last && !matches!(error, StepError::Dismissed(_));
            sink.event(step.clone(), What::Failed { cause, last: ends_job }, sources);
            if last {
                return Err(Ended { step: step.clone(), error });
            }
            // A cancelled job does not wait: the next try ends at once.
            let _ = cancel.run_until_cancelled(tokio::time::sleep(pause)).await;
            pause *= 4;
        }
    }
    Ok(())
}

/// Only events of steps that move bytes bear the counts.
fn counted(step: &Step, sources: Option<Sources>) -> Option<Sources> {
    matches!(step, Step::Transfer | Step::Linger | Step::Reboot).then_some(sources).flatten()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[derive(Default)]
    pub(crate) struct Lines(Mutex<Vec<String>>);

    impl Lines {
        pub(crate) fn all(&self) -> Vec<String> {
            self.0.lock().clone()
        }
    }

    impl EventSink for Lines {
        fn event(&self, step: Step, what: What, sources: Option<Sources>) {
            let what = match what {
                What::Started => "started".to_owned(),
                What::Progress { done, total } => format!("{done}/{total}"),
                What::Note { text } => format!("note {text}"),
                What::Done { text } => format!("done {text}"),
                What::Failed { cause, last } => {
                    format!("failed {cause}{}", if last { " for good" } else { "" })
                }
            };
            let bytes = sources.map_or(String::new(), |sources| format!(" ({} from peers)", sources.peers));
            self.0.lock().push(format!("{step} {what}{bytes}"));
        }

        fn cancelled(&self) -> Option<String> {
            None
        }

        fn pace(&self) -> Duration {
            Duration::from_secs(3)
        }

        fn set_pace(&self, _: Duration) {}
    }

    struct Fake(VecDeque<Result<String, StepError>>);

    impl Work for Fake {
        async fn carry_out(&mut self, _: &Step, reporter: &StepReporter) -> Result<String, StepError> {
            reporter.progress(1, 3, None);
            reporter.progress(2, 3, None);
            self.0.pop_front().unwrap()
        }

        fn sources(&self) -> Option<Sources> {
            Some(Sources { peers: 7, ..Sources::default() })
        }
    }

    fn no_answer() -> StepError {
        StepError::Broken("no answer".to_owned())
    }

    /// Runs the steps with these results; the events that were reported, and the outcome.
    async fn told(
        steps: &[Step],
        results: Vec<Result<&str, StepError>>,
    ) -> (Vec<String>, Result<(), String>) {
        let lines = Arc::new(Lines::default());
        let results = results.into_iter().map(|result| result.map(str::to_owned)).collect();
        let sink: Arc<dyn EventSink> = lines.clone();
        // Cancelled from the start, which keeps the pauses between tries short; the fake ignores it.
        let cancel = CancellationToken::new();
        cancel.cancel();
        let end = walk(steps, &mut Fake(results), sink, &cancel).await;
        (lines.all(), end.map_err(|ended| with_causes(&ended)))
    }

    #[tokio::test]
    async fn what_helps_is_tried_again_and_told() {
        let steps = [Step::Decide, Step::Join, Step::Transfer];
        let (lines, end) = told(&steps, vec![Err(no_answer()), Ok("in"), Ok("")]).await;
        assert_eq!(end, Ok(()));
        assert_eq!(
            lines,
            [
                "join started",
                "join 1/3",
                "join failed no answer",
                "join started",
                "join 1/3",
                "join done in",
                "transfer started",
                "transfer 1/3",
                "transfer done  (7 from peers)",
            ]
        );
    }

    #[tokio::test]
    async fn what_does_not_help_ends_the_job_at_once() {
        for error in [StepError::NotJoined, StepError::Cancelled] {
            let text = error.to_string();
            let (lines, end) = told(&[Step::Join, Step::Seal], vec![Err(error)]).await;
            assert_eq!(end, Err(format!("join: {text}")));
            assert_eq!(lines.last().unwrap(), &format!("join failed {text} for good"));
        }
    }

    #[tokio::test]
    async fn an_attempt_that_the_server_gave_up_ends_without_ending_the_job() {
        let error = StepError::Dismissed("its job is over".to_owned());
        let (lines, end) = told(&[Step::Join, Step::Seal], vec![Err(error)]).await;
        assert_eq!(end, Err("join: cancelled: its job is over".to_owned()));
        assert_eq!(lines.last().unwrap(), "join failed cancelled: its job is over");
    }

    #[tokio::test]
    async fn the_third_failure_is_the_last() {
        let again = || Err(no_answer());
        let (lines, end) = told(&[Step::Join], vec![again(), again(), again()]).await;
        assert!(end.is_err());
        assert_eq!(lines.iter().filter(|line| line.contains("started")).count(), 3);
        assert!(lines.last().unwrap().ends_with("for good"));
    }

    #[tokio::test(start_paused = true)]
    async fn progress_is_told_as_often_as_the_server_wants() {
        let lines = Arc::new(Lines::default());
        let reporter = StepReporter::new(lines.clone(), Step::Transfer);
        for done in 0..10 {
            reporter.progress(done, 10, None);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(lines.all(), ["transfer 0/10", "transfer 3/10", "transfer 6/10", "transfer 9/10"]);
    }

    /// Steps of other owners are left out; an unknown step is refused by `Work`.
    #[tokio::test]
    async fn only_the_agents_steps_and_unknown_ones_are_walked() {
        let mut steps = Step::ALL.to_vec();
        steps.push(Step::named("defragment"));
        let ours =
            ["join", "gather", "transfer", "verify", "personalise", "hooks", "seal", "linger", "reboot"];
        let mut results: Vec<_> = ours.iter().map(|_| Ok("")).collect();
        results.push(Err(StepError::Unknown(Step::named("defragment"))));
        let (lines, end) = told(&steps, results).await;
        let begun: Vec<&str> = lines.iter().filter_map(|line| line.strip_suffix(" started")).collect();
        assert_eq!(begun, [&ours[..], &["defragment"]].concat());
        assert!(end.unwrap_err().starts_with("defragment: "), "{lines:?}");
    }
}
