//! The cache over a server on the loopback that counts what is asked of it, breaks off, and lies.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as UrlPath, State as Shown};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use common::id::Hash;
use futures::StreamExt as _;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::sync::Notify;

use super::*;
use crate::http::content::Growing;

/// What the server does with the next requests.
#[derive(Debug, Default)]
struct Origin {
    asked: AtomicUsize,
    /// The ranges that were asked for, as they came.
    ranges: Mutex<Vec<Option<String>>>,
    /// After how many bytes each answer breaks off; the whole when there is none left.
    cuts: Mutex<Vec<usize>>,
    /// Nothing is sent beyond the first half before this.
    go_on: Option<Notify>,
    lie: std::sync::atomic::AtomicBool,
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 7 % 251).to_le_bytes()[0]).collect()
}

async fn file(
    Shown(origin): Shown<Arc<Origin>>,
    UrlPath(bytes): UrlPath<usize>,
    headers: HeaderMap,
) -> Response {
    origin.asked.fetch_add(1, Ordering::Relaxed);
    let range = headers.get(header::RANGE).map(|value| value.to_str().unwrap().to_owned());
    origin.ranges.lock().push(range.clone());
    let from: usize =
        range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()).unwrap_or(0);
    let mut all = content(bytes);
    if origin.lie.load(Ordering::Relaxed) {
        all[bytes / 2] ^= 1;
    }
    let mut rest = all.split_off(from);
    let length = rest.len();
    let cut = origin.cuts.lock().pop();
    rest.truncate(cut.unwrap_or(length));
    let second = rest.split_off(rest.len() / 2);
    let end = cut.map(|_| Err(std::io::Error::other("the line breaks")));
    let shared = Arc::clone(&origin);
    let second = futures::stream::once(async move {
        if let Some(go_on) = &shared.go_on {
            go_on.notified().await;
        }
        Ok(Bytes::from(second))
    });
    let pieces = futures::stream::once(async move { Ok(Bytes::from(rest)) }).chain(second);
    let mut answer = Response::builder().header(header::CONTENT_LENGTH, length);
    if from > 0 {
        let value = format!("bytes {from}-{}/{bytes}", bytes - 1);
        answer = answer.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, value);
    }
    answer.body(Body::from_stream(pieces.chain(futures::stream::iter(end)))).unwrap()
}

struct Bench {
    cache: FileCache,
    origin: Arc<Origin>,
    dir: tempfile::TempDir,
    url: String,
}

impl Bench {
    async fn new(origin: Origin, bytes_max: u64) -> Self {
        let origin = Arc::new(origin);
        let router = Router::new().route("/{bytes}", get(file)).with_state(Arc::clone(&origin));
        let bound = crate::http::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let url = format!("http://{}", bound.address());
        let bounds = crate::http::ConnectionBounds { all: 64, per_address: 64 };
        tokio::spawn(bound.run(router, bounds, CancellationToken::new()));
        let dir = tempfile::tempdir().unwrap();
        let cache = opened(dir.path(), bytes_max, &url);
        Self { cache, origin, dir, url }
    }

    fn asked(&self) -> usize {
        self.origin.asked.load(Ordering::Relaxed)
    }
}

fn opened(dir: &Path, bytes_max: u64, url: &str) -> FileCache {
    let upstream = Upstream::new(url).unwrap();
    FileCache::open(dir.join("files"), bytes_max, upstream, CancellationToken::new()).unwrap()
}

fn wanted(bytes: usize) -> Wanted {
    Wanted::plain(Hash::of(&content(bytes)), Some(bytes as u64), format!("/{bytes}"))
}

async fn all_of(bytes: Bytestore) -> std::io::Result<Vec<u8>> {
    match bytes {
        Bytestore::File(path) => fs::read(path),
        Bytestore::Memory(bytes) => Ok(bytes.to_vec()),
        Bytestore::Growing(growing) => part_of(&*growing, 0, growing.bytes()).await,
    }
}

async fn part_of(growing: &dyn Growing, start: u64, len: u64) -> std::io::Result<Vec<u8>> {
    let mut pieces = growing.read(start, len);
    let mut bytes = vec![];
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

#[tokio::test]
async fn thirty_machines_cost_the_line_one_copy_and_the_first_need_not_wait_for_all_of_it() {
    let origin = Origin { go_on: Some(Notify::new()), ..Origin::default() };
    let bench = Bench::new(origin, 1 << 20).await;
    let bytes = 200_000;
    let first = bench.cache.get(&wanted(bytes)).await.unwrap();
    let Bytestore::Growing(first) = first else { panic!("it is still coming") };
    let half = part_of(&*first, 1000, 90_000).await.unwrap();
    assert_eq!(half, content(bytes)[1000..91_000], "while the server holds the rest back");
    let mut machines = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let cache = bench.cache.clone();
        machines.spawn(async move { all_of(cache.get(&wanted(bytes)).await.unwrap()).await.unwrap() });
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    bench.origin.go_on.as_ref().unwrap().notify_one();
    while let Some(got) = machines.join_next().await {
        assert!(got.unwrap() == content(bytes));
    }
    assert_eq!(bench.asked(), 1);
    let later = bench.cache.get(&wanted(bytes)).await.unwrap();
    assert!(matches!(later, Bytestore::File(_)) && all_of(later).await.unwrap() == content(bytes));
    assert_eq!(bench.asked(), 1);
    let again = opened(bench.dir.path(), 1 << 20, &bench.url);
    assert!(again.read(&wanted(bytes)).await.unwrap() == content(bytes));
    assert_eq!(bench.asked(), 1, "it survives a restart");
}

#[tokio::test]
async fn a_broken_line_costs_only_what_did_not_arrive() {
    let origin = Origin { cuts: Mutex::new(vec![60_000, 100_000]), ..Origin::default() };
    let bench = Bench::new(origin, 1 << 20).await;
    let got = all_of(bench.cache.get(&wanted(300_000)).await.unwrap()).await.unwrap();
    assert!(got == content(300_000));
    let ranges = bench.origin.ranges.lock().clone();
    assert_eq!(ranges, [None, Some("bytes=100000-".to_owned()), Some("bytes=160000-".to_owned())]);
}

#[tokio::test]
async fn a_wrong_file_never_arrives_whole_and_is_not_kept() {
    let bench = Bench::new(Origin::default(), 1 << 20).await;
    bench.origin.lie.store(true, Ordering::Relaxed);
    // It may have come whole, and been found wrong, before it is waited for.
    let error = match bench.cache.get(&wanted(100_000)).await {
        Ok(coming) => all_of(coming).await.unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(error.contains("has the hash"), "{error}");
    bench.origin.lie.store(false, Ordering::Relaxed);
    assert!(bench.cache.read(&wanted(100_000)).await.unwrap() == content(100_000));
    assert_eq!(bench.asked(), 2);
}

#[tokio::test]
async fn a_file_that_was_damaged_on_the_disk_is_fetched_again() {
    let bench = Bench::new(Origin::default(), 1 << 20).await;
    let path = bench.cache.fetched(&wanted(50_000)).await.unwrap();
    let mut damaged = content(50_000);
    damaged[7] ^= 1;
    fs::write(&path, damaged).unwrap();
    let again = opened(bench.dir.path(), 1 << 20, &bench.url);
    assert!(all_of(again.get(&wanted(50_000)).await.unwrap()).await.unwrap() == content(50_000));
    assert_eq!(bench.asked(), 2);
}

#[tokio::test]
async fn the_bound_holds_and_a_file_beyond_it_is_refused() {
    let bench = Bench::new(Origin::default(), 100_000).await;
    for bytes in [40_000, 41_000, 42_000] {
        bench.cache.fetched(&wanted(bytes)).await.unwrap();
    }
    let files = || fs::read_dir(bench.dir.path().join("files")).unwrap().count() - 1;
    assert_eq!((files(), bench.asked()), (2, 3));
    bench.cache.fetched(&wanted(41_000)).await.unwrap();
    assert_eq!(bench.asked(), 3, "the oldest went");
    let error = bench.cache.fetched(&wanted(100_001)).await.unwrap_err();
    assert!(error.to_string().contains("larger than the cache"), "{error}");
    assert_eq!(files(), 2, "nothing went for it");
}

#[tokio::test]
async fn a_file_of_another_length_is_refused_at_once() {
    let bench = Bench::new(Origin::default(), 1 << 20).await;
    let error = bench.cache.get(&Wanted { bytes: Some(7), ..wanted(50_000) }).await.unwrap_err();
    assert!(error.to_string().contains("50000 bytes, where 7"), "{error}");
}

/// A disk that takes nothing more: the part file is one in memory, which can be forbidden to grow.
struct Disk(File);

impl Disk {
    fn under(dir: &Path, bytes: usize) -> Self {
        let file = memfd_create("part", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        let part = dir.join("files/part").join(wanted(bytes).name().to_string());
        std::os::unix::fs::symlink(format!("/proc/self/fd/{}", file.as_raw_fd()), part).unwrap();
        Self(file.into())
    }

    fn is_full(&self) {
        fcntl(&self.0, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW)).unwrap();
    }
}

#[tokio::test]
async fn a_disk_that_fills_up_in_the_middle_costs_the_line_and_no_machine_its_file() {
    let bytes = 400_000;
    let origin = Origin { go_on: Some(Notify::new()), ..Origin::default() };
    let bench = Bench::new(origin, 1 << 20).await;
    let disk = Disk::under(bench.dir.path(), bytes);
    let Bytestore::Growing(coming) = bench.cache.get(&wanted(bytes)).await.unwrap() else {
        panic!("not coming")
    };
    assert_eq!(part_of(&*coming, 0, 200_000).await.unwrap(), content(bytes)[..200_000]);
    disk.is_full();
    let machine = tokio::spawn(async move { part_of(&*coming, 0, bytes as u64).await });
    // The second half of the first answer, and that of the one to the machine.
    let go_on = bench.origin.go_on.as_ref().unwrap();
    go_on.notify_one();
    while bench.asked() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    go_on.notify_one();
    assert!(machine.await.unwrap().unwrap() == content(bytes));
    let from = bench.origin.ranges.lock()[1].clone().unwrap();
    assert_eq!(from, format!("bytes={}-", bytes / 2), "what was here did not come again");
    let error = bench.cache.get(&wanted(bytes)).await.unwrap_err();
    assert!(error.is_disk() && bench.asked() == 2, "the next is passed through as a whole: {error}");
}

#[tokio::test]
async fn a_wrong_rest_never_arrives_whole() {
    let bytes = 400_000;
    let origin = Origin { go_on: Some(Notify::new()), ..Origin::default() };
    let bench = Bench::new(origin, 1 << 20).await;
    let disk = Disk::under(bench.dir.path(), bytes);
    let Bytestore::Growing(coming) = bench.cache.get(&wanted(bytes)).await.unwrap() else {
        panic!("not coming")
    };
    assert_eq!(part_of(&*coming, 0, 1000).await.unwrap(), content(bytes)[..1000]);
    disk.is_full();
    bench.origin.lie.store(true, Ordering::Relaxed);
    let machine = tokio::spawn(async move { part_of(&*coming, 0, bytes as u64).await });
    let go_on = bench.origin.go_on.as_ref().unwrap();
    go_on.notify_one();
    while bench.asked() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    go_on.notify_one();
    let error = machine.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("has the hash"), "{error}");
}
