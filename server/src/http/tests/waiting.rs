//! Machines that wait for an order, over real ports and with the machines' own client: what a waiting minute costs, who
//! is woken, and a thousand at once. Touches ports of the loopback.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agent::fetch::Server;
use agent::fetch::wait::{Lookout, ToldToWait};
use common::hardware::{Contents, HardwareReport};
use common::id::{Hash, Mac};
use common::limits::WAIT_TIME;
use common::plan::{Instruction, Verdict};
use common::trust::{KeyPair, Signed};
use common::wire::http::{News, WaitAnswer, WaitRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::ConnectionBounds;
use super::bench::{Bench, key, read, report, server_key};
use super::strangers::open;

/// The bounds of a server with many files.
const BOUNDS: ConnectionBounds = ConnectionBounds { all: 4096, per_address: 64 };

/// Looks at unchanged hardware, so many times at the most.
struct Looks(u64);

impl Lookout for Looks {
    fn has_changed(&mut self) -> bool {
        self.0 -= 1;
        self.0 == 0
    }

    fn is_over(&self) -> bool {
        false
    }
}

/// Reports and, when told to wait, waits until `looks` requests were answered or there is news; what the machine is told
/// on its report after that.
fn lives(at: SocketAddr, machine: u8, looks: u64) -> Instruction {
    let (own, report) = (key(machine, 1), report(machine, 1, &[Contents::Blank]));
    let server = Server::new(&format!("http://{at}"), server_key().public()).unwrap();
    let (verdict, _) = server.report(&own, &report).unwrap();
    let Instruction::Wait { seconds, .. } = verdict.instruction else { panic!("{verdict:?}") };
    server.wait(&own, ToldToWait { report: verdict.report, seconds }, &mut Looks(looks));
    server.report(&own, &report).unwrap().0.instruction
}

fn order(machines: &[&str]) -> serde_json::Value {
    serde_json::json!({"image": "debian", "selection": {"machines": machines}})
}

/// Waits until so many machines wait with an open request.
async fn until_waiting(bench: &Bench, count: usize) {
    for _ in 0..3000 {
        if bench.fleet.waiting().await.unwrap() == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} machines wait, not {count}", bench.fleet.waiting().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_reaches_the_machine_that_it_is_for_and_no_other() {
    let bench = Bench::open();
    let (at, cancel) = open(&bench, BOUNDS).await;
    let first = tokio::task::spawn_blocking(move || lives(at, 1, 99));
    until_waiting(&bench, 1).await;
    let second = tokio::task::spawn_blocking(move || lives(at, 2, 99));
    until_waiting(&bench, 2).await;
    bench.order(order(&["m1"])).await.unwrap();
    let told = first.await.unwrap();
    assert!(matches!(told, Instruction::Deploy(_)), "{told:?}");
    assert_eq!(bench.fleet.waiting().await.unwrap(), 1, "the other one waits on");
    assert!(!second.is_finished());
    bench.order(order(&["m2"])).await.unwrap();
    assert!(matches!(second.await.unwrap(), Instruction::Deploy(_)));
    cancel.cancel();
}

/// Bytes that passed, and how many pieces they came in: each is a segment, and has an acknowledgement.
#[derive(Default)]
struct Counted {
    bytes: AtomicU64,
    pieces: AtomicU64,
    connections: AtomicU64,
}

/// Passes connections on to `to`, and counts what passes.
fn counting(to: SocketAddr) -> (SocketAddr, Arc<Counted>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, counted) = (listener.local_addr().unwrap(), Arc::new(Counted::default()));
    let count = Arc::clone(&counted);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (near, far) = (stream.unwrap(), TcpStream::connect(to).unwrap());
            count.connections.fetch_add(1, Ordering::SeqCst);
            for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                let count = Arc::clone(&count);
                std::thread::spawn(move || {
                    let mut block = [0; 16 << 10];
                    while let Ok(bytes @ 1..) = from.read(&mut block) {
                        count.bytes.fetch_add(bytes as u64, Ordering::SeqCst);
                        count.pieces.fetch_add(1, Ordering::SeqCst);
                        to.write_all(&block[..bytes]).unwrap();
                    }
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    (at, counted)
}

/// The headers of a TCP segment with timestamps, in bytes: IPv4 (RFC 791), TCP and its option (RFC 7323).
const SEGMENT: u64 = 20 + 20 + 12;

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_minute_costs_less_than_two_kilobytes() {
    let exchanges = 20;
    let bench = Bench::patient(Duration::from_millis(20));
    let (at, cancel) = open(&bench, BOUNDS).await;
    let (near, counted) = counting(at);
    let waited = tokio::task::spawn_blocking(move || {
        let (own, report) = (key(1, 1), report(1, 1, &[Contents::Blank]));
        let server = Server::new(&format!("http://{near}"), server_key().public()).unwrap();
        let (verdict, _) = server.report(&own, &report).unwrap();
        let total =
            || counted.bytes.load(Ordering::SeqCst) + 2 * SEGMENT * counted.pieces.load(Ordering::SeqCst);
        let before = total();
        let told = ToldToWait { report: verdict.report, seconds: 600 };
        server.wait(&own, told, &mut Looks(exchanges));
        (total() - before, counted.connections.load(Ordering::SeqCst))
    });
    let (bytes, connections) = waited.await.unwrap();
    let minute = bytes * 60 / WAIT_TIME.as_secs() / exchanges;
    println!("{minute} bytes a minute, {bytes} in {exchanges} exchanges");
    assert!(minute <= 2048, "{minute} bytes a minute");
    assert!(minute > 500, "{minute} bytes a minute: nothing was counted");
    assert!(connections <= 2, "{connections}: it is kept open between two requests");
    cancel.cancel();
}

/// The key and the report of a machine, of which there are many.
fn one_of_many(number: u16) -> (KeyPair, HardwareReport) {
    let own = KeyPair::from_secret(*blake3::hash(&number.to_be_bytes()).as_bytes());
    let [a, b] = number.to_be_bytes();
    let mut report = HardwareReport { key: own.public(), ..report(1, 1, &[Contents::Blank]) };
    report.system.serial = format!("SERIAL-{number}");
    report.disks[0].serial = format!("DISK-{number}");
    report.nics[0].mac = Mac([2, 0, 0, 1, a, b]);
    (own, report)
}

/// Posts `body` and returns the answer's body; `None` when the server has stopped.
async fn post(stream: &mut tokio::net::TcpStream, path: &str, body: Vec<u8>) -> Option<Vec<u8>> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), &body].concat()).await.ok()?;
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            assert!(head.starts_with("HTTP/1.1 200"), "{text}");
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                return Some(body.as_bytes().to_vec());
            }
        }
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
    }
}

/// A machine that reports from an address of its own and waits: its number on the server, and the news.
async fn waits(at: SocketAddr, number: u16, nonce: String) -> (u64, News) {
    let (own, report) = one_of_many(number);
    let [a, b] = number.to_be_bytes();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 1, a, b + 1)), 0)).unwrap();
    let mut stream = socket.connect(at).await.unwrap();
    let sent = own.sign(&common::hardware::SentReport { nonce, salt: "s".to_owned(), hardware: report });
    let answer = post(&mut stream, "/v1/report", serde_json::to_vec(&sent).unwrap()).await.unwrap();
    let verdict: Signed<Verdict> = serde_json::from_slice(&answer).unwrap();
    let verdict = verdict.open(&server_key().public()).unwrap();
    assert!(matches!(verdict.instruction, Instruction::Wait { .. }), "{verdict:?}");
    let request = own.sign(&WaitRequest { key: own.public(), report: sent.digest(), number: 1 });
    let answer = post(&mut stream, "/v1/wait", serde_json::to_vec(&request).unwrap()).await.unwrap();
    let answer: Signed<WaitAnswer> = serde_json::from_slice(&answer).unwrap();
    let answer = answer.open(&server_key().public()).unwrap();
    assert_eq!(answer.request, request.digest());
    (verdict.machine.0, answer.news)
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_wait_without_a_thread_each_and_the_ordered_ones_are_woken() {
    const COUNT: u16 = 1000;
    nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| {
            nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard)
        })
        .unwrap();
    let bench = Bench::open();
    let (at, cancel) = open(&bench, BOUNDS).await;
    let mut machines = tokio::task::JoinSet::new();
    for number in 0..COUNT {
        machines.spawn(waits(at, number / 250 * 256 + number % 250, bench.fleet.nonce()));
    }
    until_waiting(&bench, COUNT.into()).await;
    assert!(threads() < 200, "{} threads", threads());
    bench.order(order(&["m7", "m77", "m777"])).await.unwrap();
    let mut woken = vec![];
    while woken.len() < 3 {
        woken.push(machines.join_next().await.unwrap().unwrap());
    }
    woken.sort_unstable_by_key(|(id, _)| *id);
    assert_eq!(woken, [(7, News::Report), (77, News::Report), (777, News::Report)]);
    assert_eq!(bench.fleet.waiting().await.unwrap(), usize::from(COUNT) - 3);
    // The server stops: nobody is cut off, all are told to ask again.
    cancel.cancel();
    let rest = machines.join_all().await;
    assert!(rest.iter().all(|(_, news)| *news == News::None));
}

#[tokio::test]
async fn what_is_forged_or_repeated_is_refused_and_a_restart_asks_for_a_report() {
    let bench = Bench::patient(Duration::ZERO);
    let own = key(1, 1);
    let sent = own.sign(&bench.sent(report(1, 1, &[Contents::Blank])));
    bench.post("/v1/report", serde_json::to_vec(&sent).unwrap()).await;
    let request = |number| WaitRequest { key: own.public(), report: sent.digest(), number };
    let body = |by: &KeyPair, number| serde_json::to_vec(&by.sign(&request(number))).unwrap();
    let answer = bench.post("/v1/wait", body(&own, 1)).await;
    let answer = read::<Signed<WaitAnswer>>(answer).await.open(&server_key().public()).unwrap();
    assert_eq!((answer.request, answer.news), (own.sign(&request(1)).digest(), News::None));
    assert_eq!(bench.post("/v1/wait", body(&own, 1)).await.status(), 409, "a replay");
    assert_eq!(bench.post("/v1/wait", body(&key(2, 1), 2)).await.status(), 403, "another's signature");
    assert_eq!(bench.post("/v1/wait", "{}").await.status(), 400);
    assert_eq!(bench.post("/v1/wait", vec![b' '; 4096]).await.status(), 413);
    let bench = bench.restart().await;
    let answer = bench.post("/v1/wait", body(&own, 2)).await;
    let answer = read::<Signed<WaitAnswer>>(answer).await.open(&server_key().public()).unwrap();
    assert_eq!(answer.news, News::Unknown);
    assert_ne!(answer.request, Hash::of(b""));
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_connection_ends_waits_no_more() {
    let bench = Bench::open();
    let (at, cancel) = open(&bench, BOUNDS).await;
    let machine = tokio::spawn(waits(at, 1, bench.fleet.nonce()));
    until_waiting(&bench, 1).await;
    machine.abort();
    until_waiting(&bench, 0).await;
    cancel.cancel();
}
