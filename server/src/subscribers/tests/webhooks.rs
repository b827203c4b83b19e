//! Webhooks: what a target gets that is there, down, slow, confused, gone, or was away too long.

use std::path::Path;

use common::id::MachineId;
use common::step::What;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::super::settings::{Secret, Webhook};
use super::super::wants::Wants;
use super::receiver::{Does, Receiver};
use super::*;
use crate::api::shapes::SubscriberState;
use crate::fleet::identity::Fingerprint;
use crate::fleet::machine::Machine;
use crate::fleet::state::Change;
use crate::fleet::store::Store as _;

const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn webhook(dir: &Path, name: &str, url: &str) -> Webhook {
    Webhook {
        name: name.to_owned(),
        url: url.parse().unwrap(),
        secret: Secret::File(secret(dir)),
        authority: None,
        wants: Wants::default(),
    }
}

fn only(webhook: Webhook) -> Subscriptions {
    Subscriptions { webhooks: vec![webhook], exports: vec![] }
}

fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(|id| id.to_string()).collect()
}

#[tokio::test]
async fn events_arrive_signed_and_in_order() {
    let (dir, memory) = (tempfile::tempdir().unwrap(), Memory::default());
    let receiver = Receiver::open(vec![]).await;
    let all = only(webhook(dir.path(), "chat", &receiver.url("/hooks/T0K3N?key=s")));
    let world = World::start(&memory, &all).await;
    for n in 0..20 {
        world.note(&format!("number {n}")).await;
    }
    world.until(|_| receiver.taken().len() == 20).await;
    assert_eq!(receiver.taken(), numbers(1..=20));
    let first = &receiver.received()[0];
    assert_eq!(first.line, "POST /hooks/T0K3N?key=s HTTP/1.1");
    assert_eq!(first.header("host"), receiver.address.to_string());
    assert_eq!(first.header("content-type"), "application/cloudevents+json; charset=utf-8");
    assert!(receiver.received().iter().all(|one| one.is_signed_with(SECRET)));
    assert!(!first.is_signed_with("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx"));
    let sent = first.header("webhook-timestamp").parse::<i64>().unwrap();
    assert!((Timestamp::now().as_second() - sent).abs() < 30);
    let json = first.json();
    assert_eq!((json["specversion"].as_str(), json["id"].as_str()), (Some("1.0"), Some("1")));
    assert_eq!(
        (json["source"].as_str(), json["subject"].as_str()),
        (Some("/swarmboot/test"), Some("server"))
    );
    assert_eq!(json["type"], "swarmboot.step.decide.note");
    assert!(json["data"]["text"].as_str().unwrap().contains("number 0"), "{json}");
    // What is shown of it has no secret.
    world.until(|world| world.shown().behind == 0).await;
    assert_eq!(world.shown().to_string(), "up to date");
    assert_eq!(world.shown().target, format!("http://{}", receiver.address));
    world.stop().await;
}

#[tokio::test]
async fn what_was_not_taken_is_sent_again_and_redirects_are_not_followed() {
    let (dir, memory) = (tempfile::tempdir().unwrap(), Memory::default());
    let elsewhere = Receiver::open(vec![]).await;
    let to = Does::Says(307, format!("location: {}", elsewhere.url("/")));
    let ok = || Does::says(204);
    // The second to last finds a connection closed that was open before, and is sent again at once.
    let script = vec![Does::says(500), ok(), Does::ClosesInTheMiddle, Does::ClosesInTheMiddle, ok(), to];
    let script = script.into_iter().chain([ok(), Does::ClosesUnanswered]).collect();
    let receiver = Receiver::open(script).await;
    let world = World::start(&memory, &only(webhook(dir.path(), "chat", &receiver.url("/")))).await;
    for n in 0..4 {
        world.note(&n.to_string()).await;
    }
    world.until(|_| receiver.taken().len() == 4).await;
    assert_eq!(receiver.taken(), numbers(1..=4));
    let tries: Vec<String> =
        receiver.received().iter().map(|one| one.header("webhook-id").to_owned()).collect();
    assert_eq!(tries, ["1", "1", "2", "3", "3", "4", "4"]);
    assert!(elsewhere.received().is_empty());
    // Every try has the same number and a signature of its own time.
    assert!(receiver.received().iter().all(|one| one.is_signed_with(SECRET)));
    world.until(|world| world.shown().state == SubscriberState::Working).await;
    assert_eq!(world.said().await, [""; 0], "so short a trouble is no news");
    world.stop().await;
}

#[tokio::test]
async fn a_target_that_was_down_gets_everything_later() {
    let (dir, memory) = (tempfile::tempdir().unwrap(), Memory::default());
    // Bound, so that nobody else gets its port, and refusing connections.
    let down = tokio::net::TcpSocket::new_v4().unwrap();
    down.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let all = only(webhook(dir.path(), "chat", &format!("http://{}/hush", down.local_addr().unwrap())));
    let world = World::start(&memory, &all).await;
    for n in 0..300 {
        world.note(&n.to_string()).await;
    }
    let fails = |shown: SubscriberShown| shown.state == SubscriberState::Failing && shown.behind == 300;
    world.until(|world| fails(world.shown())).await;
    let shown = world.shown();
    assert!(shown.since.is_some() && shown.next.is_some(), "{shown:?}");
    assert!(shown.cause.as_ref().unwrap().contains("refused"), "{shown:?}");
    let warnings = world.handle.warnings();
    assert!(warnings.len() == 1 && warnings[0].starts_with("webhook chat fails since "), "{warnings:?}");
    assert!(!format!("{shown:?}{warnings:?}").contains("hush"));
    let receiver = Receiver::on(down.listen(16).unwrap(), vec![], None);
    world.until(|_| receiver.taken().len() == 300).await;
    assert_eq!(receiver.taken(), numbers(1..=300));
    world.until(|world| world.handle.warnings().is_empty()).await;
    world.stop().await;
}

#[tokio::test]
async fn a_restart_repeats_and_loses_nothing() {
    let (dir, memory) = (tempfile::tempdir().unwrap(), Memory::default());
    let receiver = Receiver::open(vec![]).await;
    let all = only(webhook(dir.path(), "chat", &receiver.url("/")));
    let mut last = 0;
    for round in 0..3 {
        let world = World::start(&memory, &all).await;
        for n in 0..40 {
            world.note(&n.to_string()).await;
        }
        last += 40;
        // Some of them are delivered, others are not yet.
        world.until(|_| receiver.taken().len() > round * 40 + 5).await;
        world.stop().await;
    }
    let world = World::start(&memory, &all).await;
    world.until(|world| world.shown().behind == 0).await;
    assert_eq!(receiver.taken(), numbers(1..=last));
    world.stop().await;
}

#[tokio::test]
async fn a_kill_repeats_some_and_loses_nothing() {
    let (dir, memory) = (tempfile::tempdir().unwrap(), Memory::default());
    let receiver = Receiver::open(vec![]).await;
    let all = only(webhook(dir.path(), "chat", &receiver.url("/")));
    let world = World::start(&memory, &all).await;
    for n in 0..40 {
        world.note(&n.to_string()).await;
    }
    world.until(|_| receiver.taken().len() > 10).await;
    world.kill().await;
    let world = World::start(&memory, &all).await;
    world.until(|world| world.shown().behind == 0).await;
    let mut taken = receiver.taken();
    assert!(taken.len() > 40, "what was not kept is sent again: {taken:?}");
    taken.sort_by_key(|id| id.parse::<u64>().unwrap());
    taken.dedup();
    assert_eq!(taken, numbers(1..=40));
    world.stop().await;
}

#[tokio::test]
async fn who_is_gone_is_left_alone_until_the_next_start() {
    let (dir, memory) = (tempfile::tempdir().unwrap(), Memory::default());
    let receiver = Receiver::open(vec![Does::says(200), Does::says(410)]).await;
    let all = only(webhook(dir.path(), "chat", &receiver.url("/")));
    let world = World::start(&memory, &all).await;
    world.note("one").await;
    world.note("two").await;
    world.until(|world| world.shown().state == SubscriberState::Stopped).await;
    world.note("three").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(receiver.received().len(), 2);
    let said = world.said().await;
    assert!(
        said.len() == 1 && said[0].contains("is sent nothing more") && said[0].contains("410"),
        "{said:?}"
    );
    assert!(world.handle.warnings()[0].contains("stopped"), "{:?}", world.handle.warnings());
    world.stop().await;
    let world = World::start(&memory, &all).await;
    world.until(|_| receiver.taken().len() == 3).await;
    // Number 3 was about the webhook itself, which is not told of itself.
    assert_eq!(receiver.taken(), ["1", "2", "4"]);
    world.stop().await;
}

#[tokio::test]
async fn what_the_log_forgot_is_said_in_its_place() {
    let (dir, mut memory) = (tempfile::tempdir().unwrap(), Memory::default());
    let receiver = Receiver::open(vec![]).await;
    let all = only(webhook(dir.path(), "chat", &receiver.url("/")));
    let world = World::start(&memory, &all).await;
    world.note("one").await;
    world.until(|_| receiver.taken().len() == 1).await;
    world.stop().await;
    let nobody = World::start(&memory, &Subscriptions::default()).await;
    for n in 0..5 {
        nobody.note(&n.to_string()).await;
    }
    nobody.stop().await;
    // All but the newest.
    memory.forget_before(Timestamp::MAX).await.unwrap();
    let world = World::start(&memory, &all).await;
    world.until(|_| receiver.taken().len() == 3).await;
    assert_eq!(receiver.taken(), ["1", "gap-2-5", "6"]);
    let gap = receiver.received()[1].json();
    assert_eq!((&gap["type"], &gap["data"]["from"]), (&"swarmboot.gap".into(), &2.into()));
    let said = world.said().await;
    assert!(said.len() == 1 && said[0].contains("events 2 to 5 were deleted"), "{said:?}");
    world.stop().await;
}

#[tokio::test]
async fn who_is_slow_holds_up_nobody() {
    let (dir, memory) = (tempfile::tempdir().unwrap(), Memory::default());
    let (slow, quick) = (Receiver::open(vec![Does::Hangs]).await, Receiver::open(vec![]).await);
    let all = Subscriptions {
        webhooks: vec![
            webhook(dir.path(), "slow", &slow.url("/")),
            webhook(dir.path(), "quick", &quick.url("/")),
        ],
        exports: vec![],
    };
    let world = World::start(&memory, &all).await;
    let began = std::time::Instant::now();
    for n in 0..50 {
        world.note(&n.to_string()).await;
    }
    world.until(|_| quick.taken().len() == 50).await;
    assert_eq!(quick.taken(), numbers(1..=50));
    assert_eq!((slow.received().len(), world.shown().behind), (1, 50));
    world.stop().await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn only_machines_that_fit_the_labels_are_told_of() {
    let (dir, mut memory) = (tempfile::tempdir().unwrap(), Memory::default());
    let now = Timestamp::now();
    let machine = |id: u64, role: &str| {
        let mut machine = Machine::new(MachineId(id), Fingerprint::default(), "lab".to_owned(), now);
        machine.labels.insert("role".to_owned(), role.to_owned());
        Change::Machine(Box::new(machine))
    };
    let of = |id: u64, machine: Option<u64>| {
        let mut event = event(id, What::Done { text: String::new() });
        event.machine = machine.map(MachineId);
        Change::Event(Box::new(event))
    };
    let cursor = Change::Cursor { of: "webhook chat".to_owned(), after: 0 };
    let changes =
        [machine(1, "web"), machine(2, "db"), of(1, Some(1)), of(2, Some(2)), of(3, None), of(4, Some(1))];
    memory.commit(&changes).await.unwrap();
    memory.commit(&[cursor]).await.unwrap();
    let receiver = Receiver::open(vec![]).await;
    let mut chat = webhook(dir.path(), "chat", &receiver.url("/"));
    chat.wants = Wants::new(&[], &[], Some("role=web")).unwrap();
    let world = World::start(&memory, &only(chat)).await;
    world.until(|world| world.shown().behind == 0).await;
    assert_eq!(receiver.taken(), ["1", "4"]);
    assert_eq!(receiver.received()[0].json()["subject"], "m1");
    world.stop().await;
}

#[tokio::test]
async fn only_the_given_authority_vouches_for_a_target() {
    let (dir, memory) = (tempfile::tempdir().unwrap(), Memory::default());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let authority = dir.path().join("ca.pem");
    std::fs::write(&authority, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.key_pair.serialize_pem().as_bytes()).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(made.cert.der().to_vec())], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let receiver = Receiver::on(listener, vec![], Some(acceptor));
    let url = format!("https://{}/", receiver.address);
    let known = Webhook { authority: Some(authority), ..webhook(dir.path(), "known", &url) };
    let all = Subscriptions { webhooks: vec![webhook(dir.path(), "unknown", &url), known], exports: vec![] };
    let world = World::start(&memory, &all).await;
    world.note("one").await;
    world.until(|world| world.shown().state == SubscriberState::Failing && receiver.taken().len() == 1).await;
    let cause = world.shown().cause.unwrap();
    assert!(cause.contains("TLS fails") && cause.contains("UnknownIssuer"), "{cause}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(receiver.received().len(), 1);
    world.stop().await;
}

#[test]
fn a_secret_that_is_none_stops_the_start_without_being_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wrong");
    let failed = |webhook: Webhook| {
        let error = open(&only(webhook), "/s", "seed").unwrap_err();
        format!("{} {}", common::causes::with_causes(&error), error.hint())
    };
    let with = |secret| Webhook { secret, ..webhook(dir.path(), "chat", "https://a.example/hush") };
    let said = failed(with(Secret::File(path.clone())));
    assert!(said.contains("`chat` cannot be read") && said.contains("No such file"), "{said}");
    for wrong in ["", "hush", "aHVzaA=="] {
        std::fs::write(&path, wrong).unwrap();
        let said = failed(with(Secret::File(path.clone())));
        assert!(said.contains("openssl rand") && !said.contains("hush"), "{said}");
    }
    let said = failed(with(Secret::Credential("chat".to_owned())));
    assert!(said.contains("systemd passed none"), "{said}");
    std::fs::write(&path, "no certificate").unwrap();
    let said = failed(Webhook { authority: Some(path), ..webhook(dir.path(), "chat", "https://a/") });
    assert!(said.contains("no certificate in it"), "{said}");
}
