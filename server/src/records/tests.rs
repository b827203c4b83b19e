//! The records: the state that was committed is the state that is loaded again, after random histories, restarts and
//! damage.

// The contract of the fleet's stores.
mod promises;

// A simulated day of use.
mod day;

// Permissions and content of the files.
mod files;

// Rows that cannot be read.
mod spoiled;

// Records of an earlier version.
pub(super) mod written_before;

// How much of a long log is read for a page.
mod long_log;

// The same, with relays and staged images.
mod relays_before;

use std::net::Ipv4Addr;

use common::hardware::{CheckedHardware, HardwareReport, Nic, System};
use common::id::{DeploymentId, Hash, ImageId, JobId, Mac, MachineId};
use common::step::{EventBatch, Sources, Step, StepEvent, What};
use common::testing;
use common::trust::KeyPair;
use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::api::shapes::{
    Cancel, DeployOrder, ImageShown, MachineAction, MachineCommand, Retry, RetryLine, Selection,
};
use crate::dhcp4::{Lease, LeaseState};
use crate::fleet::boot_policy::{Answered, Asker, Sighting};
use crate::fleet::decide::{Fleet, Settings};
use crate::fleet::order::CheckedOrder;
use crate::fleet::provisioner::{NoPlan, Provision};
use crate::fleet::relay::StageOrder;
use crate::fleet::reports::Next;
use crate::fleet::store::LogFilter;

fn settings() -> Settings {
    Settings {
        order_expires: Some(SignedDuration::from_hours(168)),
        url: "http://10.0.0.1:8069".to_owned(),
        ..crate::fleet::testing::settings()
    }
}

fn image() -> ImageShown {
    ImageShown {
        name: "debian".to_owned(),
        id: ImageId(Hash::of(b"debian")),
        added: Timestamp::UNIX_EPOCH,
        bytes: 1 << 30,
        wire_bytes: 1 << 28,
        chunks: 1024,
        zero_chunks: 0,
        sector_bytes: 512,
        partition_table: "gpt".to_owned(),
        source: "test".to_owned(),
        staged: vec![],
        traits: None,
        updates: vec![],
    }
}

fn report(machine: u8, boot: u8) -> CheckedHardware {
    let nic = Nic {
        name: "eth0".to_owned(),
        link: true,
        address: Some(format!("10.0.0.{machine}/24")),
        boot: true,
        ..testing::nic(Mac([2, 0, 0, 0, 0, machine]))
    };
    let system = System { serial: format!("SN{machine}"), ..System::default() };
    CheckedHardware::check(HardwareReport {
        key: key(machine, boot).public(),
        system,
        nics: vec![nic],
        ..testing::report()
    })
    .unwrap()
}

fn key(machine: u8, boot: u8) -> KeyPair {
    KeyPair::from_secret([machine.wrapping_mul(16).wrapping_add(boot); 32])
}

fn plan(request: &crate::fleet::provisioner::PlanRequest) -> common::plan::Plan {
    serde_json::from_value(serde_json::json!({
        "deployment": request.deployment, "job": request.job, "attempt": request.attempt,
        "image": request.image, "image_bytes": 1,
        "target": {"bus": "ata", "size": 1, "sector_bytes": 512, "model": "", "serial": "S", "wwn": "", "path": ""},
        "steps": ["join", "transfer", "seal", "reboot", "confirm"],
        "seed": {"key": key(0, 0).public(), "addresses": []},
        "tuning": {"cache_bytes": 1, "fetch_parallel": 1, "write_backlog": 1, "sync_bytes": 1, "upload_parallel": 1},
        "finish": "reboot", "bundle": null,
    }))
    .unwrap()
}

/// An event in a random history of a fleet.
#[derive(Debug, Clone)]
enum Deed {
    Report(u8, u8),
    Told(u8, u8, Step, What),
    Order(u8),
    OrderOpen,
    Cancel(u64),
    Act(u8, MachineAction),
    Sighting(u8),
    Confirm(u8),
    Freeze(bool),
    Retry(u64),
    Pass(i64),
}

fn deed() -> impl Strategy<Value = Deed> {
    let machine = 1_u8..5;
    let boot = 0_u8..3;
    let step = prop::sample::select(vec![Step::Transfer, Step::Seal, Step::Reboot]);
    let what = prop_oneof![
        Just(What::Started),
        Just(What::Done { text: "ok".to_owned() }),
        (0_u64..9).prop_map(|done| What::Progress { done, total: 9 }),
        any::<bool>().prop_map(|last| What::Failed { cause: "c".to_owned(), last }),
    ];
    let action = prop_oneof![
        Just(MachineAction::Approve),
        Just(MachineAction::Reject),
        Just(MachineAction::Hold),
        Just(MachineAction::Release),
        Just(MachineAction::Forget),
        Just(MachineAction::Label { set: [("role".to_owned(), "web".to_owned())].into(), remove: vec![] }),
    ];
    prop_oneof![
        (machine.clone(), boot.clone()).prop_map(|(m, b)| Deed::Report(m, b)),
        (machine.clone(), boot, step, what).prop_map(|(m, b, s, w)| Deed::Told(m, b, s, w)),
        machine.clone().prop_map(Deed::Order),
        Just(Deed::OrderOpen),
        (1_u64..4).prop_map(Deed::Cancel),
        (machine.clone(), action).prop_map(|(m, a)| Deed::Act(m, a)),
        machine.clone().prop_map(Deed::Sighting),
        machine.prop_map(Deed::Confirm),
        any::<bool>().prop_map(Deed::Freeze),
        (1_u64..4).prop_map(Deed::Retry),
        (1_i64..2000).prop_map(Deed::Pass),
        Just(Deed::Pass(8 * 86_400)),
    ]
}

fn order(text: serde_json::Value) -> DeployOrder {
    serde_json::from_value(text).unwrap()
}

fn place(fleet: &mut Fleet, order: DeployOrder, now: Timestamp) {
    let Ok(order) = CheckedOrder::check(order) else { return };
    let Ok(candidates) = fleet.candidates(&order, &image()) else { return };
    let mut lines: Vec<_> = candidates.into_iter().map(|candidate| candidate.line(None, &[])).collect();
    drop(fleet.place(order, &image(), &mut lines, now));
}

fn perform(fleet: &mut Fleet, deed: Deed, number: u64, now: Timestamp) {
    match deed {
        Deed::Report(machine, boot) => {
            let hardware = std::sync::Arc::new(report(machine, boot));
            if let Next::Tailor(request, _) = fleet.report(&hardware, None, now).next {
                let made = if number.is_multiple_of(5) {
                    Err(NoPlan::Failed("two disks match".into()))
                } else {
                    Ok(Provision { plan: plan(&request), target: "disk".to_owned(), warnings: vec![] })
                };
                fleet.tailored(request.job, key(machine, boot).public(), made, now);
            }
        }
        Deed::Told(machine, boot, step, what) => {
            let key = key(machine, boot).public();
            let job = fleet.state.by_key(&key).and_then(|m| fleet.state.newest_job(m.id)).map(|job| job.id);
            let sources = Some(Sources { server: number, ..Sources::default() });
            let event = StepEvent { number, at_ms: 0, step, what, sources };
            drop(
                fleet.events(EventBatch { key, job, attempt: None, sent_at_ms: 5, events: vec![event] }, now),
            );
        }
        Deed::Order(machine) => {
            place(
                fleet,
                order(
                    serde_json::json!({"image": "debian", "selection": {"machines": [format!("m{machine}")]}, "accept": ["data"]}),
                ),
                now,
            );
        }
        Deed::OrderOpen => place(
            fleet,
            order(
                serde_json::json!({"image": "debian", "selection": {"labels": ["role=web"]}, "open": true, "limit": 2}),
            ),
            now,
        ),
        Deed::Cancel(id) => drop(fleet.cancel(DeploymentId(id), &Cancel::default(), now)),
        Deed::Act(machine, action) => {
            let selection = Selection { machines: vec![format!("m{machine}")], labels: vec![] };
            drop(fleet.command(&MachineCommand { selection, action, dry_run: false }, now));
        }
        Deed::Sighting(machine) => {
            let asker = Asker { mac: Some(Mac([2, 0, 0, 0, 1, machine])), uuid: None, serial: None };
            let sighting = Sighting::PowerOn {
                asker,
                firmware: crate::fleet::boot_policy::ClientKind::tftp("bios"),
                answer: Answered::Offered { address: Ipv4Addr::new(10, 0, 0, 9), file: None },
                relay: None,
            };
            fleet.sighting(sighting, now);
        }
        Deed::Confirm(machine) => {
            let job = fleet.state.newest_job(MachineId(machine.into())).cloned();
            if let Some(job) = job {
                let token = fleet.settings.token(job.id, job.attempt);
                assert_eq!(fleet.confirm(&token, None, now), Some(job.id));
                assert_eq!(fleet.confirm(&format!("{token}0"), None, now), None);
            }
        }
        Deed::Freeze(freeze) => drop(fleet.freeze(freeze, freeze.then(|| format!("for {number}")), now)),
        Deed::Retry(id) => {
            let retry = Retry { deployment: Some(DeploymentId(id)), ..Retry::default() };
            let mut lines: Vec<_> = fleet
                .retryable(&retry)
                .into_iter()
                .flatten()
                .map(|again| RetryLine {
                    job: again.job,
                    deployment: again.deployment,
                    image: again.image,
                    line: again.candidate.line(None, &[]),
                })
                .collect();
            drop(fleet.retry(&mut lines, None, now));
        }
        Deed::Pass(_) => fleet.tick(now),
    }
}

/// The state as text, without its hash maps, whose order is random.
fn plain(state: &State) -> String {
    let mut text = String::new();
    write_plain(state, &mut text).unwrap();
    text
}

fn write_plain(state: &State, out: &mut impl std::fmt::Write) -> std::fmt::Result {
    let numbers = (state.last_event, state.last_machine, state.last_job);
    let frozen = &state.frozen;
    write!(out, "{:#?}\n{:#?}\n{:#?}\n", state.machines, state.deployments, state.jobs)?;
    write!(out, "{numbers:?} {frozen:?}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_was_written_down_is_what_was_decided(deeds in prop::collection::vec(deed(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.sqlite");
        let mut records = Records::open(&path).unwrap();
        let mut fleet = Fleet::new(records.load().unwrap(), settings());
        let mut now = Timestamp::from_second(1_000_000).unwrap();
        for (number, deed) in (1_u64..).zip(deeds) {
            let seconds = if let Deed::Pass(seconds) = deed { seconds } else { 1 };
            now = now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
            perform(&mut fleet, deed, number, now);
            records.commit(&fleet.take_effects().changes).unwrap();
        }
        drop(records);
        let again = Records::open(&path).unwrap().load().unwrap();
        prop_assert_eq!(plain(&again), plain(&fleet.state));
        // A restart must not change the boot policies, either.
        let before: Vec<_> = fleet.state.policies(true).iter().collect();
        let after: Vec<_> = again.policies(true).iter().collect();
        prop_assert_eq!(before, after);
    }
}

/// The rows that could not be read, one a line.
fn named(state: &State) -> String {
    state.set_aside.iter().map(|row| row.words.as_str()).collect::<Vec<_>>().join("\n")
}

#[test]
fn leases_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r");
    drop(Records::open(&path).unwrap());
    let book = LeaseBook::open(&path).unwrap();
    let lease = |holder: &str| Lease {
        address: Ipv4Addr::new(10, 0, 0, 7),
        holder: holder.to_owned(),
        until: 9,
        state: LeaseState::Held,
    };
    book.save(&lease("a")).unwrap();
    book.save(&lease("b")).unwrap();
    assert_eq!(LeaseBook::open(&path).unwrap().load().unwrap(), [lease("b")]);
}

#[test]
fn records_of_a_later_version_or_of_no_version_are_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r");
    drop(Records::open(&path).unwrap());
    let connection = Connection::open(&path).unwrap();
    connection.execute("insert into schema_version (version) values (99)", []).unwrap();
    assert!(matches!(Records::open(&path), Err(RecordsError::Newer { found: 99, .. })));
    let text = dir.path().join("text");
    std::fs::write(&text, b"this is no database, but a text that somebody put there").unwrap();
    assert!(matches!(Records::open(&text), Err(RecordsError::Open { .. })));
    assert!(matches!(Records::open(dir.path()), Err(RecordsError::Open { .. })));
}

#[test]
fn what_cannot_be_written_does_not_cost_the_reading_of_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut records = Records::open(&dir.path().join("records.sqlite")).unwrap();
    let mut fleet = Fleet::new(records.load().unwrap(), settings());
    let now = Timestamp::from_second(1_000_000).unwrap();
    for machine in 1..4 {
        perform(&mut fleet, Deed::Report(machine, 0), 1, now);
    }
    records.commit(&fleet.take_effects().changes).unwrap();
    let before = plain(&fleet.state);
    // The recorded hardware of the other machines is damaged, so any that is read again would be set aside.
    records.connection.execute("update hardware set report = '{' where machine <> 2", []).unwrap();
    let changed = std::sync::Arc::new(report(2, 1));
    fleet.report(&changed, None, now);
    let changes = fleet.take_effects().changes;
    assert!(changes.iter().any(|change| matches!(change, Change::Hardware(MachineId(2), _))));
    let again = records.load_beside(&fleet.state.hardware_beside(&changes)).unwrap();
    assert_eq!(plain(&again), before);
    assert!(again.set_aside.is_empty(), "{:?}", again.set_aside);
}

#[test]
fn a_word_of_a_machine_with_many_addresses_writes_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let mut records = Records::open(&dir.path().join("records.sqlite")).unwrap();
    let now = Timestamp::from_second(1_000_000).unwrap();
    let mut machine = crate::fleet::machine::Machine::new(
        MachineId(1),
        crate::fleet::identity::Fingerprint {
            macs: (0..64).map(|last| Mac([2, 0, 0, 0, 0, last])).collect(),
            ..Default::default()
        },
        "local".to_owned(),
        now,
    );
    machine.labels.insert("role".to_owned(), "web".to_owned());
    let mut rows = |machine: &crate::fleet::machine::Machine| {
        let before = records.connection.total_changes();
        records.commit(&[Change::Machine(Box::new(machine.clone()))]).unwrap();
        records.connection.total_changes() - before
    };
    assert!(rows(&machine) >= 65);
    machine.last_seen = now + SignedDuration::from_secs(1);
    assert!(rows(&machine) <= 2, "all addresses are written again");
    machine.fingerprint.macs.remove(&Mac([2, 0, 0, 0, 0, 7]));
    machine.fingerprint.macs.insert(Mac([2, 0, 0, 0, 1, 7]));
    machine.labels.insert("role".to_owned(), "db".to_owned());
    assert!(rows(&machine) <= 6);
    let there = records.load().unwrap().machines.remove(&MachineId(1)).unwrap();
    assert_eq!((there.fingerprint.macs, there.labels), (machine.fingerprint.macs, machine.labels));
}
