//! Relays over HTTP: enrolment, held requests, and machines' requests that they pass on.

use common::trust::{KeyPair, Signed};
use common::wire::relay::{
    Enrolled, InviteWord, Known, News, RELAY_WIRE, SiteState, StateAnswer, StateRequest, VIA_HEADER, Via,
    mark,
};

use common::hardware::{Device, HardwareReport};

use super::*;
use crate::api::shapes::RelayInvite;

const SITE: &str = "10.0.0.0/24";

fn relay(number: u8) -> KeyPair {
    KeyPair::from_secret([200 + number; 32])
}

async fn invited(bench: &Bench) -> InviteWord {
    let invite = RelayInvite { site: SITE.to_owned(), name: None, expires_seconds: None };
    let invited = bench.fleet.invite_relay(invite).await.unwrap();
    assert_eq!(invited.url, "http://10.0.0.1:8069");
    invited.word.parse().unwrap()
}

async fn enrol(bench: &Bench, word: &InviteWord, relay: &KeyPair) -> Response<Body> {
    let signed = word.enrol(relay, "1.0");
    bench.post("/v1/relay/enrol", serde_json::to_vec(&signed).unwrap()).await
}

fn request(bench: &Bench, relay: &KeyPair, known: Known) -> StateRequest {
    StateRequest {
        relay: relay.public(),
        nonce: bench.fleet.nonce(),
        version: "1.0".to_owned(),
        wire: RELAY_WIRE,
        clock: 0,
        http: "10.0.0.2:8069".parse().unwrap(),
        free: None,
        images: vec![],
        known,
    }
}

async fn send(bench: &Bench, relay: &KeyPair, request: &StateRequest) -> Response<Body> {
    bench.post("/v1/relay/state", serde_json::to_vec(&relay.sign(request)).unwrap()).await
}

async fn news(bench: &Bench, relay: &KeyPair, known: Known) -> News {
    let signed = relay.sign(&request(bench, relay, known));
    let answer = bench.post("/v1/relay/state", serde_json::to_vec(&signed).unwrap()).await;
    assert_eq!(answer.status(), 200);
    let answer: Signed<StateAnswer> = read(answer).await;
    let answer = answer.open(&server_key().public()).expect("the server signed it");
    assert_eq!(answer.request, signed.digest());
    answer.news
}

async fn state(bench: &Bench, relay: &KeyPair, known: Known) -> SiteState {
    match news(bench, relay, known).await {
        News::State(state) => *state,
        other => panic!("{other:?}"),
    }
}

fn known(state: &SiteState) -> Known {
    Known {
        boot: state.boot.as_ref().map(mark),
        machines: state.machines.as_ref().map(mark),
        work: state.work.as_ref().map(mark),
    }
}

/// A server with the enrolled relay number 1.
async fn with_relay() -> Bench {
    let bench = Bench::open();
    let word = invited(&bench).await;
    assert_eq!(enrol(&bench, &word, &relay(1)).await.status(), 200);
    bench
}

fn via(bench: &Bench, method: &str, target: &str, count: u64) -> Via {
    Via {
        relay: relay(1).public(),
        machine: "10.0.0.77".parse().unwrap(),
        local: "10.0.0.2:8069".parse().unwrap(),
        nonce: bench.fleet.nonce(),
        count,
        request: Via::request(method, target),
    }
}

async fn passed(bench: &Bench, target: &str, signed: &Signed<Via>) -> Response<Body> {
    let header = serde_json::to_string(signed).unwrap();
    bench.call(Request::get(target).header(VIA_HEADER, header).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_word_is_used_once() {
    let bench = Bench::open();
    let word = invited(&bench).await;
    let answer: Signed<Enrolled> = read(enrol(&bench, &word, &relay(1)).await).await;
    let enrolled = answer.open(&server_key().public()).unwrap();
    assert_eq!((enrolled.site.as_str(), enrolled.name.as_str()), (SITE, "10.0.0.0-24-1"));
    assert_eq!(enrol(&bench, &word, &relay(1)).await.status(), 200, "the answer may have been lost");
    let refused = enrol(&bench, &word, &relay(2)).await;
    assert_eq!(refused.status(), 403);
    let refused: Refused = read(refused).await;
    assert!(refused.error.contains("used before") && refused.hint.unwrap().contains("relay invite"));
    // The relay is known again after a restart of the server.
    let bench = bench.restart().await;
    state(&bench, &relay(1), Known::default()).await;
    assert_eq!(send(&bench, &relay(2), &request(&bench, &relay(2), Known::default())).await.status(), 403);
}

#[tokio::test]
async fn a_request_is_held_until_something_changes() {
    let (bench, relay) = (with_relay().await, relay(1));
    let first = state(&bench, &relay, Known::default()).await;
    assert_eq!(first.boot.as_ref().unwrap().site, SITE);
    bench.report(report(1, 1, &[Contents::Blank]), &key(1, 1)).await;
    let knows = known(&first);
    let second = state(&bench, &relay, knows).await;
    assert_eq!((second.boot.is_none(), second.work.is_none()), (true, true), "only what has changed");
    assert_eq!(second.machines.as_ref().unwrap().machines.len(), 1);

    let knows = Known { machines: known(&second).machines, ..knows };
    let order = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let order = serde_json::json!({"image": "debian", "selection": {"machines": ["m1"]}});
        bench.order(order).await.unwrap();
    };
    let (third, ()) = tokio::join!(state(&bench, &relay, knows), order);
    assert_ne!(third.machines, None, "an order ends the wait");

    // A later request of the same relay ends the one before.
    let knows = Known { machines: known(&third).machines, ..knows };
    let later = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        tokio::time::timeout(std::time::Duration::from_millis(300), state(&bench, &relay, knows)).await
    };
    let (before, later) = tokio::join!(state(&bench, &relay, knows), later);
    assert_eq!(before, SiteState::default());
    assert!(later.is_err(), "nothing has changed: it is held");

    // Revoking it ends the wait as well.
    let revoke = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        bench.fleet.revoke_relay("10.0.0.0-24-1".to_owned()).await.unwrap();
    };
    let (told, ()) = tokio::join!(news(&bench, &relay, knows), revoke);
    assert_eq!(told, News::Revoked);
    assert_eq!(news(&bench, &relay, knows).await, News::Revoked);
}

/// A machine that booted from this card, which its first report shows.
fn with_card(machine: u8, device: u16) -> HardwareReport {
    let mut report = report(machine, 1, &[Contents::Blank]);
    report.nics[0].driver = "igb".to_owned();
    report.devices.push(Device {
        address: "0000:01:00.0".to_owned(),
        modalias: format!("pci:v00008086d{device:08X}sv00008086sd00000001bc02sc00i00"),
        class: 0x02_0000,
        driver: "igb".to_owned(),
    });
    report
}

#[tokio::test]
async fn a_relay_is_told_of_the_small_loaders_of_its_machines_cards() {
    let (bench, relay) = (with_relay().await, relay(1));
    let names = |state: &SiteState| -> Vec<String> {
        let boot = state.boot.as_ref().expect("it has changed");
        boot.files.iter().map(|file| file.path.clone()).collect()
    };
    let first = state(&bench, &relay, Known::default()).await;
    assert!(names(&first).is_empty());
    // While the request is held: a site whose machines were just reported is told at once.
    let later = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        for (machine, device) in [(1, 0x1533), (2, 0x1521), (3, 0x1521)] {
            bench.report(with_card(machine, device), &key(machine, 1)).await;
        }
    };
    let (second, ()) = tokio::join!(state(&bench, &relay, known(&first)), later);
    assert!(second.boot.is_some());
    let third = state(&bench, &relay, Known { boot: None, ..known(&second) }).await;
    let small = ["/boot/debian-12/loader-1521.img", "/boot/debian-12/loader-1533.img"];
    assert_eq!(names(&third), small, "that of most machines first");
}

#[tokio::test]
async fn two_relays_at_one_site_are_both_told_and_neither_ends_the_others_wait() {
    let bench = with_relay().await;
    let word = invited(&bench).await;
    assert_eq!(enrol(&bench, &word, &relay(2)).await.status(), 200);
    let (one, two) = (relay(1), relay(2));
    let told = state(&bench, &one, Known::default()).await;
    let knows = [known(&told), known(&state(&bench, &two, Known::default()).await)];
    let held = |relay, known| {
        let bench = &bench;
        async move {
            let short = std::time::Duration::from_millis(400);
            tokio::time::timeout(short, state(bench, relay, known)).await.is_err()
        }
    };
    let (first, second) = tokio::join!(held(&one, knows[0]), held(&two, knows[1]));
    assert!(first && second, "nothing is new for either");
    let order = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        bench.report(report(1, 1, &[Contents::Blank]), &key(1, 1)).await;
    };
    let (first, second, ()) =
        tokio::join!(state(&bench, &one, knows[0]), state(&bench, &two, knows[1]), order);
    assert_eq!((first.machines.is_some(), first.machines), (true, second.machines));

    let shown = bench.fleet.relays_shown().await.unwrap();
    let warnings: Vec<String> = shown.iter().flat_map(|relay| relay.warnings.clone()).collect();
    let beside =
        |name: &str| warnings.iter().any(|text| text.starts_with(&format!("{name} is at {SITE} too")));
    assert!(beside("10.0.0.0-24-1") && beside("10.0.0.0-24-2"), "{warnings:?}");
    let log = bench.fleet.log_page(LogFilter::default(), 0, 100).await.unwrap();
    let said = log.iter().filter(|event| format!("{:?}", event.what).contains("too: each answers")).count();
    assert_eq!(said, 1, "once, when the second came: {log:?}");
}

/// Freshness is told by the server's nonces, so a relay that thinks it is 1970 serves like any other.
#[tokio::test]
async fn a_relay_with_a_wrong_clock_is_told_all_and_the_admin_of_its_clock() {
    let bench = with_relay().await;
    let asks = StateRequest { clock: 0, ..request(&bench, &relay(1), Known::default()) };
    let answer: Signed<StateAnswer> = read(send(&bench, &relay(1), &asks).await).await;
    let News::State(told) = answer.open(&server_key().public()).unwrap().news else { panic!("no state") };
    assert!(told.boot.is_some() && told.machines.is_some() && told.work.is_some());
    let target = "/boot.ipxe?mac=02-00-00-00-00-01";
    let signed = relay(1).sign(&via(&bench, "GET", target, 1));
    assert_eq!(passed(&bench, target, &signed).await.status(), 200);
    assert_eq!(bench.fleet.relays_shown().await.unwrap()[0].warnings, ["its clock is wrong"]);
}

#[tokio::test]
async fn a_request_is_not_held_for_ever() {
    let bench = with_relay().await;
    let knows = known(&state(&bench, &relay(1), Known::default()).await);
    let source = Arc::clone(&bench.rooms) as _;
    let public =
        Public::new(bench.fleet.clone(), source, "quiet".parse().unwrap(), true, bench.peers.clone());
    let hold = std::time::Duration::from_millis(20);
    let told = super::super::relay::held(&public, &relay(1).public(), 1, knows, hold).await.unwrap();
    assert_eq!(told, News::State(Box::default()));
}

#[tokio::test]
async fn a_request_of_a_relay_counts_once_and_only_from_itself() {
    let bench = with_relay().await;
    let asks = request(&bench, &relay(1), Known::default());
    assert_eq!(send(&bench, &relay(1), &asks).await.status(), 200);
    assert_eq!(send(&bench, &relay(1), &asks).await.status(), 409, "sent again");
    let asks = request(&bench, &relay(1), Known::default());
    assert_eq!(send(&bench, &relay(2), &asks).await.status(), 403, "signed by another");
    let asks = StateRequest { nonce: "00".repeat(24), ..request(&bench, &relay(1), Known::default()) };
    assert_eq!(send(&bench, &relay(1), &asks).await.status(), 409, "a nonce of nobody");
    let old = StateRequest { wire: 0, ..request(&bench, &relay(1), Known::default()) };
    let answer: Signed<StateAnswer> = read(send(&bench, &relay(1), &old).await).await;
    let news = answer.open(&server_key().public()).unwrap().news;
    assert!(matches!(news, News::Version { wire: RELAY_WIRE, .. }), "{news:?}");
}

#[tokio::test]
async fn a_machine_behind_a_relay_is_seen_as_itself() {
    let bench = with_relay().await;
    let target = "/boot.ipxe?mac=02-00-00-00-00-01";
    let signed = relay(1).sign(&via(&bench, "GET", target, 1));
    let answer = passed(&bench, target, &signed).await;
    assert_eq!(answer.status(), 200);
    let script = String::from_utf8(bytes(answer).await.to_vec()).unwrap();
    assert!(script.contains("http://10.0.0.2:8069/boot.ipxe ||"), "{script}");
    assert!(script.contains("swarmboot.server=http://10.0.0.2:8069,http://10.0.0.1:8069 "), "{script}");
    let order =
        serde_json::json!({"image": "debian", "selection": {"labels": ["site=10.0.0.0/24"]}, "open": true});
    bench.order(order).await.unwrap();
    let sent = key(1, 1).sign(&bench.sent(report(1, 1, &[Contents::Blank])));
    let header = serde_json::to_string(&relay(1).sign(&via(&bench, "POST", "/v1/report", 2))).unwrap();
    let posted = |body: Vec<u8>, header: &str| {
        let request = Request::post("/v1/report").header(VIA_HEADER, header);
        bench.call(request.body(body.into()).unwrap())
    };
    let answer = posted(serde_json::to_vec(&sent).unwrap(), &header).await;
    let verdict: common::plan::Verdict =
        read::<Signed<common::plan::Verdict>>(answer).await.open(&server_key().public()).unwrap();
    let Instruction::Deploy(plan) = verdict.instruction else { panic!("no plan: {verdict:?}") };
    assert_eq!(plan.seed.addresses, ["10.0.0.1"], "the swarm is at the server itself");
    let header = serde_json::to_string(&relay(1).sign(&via(&bench, "POST", "/v1/report", 3))).unwrap();
    assert_eq!(posted(b"no report".to_vec(), &header).await.status(), 400);
    bench.fleet.frozen().await.unwrap();
    let log = bench.fleet.log_page(LogFilter::default(), 0, 100).await.unwrap();
    // Known by its own address, which only the header named.
    let refused = log.iter().find(|event| format!("{:?}", event.what).contains("report was refused"));
    assert!(refused.is_some_and(|event| event.machine == Some(common::id::MachineId(1))), "{log:?}");
}

#[tokio::test]
async fn what_no_relay_passed_on_is_refused() {
    let bench = with_relay().await;
    let target = "/boot.ipxe?mac=02-00-00-00-00-01";
    let fine = |count| via(&bench, "GET", target, count);
    let signed = relay(1).sign(&fine(1));
    assert_eq!(passed(&bench, target, &signed).await.status(), 200);
    let with = |change: &dyn Fn(&mut Via)| {
        let mut via = fine(2);
        change(&mut via);
        relay(1).sign(&via)
    };
    let cases = [
        ("sent again", signed, target, 403),
        ("of another relay", relay(2).sign(&fine(2)), target, 403),
        (
            "of a relay that nobody knows",
            relay(2).sign(&Via { relay: relay(2).public(), ..fine(2) }),
            target,
            403,
        ),
        ("of another request", relay(1).sign(&fine(2)), "/boot.ipxe?mac=02-00-00-00-00-02", 403),
        ("of another method", relay(1).sign(&via(&bench, "POST", target, 2)), target, 403),
        ("of a machine elsewhere", with(&|via| via.machine = "10.0.1.7".parse().unwrap()), target, 403),
        ("of a machine nowhere", with(&|via| via.machine = "::1".parse().unwrap()), target, 403),
        ("with a nonce of nobody", with(&|via| via.nonce = "00".repeat(24)), target, 409),
        ("with no count", with(&|via| via.count = 0), target, 403),
        ("once more", relay(1).sign(&fine(3)), target, 200),
    ];
    for (what, signed, target, status) in cases {
        let answer = passed(&bench, target, &signed).await;
        assert_eq!(answer.status(), status, "{what}");
        if status != 200 {
            let refused: Refused = read(answer).await;
            assert!(refused.hint.is_some() && !refused.error.is_empty(), "{what}");
        }
    }
    let plain = Request::get(target).header(VIA_HEADER, "10.0.0.77").body(Body::empty()).unwrap();
    assert_eq!(bench.call(plain).await.status(), 400);
    bench.fleet.revoke_relay("10.0.0.0-24-1".to_owned()).await.unwrap();
    let refused = passed(&bench, target, &relay(1).sign(&fine(4))).await;
    assert_eq!(refused.status(), 403);
    let log = bench.fleet.log_page(LogFilter::default(), 0, 100).await.unwrap();
    let told = log.iter().filter(|event| event.name == "10.0.0.7").count();
    assert!(told > 0, "a refusal is logged, under the address that it came from: {log:?}");
}

#[tokio::test]
async fn a_relay_has_the_connections_of_its_whole_site() {
    let bench = with_relay().await;
    let bound = bind("127.0.0.1:0".parse().unwrap()).await.unwrap().with_relays(bench.fleet.relays());
    let bounds = ConnectionBounds { all: 4096, per_address: 64 };
    let may = || bound.most_of("10.0.0.7".parse().unwrap(), bounds);
    assert_eq!(may(), 64, "it was not heard of yet");
    state(&bench, &relay(1), Known::default()).await;
    assert_eq!(may(), 1024);
    assert_eq!(bound.most_of("10.0.0.8".parse().unwrap(), bounds), 64);
    assert_eq!(bound.most_of("10.0.0.7".parse().unwrap(), BOUNDS), 64, "half is left to others");
    bench.fleet.revoke_relay("10.0.0.0-24-1".to_owned()).await.unwrap();
    assert_eq!(may(), 64);
}
