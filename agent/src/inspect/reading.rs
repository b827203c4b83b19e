//! Reads what is on disks, all at once, and gives up those that do not answer in time: a passive path, a sleeping or a
//! dying disk blocks every read until its timeout, and the report must not wait for one after the other
//! (ironic-agent-image#50). Opens disks for reading only.
//!
//! A thread that hangs in the kernel cannot be ended. So it is counted, its disk is not read again while it hangs, and
//! there are never more threads than disks, nor more than `THREADS_MAX` that begin at once.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, mpsc};
use std::time::{Duration, Instant};

use common::chunk::is_zero;
use common::disks::Volume;
use common::hardware::Contents;
use parking_lot::{Mutex, MutexGuard};

use super::contents::{self, Edges, HEAD_BYTES, PARTITION_BYTES, PARTITION_TAIL_BYTES, TAIL_BYTES};

/// What is on a disk: its kind, what was recognised, and its file systems.
pub type Seen = (Contents, Vec<String>, Vec<Volume>);

/// A disk that is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The file or block device to open.
    pub device: PathBuf,
    /// Its size in bytes, which tells where its end is.
    pub size: u64,
    /// Its logical sector size in bytes.
    pub sector_bytes: u32,
}

/// The most reader threads. Each holds a few MiB while it reads; machines with so many disks have memory for it.
const THREADS_MAX: usize = 64;

/// The threads that begin even when `THREADS_MAX` hang, so that the disks that do answer are read.
const THREADS_MIN: usize = 4;

/// The number of places between the start and the end of a disk that are read before it counts as blank, and the bytes
/// at each. A disk whose table was wiped, or whose deployment was broken off, is full of data.
const PLACES: u64 = 32;
const PLACE_BYTES: usize = 4096;

/// The devices that a thread is reading, among them those whose thread hangs.
static BUSY: LazyLock<Mutex<BTreeSet<PathBuf>>> = LazyLock::new(Mutex::default);

/// How many threads are reading now; after [`all`] those that hang at a disk that does not answer.
#[must_use]
pub fn stuck() -> usize {
    busy().len()
}

fn busy() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    // A panic while the lock is held cannot leave half a change: each is one insert or removal.
    BUSY.lock()
}

/// Reads `disks`; the results are in their order, none for a disk that did not answer. `within` is the timeout for all
/// of them together.
#[must_use]
pub fn all(disks: &[Wanted], within: Duration) -> Vec<Option<Seen>> {
    let mut seen: Vec<Option<Seen>> = vec![None; disks.len()];
    let (waiting, hanging): (VecDeque<(usize, Wanted)>, usize) = {
        let busy = busy();
        let free = disks.iter().cloned().enumerate().filter(|(_, disk)| !busy.contains(&disk.device));
        (free.collect(), busy.len())
    };
    let expected = waiting.len();
    let readers = THREADS_MAX.saturating_sub(hanging).max(THREADS_MIN).min(expected);
    let queue = Arc::new(Mutex::new(waiting));
    let (answer, answers) = mpsc::sync_channel(expected);
    for _ in 0..readers {
        let (queue, answer) = (Arc::clone(&queue), answer.clone());
        let reader = std::thread::Builder::new().name("inspect-disk".to_owned());
        // If the thread cannot be started, the others read its share.
        let _ = reader.spawn(move || read_queue(&queue, &answer));
    }
    drop(answer);
    let end = Instant::now() + within;
    for _ in 0..expected {
        let left = end.saturating_duration_since(Instant::now());
        let Ok((at, what)) = answers.recv_timeout(left) else { break };
        seen[at] = Some(what);
    }
    // A thread that comes back late from a dead disk reads no other one.
    queue.lock().clear();
    seen
}

fn read_queue(queue: &Mutex<VecDeque<(usize, Wanted)>>, answer: &mpsc::SyncSender<(usize, Seen)>) {
    loop {
        let next = queue.lock().pop_front();
        let Some((at, disk)) = next else { return };
        busy().insert(disk.device.clone());
        let seen = what_is_on(&disk);
        busy().remove(&disk.device);
        if answer.send((at, seen)).is_err() {
            return;
        }
    }
}

/// Reads what is on `disk`. Blocks for as long as the disk does.
#[must_use]
pub fn what_is_on(disk: &Wanted) -> Seen {
    read(disk).unwrap_or((Contents::Unreadable, vec![], vec![]))
}

fn read(disk: &Wanted) -> Option<Seen> {
    let file = File::open(&disk.device).ok()?;
    let head = read_at(&file, 0, HEAD_BYTES)?;
    let tail = last(&file, 0, disk.size, TAIL_BYTES);
    let edges =
        Edges { head: &head, tail: tail.as_deref(), size: disk.size, sector_bytes: disk.sector_bytes };
    let mut volumes: Vec<Volume> = Volume::of(&head, 0).into_iter().collect();
    let parts = edges.partitions().into_iter().map(|part| {
        let start = read_at(&file, part.start, PARTITION_BYTES).unwrap_or_default();
        let end = last(&file, part.start, part.len, PARTITION_TAIL_BYTES).unwrap_or_default();
        volumes.extend(Volume::of(&start, part.number));
        (part.number, contents::marks_of(&start, &end, part.len))
    });
    let parts: Vec<(u32, Vec<&'static str>)> = parts.collect();
    let (contents, found) = contents::look(&edges, &parts);
    match contents {
        Contents::Blank if tail.is_none() => Some((Contents::Unreadable, found, volumes)),
        Contents::Blank => between(&file, disk.size),
        _ => Some((contents, found, volumes)),
    }
}

/// Samples a disk whose start and end are zeros: blank, or data behind zeros.
fn between(file: &File, size: u64) -> Option<Seen> {
    let room = size.saturating_sub((HEAD_BYTES + TAIL_BYTES) as u64);
    let step = (room / PLACES).next_multiple_of(PLACE_BYTES as u64);
    for at in (0..PLACES).map(|place| HEAD_BYTES as u64 + place * step).take_while(|&at| at < size) {
        if !is_zero(&read_at(file, at, PLACE_BYTES)?) {
            return Some((Contents::Data, vec!["data behind zeros".to_owned()], vec![]));
        }
    }
    Some((Contents::Blank, vec![], vec![]))
}

/// The last `len` bytes (or fewer) of the `size` bytes from `start` on; none when they cannot be read.
fn last(file: &File, start: u64, size: u64, len: usize) -> Option<Vec<u8>> {
    let len = usize::try_from(size).unwrap_or(len).min(len);
    let from = start.checked_add(size)? - len as u64;
    read_at(file, from, len).filter(|bytes| bytes.len() == len)
}

/// Up to `len` bytes from `offset`, fewer at the end of the device.
fn read_at(file: &File, offset: u64, len: usize) -> Option<Vec<u8>> {
    i64::try_from(offset).ok()?;
    let mut bytes = vec![0; len];
    let mut got = 0;
    while got < len {
        match file.read_at(&mut bytes[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    bytes.truncate(got);
    Some(bytes)
}
