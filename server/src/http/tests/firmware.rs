//! Requests as firmware makes them, and what its HTTP code needs of the answers. Touches a port of the loopback.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::to_bytes;
use common::hardware::Contents;
use tokio_util::sync::CancellationToken;

use super::super::bind;
use super::bench::{Bench, key, report};
use super::strangers::BOUNDS;
use crate::api::shapes::Selection;

/// What the server answers to `request`, whole, and the longest segment that the connection may carry.
async fn answer(at: SocketAddr, request: String) -> (String, u32) {
    let talk = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(at).unwrap();
        let segment = socket2::SockRef::from(&stream).tcp_mss().unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        (text, segment)
    });
    talk.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn firmware_reads_the_answers_that_it_gets() {
    let bench = Bench::open();
    let bound = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let at = bound.address();
    let cancel = CancellationToken::new();
    let open = tokio::spawn(bound.run(bench.routes.clone(), BOUNDS, cancel.clone()));

    // GRUB compares the name with case (A7), and EDK2 joins a root path and a name (A7n).
    for (method, path) in
        [("HEAD", "/nbp/snponly.efi"), ("GET", "//nbp/snponly.efi"), ("GET", "//nbp///snponly.efi?x=//")]
    {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let (text, segment) = answer(at, request).await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {text}");
        assert!(text.contains("\r\nContent-Length: 10\r\n"), "{path}: {text}");
        // With its headers a segment is as long as TFTP's longest packet (MTU 1486).
        assert!(segment + 40 <= 1460, "{segment}");
    }
    let (text, _) = answer(at, "GET //boot.ipxe HTTP/1.0\r\n\r\n".to_owned()).await;
    assert!(text.contains("#!ipxe\n"), "{text}");
    cancel.cancel();
    open.await.unwrap();
}

#[tokio::test]
async fn a_script_that_was_asked_with_an_address_never_asks_again() {
    let bench = Bench::open();
    let script = async |query: &str| {
        let answer = bench.get(&format!("/boot.ipxe?{query}")).await;
        assert_eq!(answer.status(), 200, "{query}");
        String::from_utf8(to_bytes(answer.into_body(), 1 << 16).await.unwrap().to_vec()).unwrap()
    };
    let uuid = "uuid=12345678-9abc-def0-0102-030405060708&serial=IB1";
    for mac in ["e0-07-1b-ff-ff-79-d0-84", "", "%zz", "%ff%fe", "52-54-00-00-00"] {
        let text = script(&format!("mac={mac}&{uuid}")).await;
        assert!(!text.contains("boot.ipxe") && text.ends_with("exit 1\n"), "{mac}: {text}");
    }
    assert!(script("").await.contains("boot.ipxe?mac=${netX/mac:hexhyp}"));
    assert!(script("mac=52-54-00-00-00-01").await.contains("loader.img"));
    bench.fleet.machines(Selection::default()).await.unwrap();
    let log = bench.fleet.log_page(crate::fleet::store::LogFilter::default(), 0, 100).await.unwrap();
    assert!(log.iter().any(|event| format!("{:?}", event.what).contains("InfiniBand")), "{log:?}");
}

#[tokio::test]
async fn the_loader_is_the_one_of_the_nic_where_that_is_known() {
    let bench = Bench::open();
    let virtio = "01:1a:f4:10:00";
    let table = [
        ("02-00-00-00-00-01", virtio, "/boot/debian-12/loader-1000.img"),
        // A USB adapter, an iPXE without the setting, and nonsense.
        ("02-00-00-00-00-02", "0a:0b:da:81:53", "/boot/debian-12/loader.img"),
        ("02-00-00-00-00-03", "", "/boot/debian-12/loader.img"),
        ("02-00-00-00-00-04", "%zz", "/boot/debian-12/loader.img"),
    ];
    for (mac, nic, wanted) in table {
        let answer = bench.get(&format!("/boot.ipxe?mac={mac}&nic={nic}&platform=efi&version=2.0.0")).await;
        let text = String::from_utf8(to_bytes(answer.into_body(), 1 << 16).await.unwrap().to_vec()).unwrap();
        assert!(text.contains(&format!("{wanted} ||")), "{nic}: {text}");
    }
    let driver = common::id::Hash::of(b"driver");
    let answer = bench.get(&format!("/v1/driver/{driver}")).await;
    assert_eq!(to_bytes(answer.into_body(), 100).await.unwrap(), "frame");
    for absent in [common::id::Hash::of(b"x").to_string(), "../../etc".to_owned(), String::new()] {
        assert_eq!(bench.get(&format!("/v1/driver/{absent}")).await.status(), 404, "{absent}");
    }
}

/// Lets so many seconds pass for the server.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn who_does_not_report_in_five_minutes_gets_the_general_loader() {
    let bench = Bench::open();
    let small = async |machine: u8| {
        let nic = "01:1a:f4:10:00";
        let answer = bench.get(&format!("/boot.ipxe?mac=02-00-00-00-00-{machine:02x}&nic={nic}")).await;
        let text = String::from_utf8(to_bytes(answer.into_body(), 1 << 16).await.unwrap().to_vec()).unwrap();
        assert!(text.contains("/loader"), "{text}");
        text.contains("/loader-1000.img")
    };
    for machine in [1, 2] {
        bench.report(report(machine, 1, &[Contents::Blank]), &key(machine, 1)).await;
    }
    let order = serde_json::json!({"image": "debian", "selection": {"machines": ["m1", "m2"]}});
    bench.order(order).await.unwrap();
    assert!(small(1).await && small(2).await && small(3).await);
    pass(60).await;
    bench.report(report(1, 2, &[Contents::Blank]), &key(1, 2)).await;
    pass(200).await;
    assert!(small(2).await, "its download broke");
    pass(100).await;
    assert!(!small(2).await && !small(3).await, "its NIC needs more than that loader has");
    assert!(small(1).await, "it reported");
    // By the general one it reports, and goes on with that.
    bench.report(report(2, 2, &[Contents::Blank]), &key(2, 2)).await;
    assert!(!small(2).await);
}

#[tokio::test]
async fn who_asks_for_a_script_is_seen_before_its_loader_is_made() {
    let bench = Bench::open();
    bench.rooms.making.store(true, Ordering::Relaxed);
    let script = bench.get("/boot.ipxe?mac=02-00-00-00-00-01&nic=01:1a:f4:10:00");
    let look = async {
        for _ in 0..500 {
            if bench.fleet.machines(Selection::default()).await.unwrap().len() == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let seen = bench.fleet.machines(Selection::default()).await.unwrap().len();
        bench.rooms.making.store(false, Ordering::Relaxed);
        seen
    };
    let (answer, seen) = tokio::join!(script, look);
    assert_eq!((answer.status().as_u16(), seen), (200, 1));
}
