//! Boot scripts and plans at a site behind a thin line: who waits, who is sent to a neighbour, and what becomes of one
//! that fails. The site is the machine's /24; the server's own network is none.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use axum::body::to_bytes;
use common::id::{Hash, Mac};
use common::trust::KeyPair;

use super::bench::Bench;

const NEW: &str = "platform=efi&version=2.0.0";

fn query(n: u8, ipxe: &str) -> String {
    format!("/boot.ipxe?mac=52-54-00-00-00-{n:02x}&{ipxe}")
}

async fn text(bench: &Bench, path: &str) -> String {
    let answer = bench.get(path).await;
    assert_eq!(answer.status(), 200, "{path}");
    String::from_utf8(to_bytes(answer.into_body(), 1 << 16).await.unwrap().to_vec()).unwrap()
}

fn neighbour(bench: &Bench, n: u8) -> SocketAddr {
    let at = SocketAddr::from(([10, 0, 0, n], 8069));
    let held = BTreeSet::from([Hash([0xaa; 32]), Hash([0xbb; 32])]);
    let key = KeyPair::from_secret([n; 32]).public();
    bench.peers.holding(key, Some(Mac([2, 0, 0, 0, 0, n])), at, held);
    at
}

#[tokio::test]
async fn only_an_ipxe_that_can_check_is_sent_to_a_neighbour() {
    let bench = Bench::open();
    let at = neighbour(&bench, 50);
    let there = format!("http://{at}/v1/object/");
    assert!(text(&bench, &query(1, NEW)).await.contains(&there));
    for old in ["platform=pcbios&version=2.0.0", "platform=efi&version=1.21.1", "platform=efi", ""] {
        let script = text(&bench, &query(2, old)).await;
        assert!(!script.contains(&there) && script.contains("/boot/debian-12/vmlinuz "), "{old}: {script}");
    }
}

#[tokio::test]
async fn a_neighbour_that_fails_is_named_in_the_log_and_not_offered_again() {
    let bench = Bench::open();
    let at = neighbour(&bench, 50);
    let there = format!("http://{at}/v1/object/");
    assert!(text(&bench, &query(1, NEW)).await.contains(&there));
    // What the script asks the server for after its neighbour gave it another kernel.
    let faults = format!("peer={at}&fault=wrong");
    assert_eq!(bench.get(&format!("/boot/debian-12/vmlinuz?&{faults}")).await.status(), 200);
    assert!(!text(&bench, &query(1, NEW)).await.contains(&there));
    bench.fleet.machines(crate::api::shapes::Selection::default()).await.unwrap();
    let log = bench.fleet.log_page(crate::fleet::store::LogFilter::default(), 0, 100).await.unwrap();
    let named = |event: &crate::api::shapes::LogEvent| {
        let words = format!("{:?}", event.what);
        words.contains(&at.to_string()) && words.contains("wrong hash")
    };
    assert_eq!(log.iter().filter(|event| named(event)).count(), 1, "{log:?}");
    // A neighbour that nobody told it of is nobody's fault.
    bench.get("/boot/neighbour?peer=192.0.2.1:80&fault=slow").await;
    let script = text(&bench, &query(1, NEW)).await;
    assert!(script.contains("/boot/debian-12/vmlinuz "), "{script}");
}

#[tokio::test]
async fn a_file_is_had_by_its_hash() {
    let bench = Bench::open();
    assert_eq!(text(&bench, &format!("/v1/object/{}", Hash::of(b"bundle"))).await, "bundle");
    assert_eq!(text(&bench, "/boot/neighbour").await, "");
    for absent in [Hash::of(b"other").to_string(), "..".to_owned(), "x".to_owned()] {
        assert_eq!(bench.get(&format!("/v1/object/{absent}")).await.status(), 404, "{absent}");
    }
}

#[tokio::test]
async fn strangers_wait_for_a_scout_where_an_open_order_would_take_them() {
    let bench = Bench::open();
    let goes = async |n: u8| text(&bench, &query(n, NEW)).await.contains("/boot/debian-12/vmlinuz ");
    assert!(goes(1).await && goes(2).await, "nothing is ordered: they would wait in their loaders");
    let order = serde_json::json!({"image": "debian", "selection": {}, "open": true});
    bench.order(order).await.unwrap();
    assert!(goes(1).await, "the scout");
    assert!(!goes(2).await && !goes(3).await, "they take kernel and loader from it");
    assert!(goes(1).await, "the scout again: its download broke");
}

#[tokio::test]
async fn a_bundle_is_held_for_a_site_when_a_machine_there_fetches_it() {
    let bench = Bench::open();
    let (hash, keys) = (Hash::of(b"bundle"), [50, 51].map(|n| KeyPair::from_secret([n; 32]).public()));
    for (n, held) in [(50, BTreeSet::from([hash])), (51, BTreeSet::new())] {
        let at = SocketAddr::from(([10, 0, 0, n], 8069));
        bench.peers.holding(keys[usize::from(n) - 50], Some(Mac([2, 0, 0, 0, 0, n])), at, held);
    }
    assert!(bench.peers.tick().0.is_empty(), "nobody asks for it");
    assert_eq!(bench.get(&format!("/v1/bundle/{hash}")).await.status(), 200);
    let told = bench.peers.tick().0;
    assert_eq!(told.len(), 1, "{told:?}");
    let objects: Vec<_> = told[0].objects.iter().map(|file| (file.hash, file.bytes)).collect();
    assert_eq!((told[0].agent, objects), (keys[1], vec![(hash, 6)]));
}
