//! Which machine that waits is woken by what, as a table of commands; bounds; and replays.

use std::sync::Arc;
use std::time::Duration;

use common::hardware::{CheckedHardware, Contents, Device, Disk, HardwareReport, Nic, System};
use common::id::Mac;
use common::testing;
use common::trust::KeyPair;

use super::super::super::boot_policy::BootPolicy;
use super::super::super::order::CheckedOrder;
use super::super::super::reports::Next;
use super::*;
use crate::api::shapes::{Cancel, DeployLine, Doubt, ImageShown, MachineAction, MachineCommand, Selection};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn key(n: u8) -> PublicKey {
    KeyPair::from_secret([n; 32]).public()
}

fn digest(n: u8) -> Hash {
    Hash::of(&[n])
}

fn from(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

fn fleet() -> Fleet {
    Fleet::new(super::super::State::default(), crate::fleet::testing::settings())
}

fn hardware(n: u8, key: PublicKey) -> Arc<CheckedHardware> {
    let disk = Disk { serial: format!("DISK{n}"), contents: Contents::Blank, ..testing::disk("sda") };
    let nic = Nic { boot: true, link: true, ..testing::nic(Mac([2, 0, 0, 0, 0, n])) };
    let report = HardwareReport {
        key,
        system: System { serial: format!("SN{n}"), ..System::default() },
        disks: vec![disk],
        nics: vec![nic],
        ..testing::report()
    };
    Arc::new(CheckedHardware::check(report).unwrap())
}

/// Machine `n` reports under key `n` and, if it is told to wait, does so.
fn reports(fleet: &mut Fleet, n: u8) -> Heard {
    let decided = fleet.report(&hardware(n, key(n)), Some(from(n)), at(0));
    if let (true, Next::Tell(order)) = (decided.taken, &decided.next) {
        fleet.answered(&key(n), digest(n), order);
    }
    waits(fleet, n, 1)
}

fn waits(fleet: &mut Fleet, n: u8, number: u64) -> Heard {
    let request = WaitRequest { key: key(n), report: digest(n), number };
    fleet.wait(&request, from(n), at(i64::try_from(number).unwrap()))
}

/// Machines 1 to `count`, which all wait.
fn waiting(count: u8) -> Fleet {
    let mut fleet = fleet();
    for n in 1..=count {
        assert!(matches!(reports(&mut fleet, n), Heard::Waits(_)), "{n}");
    }
    assert!(fleet.take_effects().woken.is_empty(), "waiting wakes nobody");
    fleet
}

fn image() -> ImageShown {
    let image = serde_json::json!({
        "name": "debian", "id": Hash::of(b"debian"), "added": "2026-01-01T00:00:00Z", "bytes": 1, "wire_bytes": 1,
        "chunks": 1, "zero_chunks": 0, "sector_bytes": 512, "partition_table": "gpt", "source": "test",
    });
    serde_json::from_value(image).unwrap()
}

fn order(fleet: &mut Fleet, machines: &[u64]) {
    let names: Vec<String> = machines.iter().map(|id| format!("m{id}")).collect();
    let text = if machines.is_empty() {
        serde_json::json!({"image": "debian", "selection": {}, "open": true})
    } else {
        serde_json::json!({"image": "debian", "selection": {"machines": names}})
    };
    let order = CheckedOrder::check(serde_json::from_value(text).unwrap()).unwrap();
    let line = |id: &u64| {
        let line =
            serde_json::json!({"machine": MachineId(*id), "name": "x", "target": null, "refused": null});
        serde_json::from_value::<DeployLine>(line).unwrap()
    };
    let mut lines: Vec<DeployLine> = machines.iter().map(line).collect();
    fleet.place(order, &image(), &mut lines, at(10)).unwrap();
}

fn command(fleet: &mut Fleet, machine: &str, action: MachineAction) {
    let selection = Selection { machines: vec![machine.to_owned()], labels: vec![] };
    fleet.command(&MachineCommand { selection, action, dry_run: false }, at(11)).unwrap();
}

fn woken(fleet: &mut Fleet) -> Vec<PublicKey> {
    fleet.take_effects().woken.iter().map(|wake| wake.key).collect()
}

#[test]
fn who_is_woken_by_what() {
    type Act = fn(&mut Fleet);
    let table: [(&str, Act, &[u8]); 10] = [
        ("a freeze", |fleet| drop(fleet.freeze(true, None, at(12))), &[]),
        ("an order for two", |fleet| order(fleet, &[1, 3]), &[1, 3]),
        ("an open order, which takes whoever is blank", |fleet| order(fleet, &[]), &[1, 2, 3]),
        ("a name", |fleet| command(fleet, "m1", MachineAction::Name("web".to_owned())), &[]),
        ("a hold", |fleet| command(fleet, "m1", MachineAction::Hold), &[]),
        ("a rejection", |fleet| command(fleet, "m1", MachineAction::Reject), &[]),
        ("an approval without an order", |fleet| command(fleet, "m1", MachineAction::Approve), &[]),
        ("it is forgotten", |fleet| command(fleet, "m2", MachineAction::Forget), &[2]),
        (
            "an order while it is held, and its release",
            |fleet| {
                order(fleet, &[1]);
                command(fleet, "m1", MachineAction::Hold);
                assert!(woken(fleet).is_empty(), "held machines are given nothing");
                command(fleet, "m1", MachineAction::Release);
            },
            &[1],
        ),
        (
            "an order that is cancelled before anybody hears of it",
            |fleet| {
                order(fleet, &[1]);
                let id = *fleet.state.deployments.keys().next().unwrap();
                fleet.cancel(id, &Cancel::default(), at(11)).unwrap();
            },
            &[],
        ),
    ];
    for (what, act, wanted) in table {
        let mut fleet = waiting(3);
        act(&mut fleet);
        let wanted: Vec<PublicKey> = wanted.iter().map(|n| key(*n)).collect();
        assert_eq!(woken(&mut fleet), wanted, "{what}");
        assert!(woken(&mut fleet).is_empty(), "{what}: once");
        assert_eq!(fleet.waiting(), 3 - wanted.len(), "{what}");
    }
}

#[test]
fn another_reason_is_told_when_the_machine_asks_and_wakes_nobody() {
    let mut fleet = waiting(2);
    command(&mut fleet, "m1", MachineAction::Reject);
    assert!(woken(&mut fleet).is_empty());
    assert_eq!(waits(&mut fleet, 1, 2), Heard::News);
    assert!(matches!(waits(&mut fleet, 2, 2), Heard::Waits(_)));
}

#[test]
fn a_machine_in_doubt_reports_whenever_it_asks() {
    let mut fleet = waiting(1);
    let mut machine = fleet.state.machines[&MachineId(1)].clone();
    machine.doubts = vec![Doubt { other: MachineId(2), shared: vec![], against: vec![] }];
    fleet.put_machine(machine);
    assert!(woken(&mut fleet).is_empty());
    assert_eq!(waits(&mut fleet, 1, 2), Heard::News);
}

#[test]
fn a_machine_that_was_told_of_its_doubt_waits_once_and_reports_when_it_asks_again() {
    let mut fleet = waiting(1);
    let mut machine = fleet.state.machines[&MachineId(1)].clone();
    machine.doubts = vec![Doubt { other: MachineId(2), shared: vec![], against: vec![] }];
    fleet.put_machine(machine);
    let told = Instruction::Wait { seconds: 1, reason: String::new() };
    fleet.answered(&key(1), digest(1), &told);
    assert!(matches!(waits(&mut fleet, 1, 1), Heard::Waits(_)), "it has only just reported");
    assert_eq!(waits(&mut fleet, 1, 2), Heard::News, "another machine may have settled it");
}

#[test]
fn an_order_that_came_while_a_report_was_answered_is_not_missed() {
    let mut fleet = waiting(1);
    order(&mut fleet, &[1]);
    // The verdict was made before the order.
    fleet.answered(&key(1), digest(1), &Instruction::Wait { seconds: 1, reason: String::new() });
    assert_eq!(waits(&mut fleet, 1, 2), Heard::Unknown, "it reports, and gets its plan");
}

#[test]
fn whose_report_was_shortened_reports_whole_once_an_admin_lets_it_in() {
    let mut fleet = fleet();
    let device = |n: u32| Device {
        address: n.to_string(),
        modalias: format!("pci:{n:0100}"),
        class: 0,
        driver: String::new(),
    };
    let mut long = hardware(1, key(1)).report().clone();
    long.devices = (0..900).map(device).collect();
    let long = Arc::new(CheckedHardware::check(long).unwrap());
    let told = Instruction::Wait { seconds: 1, reason: String::new() };
    fleet.report(&long, Some(from(1)), at(0));
    fleet.answered(&key(1), digest(1), &told);
    assert!(matches!(waits(&mut fleet, 1, 1), Heard::Waits(_)));
    fleet.take_effects();
    command(&mut fleet, "m1", MachineAction::Name("web".to_owned()));
    assert_eq!(woken(&mut fleet), [key(1)]);
    fleet.report(&long, Some(from(1)), at(2));
    fleet.answered(&key(1), digest(1), &told);
    assert!(fleet.state.machines[&MachineId(1)].hardware.as_ref().unwrap().report().truncated.is_empty());
    assert!(matches!(waits(&mut fleet, 1, 1), Heard::Waits(_)), "once");
}

#[test]
fn an_order_between_the_verdict_and_the_request_is_not_missed() {
    let mut fleet = waiting(1);
    fleet.waits_no_more(&key(1));
    order(&mut fleet, &[1]);
    assert!(woken(&mut fleet).is_empty(), "no request is open");
    assert_eq!(waits(&mut fleet, 1, 2), Heard::News);
}

#[test]
fn what_was_not_reported_is_not_known_and_what_was_asked_is_not_asked_again() {
    let mut fleet = waiting(1);
    assert_eq!(waits(&mut fleet, 1, 1), Heard::Repeated);
    assert_eq!(waits(&mut fleet, 9, 1), Heard::Unknown, "a key that has not reported");
    let other = WaitRequest { key: key(1), report: digest(7), number: 5 };
    assert_eq!(fleet.wait(&other, from(1), at(1)), Heard::Unknown, "an earlier report");
    assert_eq!(fleet.waiting(), 1);
    // A new boot of the same machine: the request of the earlier one is over.
    fleet.report(&hardware(1, key(8)), Some(from(1)), at(700));
    assert_eq!(woken(&mut fleet), [key(1)]);
    assert_eq!(waits(&mut fleet, 1, 2), Heard::Unknown);
    assert_eq!(fleet.waiting(), 0);
}

#[test]
fn a_machine_that_waits_was_seen() {
    let mut fleet = waiting(1);
    waits(&mut fleet, 1, 40);
    assert_eq!(fleet.state.machines[&MachineId(1)].last_seen, at(40));
    assert_eq!(fleet.boots.silence(&key(1), at(45)).as_secs(), 5, "its agent is at work");
    let elsewhere = WaitRequest { key: key(1), report: digest(1), number: 41 };
    fleet.wait(&elsewhere, from(77), at(41));
    assert_eq!(fleet.by_address.get(&from(77)), Some(&MachineId(1)), "its address is known");
}

#[test]
fn a_machine_that_waits_has_not_fallen_silent() {
    for (asks, silent) in [(true, 0), (false, 1)] {
        let mut fleet = waiting(1);
        fleet.notice(at(10));
        fleet.trace(MachineId(1), Seen::LoaderFile { file: "loader.img".to_owned() }, at(50));
        if asks {
            waits(&mut fleet, 1, 60);
        }
        fleet.notice(at(2000));
        assert_eq!(fleet.state.notes.len(), silent, "{:?}", fleet.state.notes);
    }
}

#[test]
fn an_address_and_strangers_have_their_share_and_let_in_machines_find_a_place() {
    let mut fleet = fleet();
    let bounds = |all| super::super::WaiterBounds { all, per_address: 2, time: Duration::from_secs(1) };
    fleet.settings.waiters = bounds(6);
    for n in 1..=5 {
        assert!(matches!(reports(&mut fleet, n), Heard::Waits(_)), "{n}");
    }
    assert_eq!(reports(&mut fleet, 6), Heard::Full, "the last place is not for strangers");
    command(&mut fleet, "m6", MachineAction::Approve);
    assert!(matches!(waits(&mut fleet, 6, 2), Heard::Waits(_)));
    assert!(matches!(waits(&mut fleet, 6, 3), Heard::Waits(_)), "its own place is taken again");
    assert_eq!(fleet.waiting(), 6);
    fleet.settings.waiters = bounds(60);
    let elsewhere = |fleet: &mut Fleet, n: u8| {
        fleet.wait(&WaitRequest { key: key(n), report: digest(n), number: 9 }, from(200), at(9))
    };
    assert!(matches!(elsewhere(&mut fleet, 1), Heard::Waits(_)));
    assert!(matches!(elsewhere(&mut fleet, 2), Heard::Waits(_)));
    assert_eq!(elsewhere(&mut fleet, 3), Heard::Full, "two of one address");
    for n in 1..=6 {
        fleet.waits_no_more(&key(n));
    }
    assert_eq!(
        (fleet.waiting(), fleet.waiters.open_from(from(200))),
        (0, 0),
        "nothing is kept of who has left"
    );
}

#[test]
fn a_machine_with_an_os_stays_in_the_loader_until_it_is_released_or_ordered_for() {
    let mut fleet = fleet();
    let with_os = |key| {
        let mut report = hardware(1, key).report().clone();
        report.disks[0].contents = Contents::Bootable;
        Arc::new(CheckedHardware::check(report).unwrap())
    };
    let boots = |fleet: &mut Fleet, n: u8| {
        let Next::Tell(told) = fleet.report(&with_os(key(n)), Some(from(1)), at(700 * i64::from(n))).next
        else {
            panic!("nothing was ordered")
        };
        fleet.answered(&key(n), digest(n), &told);
        matches!(told, Instruction::BootDisk { .. })
    };
    let policy = |fleet: &Fleet| {
        let machine = &fleet.state.machines[&MachineId(1)];
        machine.policy(fleet.state.newest_job(machine.id), false, false)
    };
    assert!(boots(&mut fleet, 1));
    assert_eq!(policy(&fleet), BootPolicy::BootDisk);
    command(&mut fleet, "m1", MachineAction::Inspect);
    assert_eq!(policy(&fleet), BootPolicy::Load);
    for n in 2..4 {
        assert!(!boots(&mut fleet, n), "it stays, as often as it boots");
        let request = WaitRequest { key: key(n), report: digest(n), number: 1 };
        assert!(matches!(fleet.wait(&request, from(1), at(1)), Heard::Waits(_)));
    }
    fleet.take_effects();
    command(&mut fleet, "m1", MachineAction::Release);
    assert_eq!(woken(&mut fleet), [key(3)], "it reports, and boots its disk");
    assert!(boots(&mut fleet, 4));
    command(&mut fleet, "m1", MachineAction::Inspect);
    assert!(!boots(&mut fleet, 5));
    fleet.wait(&WaitRequest { key: key(5), report: digest(5), number: 1 }, from(1), at(1));
    fleet.take_effects();
    order(&mut fleet, &[1]);
    assert_eq!(woken(&mut fleet), [key(5)], "an order is carried out at once");
    let selection = Selection { machines: vec!["m1".to_owned()], labels: vec![] };
    let command = MachineCommand { selection, action: MachineAction::Inspect, dry_run: false };
    assert!(fleet.command(&command, at(12)).is_err(), "a job is open");
}

#[test]
fn many_are_woken_one_part_after_the_other() {
    let mut fleet = fleet();
    fleet.settings.waiters.all = 10_000;
    let count = WAKES_AT_ONCE * 2 + 1;
    for n in 1..=count as u64 {
        let own = KeyPair::from_secret(*blake3::hash(&n.to_le_bytes()).as_bytes()).public();
        let machine = Machine {
            boot: Some(super::super::super::machine::Boot { key: own, through: 0, since: at(0) }),
            ..Machine::new(MachineId(n), Default::default(), "lab".to_owned(), at(0))
        };
        fleet.put_machine(machine);
        let wait = Instruction::Wait { seconds: 1, reason: String::new() };
        fleet.answered(&own, digest(1), &wait);
        let [_, b, c, d] = u32::try_from(n).unwrap().to_be_bytes();
        let heard = fleet.wait(
            &WaitRequest { key: own, report: digest(1), number: 1 },
            IpAddr::from([10, b, c, d]),
            at(1),
        );
        assert!(matches!(heard, Heard::Waits(_)), "{n}: {heard:?}");
    }
    fleet.take_effects();
    let all: Vec<u64> = (1..=count as u64).collect();
    order(&mut fleet, &all);
    let woken = fleet.take_effects().woken;
    let after = |times| woken.iter().filter(|wake| wake.pause == WAKES_EVERY * times).count();
    assert_eq!((woken.len(), after(0), after(1), after(2)), (count, WAKES_AT_ONCE, WAKES_AT_ONCE, 1));
}
