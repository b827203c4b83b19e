//! Records with relays and staged images as the first version that had them wrote them: they are read without loss, and
//! written again byte for byte. The fixture was written by the code of commit 10b0139, schema 5.

use super::written_before::{at, rows};
use super::*;

/// A database as 10b0139 left it.
fn fixture(dir: &Path) -> PathBuf {
    let path = dir.join("records.sqlite");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(include_str!("../fixture_10b0139.sql")).unwrap();
    path
}

#[test]
fn relays_and_stages_that_were_recorded_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let state = Records::open(&fixture(dir.path())).unwrap().load().unwrap();
    assert!(state.set_aside.is_empty());
    let relays: Vec<_> = state
        .relays
        .values()
        .map(|relay| {
            let enrolled = relay.enrolled.map(|(key, at)| (key.short(), at));
            (relay.number, relay.name.as_str(), relay.site.as_str(), enrolled, relay.revoked, relay.last_seen)
        })
        .collect();
    let short = |number: u8| KeyPair::from_secret([number; 32]).public().short();
    let wanted = [
        (1, "branch-1", "branch", Some((short(51), at(20))), None, Some(at(900))),
        (2, "branch-2", "branch", None, None, None),
        (3, "attic", "10.9.8.0/24", Some((short(53), at(30))), Some(at(40)), Some(at(35))),
        (4, "withdrawn", "branch", None, Some(at(50)), None),
        // The key of the revoked one, invited again.
        (7, "attic", "10.9.8.0/24", Some((short(53), at(60))), None, None),
    ];
    assert_eq!(relays, wanted);
    assert_eq!(state.relays[&1].version.as_deref(), Some("0.1.0-\"a'b\" ä"));
    let times = (state.relays[&2].invited, state.relays[&2].expires);
    assert_eq!(times, (at(11), at(11 + 86_400)));
    let key = KeyPair::from_secret([53; 32]).public();
    assert_eq!(state.relay_by_key(&key).map(|relay| relay.number), Some(7));

    let stages: Vec<_> = state
        .stages
        .values()
        .map(|order| (order.number, order.site.as_str(), order.not_before, order.limit.map(u64::from)))
        .collect();
    let wanted = [(1, "branch", None, None), (2, "10.9.8.0/24", Some(at(7200)), Some(5_000_000))];
    assert_eq!(stages, wanted);
    assert_eq!((state.stages[&2].image_name.as_str(), state.stages[&2].wire_bytes), ("o'debian", 1 << 28));
    assert_eq!(state.last_stage, 3, "the ended one's number is not given again");
}

#[test]
fn relays_and_stages_are_written_again_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = fixture(dir.path());
    let before = rows(&path);
    assert!(
        before.iter().filter(|row| row.starts_with("relays: ") || row.starts_with("stages: ")).count() == 7
    );
    let state = Records::open(&path).unwrap().load().unwrap();
    assert_eq!(rows(&path), before, "opening changes no row");
    let again = dir.path().join("again.sqlite");
    let mut changes: Vec<Change> =
        state.relays.values().map(|relay| Change::Relay(Box::new(relay.clone()))).collect();
    let ended = StageOrder { number: state.last_stage, ..state.stages[&1].clone() };
    changes.push(Change::Stage(Box::new(ended)));
    changes.extend(state.stages.values().map(|order| Change::Stage(Box::new(order.clone()))));
    changes.push(Change::Unstage(state.last_stage));
    let every = LogFilter { progress: true, ..LogFilter::default() };
    let log = LogReader::open(&path).unwrap().page(&every, 0, 100).unwrap();
    changes.extend(log.into_iter().map(|event| Change::Event(Box::new(event))));
    Records::open(&again).unwrap().commit(&changes).unwrap();
    assert_eq!(rows(&again), before);
}
