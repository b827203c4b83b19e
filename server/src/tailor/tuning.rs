//! Core: memory and disk settings for one machine, from its memory, its target and its link. The agent must stay
//! under 128 MiB beside its cache at any image size, so everything in flight is bounded here. Touches `common`.

use common::hardware::{Bus, Disk, Firmware, HardwareReport};
use common::limits::CHUNK_BYTES;
use common::plan::Tuning;

const MIB: u64 = 1 << 20;

/// What the kernel, the unpacked loader and the agent itself take of the memory of a machine that runs from
/// RAM: 256 MiB were enough for a kernel with nine modules, and every driver unpacked is about 60 MiB.
const RESERVED_BYTES: u64 = 448 * MIB;

/// The least and the most that is kept for peers.
const CACHE_BYTES_MIN: u64 = 16 * MIB;
const CACHE_BYTES_MAX: u64 = 16 << 30;

const FETCH_PARALLEL_MAX: u32 = 32;
const WRITE_BACKLOG_MAX: u32 = 32;
const UPLOAD_PARALLEL_MAX: u32 = 8;

// A chunk in flight is one wire frame; one that waits for the disk is its raw bytes; each upload holds a frame.
// Together they leave the agent half of its 128 MiB.
const _: () = assert!(
    (FETCH_PARALLEL_MAX + WRITE_BACKLOG_MAX + UPLOAD_PARALLEL_MAX) as u64 * CHUNK_BYTES as u64 <= 80 * MIB
);

/// The settings for a machine that writes `disk`; `wire_bytes` is what the image is on the wire.
pub(crate) fn tuning(report: &HardwareReport, disk: &Disk, wire_bytes: u64) -> Tuning {
    let small = report.memory_bytes < RESERVED_BYTES + 192 * MIB;
    let fetch_parallel = match fastest_link(report) {
        _ if small => 8,
        // Enough for 1 MiB chunks to fill a link at 10 ms: one chunk of a 100 Mbit/s line takes 84 ms.
        Some(..=100) => 8,
        Some(101..=1000) | None => 16,
        Some(_) => FETCH_PARALLEL_MAX,
    };
    let write_backlog = match disk {
        _ if small => 8,
        // A spinning disk stalls for hundreds of milliseconds; the network goes on in the meantime.
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
    // Sending costs processor time for the encryption: one upload per thread is as much as can be served.
    let upload_parallel = report.cpu.threads.clamp(2, UPLOAD_PARALLEL_MAX);
    let cache_bytes = cache_bytes(report, wire_bytes);
    Tuning { cache_bytes, fetch_parallel, write_backlog, sync_bytes, upload_parallel }
}

fn cache_bytes(report: &HardwareReport, wire_bytes: u64) -> u64 {
    let share = if report.firmware == Firmware::None {
        // A guest on a host that does other work, perhaps one of many: its own file is in the page cache anyway.
        (report.memory_bytes / 64).min(256 * MIB)
    } else {
        report.memory_bytes.saturating_sub(RESERVED_BYTES) / 2
    };
    // More than the image is of no use to anybody.
    share.min(wire_bytes).clamp(CACHE_BYTES_MIN, CACHE_BYTES_MAX)
}

/// Mbit/s of the fastest link that is up.
fn fastest_link(report: &HardwareReport) -> Option<u32> {
    report.nics.iter().filter(|nic| nic.link).filter_map(|nic| nic.speed_mbit).max()
}
