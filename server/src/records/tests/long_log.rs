//! A page of the log costs as much of a long log as of a short one, whatever it is filtered by: counted in SQLite's own
//! steps, which are the same on every host. `SWARMBOOT_TEST_EVENTS=5000000 cargo test -p swarmboot --lib long_log --
//! --nocapture` prints what each takes of a log of that length. Touches a temporary folder.

use std::time::Instant;

use super::*;
use crate::records::connection::connect;
use crate::records::log::LogReader;

/// Machines that report all the time; ten more do seldom, and only at the end.
const BUSY: u64 = 2000;
/// The events of a page.
const PAGE: u32 = 500;
/// The most steps for a page: some 20 for each event, a machine that is looked up, and a block of events that is skipped;
/// 8 for each event of a seldom step. They take 15 ms.
const STEPS_MAX: u64 = 150_000;

/// A log of so many events: each second one, of each machine in turn; ten thousand deployments; three steps often, one
/// seldom, in an even distribution.
fn written(path: &Path, events: u64) {
    drop(Records::open(path).unwrap());
    let connection = connect(path).unwrap();
    connection.pragma_update(None, "synchronous", "off").unwrap();
    let filled = format!(
        "with recursive n(id) as (select 1 union all select id + 1 from n where id < {events})
         insert into events (id, at, machine, name, deployment, job, attempt, step, kind, content, done, total, sources,
             by_machine, asked_by)
         select id, id * 1000,
             case when id > {events} - 1000 and id % 20 = 0 then {BUSY} + 1 + (id / 20) % 10 else 1 + id % {BUSY} end,
             'rack17-' || (id % {BUSY}), 1 + id * 10000 / {events} / 2, id / 20, 1,
             case when id % ({events} / 50) = 7 then 'confirm'
                 else (case id % 3 when 0 then 'loader' when 1 then 'transfer' else 'inspect' end) end,
             case when id % 7 = 0 then 'progress' else 'done' end,
             'took 12 s, at 112 MB/s, which is what its disk writes', 0, 0, null, 1, null
         from n"
    );
    connection.execute_batch(&filled).unwrap();
}

fn machines(ids: impl IntoIterator<Item = u64>) -> Option<Vec<MachineId>> {
    Some(ids.into_iter().map(MachineId).collect())
}

/// What is asked of a log of so many events, each with a name.
fn questions(events: u64) -> Vec<(&'static str, LogFilter, u64)> {
    let plain = LogFilter { machines: None, deployment: None, step: None, since: None, progress: false };
    let at = |second: u64| Some(Timestamp::from_second(i64::try_from(second).unwrap()).unwrap());
    let confirm = Some(Step::Confirm);
    let (whole, quiet) = (events - events / 100, BUSY + 1..=BUSY + 10);
    vec![
        ("everything", plain.clone(), 0),
        ("everything, from the middle", plain.clone(), events / 2),
        ("with progress", LogFilter { progress: true, ..plain.clone() }, 0),
        ("a seldom step", LogFilter { step: confirm.clone(), ..plain.clone() }, 0),
        ("a step that there never was", LogFilter { step: Some(Step::Seal), ..plain.clone() }, 0),
        ("a frequent step", LogFilter { step: Some(Step::Transfer), ..plain.clone() }, 0),
        ("a machine", LogFilter { machines: machines([17]), ..plain.clone() }, 0),
        ("a quiet machine", LogFilter { machines: machines([BUSY + 3]), ..plain.clone() }, 0),
        ("quiet machines", LogFilter { machines: machines(quiet.clone()), ..plain.clone() }, 0),
        ("no machine that there is", LogFilter { machines: machines([99_999]), ..plain.clone() }, 0),
        ("a site of most machines", LogFilter { machines: machines(1..=1900), ..plain.clone() }, 0),
        ("a site of a tenth", LogFilter { machines: machines(1..=200), ..plain.clone() }, 0),
        ("a deployment", LogFilter { deployment: Some(DeploymentId(4000)), ..plain.clone() }, 0),
        ("since the last hundredth", LogFilter { since: at(whole), ..plain.clone() }, 0),
        ("since after the end", LogFilter { since: at(events + 9), ..plain.clone() }, 0),
        (
            "a machine since the last hundredth",
            LogFilter { machines: machines([17]), since: at(whole), ..plain.clone() },
            0,
        ),
        (
            "a seldom step of a machine",
            LogFilter { machines: machines([17]), step: confirm.clone(), ..plain.clone() },
            0,
        ),
        (
            "a seldom step of most machines",
            LogFilter { machines: machines(1..=1900), step: confirm.clone(), ..plain.clone() },
            0,
        ),
        (
            "a seldom step since the last hundredth",
            LogFilter { step: confirm, since: at(whole), ..plain.clone() },
            0,
        ),
        (
            "a frequent step of most machines",
            LogFilter { machines: machines(1..=1900), step: Some(Step::Transfer), ..plain.clone() },
            0,
        ),
        (
            "a deployment, of most machines",
            LogFilter { machines: machines(1..=1900), deployment: Some(DeploymentId(4000)), ..plain.clone() },
            0,
        ),
        (
            "most machines since the last hundredth",
            LogFilter { machines: machines(1..=1900), since: at(whole), ..plain.clone() },
            0,
        ),
        (
            "a frequent step of quiet machines",
            LogFilter { machines: machines(quiet), step: Some(Step::Transfer), ..plain },
            0,
        ),
    ]
}

#[test]
fn a_page_costs_as_much_of_a_long_log_as_of_a_short_one() {
    let events = std::env::var("SWARMBOOT_TEST_EVENTS").map_or(300_000, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.sqlite");
    written(&path, events);
    let reader = LogReader::open(&path).unwrap();
    println!("{events} events, {} MiB", std::fs::metadata(&path).unwrap().len() >> 20);
    let mut slow = vec![];
    for (name, filter, after) in questions(events) {
        let cold = Instant::now();
        let found = reader.page(&filter, after, PAGE).unwrap().len();
        let cold = cold.elapsed();
        let warm = Instant::now();
        reader.page(&filter, after, PAGE).unwrap();
        let (warm, steps) = (warm.elapsed(), reader.steps.take() / 2);
        println!("{name:40} {found:4} events  {steps:9} steps  {cold:9.1?} first  {warm:9.1?} again");
        if steps > STEPS_MAX {
            slow.push((name, steps));
        }
    }
    assert!(slow.is_empty(), "{slow:?}");
}

/// Whatever index a page is found by, it has the events that the filter wants, in order.
#[test]
fn a_page_has_what_is_wanted_whatever_it_is_found_by() {
    let events = 30_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.sqlite");
    written(&path, events);
    let reader = LogReader::open(&path).unwrap();
    let every = LogFilter { progress: true, ..LogFilter::default() };
    let all = reader.page(&every, 0, u32::MAX).unwrap();
    assert_eq!(all.len() as u64, events);
    for (name, filter, after) in questions(events) {
        let wanted = all.iter().filter(|event| event.id > after && filter.wants(event));
        let wanted: Vec<u64> = wanted.map(|event| event.id).take(PAGE as usize).collect();
        let found = reader.page(&filter, after, PAGE).unwrap();
        assert_eq!(found.iter().map(|event| event.id).collect::<Vec<_>>(), wanted, "{name}");
    }
}
