//! The contract of the fleet's stores, as tests that each implementation runs: `store_suite!` makes them from an
//! expression that gives new, empty records.

use std::sync::Arc;

use common::hardware::CheckedHardware;
use common::id::{DeploymentId, Hash, ImageId, JobId, MachineId};
use common::step::{Sources, Step, What};
use common::trust::KeyPair;
use jiff::{SignedDuration, Timestamp};

use super::super::answer::{KeptAnswer, Keyed};
use super::super::deployment::Deployment;
use super::super::job::Job;
use super::super::machine::Machine;
use super::super::marks::Fingerprint;
use super::super::profile::Profile;
use super::super::relay::{Relay, StageOrder};
use super::super::state::{Change, State};
use super::super::store::{KnownHardware, LogFilter, Store};
use crate::api::shapes::{Frozen, LogEvent};

/// Records that a test can open several times.
pub(crate) trait Bench {
    /// Opens them. The test has dropped the store that it opened before.
    fn open(&self) -> Box<dyn Store>;
}

impl Bench for super::memory::Memory {
    fn open(&self) -> Box<dyn Store> {
        Box::new(self.clone())
    }
}

/// Defines the tests of this file for the records that `$bench` gives.
macro_rules! store_suite {
    ($bench:expr) => {
        $crate::fleet::testing::suite::store_suite!(
            $bench =>
            what_is_committed_is_loaded_again,
            a_group_is_written_whole_or_not_at_all,
            no_number_is_given_twice,
            known_hardware_is_not_read_again,
            of_progress_only_the_newest_is_kept,
            a_page_is_what_a_follower_would_have_seen,
            an_event_that_is_dated_late_is_found_from_its_time_on,
            the_log_is_read_by_pages_and_by_many_at_once,
            old_events_are_forgotten_but_the_newest,
            the_oldest_events_are_forgotten_when_they_are_too_many,
            what_was_forgotten_is_known_and_cursors_are_kept,
        );
    };
    ($bench:expr => $($test:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $test() {
                $crate::fleet::testing::suite::$test(&$bench).await;
            }
        )+
    };
}
pub(crate) use store_suite;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn hardware() -> Arc<CheckedHardware> {
    let report = include_str!("../../../../common/tests/written-by-aa0dcaf/report.json");
    Arc::new(CheckedHardware::check(serde_json::from_str(report).unwrap()).unwrap())
}

fn machine(id: u64) -> Machine {
    let fingerprint = if id == 1 { Fingerprint::of(hardware().report()) } else { Fingerprint::default() };
    let mut machine = Machine::new(MachineId(id), fingerprint, "lab".to_owned(), at(0));
    machine.name = Some(format!("web-{id}"));
    machine.labels.insert("role".to_owned(), "web".to_owned());
    machine
}

fn deployment(id: u64) -> Deployment {
    let request = serde_json::json!({"image": "debian", "selection": {"machines": ["m1"]}, "user_data": "#!",
            "profile": {"name": "web", "number": 1, "added": at(1)}});
    Deployment {
        id: DeploymentId(id),
        ordered: at(1),
        image: ImageId(Hash::of(b"debian")),
        image_name: "debian".to_owned(),
        wire_bytes: 7,
        request: serde_json::from_value(request).unwrap(),
        open: true,
        paused: Some(at(5)),
        placed_with: Some(DeploymentId(1)),
    }
}

fn job(id: u64, machine: u64) -> Change {
    Change::Job(Box::new(Job::new(JobId(id), DeploymentId(1), MachineId(machine), at(2))))
}

pub(crate) fn event(id: u64, job: Option<u64>, step: Step, what: What) -> Change {
    Change::Event(Box::new(LogEvent {
        id,
        at: at(i64::try_from(id).unwrap()),
        machine: Some(MachineId(1)),
        name: "web-1".to_owned(),
        deployment: job.map(|_| DeploymentId(1)),
        job: job.map(JobId),
        attempt: job.map(|_| 1),
        step,
        what,
        sources: job.map(|server| Sources { server, ..Sources::default() }),
        by: None,
        by_machine: job.is_some(),
    }))
}

/// A relay that was invited, or one that has been enrolled and revoked since.
fn relay(number: u64, revoked: bool) -> Change {
    let key = |number| KeyPair::from_secret([number; 32]).public();
    Change::Relay(Box::new(Relay {
        number,
        name: format!("branch-{number}"),
        site: "branch".to_owned(),
        invitation: key(1),
        invited: at(1),
        expires: at(2),
        enrolled: revoked.then(|| (key(2), at(2))),
        revoked: revoked.then(|| at(3)),
        version: revoked.then(|| "1.0".to_owned()),
        last_seen: revoked.then(|| at(3)),
    }))
}

fn stage(number: u64, not_before: Option<Timestamp>) -> Change {
    Change::Stage(Box::new(StageOrder {
        number,
        image: ImageId(Hash::of(b"debian")),
        image_name: "debian".to_owned(),
        wire_bytes: 7,
        site: format!("branch {number}"),
        not_before,
        limit: not_before.map(|_| "5M".parse().unwrap()),
        ordered: at(4),
    }))
}

fn profile(number: u64, name: &str) -> Change {
    let wish = serde_json::json!({
        "image": "debian", "selection": {"labels": ["role in (web, db)"]}, "user_data": "#!", "finish": "stay",
        "hooks": [{"name": "setup", "script": "true", "timeout_seconds": 60, "on_failure": "continue"}],
    });
    let (name, by) = (name.to_owned(), "anna".to_owned());
    Change::Profile(Box::new(Profile {
        number,
        name,
        added: at(1),
        by,
        wish: serde_json::from_value(wish).unwrap(),
    }))
}

fn answer(key: &str) -> Change {
    let of = Keyed { who: "ci".to_owned(), key: key.to_owned(), order: Hash::of(b"order") };
    Change::Answer(Box::new(KeptAnswer { of, answer: "{\"deployment\":\"d1\"}".to_owned(), at: at(5) }))
}

fn note(id: u64) -> Change {
    event(id, None, Step::Loader, What::Note { text: "'; drop table events; --".to_owned() })
}

/// Changes that add two machines (the first with hardware), a deployment, a job, a freeze and an event.
fn known() -> Vec<Change> {
    vec![
        Change::Machine(Box::new(machine(1))),
        Change::Hardware(MachineId(1), hardware()),
        Change::Machine(Box::new(machine(2))),
        Change::Deployment(Box::new(deployment(1))),
        job(1, 1),
        Change::Frozen(Some(Frozen { since: at(3), reason: Some("audit".to_owned()) })),
        relay(1, false),
        relay(2, true),
        stage(1, None),
        stage(2, Some(at(9))),
        profile(1, "web"),
        profile(2, "db"),
        Change::ProfileGone(1),
        answer("k1"),
        answer("k2"),
        Change::AnswerGone { who: "ci".to_owned(), key: "k2".to_owned() },
        note(1),
    ]
}

/// The state as text, without its indexes.
fn plain(state: &State) -> String {
    let numbers = (state.last_event, state.last_machine, state.last_job, state.last_deployment);
    let (machines, orders, jobs) = (&state.machines, &state.deployments, &state.jobs);
    let relays =
        (&state.relays, &state.stages, state.last_stage, &state.answers, &state.profiles, state.last_profile);
    format!("{machines:#?}\n{orders:#?}\n{jobs:#?}\n{numbers:?}\n{:?}\n{relays:#?}", state.frozen)
}

async fn load(store: &mut Box<dyn Store>) -> State {
    store.load(KnownHardware::new()).await.unwrap()
}

async fn ids(store: &dyn Store, filter: &LogFilter, after: u64, limit: u32) -> Vec<u64> {
    let page = store.log().page(filter.clone(), after, limit).await.unwrap();
    page.iter().map(|event| event.id).collect()
}

fn every() -> LogFilter {
    LogFilter { progress: true, ..LogFilter::default() }
}

pub(crate) async fn what_is_committed_is_loaded_again(bench: &impl Bench) {
    let mut expected = State::default();
    known().iter().for_each(|change| expected.adopt(change));
    let mut store = bench.open();
    store.commit(&known()).await.unwrap();
    drop(store);
    let mut store = bench.open();
    let state = load(&mut store).await;
    assert_eq!(plain(&state), plain(&expected));
    assert!(state.set_aside.is_empty());
    // Each part of the state changes.
    let mut renamed = machine(1);
    renamed.name = None;
    renamed.labels.clear();
    let mut closed = deployment(1);
    closed.open = false;
    closed.paused = None;
    closed.request.remove_secrets();
    let later = [
        Change::Machine(Box::new(renamed)),
        Change::Deployment(Box::new(closed)),
        Change::Frozen(None),
        Change::Forget(MachineId(2)),
        relay(1, true),
        stage(1, Some(at(8))),
        Change::Unstage(2),
    ];
    later.iter().for_each(|change| expected.adopt(change));
    store.commit(&later).await.unwrap();
    drop(store);
    assert_eq!(plain(&load(&mut bench.open()).await), plain(&expected));
}

pub(crate) async fn a_group_is_written_whole_or_not_at_all(bench: &impl Bench) {
    let mut store = bench.open();
    store.commit(&[]).await.unwrap();
    let group = [note(1), job(1, 9)];
    assert!(store.commit(&group).await.is_err(), "its machine does not exist");
    assert_eq!(load(&mut store).await.last_event, 0);
    assert!(ids(&*store, &every(), 0, 9).await.is_empty());
}

pub(crate) async fn no_number_is_given_twice(bench: &impl Bench) {
    let mut store = bench.open();
    store.commit(&known()).await.unwrap();
    store.commit(&[job(2, 2), Change::Forget(MachineId(2))]).await.unwrap();
    drop(store);
    let state = load(&mut bench.open()).await;
    assert_eq!((state.machines.len(), state.jobs.len()), (1, 1), "its jobs go with a machine");
    let last = (state.last_machine, state.last_job, state.last_deployment, state.last_event);
    assert_eq!(last, (2, 2, 1, 1));
}

pub(crate) async fn known_hardware_is_not_read_again(bench: &impl Bench) {
    let mut store = bench.open();
    store.commit(&known()).await.unwrap();
    let (read, given) = (load(&mut store).await, hardware());
    let state = store.load([(MachineId(1), Arc::clone(&given))].into()).await.unwrap();
    let taken = state.machines[&MachineId(1)].hardware.as_ref();
    assert!(taken.is_some_and(|taken| Arc::ptr_eq(taken, &given)));
    assert_eq!(plain(&state), plain(&read));
}

pub(crate) async fn of_progress_only_the_newest_is_kept(bench: &impl Bench) {
    let mut store = bench.open();
    let progress = |id, job, done| event(id, Some(job), Step::Transfer, What::Progress { done, total: 9 });
    let verify = event(4, Some(1), Step::Verify, What::Progress { done: 1, total: 9 });
    let began = event(1, Some(1), Step::Transfer, What::Started);
    store.commit(&[began, progress(2, 1, 1), progress(3, 1, 2), verify]).await.unwrap();
    assert_eq!(ids(&*store, &every(), 0, 9).await, [1, 3, 4]);
    store.commit(&[progress(5, 2, 1), progress(6, 1, 9)]).await.unwrap();
    assert_eq!(ids(&*store, &every(), 0, 9).await, [1, 4, 5, 6]);
}

pub(crate) async fn a_page_is_what_a_follower_would_have_seen(bench: &impl Bench) {
    let mut store = bench.open();
    let failed = |last| What::Failed { cause: "ä".to_owned(), last };
    let group = [
        event(1, Some(1), Step::Transfer, What::Started),
        event(2, Some(1), Step::Verify, What::Progress { done: 1, total: 9 }),
        note(3),
        event(4, Some(1), Step::Other("defragment".to_owned()), failed(false)),
        event(5, Some(1), Step::Transfer, failed(true)),
        event(6, Some(1), Step::Seal, What::Done { text: String::new() }),
    ];
    store.commit(&group).await.unwrap();
    let all = store.log().page(every(), 0, 9).await.unwrap();
    let said = |change: &Change| {
        if let Change::Event(event) = change { format!("{event:?}") } else { String::new() }
    };
    let told: Vec<String> = all.iter().map(|event| format!("{event:?}")).collect();
    assert_eq!(told, group.iter().map(said).collect::<Vec<_>>());
    let filters = [
        (every(), vec![1, 2, 3, 4, 5, 6]),
        (LogFilter::default(), vec![1, 3, 4, 5, 6]),
        (LogFilter { deployment: Some(DeploymentId(1)), ..every() }, vec![1, 2, 4, 5, 6]),
        (LogFilter { deployment: Some(DeploymentId(2)), ..every() }, vec![]),
        (LogFilter { step: Some(Step::Transfer), ..every() }, vec![1, 5]),
        (LogFilter { since: Some(at(4)), ..every() }, vec![4, 5, 6]),
        (LogFilter { machines: Some(vec![MachineId(2)]), ..every() }, vec![]),
        (LogFilter { machines: Some(vec![MachineId(2), MachineId(1)]), ..every() }, vec![1, 2, 3, 4, 5, 6]),
        (LogFilter { machines: Some(vec![]), ..every() }, vec![]),
        (LogFilter { machines: Some(vec![MachineId(1)]), step: Some(Step::Transfer), ..every() }, vec![1, 5]),
        (LogFilter { machines: Some(vec![MachineId(1)]), since: Some(at(5)), ..every() }, vec![5, 6]),
        (
            LogFilter { machines: Some(vec![MachineId(1)]), deployment: Some(DeploymentId(2)), ..every() },
            vec![],
        ),
    ];
    for (filter, wanted) in filters {
        assert_eq!(ids(&*store, &filter, 0, 9).await, wanted, "{filter:?}");
        let same: Vec<u64> = all.iter().filter(|event| filter.wants(event)).map(|event| event.id).collect();
        assert_eq!(same, wanted, "a follower sees the same: {filter:?}");
    }
}

pub(crate) async fn an_event_that_is_dated_late_is_found_from_its_time_on(bench: &impl Bench) {
    let mut store = bench.open();
    let dated = |id: u64, second: i64| match note(id) {
        Change::Event(mut event) => {
            event.at = at(second);
            Change::Event(event)
        }
        other => other,
    };
    // Many blocks of numbers, of which the first has one event that is later than thousands behind it.
    let mut many: Vec<Change> = (1..=20_000).map(|id| dated(id, 1000)).collect();
    many[9] = dated(10, 3000);
    many[14_999] = dated(15_000, 2000);
    store.commit(&many).await.unwrap();
    let since = |second| LogFilter { since: Some(at(second)), ..every() };
    assert_eq!(ids(&*store, &since(2000), 0, 9).await, [10, 15_000]);
    assert_eq!(ids(&*store, &since(2000), 10, 9).await, [15_000]);
    assert_eq!(ids(&*store, &since(2500), 0, 9).await, [10]);
    assert_eq!(ids(&*store, &since(2500), 10, 9).await, [] as [u64; 0]);
    assert_eq!(ids(&*store, &since(3001), 0, 9).await, [] as [u64; 0]);
    assert_eq!(ids(&*store, &since(0), 19_998, 9).await, [19_999, 20_000]);
}

pub(crate) async fn the_log_is_read_by_pages_and_by_many_at_once(bench: &impl Bench) {
    let mut store = bench.open();
    store.commit(&(1..=20).map(note).collect::<Vec<_>>()).await.unwrap();
    let log = store.log();
    let pages = (0..8).map(|after| log.page(every(), after, 5));
    for (after, page) in (0..8).zip(futures::future::join_all(pages).await) {
        let ids: Vec<u64> = page.unwrap().iter().map(|event| event.id).collect();
        assert_eq!(ids, (after + 1..=after + 5).collect::<Vec<u64>>());
    }
    store.commit(&[note(21)]).await.unwrap();
    let page = log.page(every(), 20, 5).await.unwrap();
    assert_eq!(page.len(), 1, "an open log sees what is written later");
}

pub(crate) async fn old_events_are_forgotten_but_the_newest(bench: &impl Bench) {
    let mut store = bench.open();
    store.commit(&(1..=9).map(note).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(store.forget_before(at(0)).await.unwrap(), 0);
    assert_eq!(store.forget_before(at(4)).await.unwrap(), 3);
    assert_eq!(ids(&*store, &every(), 0, 9).await, [4, 5, 6, 7, 8, 9]);
    assert_eq!(store.forget_before(at(0) + SignedDuration::from_hours(9)).await.unwrap(), 5);
    assert_eq!(ids(&*store, &every(), 0, 9).await, [9]);
    assert_eq!(load(&mut store).await.last_event, 9, "the numbering goes on");
}

pub(crate) async fn the_oldest_events_are_forgotten_when_they_are_too_many(bench: &impl Bench) {
    let mut store = bench.open();
    let long = || What::Note { text: "x".repeat(1000) };
    let many: Vec<Change> = (1..=2000).map(|id| event(id, None, Step::Loader, long())).collect();
    store.commit(&many).await.unwrap();
    assert_eq!(store.forget_beyond(1 << 30).await.unwrap(), 0);
    assert!(store.forget_beyond(1 << 20).await.unwrap() > 500);
    let left = ids(&*store, &every(), 0, 9999).await;
    assert_eq!(left.last(), Some(&2000), "the newest stays");
    assert_eq!(load(&mut store).await.last_event, 2000, "the numbering goes on");
}

/// Whoever follows the log is told what it does not have any more; that progress is replaced is no loss.
pub(crate) async fn what_was_forgotten_is_known_and_cursors_are_kept(bench: &impl Bench) {
    let mut store = bench.open();
    assert_eq!(store.log().since(0, 10).await.unwrap().last, 0);
    let progress = |id| event(id, None, Step::Transfer, What::Progress { done: id, total: 9 });
    let note = |id| event(id, None, Step::Loader, What::Note { text: "x".to_owned() });
    let of = Change::Cursor { of: "webhook chat".to_owned(), after: 3 };
    store.commit(&[progress(1), progress(2), note(3), note(4), note(5), of.clone()]).await.unwrap();
    let ids =
        |since: &super::super::store::Since| since.events.iter().map(|event| event.id).collect::<Vec<_>>();
    let since = store.log().since(3, 1).await.unwrap();
    assert_eq!((ids(&since), since.forgotten, since.last), (vec![4], 0, 5));
    assert_eq!(ids(&store.log().since(0, 10).await.unwrap()), [3, 4, 5], "without progress");
    store.forget_before(at(1_000_000)).await.unwrap();
    drop(store);
    let mut store = bench.open();
    let since = store.log().since(0, 10).await.unwrap();
    assert_eq!((ids(&since), since.forgotten, since.last), (vec![5], 4, 5));
    store.commit(&[Change::Cursor { of: "webhook chat".to_owned(), after: 4 }]).await.unwrap();
    drop(store);
    let state = bench.open().load(KnownHardware::new()).await.unwrap();
    assert_eq!(state.cursors, [("webhook chat".to_owned(), 4)].into());
}
