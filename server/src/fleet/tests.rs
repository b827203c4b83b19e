//! The fleet's thread over a store in memory: nothing is answered before it is committed, what cannot be committed is
//! not done, and old events are deleted when the settings say so. Needs neither a database nor a network.

use std::sync::Arc;

use common::id::Mac;
use common::step::{Step, What};
use common::trust::KeyPair;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::boot_policy::{Answered, Asker, ClientKind, Sighting};
use super::decide::Settings;
use super::request::Request;
use super::state::Change;
use super::store::{LogFilter, Store};
use super::testing::memory::Memory;
use super::testing::nothing::Nothing;
use super::testing::settings;
use super::testing::suite::{event, store_suite};
use super::{FleetError, FleetHandle, FleetTask, start};
use crate::api::shapes::Freeze;

store_suite!(Memory::default());

fn fleet_with(memory: &Memory, settings: Settings) -> (FleetHandle, FleetTask) {
    start(Box::new(memory.clone()), Arc::new(Nothing), KeyPair::from_secret([1; 32]), settings).unwrap()
}

fn fleet(memory: &Memory) -> (FleetHandle, FleetTask) {
    fleet_with(memory, settings())
}

fn freeze(reason: &str) -> Freeze {
    Freeze { freeze: true, reason: Some(reason.to_owned()) }
}

fn power_on(last: u8) -> Sighting {
    Sighting::PowerOn {
        asker: Asker { mac: Some(Mac([2, 0, 0, 0, 0, last])), uuid: None, serial: None },
        firmware: ClientKind::Firmware { kind: "bios", http: false },
        answer: Answered::Proxy { file: None },
        relay: None,
    }
}

async fn log(fleet: &FleetHandle) -> Vec<u64> {
    let filter = LogFilter { progress: true, ..LogFilter::default() };
    fleet.log_page(filter, 0, 1000).await.unwrap().iter().map(|event| event.id).collect()
}

/// Commits two old events and a recent one.
async fn with_old_events(memory: &Memory) {
    let note = || What::Note { text: "x".to_owned() };
    let mut recent = event(3, None, Step::Loader, note());
    if let Change::Event(event) = &mut recent {
        event.at = Timestamp::now();
    }
    let old = |id| event(id, None, Step::Loader, note());
    memory.clone().commit(&[old(1), old(2), recent]).await.unwrap();
}

#[tokio::test]
async fn what_is_answered_is_written_down() {
    let memory = Memory::default();
    let (fleet, _task) = fleet(&memory);
    let frozen = fleet.freeze(freeze("audit")).await.unwrap();
    assert_eq!(memory.state().frozen, frozen);
    let mut news = fleet.follow();
    fleet.sighting(power_on(1));
    let seen = news.recv().await.unwrap();
    let written = memory.state();
    assert_eq!(written.machines.len(), 1);
    assert!(written.last_event >= seen.id, "a follower was told of what is not written down");
    fleet.frozen().await.unwrap();
    assert_eq!(fleet.policies().borrow().iter().count(), 1);
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_done() {
    let memory = Memory::default();
    let (fleet, _task) = fleet(&memory);
    fleet.sighting(power_on(1));
    fleet.frozen().await.unwrap();
    let before = log(&fleet).await;
    memory.fill(true);
    let refused = fleet.freeze(freeze("audit")).await.unwrap_err();
    assert!(matches!(refused, FleetError::Unwritten(_)), "{refused}");
    let told = common::causes::with_causes(&refused);
    assert_eq!(told, "what was asked for could not be written down: there is no room");
    fleet.sighting(power_on(2));
    // Queued after the sighting: waits until that was processed.
    drop(fleet.frozen().await);
    memory.fill(false);
    assert_eq!(fleet.frozen().await.unwrap(), None, "it went back to what is written down");
    assert_eq!(log(&fleet).await, before);
    // Event numbers of the failed commit are given again, each once.
    fleet.freeze(freeze("audit")).await.unwrap();
    fleet.sighting(power_on(3));
    fleet.frozen().await.unwrap();
    let ids = log(&fleet).await;
    assert!(ids.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{ids:?}");
}

#[tokio::test]
async fn a_fleet_begins_where_the_last_one_ended() {
    let memory = Memory::default();
    let (before, task) = fleet(&memory);
    before.sighting(power_on(1));
    before.freeze(freeze("audit")).await.unwrap();
    let cancel = CancellationToken::new();
    cancel.cancel();
    task.run(cancel).await.unwrap();
    assert!(matches!(before.frozen().await, Err(FleetError::Stopping)));
    let (after, _task) = fleet(&memory);
    assert_eq!(after.frozen().await.unwrap().unwrap().reason.as_deref(), Some("audit"));
    assert_eq!(after.policies().borrow().iter().count(), 1);
}

#[tokio::test]
async fn old_events_are_forgotten_when_that_is_set() {
    let hour = Some(SignedDuration::from_hours(1));
    let table = [(None, None, vec![1, 2, 3]), (hour, None, vec![3]), (None, Some(0), vec![3])];
    for (keep_events, keep_bytes, left) in table {
        let memory = Memory::default();
        with_old_events(&memory).await;
        let (fleet, _task) = fleet_with(&memory, Settings { keep_events, keep_bytes, ..settings() });
        fleet.requests.send(Request::Forget).await.unwrap_or_else(|_| panic!("the fleet has stopped"));
        fleet.frozen().await.unwrap();
        assert_eq!(log(&fleet).await, left, "{keep_events:?} {keep_bytes:?}");
    }
}

#[tokio::test]
async fn the_task_forgets_by_itself_and_notices_that_there_is_no_room() {
    let memory = Memory::default();
    with_old_events(&memory).await;
    let settings =
        Settings { keep_events: Some(SignedDuration::from_hours(1)), reserve_bytes: 1 << 20, ..settings() };
    let (fleet, task) = fleet_with(&memory, settings);
    memory.fill(true);
    let cancel = CancellationToken::new();
    let task = tokio::spawn(task.run(cancel.clone()));
    let noticed = async {
        while fleet.warnings().await.unwrap().is_empty() || log(&fleet).await.len() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), noticed).await.unwrap();
    assert!(fleet.warnings().await.unwrap()[0].contains("less than 1 MiB are free"));
    cancel.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_full_disk_does_not_end_the_fleet() {
    let memory = Memory::default();
    let (fleet, task) = fleet(&memory);
    let cancel = CancellationToken::new();
    let task = tokio::spawn(task.run(cancel.clone()));
    memory.fill(true);
    // Something to write comes between two ticks until one of them shares its group and fails with it.
    let until = tokio::time::Instant::now() + std::time::Duration::from_millis(2500);
    while tokio::time::Instant::now() < until {
        fleet.sighting(power_on(1));
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert!(!task.is_finished(), "it waits for room");
    memory.fill(false);
    fleet.freeze(freeze("audit")).await.unwrap();
    cancel.cancel();
    task.await.unwrap().unwrap();
}
