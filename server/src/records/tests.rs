//! What is written is what is read again, whatever was done in between, killed in between or spoiled since.

// A day of use.
mod day;

use std::net::Ipv4Addr;

use common::hardware::{CheckedHardware, Cpu, Firmware, HardwareReport, Nic, REPORT_VERSION, System};
use common::id::{DeploymentId, Hash, ImageId, JobId, Mac, MachineId};
use common::step::{EventBatch, Sources, Step, StepEvent, What};
use common::trust::KeyPair;
use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::api::shapes::{
    Cancel, DeployOrder, ImageShown, MachineAction, MachineCommand, Retry, RetryLine, Selection,
};
use crate::fleet::boot_policy::{Answered, Asker, Sighting};
use crate::fleet::decide::{Fleet, Settings};
use crate::fleet::order::CheckedOrder;
use crate::fleet::provisioner::{NoPlan, Provision};
use crate::fleet::reports::Next;
use crate::fleet::state::State;

fn settings() -> Settings {
    Settings {
        discover: true,
        poll_seconds: 5,
        confirm_within: SignedDuration::from_mins(15),
        keep_events: None,
        keep_bytes: None,
        reserve_bytes: 0,
        sites: vec![],
        token_key: [3; 32],
        own: std::sync::Arc::default(),
        order_expires: Some(SignedDuration::from_hours(168)),
        url: "http://10.0.0.1:8069".to_owned(),
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
        traits: None,
    }
}

fn report(machine: u8, boot: u8) -> CheckedHardware {
    let nic = Nic {
        name: "eth0".to_owned(),
        mac: Mac([2, 0, 0, 0, 0, machine]),
        driver: String::new(),
        speed_mbit: None,
        link: true,
        address: Some(format!("10.0.0.{machine}/24")),
        boot: true,
        usb: false,
    };
    let system = System { serial: format!("SN{machine}"), ..System::default() };
    CheckedHardware::check(HardwareReport {
        version: REPORT_VERSION,
        reporter: "test".to_owned(),
        key: key(machine, boot).public(),
        firmware: Firmware::Bios,
        system,
        cpu: Cpu::default(),
        memory_bytes: 1 << 30,
        disks: vec![],
        nics: vec![nic],
        devices: vec![],
        name: None,
        site: None,
        truncated: vec![],
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

/// Something that happens to a fleet.
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
                    serde_json::json!({"image": "debian", "selection": {"machines": [format!("m{machine}")]}}),
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
            drop(fleet.retry(&mut lines, now));
        }
        Deed::Pass(_) => fleet.tick(now),
    }
}

/// The state without its hash maps, whose order means nothing.
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
            records.commit(&fleet.take_aftermath().changes).unwrap();
        }
        drop(records);
        let again = Records::open(&path).unwrap().load().unwrap();
        prop_assert_eq!(plain(&again), plain(&fleet.state));
        // The machine's way is a state of affairs, too: what the doors are told must not change by a restart.
        let before: Vec<_> = fleet.state.policies(true).iter().collect();
        let after: Vec<_> = again.policies(true).iter().collect();
        prop_assert_eq!(before, after);
    }
}

fn event(id: u64, job: Option<u64>, step: Step, what: What) -> Change {
    Change::Event(Box::new(crate::api::shapes::LogEvent {
        id,
        at: Timestamp::from_second(i64::try_from(id).unwrap()).unwrap(),
        machine: Some(MachineId(1)),
        name: "m1".to_owned(),
        deployment: job.map(|_| DeploymentId(1)),
        job: job.map(JobId),
        attempt: job.map(|_| 1),
        step,
        what,
        sources: None,
        by_machine: false,
    }))
}

#[test]
fn of_progress_only_the_newest_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r");
    let mut records = Records::open(&path).unwrap();
    let progress = |id, done| event(id, Some(1), Step::Transfer, What::Progress { done, total: 9 });
    records
        .commit(&[
            event(1, Some(1), Step::Transfer, What::Started),
            progress(2, 1),
            progress(3, 2),
            event(4, Some(1), Step::Verify, What::Progress { done: 1, total: 9 }),
            event(5, None, Step::Loader, What::Note { text: "'; drop table events; --".to_owned() }),
        ])
        .unwrap();
    let reader = LogReader::open(&path).unwrap();
    let ids = |filter: &LogFilter, after| -> Vec<u64> {
        reader.page(filter, after, 100).unwrap().iter().map(|event| event.id).collect()
    };
    let all = LogFilter { progress: true, ..LogFilter::default() };
    assert_eq!(ids(&all, 0), [1, 3, 4, 5]);
    assert_eq!(ids(&all, 3), [4, 5]);
    assert_eq!(ids(&LogFilter::default(), 0), [1, 5]);
    let filters = [
        (LogFilter { deployment: Some(DeploymentId(1)), ..all.clone() }, vec![1, 3, 4]),
        (LogFilter { step: Some(Step::Verify), ..all.clone() }, vec![4]),
        (LogFilter { since: Timestamp::from_second(4).ok(), ..all.clone() }, vec![4, 5]),
        (LogFilter { machines: Some(vec![MachineId(2)]), ..all.clone() }, vec![]),
    ];
    for (filter, wanted) in filters {
        assert_eq!(ids(&filter, 0), wanted, "{filter:?}");
        let kept = reader.page(&all, 0, 100).unwrap();
        let same: Vec<_> = kept.iter().filter(|event| filter.wants(event)).map(|event| event.id).collect();
        assert_eq!(same, wanted, "a follower sees the same: {filter:?}");
    }
    assert_eq!(records.forget_events(Timestamp::from_second(1000).unwrap()).unwrap(), 3);
    assert_eq!(records.load().unwrap().last_event, 5);
}

#[test]
fn leases_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r");
    drop(Records::open(&path).unwrap());
    let book = LeaseBook::open(&path).unwrap();
    let lease = |holder: &str| LeaseRow {
        address: Ipv4Addr::new(10, 0, 0, 7),
        holder: holder.to_owned(),
        until: 9,
        state: "held".to_owned(),
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
fn a_change_that_fails_leaves_nothing_of_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let mut records = Records::open(&dir.path().join("r")).unwrap();
    let orphan = crate::fleet::job::Job::new(JobId(1), DeploymentId(9), MachineId(9), Timestamp::UNIX_EPOCH);
    let group = [event(1, None, Step::Loader, What::Started), Change::Job(Box::new(orphan))];
    assert!(records.commit(&group).is_err(), "the deployment does not exist");
    assert_eq!(records.load().unwrap().last_event, 0);
}

/// The rows that could not be read, a line each.
fn named(state: &State) -> String {
    state.set_aside.iter().map(|row| row.words.as_str()).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_cannot_be_read_is_set_aside_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.sqlite");
    let mut records = Records::open(&path).unwrap();
    let mut fleet = Fleet::new(records.load().unwrap(), settings());
    let now = Timestamp::from_second(1_000_000).unwrap();
    for machine in 1..4 {
        perform(&mut fleet, Deed::Report(machine, 0), 1, now);
    }
    for machine in 1..4 {
        perform(&mut fleet, Deed::Order(machine), 1, now);
    }
    records.commit(&fleet.take_aftermath().changes).unwrap();
    let spoil = [
        "update hardware set report = replace(report, '\"version\":1', '\"version\":99') where machine = 1",
        "update machines set state = 'haunted' where id = 2",
        "update deployments set demand = '{' where id = 3",
        "insert into marks (mac, machine, weak) values ('no address', 1, 0)",
    ];
    for sql in spoil {
        assert_eq!(records.connection.execute(sql, []).unwrap(), 1, "{sql}");
    }
    let state = records.load().unwrap();
    assert_eq!(state.machines.len(), 2);
    assert!(state.machines[&MachineId(1)].hardware.is_none());
    assert!(state.machines[&MachineId(3)].hardware.is_some());
    assert_eq!(state.jobs.len(), 1, "those whose machine or order is not there wait with it");
    assert_eq!(
        (state.last_machine, state.last_job, state.last_deployment),
        (3, 3, 3),
        "no number is given twice"
    );
    let named = named(&state);
    for what in ["hardware of machine m1", "machine 2", "deployment 3", "no address", "job j2", "job j3"] {
        assert!(named.contains(what), "{what} is not named in:\n{named}");
    }
}

/// SQLite keeps a value of any type in any column: a row of each table that another program wrote so.
#[test]
fn a_value_of_another_type_is_set_aside_and_costs_no_later_write() {
    let dir = tempfile::tempdir().unwrap();
    let mut records = Records::open(&dir.path().join("records.sqlite")).unwrap();
    let mut fleet = Fleet::new(records.load().unwrap(), settings());
    let now = Timestamp::from_second(1_000_000).unwrap();
    for machine in 1..3 {
        perform(&mut fleet, Deed::Report(machine, 0), 1, now);
    }
    records.commit(&fleet.take_aftermath().changes).unwrap();
    let spoil = [
        "insert into labels (machine, name, content) values (1, 'room', x'ff')",
        "insert into labels (machine, name, content) values (1, x'ff', 'attic')",
        "update marks set weak = x'ff' where machine = 1",
        "insert into counters (name, last) values (x'ff', 9)",
    ];
    for sql in spoil {
        assert_eq!(records.connection.execute(sql, []).unwrap(), 1, "{sql}");
    }
    let mut fleet = Fleet::new(records.load().unwrap(), settings());
    assert_eq!(fleet.state.machines.len(), 2);
    let named = named(&fleet.state);
    for what in ["a label", "an Ethernet address", "the last number given"] {
        assert!(named.contains(what), "{what} is not named in:\n{named}");
    }
    // The machine reports again, and its label is given again: both are put right.
    perform(&mut fleet, Deed::Report(1, 0), 1, now);
    let set = [("room".to_owned(), "cellar".to_owned())].into();
    perform(&mut fleet, Deed::Act(1, MachineAction::Label { set, remove: vec![] }), 1, now);
    records.commit(&fleet.take_aftermath().changes).unwrap();
    let again = records.load().unwrap();
    let machine = &again.machines[&MachineId(1)];
    assert_eq!(machine.labels.get("room").map(String::as_str), Some("cellar"));
    assert!(!machine.fingerprint.macs.is_empty());
}

#[test]
fn a_freeze_that_cannot_be_read_holds_until_it_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let now = Timestamp::from_second(1_000_000).unwrap();
    for spoiled in ["('yesterday', null)", "(9223372036854775807, 'audit')", "(1000, x'ff')"] {
        let mut records = Records::open(&dir.path().join("records.sqlite")).unwrap();
        let sql = format!("insert into frozen (since, reason) values {spoiled}");
        assert_eq!(records.connection.execute(&sql, []).unwrap(), 1);
        let mut fleet = Fleet::new(records.load().unwrap(), settings());
        let frozen = fleet.state.frozen.clone().expect("what cannot be read counts as a freeze");
        assert!(frozen.to_string().contains("cannot be read"), "{frozen}");
        let warned = fleet.warnings().join("\n");
        assert!(warned.contains("the freeze") && warned.contains("deploy unfreeze"), "{warned}");
        assert_eq!(fleet.freeze(false, None, now), None);
        assert_eq!(fleet.warnings(), [""; 0], "it is put right");
        records.commit(&fleet.take_aftermath().changes).unwrap();
        let again = records.load().unwrap();
        assert_eq!((again.frozen, again.set_aside), (None, vec![]));
    }
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
    records.commit(&fleet.take_aftermath().changes).unwrap();
    let before = plain(&fleet.state);
    // Hardware that would not be taken again shows what is read: only that of the machine in question.
    records.connection.execute("update hardware set report = '{' where machine <> 2", []).unwrap();
    let changed = std::sync::Arc::new(report(2, 1));
    fleet.report(&changed, None, now);
    let changes = fleet.take_aftermath().changes;
    assert!(changes.iter().any(|change| matches!(change, Change::Hardware(MachineId(2), _))));
    let again = records.load_again(&fleet.state, &changes).unwrap();
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

#[test]
fn the_files_are_their_owners_alone_from_the_first_byte() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = dir.path().join("records.sqlite");
    let modes = || {
        let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap());
        files
            .map(|file| (file.file_name(), file.metadata().unwrap().permissions().mode() & 0o777))
            .collect::<Vec<_>>()
    };
    let records = Records::open(&path).unwrap();
    let made = modes();
    assert!(made.len() >= 3 && made.iter().all(|(_, mode)| *mode == 0o600), "{made:?}");
    // As an earlier version left them.
    for (name, _) in made {
        std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let again = Records::open(&path).unwrap();
    assert!(modes().iter().all(|(_, mode)| *mode == 0o600), "{:?}", modes());
    drop((records, again));
}

#[test]
fn secrets_go_when_nobody_needs_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.sqlite");
    let mut records = Records::open(&path).unwrap();
    let mut fleet = Fleet::new(records.load().unwrap(), settings());
    let now = Timestamp::from_second(1_000_000).unwrap();
    perform(&mut fleet, Deed::Report(1, 0), 1, now);
    let secret = "password: SECRET-OF-M1-12345";
    let text = serde_json::json!({
        "image": "debian", "selection": {"machines": ["m1"]}, "user_data": secret, "ssh_keys": ["ssh-ed25519 AAAA me"],
    });
    place(&mut fleet, order(text), now);
    let later = |minutes| now + SignedDuration::from_mins(minutes);
    fleet.tick(later(5));
    assert!(
        fleet.state.deployments[&DeploymentId(1)].request.holds_secrets(),
        "the machine has not come yet"
    );
    records.commit(&fleet.take_aftermath().changes).unwrap();
    let holds = || {
        std::fs::read_dir(dir.path()).unwrap().any(|entry| {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
        })
    };
    assert!(holds());
    perform(&mut fleet, Deed::Cancel(1), 1, later(6));
    fleet.tick(later(7));
    records.commit(&fleet.take_aftermath().changes).unwrap();
    let kept = records.load().unwrap().deployments[&DeploymentId(1)].request.as_ordered().clone();
    assert!(kept.user_data.is_none() && kept.ssh_keys.is_empty() && kept.secrets_removed);
    assert!(!holds(), "its bytes are still in a file");
}

#[test]
fn the_oldest_events_go_when_there_are_too_many_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut records = Records::open(&dir.path().join("records.sqlite")).unwrap();
    let note = || What::Note { text: "x".repeat(1000) };
    let events: Vec<Change> = (1..30_000).map(|id| event(id, None, Step::Loader, note())).collect();
    records.commit(&events).unwrap();
    let used = records.used_bytes().unwrap();
    assert_eq!(records.shrink_events(used).unwrap(), 0);
    assert_eq!(records.shrink_events(8 << 20).unwrap(), 20_000, "so many at once");
    assert!(records.used_bytes().unwrap() < used / 2);
    while records.shrink_events(8 << 20).unwrap() > 0 {}
    assert!(records.used_bytes().unwrap() <= 8 << 20 || records.load().unwrap().last_event == 29_999);
    assert_eq!(records.load().unwrap().last_event, 29_999, "the numbering goes on");
}
