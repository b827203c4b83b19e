//! Core: the agent's memory and disk settings for one machine, from its memory and its target disk. The agent must stay
//! under 128 MiB beside its cache at any image size, so everything in flight is bounded here. Touches `common`.

use common::hardware::{Bus, Disk, Firmware, HardwareReport};
use common::limits::CHUNK_BYTES;
use common::plan::Tuning;

const MIB: u64 = 1 << 20;

/// What the kernel, the unpacked loader and the agent itself take of the memory of a machine that runs from
/// RAM: 256 MiB were enough for a kernel with nine modules, and every driver unpacked is about 60 MiB.
const RESERVED_BYTES: u64 = 448 * MIB;

/// The least and the most memory in which the agent caches chunks for its peers.
const CACHE_BYTES_MIN: u64 = 16 * MIB;
const CACHE_BYTES_MAX: u64 = 16 << 30;

/// Requests for chunks under way at once, over all neighbours. With 15 neighbours whose lines are as fast as its own,
/// 16 left a tenth of every line idle: each missing chunk was already requested, and waited in some neighbour's queue.
const FETCH_PARALLEL: u32 = 32;
const FETCH_PARALLEL_SMALL: u32 = 16;

/// Chunks sent to peers at once. Fewer leave the line idle whenever the receivers' lines are full (two: 1.35 of the
/// lower bound with eight equal machines, four: 1.07); with more, each chunk arrives later and is passed on later (six:
/// 1.15).
const UPLOAD_PARALLEL: u32 = 4;

const WRITE_BACKLOG_MAX: u32 = 32;

// Memory in use: each request under way holds one chunk as sent, each chunk waiting for the disk its raw bytes, each
// upload one chunk as sent. Together at most 80 of the agent's 128 MiB.
const _: () =
    assert!((FETCH_PARALLEL + WRITE_BACKLOG_MAX + UPLOAD_PARALLEL) as u64 * CHUNK_BYTES as u64 <= 80 * MIB);

/// The settings for a machine that writes `disk`; `wire_bytes` is the size of all chunks of the image as sent.
pub(crate) fn tuning(report: &HardwareReport, disk: &Disk, wire_bytes: u64) -> Tuning {
    let small = report.memory_bytes < RESERVED_BYTES + 192 * MIB;
    let fetch_parallel = if small { FETCH_PARALLEL_SMALL } else { FETCH_PARALLEL };
    let write_backlog = match disk {
        _ if small => 8,
        // A spinning disk stalls for hundreds of milliseconds, while chunks go on arriving.
        Disk { rotational: true, .. } => WRITE_BACKLOG_MAX,
        Disk { bus: Bus::Nvme, .. } => 16,
        _ => 24,
    };
    let sync_bytes = match disk {
        Disk { bus: Bus::Usb | Bus::Mmc, .. } => 64 * MIB,
        Disk { rotational: true, .. } => 128 * MIB,
        Disk { bus: Bus::Nvme, .. } => 512 * MIB,
        _ => 256 * MIB,
    };
    let cache_bytes = cache_bytes(report, wire_bytes);
    Tuning { cache_bytes, fetch_parallel, write_backlog, sync_bytes, upload_parallel: UPLOAD_PARALLEL }
}

fn cache_bytes(report: &HardwareReport, wire_bytes: u64) -> u64 {
    let share = if report.firmware == Firmware::None {
        // The agent is an ordinary process on a host that does other work, perhaps one of many agents there: the file
        // that it writes is in the page cache anyway.
        (report.memory_bytes / 64).min(32 * MIB)
    } else {
        report.memory_bytes.saturating_sub(RESERVED_BYTES) / 2
    };
    // A cache larger than the image is of no use.
    share.min(wire_bytes).clamp(CACHE_BYTES_MIN, CACHE_BYTES_MAX)
}
