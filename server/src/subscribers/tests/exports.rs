//! Exports: what the journal, syslog and a file get, also of machines with names that are to forge lines.

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, UdpSocket, UnixDatagram};

use super::super::form::Item;
use super::super::journald::ToJournald;
use super::super::outlet::{Outcome, Outlet as _};
use super::super::settings::{Export, Place, SyslogTarget};
use super::super::syslog::ToSyslog;
use super::super::wants::Wants;
use super::*;

/// Events of machines with hostile names and texts.
fn items() -> Vec<Item> {
    let item = |(id, name): (u64, String)| {
        let mut told = event(id, What::Note { text: name.clone() }.tidied());
        (told.name, told.step) = (name.clone(), Step::Other(name));
        Item::Event(Box::new(told))
    };
    (1..).zip(hostile()).map(item).collect()
}

/// The number of an event in a message of syslog.
fn number(message: &str) -> u64 {
    assert!(message.starts_with("<29>1 1970-01-01T"), "{message:?}");
    assert!(!message.chars().any(char::is_control), "{message:?}");
    let (_, rest) = message.split_once("[swarmboot@32473 event=\"").unwrap();
    rest.split_once('"').unwrap().0.parse().unwrap()
}

fn wanted() -> Vec<u64> {
    (1..=hostile().len() as u64).collect()
}

#[tokio::test]
async fn journald_gets_one_message_an_event() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let mut outlet = ToJournald::new(path.clone());
    let outcome = outlet.deliver(&items()).await;
    assert!(outcome.delivered == 0 && outcome.failure.is_some(), "no journal: {outcome:?}");
    let read = async |socket: &UnixDatagram| {
        let mut datagram = vec![0; 1 << 20];
        let count = socket.recv(&mut datagram).await.unwrap();
        String::from_utf8_lossy(&datagram[..count]).into_owned()
    };
    let all = items();
    for _ in 0..2 {
        // The second time it was restarted: the first try after that finds it again.
        drop(std::fs::remove_file(&path));
        let bound = UnixDatagram::bind(&path).unwrap();
        if let Outcome { delivered: 0, failure: Some(_) } = outlet.deliver(&all[..1]).await {
            assert_eq!(outlet.deliver(&all[..1]).await, Outcome::all(1));
        }
        assert!(read(&bound).await.starts_with("MESSAGE\n"));
        for item in &all {
            assert_eq!(outlet.deliver(std::slice::from_ref(item)).await, Outcome::all(1));
            let datagram = read(&bound).await;
            assert_eq!(datagram.matches("\nPRIORITY\n").count(), 1, "{datagram:?}");
        }
    }
}

#[tokio::test]
async fn syslog_gets_one_message_an_event() {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = SyslogTarget::Udp("127.0.0.1".to_owned(), udp.local_addr().unwrap().port());
    let mut outlet = ToSyslog::new(target, "seed".to_owned());
    assert_eq!(outlet.deliver(&items()).await, Outcome::all(items().len()));
    let mut numbers = vec![];
    for _ in items() {
        let mut datagram = vec![0; 64 << 10];
        let count = udp.recv(&mut datagram).await.unwrap();
        numbers.push(number(std::str::from_utf8(&datagram[..count]).unwrap()));
    }
    assert_eq!(numbers, wanted());

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let unix = UnixDatagram::bind(&path).unwrap();
    let mut outlet = ToSyslog::new(SyslogTarget::Unix(path), "seed".to_owned());
    assert_eq!(outlet.deliver(&items()[..3]).await, Outcome::all(3));
    let mut datagram = vec![0; 64 << 10];
    let count = unix.recv(&mut datagram).await.unwrap();
    assert_eq!(number(std::str::from_utf8(&datagram[..count]).unwrap()), 1);
}

/// Takes a stream with lengths before the messages apart.
fn frames(mut text: &str) -> Vec<u64> {
    let mut numbers = vec![];
    while !text.is_empty() {
        let (length, rest) = text.split_once(' ').unwrap();
        let length: usize = length.parse().unwrap();
        numbers.push(number(&rest[..length]));
        text = &rest[length..];
    }
    numbers
}

#[tokio::test]
async fn a_stream_of_syslog_is_framed_and_made_anew_when_it_was_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = SyslogTarget::Tcp("127.0.0.1".to_owned(), listener.local_addr().unwrap().port());
    let mut outlet = ToSyslog::new(target, "seed".to_owned());
    assert_eq!(outlet.deliver(&items()).await, Outcome::all(items().len()));
    let (mut first, _) = listener.accept().await.unwrap();
    // Read what came, and close: a server that is restarted.
    let mut text = vec![];
    let read = async {
        let mut chunk = vec![0; 64 << 10];
        while let Ok(count) = first.read(&mut chunk).await {
            text.extend_from_slice(&chunk[..count]);
        }
    };
    drop(tokio::time::timeout(Duration::from_millis(300), read).await);
    drop(first);
    assert_eq!(frames(std::str::from_utf8(&text).unwrap()), wanted());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(outlet.deliver(&items()[..2]).await, Outcome::all(2));
    let (mut second, _) = listener.accept().await.unwrap();
    drop(outlet);
    let mut text = String::new();
    second.read_to_string(&mut text).await.unwrap();
    assert_eq!(frames(&text), [1, 2], "nothing went into the closed one");
    // Nobody is there any more.
    drop((second, listener));
    let target = SyslogTarget::Tcp("127.0.0.1".to_owned(), 1);
    let outcome = ToSyslog::new(target, String::new()).deliver(&items()).await;
    assert!(outcome.delivered == 0 && outcome.failure.is_some());
}

#[tokio::test]
async fn a_file_has_every_event_once_over_restarts() {
    let (dir, memory) = (tempfile::tempdir().unwrap(), Memory::default());
    let path = dir.path().join("events.jsonl");
    let export = Export { place: Place::File(path.clone()), wants: Wants::default() };
    let all = Subscriptions { webhooks: vec![], exports: vec![export] };
    let ids = || -> Vec<u64> {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let json = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
        text.lines().map(|line| json(line)["id"].as_u64().unwrap()).collect()
    };
    for round in 0..3 {
        let world = World::start(&memory, &all).await;
        for name in hostile() {
            world.note(&name).await;
        }
        world.until(|_| ids().len() > round * hostile().len()).await;
        world.stop().await;
    }
    let world = World::start(&memory, &all).await;
    world.until(|world| world.shown().behind == 0).await;
    world.stop().await;
    assert_eq!(ids(), (1..=3 * hostile().len() as u64).collect::<Vec<_>>());
}
