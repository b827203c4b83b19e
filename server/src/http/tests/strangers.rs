//! Hostile requests: slow bodies, many connections, floods of reports, events and sightings; and an honest machine that
//! is served meanwhile. Touches ports of the loopback.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::hardware::{CheckedHardware, Contents, SentReport};
use common::id::{Mac, MachineId};
use common::limits::{
    BARE_SIGHTINGS_MAX, NEW_BOOTS_PER_ADDRESS, STRANGER_EVENTS, STRANGER_HARDWARE_BYTES, STRANGERS_MAX,
};
use common::step::{EventBatch, Step, StepEvent, What};
use common::trust::KeyPair;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::super::{ConnectionBounds, bind};
use super::bench::{Bench, key, report};
use crate::api::shapes::{MachineAction, MachineCommand, MachineState, Selection};
use crate::fleet::boot_policy::{Answered, Asker, Sighting};
use crate::fleet::decide::{Fleet, Settings};
use crate::fleet::identity::Fingerprint;
use crate::fleet::machine::Machine;
use crate::fleet::state::{Change, State};
use crate::fleet::store::LogFilter;

/// The bounds of a small server.
pub(super) const BOUNDS: ConnectionBounds = ConnectionBounds { all: 128, per_address: 64 };

/// Serves `bench` at a port of the loopback.
pub(super) async fn open(bench: &Bench, bounds: ConnectionBounds) -> (SocketAddr, CancellationToken) {
    let bound = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (at, cancel) = (bound.address(), CancellationToken::new());
    tokio::spawn(bound.run(bench.routes.clone(), bounds, cancel.clone()));
    (at, cancel)
}

/// Connects to `at` from the loopback address that ends in `from`.
fn connect(from: u8, at: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let own = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, from)), 0);
    socket.bind(&own.into()).unwrap();
    socket.connect(&at.into()).unwrap();
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Posts a report over a connection of its own, and returns the status line of the response.
fn post_report(from: u8, at: SocketAddr, report: &SentReport, key: &KeyPair) -> String {
    let body = serde_json::to_string(&key.sign(report)).unwrap();
    let mut stream = connect(from, at);
    let head = format!(
        "POST /v1/report HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_never_come_hold_up_nobody() {
    let bench = Bench::open();
    let (at, cancel) = open(&bench, BOUNDS).await;
    let sent = bench.sent(report(1, 1, &[Contents::Blank]));
    let honest = tokio::task::spawn_blocking(move || {
        let slow: Vec<TcpStream> = (0..60)
            .map(|number| {
                let mut stream = connect(1 + number % 2, at);
                stream
                    .write_all(b"POST /v1/report HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{\"")
                    .unwrap();
                stream
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        let status = post_report(3, at, &sent, &key(1, 1));
        drop(slow);
        (status, begun.elapsed())
    });
    let (status, took) = honest.await.unwrap();
    assert!(status.contains("200"), "{status}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    cancel.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_take_all_connections() {
    let bench = Bench::open();
    let (at, cancel) = open(&bench, ConnectionBounds { all: 32, per_address: 8 }).await;
    let sent = bench.sent(report(1, 1, &[Contents::Blank]));
    let tried = tokio::task::spawn_blocking(move || {
        let idle: Vec<TcpStream> = (0..100).map(|_| connect(1, at)).collect();
        std::thread::sleep(Duration::from_millis(300));
        let closed = |mut stream: &TcpStream| {
            stream.set_nonblocking(true).unwrap();
            !matches!(stream.read(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        };
        let inside = idle.iter().filter(|stream| !closed(stream)).count();
        let status = post_report(2, at, &sent, &key(1, 1));
        (inside, status)
    });
    let (inside, status) = tried.await.unwrap();
    assert_eq!(inside, 8);
    assert!(status.contains("200"), "{status}");
    cancel.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_is_bounded() {
    let bench = Bench::open();
    let (at, cancel) = open(&bench, BOUNDS).await;
    let tried = tokio::task::spawn_blocking(move || {
        let mut stream = connect(1, at);
        let head = format!("GET /v1/identity HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(64 << 10));
        // The server may answer and close before all of it is written.
        let _ = stream.write_all(head.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
    });
    let status = tried.await.unwrap();
    assert!(!status.contains("200"), "{status}");
    cancel.cancel();
}

#[tokio::test]
async fn parts_of_a_file_are_one_line_of_the_log() {
    let bench = Bench::open();
    for end in 0..200 {
        for file in ["vmlinuz", "vmlinuz"] {
            let request = axum::http::Request::get(format!("/boot/debian-12/{file}"))
                .header(axum::http::header::RANGE, format!("bytes=0-{end}"));
            let answer = bench.call(request.body(axum::body::Body::empty()).unwrap()).await;
            assert_eq!(answer.status(), 206);
            super::bench::bytes(answer).await;
        }
    }
    bench.fleet.machines(Selection::default()).await.unwrap();
    let log = bench.fleet.log_page(LogFilter::default(), 0, 500).await.unwrap();
    assert_eq!(log.len(), 1, "{log:?}");
}

#[tokio::test]
async fn a_refused_report_is_named_in_the_log_once() {
    let bench = Bench::open();
    let mut odd = report(1, 1, &[Contents::Blank]);
    odd.version = 77;
    let body = serde_json::to_string(&key(1, 1).sign(&bench.sent(odd))).unwrap();
    for _ in 0..5 {
        assert_eq!(bench.post("/v1/report", body.clone()).await.status(), 400);
    }
    // Sightings are written before this request is answered.
    bench.fleet.machines(Selection::default()).await.unwrap();
    let log = bench.fleet.log_page(LogFilter::default(), 0, 500).await.unwrap();
    let texts: Vec<String> = log.iter().map(|event| format!("{} {:?}", event.name, event.what)).collect();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].contains("10.0.0.7") && texts[0].contains("version 77"), "{texts:?}");
}

#[tokio::test]
async fn only_the_server_says_what_the_server_does() {
    let bench = Bench::open();
    let own = key(1, 1);
    bench.report(report(1, 1, &[Contents::Bootable]), &own).await;
    let before = bench.fleet.log_page(LogFilter::default(), 0, 500).await.unwrap().len();
    let note = || What::Note { text: "an admin: approved".to_owned() };
    let steps = [
        Step::PowerOn,
        Step::Decide,
        Step::Tailor,
        Step::Confirm,
        Step::Other("DECIDE".to_owned()),
        Step::Other("-confirm ".to_owned()),
        Step::Loader,
    ];
    let events = steps
        .into_iter()
        .zip(1..)
        .map(|(step, number)| StepEvent { number, at_ms: 0, step, what: note(), sources: None })
        .collect();
    // Three years of uptime by the sender's own clock: events are not dated back further than its boot.
    let sent_at_ms = 3 * 365 * 86_400_000;
    let batch = EventBatch { key: own.public(), job: None, attempt: None, sent_at_ms, events };
    let answer = bench.post("/v1/events", serde_json::to_string(&own.sign(&batch)).unwrap()).await;
    assert_eq!(answer.status(), 200);
    let log = bench.fleet.log_page(LogFilter::default(), 0, 500).await.unwrap();
    let said: Vec<_> = log.into_iter().filter(|event| event.by_machine).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(said[0].step, Step::Loader);
    assert!(Timestamp::now().duration_since(said[0].at) < SignedDuration::from_hours(2), "{}", said[0].at);
    assert!(before > 0);
}

/// A fleet without records: only the core that decides.
fn fleet() -> Fleet {
    let settings = Settings { url: "http://10.0.0.1:8069".to_owned(), ..crate::fleet::testing::settings() };
    Fleet::new(State::default(), settings)
}

fn at(ms: u64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_millis(i64::try_from(ms).unwrap())
}

/// A valid report of the machine with this number, signed by a key of its own.
fn forged(number: u32) -> Arc<CheckedHardware> {
    let [a, b, c, d] = number.to_be_bytes();
    let mut secret = [7; 32];
    secret[..4].copy_from_slice(&number.to_be_bytes());
    let mut forged = report(1, 1, &[Contents::Blank]);
    forged.key = KeyPair::from_secret(secret).public();
    forged.system.serial = format!("FORGED{number}");
    forged.disks[0].serial = format!("FD{number}");
    forged.nics[0].mac = Mac([2, 9, a, b, c, d]);
    Arc::new(CheckedHardware::check(forged).unwrap())
}

fn changes(fleet: &mut Fleet) -> Vec<Change> {
    fleet.take_effects().changes
}

#[test]
fn forged_reports_from_one_address_are_held_to_its_rate() {
    let mut fleet = fleet();
    let host = Some(IpAddr::from([10, 0, 0, 66]));
    for number in 0..10_000 {
        // A thousand a second.
        fleet.report(&forged(number), host, at(u64::from(number)));
    }
    let most = NEW_BOOTS_PER_ADDRESS.at_once as usize + 11;
    assert!(fleet.state.machines.len() <= most, "{}", fleet.state.machines.len());
    // Somebody else is served as ever.
    fleet.report(&forged(20_000), Some(IpAddr::from([10, 0, 0, 67])), at(10_000));
    let last = forged(20_000).report().nics[0].mac;
    assert!(fleet.state.with_mac(last).next().is_some());
}

/// Adds `count` unapproved machines, with hardware or without; the one with the lowest number was silent longest.
fn fill(fleet: &mut Fleet, count: usize, with_hardware: bool) {
    let hardware = forged(1);
    for number in (1..).take(count) {
        let [a, b, c, d] = u32::try_from(number).unwrap().to_be_bytes();
        let macs = [Mac([2, 1, a, b, c, d])].into();
        let print = Fingerprint { macs, ..Fingerprint::default() };
        let machine = Machine::new(MachineId(number), print, "local".to_owned(), at(number));
        fleet.state.adopt(&Change::Machine(Box::new(machine)));
        if with_hardware {
            fleet.state.adopt(&Change::Hardware(MachineId(number), Arc::clone(&hardware)));
        }
    }
}

#[test]
fn forged_reports_from_everywhere_push_out_only_strangers() {
    let mut fleet = fleet();
    fill(&mut fleet, STRANGERS_MAX, true);
    let approve = MachineCommand {
        selection: Selection { machines: vec!["m1".to_owned()], labels: vec![] },
        action: MachineAction::Approve,
        dry_run: false,
    };
    fleet.command(&approve, at(9_999)).unwrap();
    for number in 2..52_u32 {
        fleet.report(&forged(number), Some(IpAddr::from(number.to_be_bytes())), at(10_000));
    }
    assert_eq!(fleet.state.machines.len(), STRANGERS_MAX + 1);
    assert_eq!(fleet.state.machines[&MachineId(1)].state, MachineState::Approved);
    assert!(fleet.state.named("m2").is_empty(), "the one that was silent longest is gone");
    assert!(!fleet.state.named("m5000").is_empty());
}

#[test]
fn sightings_make_room_for_newer_ones() {
    let mut fleet = fleet();
    fill(&mut fleet, BARE_SIGHTINGS_MAX, false);
    for number in 0..50_u8 {
        let asker = Asker { mac: Some(Mac([2, 2, 0, 0, 0, number])), uuid: None, serial: None };
        let answer = Answered::Proxy { file: None };
        let sighting = Sighting::PowerOn {
            asker,
            firmware: crate::fleet::boot_policy::ClientKind::tftp("bios"),
            answer,
            relay: None,
        };
        fleet.sighting(sighting, at(10_000));
    }
    assert_eq!(fleet.state.machines.len(), BARE_SIGHTINGS_MAX);
    assert!(
        fleet.state.with_mac(Mac([2, 2, 0, 0, 0, 49])).next().is_some() && fleet.state.named("m1").is_empty()
    );
}

#[test]
fn of_a_strangers_long_report_little_is_kept_until_it_is_let_in() {
    let mut fleet = fleet();
    let mut long = forged(1).report().clone();
    let device = common::hardware::Device {
        address: "0000:00:03.0".to_owned(),
        modalias: "pci:v00008086d0000100E".repeat(8),
        class: 0,
        driver: String::new(),
    };
    long.devices = vec![device; 4000];
    let long = Arc::new(CheckedHardware::check(long).unwrap());
    let kept = |fleet: &Fleet| {
        let hardware = fleet.state.machines.values().next().unwrap().hardware.clone().unwrap();
        serde_json::to_vec(hardware.report()).unwrap().len()
    };
    fleet.report(&long, None, at(0));
    assert!(kept(&fleet) <= STRANGER_HARDWARE_BYTES);
    changes(&mut fleet);
    fleet.report(&long, None, at(1));
    let again = changes(&mut fleet);
    assert!(
        !again.iter().any(|change| matches!(change, Change::Hardware(..))),
        "the same is not written again"
    );
    let approve = MachineCommand {
        selection: Selection { machines: vec!["m1".to_owned()], labels: vec![] },
        action: MachineAction::Approve,
        dry_run: false,
    };
    fleet.command(&approve, at(2)).unwrap();
    fleet.report(&long, None, at(3));
    assert!(kept(&fleet) > STRANGER_HARDWARE_BYTES);
}

#[test]
fn a_stranger_that_tells_a_lot_is_left_out_of_the_log() {
    let mut fleet = fleet();
    let hardware = forged(1);
    fleet.report(&hardware, None, at(0));
    changes(&mut fleet);
    let key = hardware.report().key;
    let mut lines = 0;
    for batch in 0..30_u64 {
        let event = |number: u64| StepEvent {
            number,
            at_ms: 0,
            step: Step::Loader,
            what: What::Note { text: format!("{number}{}", "x".repeat(1900)) },
            sources: None,
        };
        let events = (1..=512).map(|number| event(batch * 512 + number)).collect();
        let batch = EventBatch { key, job: None, attempt: None, sent_at_ms: 0, events };
        let taken = fleet.events(batch, at(1)).unwrap();
        assert_eq!(taken.through % 512, 0, "counted as delivered: they are not sent again");
        lines += changes(&mut fleet).iter().filter(|change| matches!(change, Change::Event(_))).count();
    }
    assert!(lines <= STRANGER_EVENTS.at_once as usize, "{lines}");
    assert!(fleet.left_out > 15_000);
}

#[test]
fn below_the_reserve_nothing_unasked_is_recorded() {
    let mut fleet = fleet();
    fleet.report(&forged(1), None, at(0));
    let approve = MachineCommand {
        selection: Selection { machines: vec!["m1".to_owned()], labels: vec![] },
        action: MachineAction::Approve,
        dry_run: false,
    };
    fleet.command(&approve, at(1)).unwrap();
    changes(&mut fleet);
    fleet.is_tight = true;
    fleet.report(&forged(2), Some(IpAddr::from([10, 0, 0, 2])), at(2));
    let asker = Asker { mac: Some(Mac([2, 1, 1, 1, 1, 1])), uuid: None, serial: None };
    let answer = Answered::Proxy { file: None };
    fleet.sighting(
        Sighting::PowerOn {
            asker,
            firmware: crate::fleet::boot_policy::ClientKind::tftp("bios"),
            answer,
            relay: None,
        },
        at(3),
    );
    let file = "loader.img".to_owned();
    fleet.sighting(Sighting::LoaderFile { address: IpAddr::from([10, 0, 0, 3]), file, bytes: 1 }, at(4));
    assert!(changes(&mut fleet).is_empty());
    fleet.report(&forged(1), None, at(5));
    assert!(!changes(&mut fleet).is_empty(), "who is let in goes on");
}
