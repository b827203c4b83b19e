//! Relays from invitation to revocation, what they are told, and what is staged and woken through them.

use common::hardware::{Contents, Nic};
use common::id::{Hash, Mac};
use common::testing;
use common::trust::KeyPair;
use common::wire::relay::{InviteWord, Known, SitePolicy, StateRequest, Trouble};

use super::super::state::State;
use super::*;
use crate::api::shapes::{ImageShown, ImageStage, MachineWake, Selection, Staged};
use crate::fleet::boot_policy::{Answered, Asker, ClientKind, Sighting};
use crate::traffic::SiteRule;

const SERVER: [u8; 32] = [9; 32];

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn key(number: u8) -> KeyPair {
    KeyPair::from_secret([number; 32])
}

fn fleet() -> Fleet {
    let rule = |subnet: &str, site: &str| SiteRule { subnet: subnet.parse().unwrap(), site: site.to_owned() };
    let sites = vec![rule("10.1.0.0/16", "branch"), rule("10.2.0.0/16", "attic")].into();
    Fleet::new(
        State::default(),
        crate::fleet::decide::Settings { sites, ..crate::fleet::testing::settings() },
    )
}

fn invite(site: &str) -> RelayInvite {
    RelayInvite { site: site.to_owned(), name: None, expires_seconds: None }
}

/// A word, and the name of the relay that it invites.
fn invited(fleet: &mut Fleet, site: &str, now: Timestamp) -> (InviteWord, String) {
    let word = InviteWord::generate(KeyPair::from_secret(SERVER).public()).unwrap();
    let relay = fleet.invite_relay(&invite(site), word.key().public(), now).unwrap();
    (word, relay.name)
}

fn enrol(
    fleet: &mut Fleet,
    word: &InviteWord,
    relay: u8,
    now: Timestamp,
) -> Result<(String, String), NotEnrolled> {
    let signed = word.enrol(&key(relay), "1.0");
    let enrol = signed.open_self_signed(|enrol| enrol.relay).unwrap();
    fleet.enrol_relay(&enrol, &KeyPair::from_secret(SERVER).public(), now)
}

/// A fleet with the relay of `key(number)` at `site`.
fn with_relay(fleet: &mut Fleet, number: u8, site: &str) -> String {
    let (word, name) = invited(fleet, site, at(0));
    enrol(fleet, &word, number, at(1)).unwrap();
    name
}

fn request(number: u8, now: Timestamp) -> StateRequest {
    StateRequest {
        relay: key(number).public(),
        nonce: String::new(),
        version: "1.0".to_owned(),
        wire: RELAY_WIRE,
        clock: now.as_second(),
        http: "10.1.0.1:8069".parse().unwrap(),
        free: Some(40 << 30),
        images: vec![],
        known: Known::default(),
    }
}

fn hear(fleet: &mut Fleet, request: &StateRequest, now: Timestamp) -> Heard {
    fleet.hear_relay(request, now, [192, 0, 2, 7].into(), now)
}

fn log(fleet: &mut Fleet) -> Vec<String> {
    let said = |change| match change {
        Change::Event(event) => Some(format!("{}: {:?}", event.name, event.what)),
        _ => None,
    };
    fleet.take_effects().changes.into_iter().filter_map(said).collect()
}

fn image() -> ImageShown {
    serde_json::from_value(serde_json::json!({
        "name": "debian", "id": Hash::of(b"debian"), "added": "2026-01-01T00:00:00Z", "bytes": 9, "wire_bytes": 7,
        "chunks": 4, "zero_chunks": 0, "sector_bytes": 512, "partition_table": "gpt", "source": "x",
    }))
    .unwrap()
}

fn stage(site: &str) -> ImageStage {
    ImageStage { site: site.to_owned(), not_before: None, limit: None, remove: false }
}

fn holds(number: u8, held: u32, trouble: Option<Trouble>) -> RelayImage {
    RelayImage { image: image().id, key: key(number).public(), held, total: 4, trouble }
}

fn count(lines: &[String], text: &str) -> usize {
    lines.iter().filter(|line| line.contains(text)).count()
}

#[test]
fn a_relay_is_invited_to_a_site_that_is_known_by_addresses() {
    let mut fleet = fleet();
    for (site, name) in [("branch", "branch-1"), ("branch", "branch-2"), ("10.9.8.0/24", "10.9.8.0-24-1")] {
        assert_eq!(invited(&mut fleet, site, at(0)).1, name);
    }
    let word = key(1).public();
    let wrong = [
        ("moon", None, None, "branch"),
        ("10.1.2.0/24", None, None, "branch"),
        ("10.9.0.0/16", None, None, "branch"),
        ("branch", Some("branch-1"), None, "unique"),
        ("branch", Some("a b"), None, "letters"),
        ("branch", None, Some(1), "--expires"),
        ("branch", None, Some(u64::MAX), "--expires"),
    ];
    for (site, name, expires_seconds, told) in wrong {
        let order = RelayInvite { name: name.map(str::to_owned), expires_seconds, ..invite(site) };
        let refusal = fleet.invite_relay(&order, word, at(0)).unwrap_err();
        let said = format!("{refusal:?}");
        assert!(said.contains(told), "{site} {name:?}: {said}");
    }
}

#[test]
fn a_word_lets_in_one_relay_once() {
    let mut fleet = fleet();
    let (word, name) = invited(&mut fleet, "branch", at(0));
    assert_eq!(enrol(&mut fleet, &word, 1, at(1)), Ok((name.clone(), "branch".to_owned())));
    assert!(enrol(&mut fleet, &word, 1, at(2)).is_ok(), "its answer may have been lost");
    log(&mut fleet);
    assert_eq!(enrol(&mut fleet, &word, 2, at(3)), Err(NotEnrolled::Used));
    assert_eq!(count(&log(&mut fleet), "was not enrolled: this invitation was used before"), 1);
    assert_eq!(fleet.state.relay_by_key(&key(2).public()), None);

    let (again, _) = invited(&mut fleet, "attic", at(4));
    assert_eq!(enrol(&mut fleet, &again, 1, at(5)), Err(NotEnrolled::Twice(name.clone())));
    assert!(matches!(enrol(&mut fleet, &again, 3, at(4 + 24 * 3600 + 1)), Err(NotEnrolled::Expired(_))));
    fleet.revoke_relay("attic-1", at(6)).unwrap();
    assert_eq!(enrol(&mut fleet, &again, 3, at(7)), Err(NotEnrolled::Revoked));

    let stranger = InviteWord::generate(KeyPair::from_secret(SERVER).public()).unwrap();
    assert_eq!(enrol(&mut fleet, &stranger, 3, at(8)), Err(NotEnrolled::Unknown));
    let (word, _) = invited(&mut fleet, "branch", at(9));
    let mut old = word.enrol(&key(4), "0.1").open_self_signed(|enrol| enrol.relay).unwrap();
    let server = KeyPair::from_secret(SERVER).public();
    old.wire = 0;
    assert!(matches!(fleet.enrol_relay(&old, &server, at(10)), Err(NotEnrolled::Wire { wire: 0, .. })));
    let elsewhere = word.enrol(&key(4), "1.0").open_self_signed(|enrol| enrol.relay).unwrap();
    assert_eq!(fleet.enrol_relay(&elsewhere, &key(5).public(), at(10)), Err(NotEnrolled::Unknown));
    let stolen = Enrol { relay: key(6).public(), ..elsewhere };
    assert_eq!(fleet.enrol_relay(&stolen, &server, at(10)), Err(NotEnrolled::Unknown), "introduced another");
}

#[test]
fn a_revoked_relay_is_told_so_and_its_key_may_come_again() {
    let mut fleet = fleet();
    let name = with_relay(&mut fleet, 1, "branch");
    fleet.stage(&image(), &stage("branch"), at(2)).unwrap();
    let asks = StateRequest { images: vec![holds(101, 1, None)], ..request(1, at(3)) };
    assert!(matches!(hear(&mut fleet, &asks, at(3)), Heard::Taken { .. }));
    fleet.take_effects();
    assert_eq!(fleet.revoke_relay(&name, at(4)).unwrap().state, RelayState::Revoked);
    let dismissed = fleet.take_effects().dismissed;
    assert_eq!(dismissed.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [key(101).public()]);
    assert!(matches!(hear(&mut fleet, &request(1, at(5)), at(5)), Heard::Revoked));
    assert!(fleet.relay_table(at(5)).of(&key(1).public()).unwrap().is_revoked);
    assert!(fleet.revoke_relay(&name, at(5)).is_err(), "its name is free");
    assert!(matches!(hear(&mut fleet, &request(2, at(5)), at(5)), Heard::Unknown));

    with_relay(&mut fleet, 1, "attic");
    assert!(matches!(hear(&mut fleet, &request(1, at(6)), at(6)), Heard::Taken { .. }));
    let table = fleet.relay_table(at(6));
    let view = table.of(&key(1).public()).unwrap();
    assert_eq!((view.is_revoked, view.site.as_str()), (false, "attic"));
}

#[test]
fn what_changes_at_a_relay_is_logged_once() {
    let mut fleet = fleet();
    with_relay(&mut fleet, 1, "branch");
    fleet.take_effects();
    let mut said = vec![];
    let mut tell = |fleet: &mut Fleet, seconds: i64, change: &dyn Fn(&mut StateRequest)| {
        let mut asks = request(1, at(seconds));
        change(&mut asks);
        let heard = hear(fleet, &asks, at(seconds));
        said.extend(log(fleet));
        heard
    };
    let full = |needed| Some(Trouble::DiskFull { needed });
    tell(&mut fleet, 10, &|_| ());
    tell(&mut fleet, 20, &|asks| asks.version = "1.1".to_owned());
    for second in [30, 40] {
        tell(&mut fleet, second, &|asks| {
            asks.version = "1.1".to_owned();
            asks.clock += 3600;
            asks.images = vec![holds(101, 1, full(u64::try_from(second).unwrap() << 20))];
        });
    }
    tell(&mut fleet, 50, &|asks| {
        asks.version = "1.1".to_owned();
        asks.images = vec![holds(101, 4, None)];
    });
    fleet.miss_relays(at(50 + 91));
    fleet.miss_relays(at(50 + 92));
    assert_eq!(fleet.relays_shown(at(150))[0].state, RelayState::Away);
    let old = tell(&mut fleet, 200, &|asks| asks.wire = 7);
    assert!(matches!(old, Heard::Version));
    tell(&mut fleet, 210, &|asks| asks.wire = 7);
    let once = [
        "version 1.1 now, 1.0 before",
        "its clock is wrong",
        "no room for it: 30.0 MiB more are needed",
        "goes on with",
        "has all of",
        "not heard of since",
        "speaks relay protocol 7",
    ];
    for text in once {
        assert_eq!(count(&said, text), 1, "{text}: {said:#?}");
    }
    let here = count(&said, "here, at 10.1.0.1:8069: version 1.0, 40.0 GiB free");
    assert_eq!(here, 2, "it comes, and comes back");
    assert_eq!(count(&said, "no room"), 1, "how much is missing changes all the time");
    assert!(fleet.relays_shown(at(211))[0].warnings[0].contains("relay protocol 7"));
}

#[test]
fn a_request_that_is_sent_again_is_refused() {
    let mut fleet = fleet();
    with_relay(&mut fleet, 1, "branch");
    let from = [192, 0, 2, 7].into();
    let mut hear = |given| fleet.hear_relay(&request(1, at(9)), at(given), from, at(9));
    assert!(matches!(hear(5), Heard::Taken { turn: 1, .. }));
    assert!(matches!(hear(5), Heard::Replayed));
    assert!(matches!(hear(4), Heard::Replayed));
    assert!(matches!(hear(6), Heard::Taken { turn: 2, .. }));
    assert_eq!(count(&log(&mut fleet), "sent again by somebody"), 1);
}

/// A machine that was seen at `address`.
fn machine(fleet: &mut Fleet, last: u8, address: [u8; 4]) {
    let asker = Asker { mac: Some(Mac([2, 0, 0, 0, 0, last])), uuid: None, serial: None };
    let sighting = Sighting::PowerOn {
        asker,
        firmware: ClientKind::Firmware { kind: "bios", http: false },
        answer: Answered::Proxy { file: None },
        relay: Some(address.into()),
    };
    fleet.sighting(sighting, at(5));
}

#[test]
fn a_relay_is_told_of_its_own_site_and_no_other() {
    let mut fleet = fleet();
    with_relay(&mut fleet, 1, "branch");
    machine(&mut fleet, 1, [10, 1, 0, 7]);
    machine(&mut fleet, 2, [10, 2, 0, 7]);
    hear(&mut fleet, &request(1, at(10)), at(10));
    let table = fleet.relay_table(at(10));
    let view = table.of(&key(1).public()).unwrap();
    assert_eq!(view.machines.machines.len(), 1);
    let told = &view.machines.machines[0];
    assert_eq!((told.own.clone(), told.policy), (vec![Mac([2, 0, 0, 0, 0, 1])], SitePolicy::Load));
    assert!(table.is_at(view, [10, 1, 200, 1].into()) && !table.is_at(view, [10, 2, 0, 7].into()));
    assert!(!table.is_at(view, "fe80::1".parse().unwrap()));
    assert!(table.is_at(view, "::ffff:10.1.0.9".parse().unwrap()));
    assert_eq!(fleet.relay_table(at(10)), table, "what is the same wakes nobody");
    assert!(table.is_relays([192, 0, 2, 7].into()));
    assert!(!fleet.relay_table(at(10 + 91)).is_relays([192, 0, 2, 7].into()), "it is away");
}

#[test]
fn an_image_is_staged_when_its_time_has_come() {
    let mut fleet = fleet();
    let refusal = fleet.stage(&image(), &stage("branch"), at(0)).unwrap_err();
    assert!(refusal.hint.unwrap().contains("relay invite"));
    with_relay(&mut fleet, 1, "branch");
    with_relay(&mut fleet, 2, "branch");
    let later = ImageStage { not_before: Some(at(100)), limit: Some(5_000_000), ..stage("branch") };
    fleet.stage(&image(), &later, at(3)).unwrap();
    let told = |fleet: &Fleet, now| {
        let table = fleet.relay_table(at(now));
        table.of(&key(1).public()).unwrap().work.images.clone()
    };
    let order = told(&fleet, 50)[0].stage.clone().unwrap();
    assert_eq!((order.due, order.limit), (false, Some(625_000)));
    let asks = |now| StateRequest { images: vec![holds(101, 1, None)], ..request(1, at(now)) };
    let Heard::Taken { admissions, .. } = hear(&mut fleet, &asks(50), at(50)) else { panic!("not taken") };
    assert!(admissions.is_empty(), "it is not due");
    let Heard::Taken { admissions, .. } = hear(&mut fleet, &asks(100), at(100)) else { panic!("not taken") };
    assert_eq!((admissions[0].key, admissions[0].site.as_str()), (key(101).public(), "branch"));
    assert!(admissions[0].job().is_none());
    assert_eq!(told(&fleet, 100)[0].keys, [key(101).public()], "the other relay may fetch from it");
    let at_relays = &fleet.staged(None, at(100))[0].relays;
    assert_eq!(at_relays.iter().map(|at| at.chunks).collect::<Vec<_>>(), [Some((1, 4)), None]);

    // Another relay cannot take its place in the swarm.
    let thief = StateRequest { images: vec![holds(101, 4, None)], ..request(2, at(101)) };
    let Heard::Taken { admissions, .. } = hear(&mut fleet, &thief, at(101)) else { panic!("not taken") };
    assert!(admissions.is_empty());

    fleet.take_effects();
    fleet.image_gone(image().id, at(102));
    let effects = fleet.take_effects();
    assert_eq!(effects.dismissed.len(), 1, "it leaves the swarm");
    let said = format!("{:?}", effects.changes);
    assert!(said.contains("debian: the image was removed, so it is not staged any more"), "{said}");
    assert!(told(&fleet, 103).is_empty() && fleet.staged(None, at(103)).is_empty());
    let over: Result<Vec<Staged>, _> =
        fleet.stage(&image(), &ImageStage { remove: true, ..stage("branch") }, at(104));
    assert!(over.unwrap_err().error.contains("not staged"));
}

#[test]
fn machines_are_woken_by_their_sites_relays_and_others_by_the_server() {
    let mut fleet = fleet();
    with_relay(&mut fleet, 1, "branch");
    machine(&mut fleet, 1, [10, 1, 0, 7]);
    machine(&mut fleet, 2, [10, 2, 0, 7]);
    hear(&mut fleet, &request(1, at(10)), at(10));
    let all = |dry_run| MachineWake {
        selection: Selection { machines: vec!["m1".to_owned(), "m2".to_owned()], labels: vec![] },
        dry_run,
    };
    let (lines, own) = fleet.wake(&all(true), at(11)).unwrap();
    assert!(own.is_empty() && lines[0].text.contains("would be woken by branch-1"), "{lines:?}");
    let (lines, own) = fleet.wake(&all(false), at(11)).unwrap();
    assert!(lines[1].text.contains("from the server's own network"), "{lines:?}");
    assert_eq!(own.iter().map(|wake| wake.mac).collect::<Vec<_>>(), [Mac([2, 0, 0, 0, 0, 2])]);
    fleet.wake(&all(false), at(11)).unwrap();
    let told = |now| fleet.relay_table(at(now)).of(&key(1).public()).unwrap().work.wake.clone();
    let wakes = told(12);
    assert_eq!(wakes.len(), 2);
    assert!(wakes[0].number < wakes[1].number && wakes[0].mac == Mac([2, 0, 0, 0, 0, 1]));
    assert!(told(11 + 120).is_empty(), "nobody waits for it any more");
}

#[test]
fn the_card_that_a_machine_booted_from_is_woken() {
    let nic = |last, boot| Nic { boot, ..testing::nic(Mac([2, 0, 0, 0, 0, last])) };
    let report = common::hardware::HardwareReport {
        key: key(50).public(),
        nics: vec![nic(8, false), nic(9, true)],
        disks: vec![common::hardware::Disk { contents: Contents::Blank, ..testing::disk("sda") }],
        ..testing::report()
    };
    let mut fleet = fleet();
    let hardware = std::sync::Arc::new(common::hardware::CheckedHardware::check(report).unwrap());
    fleet.report(&hardware, Some([10, 2, 0, 9].into()), at(1));
    let order = MachineWake {
        selection: Selection { machines: vec!["m1".to_owned()], labels: vec![] },
        dry_run: false,
    };
    let (_, own) = fleet.wake(&order, at(2)).unwrap();
    assert_eq!(own.iter().map(|wake| wake.mac).collect::<Vec<_>>(), [Mac([2, 0, 0, 0, 0, 9])]);
}
