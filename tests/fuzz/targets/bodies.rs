//! Fuzzes bodies that unknown machines send over HTTP, handled as the fleet handles them once their signature is right,
//! and a server's answers as a machine reads them. The first byte says which: `e`vents, a call `h`ome, its `t`oken, a
//! `r`eport, a request to `w`ait, a server's `a`nswer.
#![no_main]

use std::sync::Arc;

use common::hardware::{CheckedHardware, HardwareReport};
use common::id::{DeploymentId, JobId, MachineId};
use common::limits::EVENT_TEXT_MAX;
use common::step::{EventBatch, What};
use common::text::is_format;
use common::trust::KeyPair;
use common::wire::call_home::CallHome;
use common::wire::http::{Identity, WaitAnswer, WaitRequest};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use server::api::shapes::JobState;
use server::fleet::decide::{Fleet, Heard};
use server::fleet::job::Job;
use server::fleet::machine::{Boot, Machine};
use server::fleet::marks::Fingerprint;
use server::fleet::state::{Change, State};
use server::fleet::testing::settings;

fuzz_target!(|body: &[u8]| {
    let Some((kind, body)) = body.split_first() else { return };
    match kind {
        b'e' => events(body),
        b'h' => call_home(body),
        b't' => token(body),
        b'r' => report(body),
        b'w' => wait(body),
        b'a' => answer(body),
        _ => {}
    }
});

fn key() -> KeyPair {
    KeyPair::from_secret([7; 32])
}

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000_000).unwrap_or_default()
}

/// A fleet with a machine that reported under `key`, and its job in `state`.
fn fleet(state: JobState) -> Fleet {
    let key = key().public();
    let mut known = State::default();
    let mut machine = Machine::new(MachineId(1), Fingerprint::default(), "lab".to_owned(), now());
    machine.boot = Some(Boot { key, through: 0, since: now() });
    known.adopt(&Change::Machine(Box::new(machine)));
    let mut job = Job::new(JobId(1), DeploymentId(1), MachineId(1), now());
    (job.state, job.attempt, job.key) = (state, 1, Some(key));
    job.sealed = state == JobState::Written;
    known.adopt(&Change::Job(Box::new(job)));
    Fleet::new(known, settings())
}

/// Checks that texts of an unknown machine that reach an admin's terminal have no control characters left.
fn look_at(fleet: &mut Fleet, wanted_before: Timestamp) {
    let plain = |text: &str| !text.chars().any(|c| c.is_control() || is_format(c));
    for change in fleet.take_effects().changes {
        match change {
            Change::Event(event) => {
                assert!(event.at <= wanted_before, "an event of the future");
                assert!(plain(event.step.name()) && plain(&event.name));
                let (What::Note { text } | What::Done { text } | What::Failed { cause: text, .. }) =
                    event.what
                else {
                    continue;
                };
                assert!(plain(&text) && text.len() <= EVENT_TEXT_MAX, "{text:?}");
            }
            Change::Job(job) => assert!(job.cause.as_deref().is_none_or(plain), "{:?}", job.cause),
            Change::Machine(machine) => assert!(machine.name.as_deref().is_none_or(plain)),
            _ => {}
        }
    }
}

fn events(body: &[u8]) {
    let Ok(batch) = serde_json::from_slice::<EventBatch>(body) else { return };
    // Under a key that the fleet knows, as that of every machine that has reported.
    let batch = EventBatch { key: key().public(), ..batch };
    for state in [JobState::Running, JobState::Cancelled] {
        let mut fleet = fleet(state);
        let Ok(taken) = fleet.events(batch.clone(), now()) else { panic!("its key is known") };
        look_at(&mut fleet, now());
        // Sent again, as after a lost answer: no event is taken twice.
        let Ok(again) = fleet.events(batch.clone(), now()) else { panic!("its key is known") };
        assert_eq!(again, taken);
        let changes = fleet.take_effects().changes;
        assert!(changes.iter().all(|change| !matches!(change, Change::Event(_) | Change::Job(_))));
    }
}

fn call_home(body: &[u8]) {
    let Ok(call) = serde_json::from_slice::<CallHome>(body) else { return };
    for state in [JobState::Written, JobState::Running] {
        let mut fleet = fleet(state);
        let token = fleet.settings.token(JobId(1), 1);
        assert_eq!(fleet.confirm(&token, Some(&call), now()), Some(JobId(1)));
        look_at(&mut fleet, now());
    }
}

fn token(body: &[u8]) {
    let mut fleet = fleet(JobState::Written);
    let Ok(token) = std::str::from_utf8(body) else { return };
    if *token != fleet.settings.token(JobId(1), 1) {
        assert_eq!(fleet.confirm(token, None, now()), None, "a token by chance");
    }
}

fn report(body: &[u8]) {
    let Ok(report) = serde_json::from_slice::<HardwareReport>(body) else { return };
    let Ok(checked) = CheckedHardware::check(report) else { return };
    let (checked, mut fleet) = (Arc::new(checked), fleet(JobState::Ordered));
    let first = fleet.report(&checked, None, now()).machine;
    look_at(&mut fleet, now());
    // The same boot, some seconds later.
    assert_eq!(fleet.report(&checked, None, now()).machine, first);
}

fn wait(body: &[u8]) {
    let Ok(request) = serde_json::from_slice::<WaitRequest>(body) else { return };
    let request = WaitRequest { key: key().public(), ..request };
    let mut fleet = fleet(JobState::Ordered);
    // It was told nothing since the server began: it has to report.
    assert_eq!(fleet.wait(&request, [10, 0, 0, 7].into(), now()), Heard::Unknown);
    look_at(&mut fleet, now());
}

fn answer(body: &[u8]) {
    let text = agent::fetch::try_refusal(body);
    assert!(!text.chars().any(|c| c.is_control() || is_format(c)), "{text:?}");
    let _ = serde_json::from_slice::<Identity>(body);
    let _ = serde_json::from_slice::<WaitAnswer>(body);
}
