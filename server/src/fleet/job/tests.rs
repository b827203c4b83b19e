//! The life of a job: every event in every state, sequences of events, and invariants.

use super::super::bound::tests::disk;
use super::super::proof::Unsaid;
use super::*;
use JobState as S;
use common::trust::KeyPair;
use proptest::prelude::*;

const STATES: [S; 7] = [S::Ordered, S::Running, S::Written, S::Deployed, S::Failed, S::Refused, S::Cancelled];

fn key(n: u8) -> PublicKey {
    KeyPair::from_secret([n; 32]).public()
}

pub(crate) fn job(state: S) -> Job {
    let mut job = Job::new(JobId(1), DeploymentId(1), MachineId(1), Timestamp::UNIX_EPOCH);
    job.state = state;
    job.confirm = Confirm::Within(SignedDuration::from_mins(15));
    if !matches!(state, S::Ordered) {
        (job.attempt, job.key) = (1, Some(key(1)));
    }
    if matches!(state, S::Written | S::Deployed) {
        job.sealed = true;
        job.deadline = Some(at(900));
    }
    job
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn told(by: u8, step: Step, what: What) -> JobEvent {
    let event = StepEvent { number: 1, at_ms: 0, step, what, sources: None };
    JobEvent::Told { key: key(by), event }
}

fn done(step: Step) -> JobEvent {
    told(1, step, What::Done { text: String::new() })
}

fn other_disk() -> Call {
    Call::OtherDisk { root: "vda3 of vda".to_owned(), written: "vdb4 of vdb".to_owned() }
}

fn plan(by: u8) -> JobEvent {
    JobEvent::PlanGiven {
        key: key(by),
        last_step: Some(Step::Reboot),
        target: "disk".to_owned(),
        disk: disk("A"),
        marks: Marks::default(),
        confirm: Confirm::Within(SignedDuration::from_mins(15)),
    }
}

#[test]
fn every_event_in_every_state() {
    let failed = || told(1, Step::Transfer, What::Failed { cause: "c".to_owned(), last: true });
    let retried = || told(1, Step::Transfer, What::Failed { cause: "c".to_owned(), last: false });
    // The states afterwards, in the order of STATES; `None` if the event is dropped or changes nothing.
    let table: Vec<(&str, JobEvent, i64, [Option<S>; 7])> = vec![
        ("plan", plan(2), 0, [Some(S::Running), Some(S::Running), None, None, None, None, None]),
        (
            "refusal",
            JobEvent::TailorRefused("r".to_owned()),
            0,
            [Some(S::Refused), Some(S::Refused), None, None, None, None, None],
        ),
        (
            "progress",
            told(1, Step::Transfer, What::Progress { done: 1, total: 2 }),
            0,
            [None, Some(S::Running), Some(S::Written), Some(S::Deployed), None, None, None],
        ),
        ("progress of another key", told(9, Step::Transfer, What::Started), 0, [None; 7]),
        (
            "failure that is retried",
            retried(),
            0,
            [None, Some(S::Running), Some(S::Written), Some(S::Deployed), None, None, None],
        ),
        (
            "failure",
            failed(),
            0,
            [None, Some(S::Failed), Some(S::Written), Some(S::Deployed), None, None, None],
        ),
        (
            "reboot before the disk is sealed",
            done(Step::Reboot),
            0,
            [None, Some(S::Running), Some(S::Written), Some(S::Deployed), None, None, None],
        ),
        (
            "call home",
            JobEvent::CalledHome(Call::OnlyDisk),
            0,
            [None, None, Some(S::Deployed), Some(S::Deployed), None, None, None],
        ),
        (
            "call home from another disk",
            JobEvent::CalledHome(other_disk()),
            0,
            [None, None, Some(S::Failed), Some(S::Deployed), None, None, None],
        ),
        (
            "call home that proves nothing",
            JobEvent::CalledHome(Call::Unproven(Unsaid::Bare)),
            0,
            [None, None, Some(S::Written), Some(S::Deployed), None, None, None],
        ),
        (
            "cancel",
            JobEvent::Cancelled("c".to_owned()),
            0,
            [
                Some(S::Cancelled),
                Some(S::Cancelled),
                Some(S::Cancelled),
                None,
                None,
                Some(S::Cancelled),
                None,
            ],
        ),
        (
            "retry",
            JobEvent::Retried { bound: Bound::default(), before: MachineState::Inspected },
            0,
            [None, None, None, None, Some(S::Ordered), Some(S::Ordered), None],
        ),
        (
            "nobody came",
            JobEvent::Abandoned("expired".to_owned()),
            0,
            [Some(S::Cancelled), Some(S::Failed), None, None, None, None, None],
        ),
        ("time, early", JobEvent::Tick, 899, [None; 7]),
        ("time, late", JobEvent::Tick, 900, [None, None, Some(S::Failed), None, None, None, None]),
    ];
    for (what, event, seconds, wanted) in table {
        for (state, wanted) in STATES.into_iter().zip(wanted) {
            let before = job(state);
            let mut after = before.clone();
            let effects = after.apply(event.clone(), at(seconds));
            match wanted {
                Some(wanted) => {
                    assert_eq!(after.state, wanted, "{what} in {state:?}");
                    assert!(!effects.contains(&Effect::Dropped), "{what} in {state:?}");
                }
                None => {
                    assert_eq!(after, before, "{what} in {state:?}");
                    let silent = matches!(event, JobEvent::Tick);
                    assert_eq!(
                        effects,
                        if silent { vec![] } else { vec![Effect::Dropped] },
                        "{what} in {state:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_whole_life() {
    let mut job = Job::new(JobId(1), DeploymentId(1), MachineId(1), at(0));
    assert_eq!(job.apply(plan(1), at(1)), vec![Effect::Machine(MachineState::Deploying)]);
    assert_eq!(job.attempt, 1);
    assert!(job.apply(told(1, Step::Transfer, What::Progress { done: 5, total: 9 }), at(2)).is_empty());
    assert_eq!((job.done, job.total), (5, 9));
    assert!(job.apply(done(Step::Seal), at(3)).is_empty());
    assert!(job.apply(done(Step::Reboot), at(4)).contains(&Effect::IdleBoot(IdleBoot::BootDisk)));
    assert_eq!(job.state, S::Written);
    assert!(job.apply(JobEvent::CalledHome(Call::OnlyDisk), at(5)).contains(&Effect::Deployed));
    assert_eq!(job.state, S::Deployed);
}

#[test]
fn power_loss_in_the_middle_begins_the_next_attempt_and_silences_the_last() {
    let mut job = job(S::Running);
    let effects = job.apply(plan(2), at(1));
    assert!(effects.contains(&Effect::Dismiss(key(1), None)));
    assert_eq!(job.attempt, 2);
    assert_eq!(job.apply(done(Step::Seal), at(2)), vec![Effect::Dropped]);
    assert!(!job.sealed);
}

#[test]
fn an_answer_that_was_lost_is_given_again_in_the_same_attempt() {
    let mut job = job(S::Running);
    assert_eq!(job.attempt_for(&key(1)), 1);
    assert!(job.apply(plan(1), at(1)).is_empty());
    assert_eq!(job.attempt, 1);
    assert_eq!(job.attempt_for(&key(2)), 2);
}

#[test]
fn without_confirmation_written_is_deployed() {
    let mut job = job(S::Running);
    job.confirm = Confirm::Never;
    job.apply(done(Step::Seal), at(1));
    job.apply(told(1, Step::Reboot, What::Started), at(2));
    assert_eq!(job.state, S::Deployed);
}

/// M2: a key that stays admitted after its machine has called home keeps a place in the swarm for ever.
#[test]
fn an_end_of_any_kind_dismisses_the_agent() {
    let ends = [
        (S::Written, JobEvent::CalledHome(Call::OnlyDisk)),
        (S::Running, told(1, Step::Transfer, What::Failed { cause: "c".to_owned(), last: true })),
        (S::Running, JobEvent::Cancelled("by ada".to_owned())),
        (S::Running, JobEvent::TailorRefused("another disk".to_owned())),
    ];
    for (state, event) in ends {
        let effects = job(state).apply(event.clone(), at(1));
        let dismissed = |effect: &Effect| matches!(effect, Effect::Dismiss(who, _) if *who == key(1));
        assert!(effects.iter().any(dismissed), "{state:?} {event:?}: {effects:?}");
    }
}

#[test]
fn who_calls_home_late_is_deployed_after_all() {
    let mut job = job(S::Written);
    let effects = job.apply(JobEvent::Tick, at(901));
    assert!(effects.contains(&Effect::IdleBoot(IdleBoot::BootDisk)), "never a reinstall loop");
    assert_eq!(job.state, S::Failed);
    job.apply(JobEvent::CalledHome(Call::OnlyDisk), at(5000));
    assert_eq!(job.state, S::Deployed);
}

#[test]
fn what_proves_nothing_is_said_when_the_time_is_over() {
    let mut job = job(S::Written);
    job.apply(JobEvent::CalledHome(Call::Unproven(Unsaid::Bare)), at(5));
    job.apply(JobEvent::Tick, at(901));
    let cause = job.cause.unwrap();
    assert!(
        cause.contains("not heard of in time") && cause.contains("another disk of the machine is not blank"),
        "{cause}"
    );
}

#[test]
fn a_machine_that_was_started_from_another_disk_is_put_right_by_the_right_call() {
    let mut job = job(S::Written);
    let effects = job.apply(JobEvent::CalledHome(other_disk()), at(5));
    assert!(effects.contains(&Effect::Machine(MachineState::Failed)));
    assert!(job.apply(JobEvent::CalledHome(other_disk()), at(6)).is_empty(), "said once");
    let right = Call::Proven { root: "vdb3 of vdb".to_owned() };
    assert!(job.apply(JobEvent::CalledHome(right), at(60)).contains(&Effect::Deployed));
    let after = job.apply(JobEvent::CalledHome(other_disk()), at(90));
    assert_eq!((after.len(), job.state), (1, S::Deployed), "noted, and no more");
}

#[test]
fn a_refusal_is_said_once_and_is_the_end() {
    let mut job = job(S::Ordered);
    let logged = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::Log(..)));
    assert!(logged(&job.apply(JobEvent::TailorRefused("two disks".to_owned()), at(1))));
    assert!(!job.wants_plan() && !job.is_open());
    for event in [JobEvent::TailorRefused("no disk".to_owned()), plan(1), plan(2)] {
        assert_eq!(job.apply(event, at(2)), [Effect::Dropped]);
    }
    assert_eq!(job.cause.as_deref(), Some("two disks"));
}

proptest! {
    #[test]
    fn a_sealed_disk_is_always_booted(events in prop::collection::vec(0_usize..10, 0..30)) {
        let mut job = Job::new(JobId(1), DeploymentId(1), MachineId(1), at(0));
        let mut idle_boot = IdleBoot::Load;
        for (second, event) in (0_i64..).zip(events) {
            let event = match event {
                0 => plan(1),
                1 => JobEvent::TailorRefused("r".to_owned()),
                2 => done(Step::Seal),
                3 => done(Step::Reboot),
                4 => told(1, Step::Linger, What::Failed { cause: "c".to_owned(), last: true }),
                5 => JobEvent::CalledHome(Call::OnlyDisk),
                6 => JobEvent::Cancelled("c".to_owned()),
                7 => told(2, Step::Seal, What::Started),
                8 => JobEvent::CalledHome(other_disk()),
                _ => JobEvent::Tick,
            };
            for effect in job.apply(event, at(second * 600)) {
                if let Effect::IdleBoot(now) = effect { idle_boot = now; }
            }
            if matches!(job.state, S::Written | S::Deployed) {
                prop_assert_eq!(idle_boot, IdleBoot::BootDisk);
            }
            if job.state == S::Failed && job.sealed {
                prop_assert_eq!(idle_boot, IdleBoot::BootDisk);
            }
        }
    }
}
