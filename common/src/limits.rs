//! Every bound on what comes from outside, in one place, each with its reason. Touches nothing.

/// Bytes of a chunk: a fixed size at fixed offsets. 1 MiB was as fast as any larger size over libp2p
/// streams, and on a thin line a small chunk can be passed on sooner.
pub const CHUNK_BYTES: u32 = 1 << 20;

/// The longest a chunk's wire form may be. The raw form is stored where zstd would not be smaller, so a
/// wire frame never exceeds the chunk itself.
pub const WIRE_CHUNK_BYTES_MAX: u32 = CHUNK_BYTES;

/// The most chunks an image may have: 16 TiB of 1 MiB chunks, and a manifest of 1.1 GiB at worst. A length
/// from a file is checked against it before anything is allocated.
pub const CHUNKS_MAX: u32 = 1 << 24;

/// The longest hardware report the server reads. A machine with 1,000 disks and 1,000 PCI functions needs
/// about 600 KiB; deployers without a bound, or with one they did not announce, have failed on such machines.
pub const REPORT_BYTES_MAX: usize = 4 << 20;

/// The most entries of one list (disks, NICs, PCI functions) in a hardware report; the reporter cuts longer
/// lists and says so in `truncated`.
pub const REPORT_LIST_MAX: usize = 4096;

/// The longest string in a hardware report, in bytes. SMBIOS strings are at most 64 by custom, model names
/// and modaliases a little longer.
pub const REPORT_STRING_MAX: usize = 512;

/// The longest signed answer a machine reads from the server: a verdict with its plan.
pub const VERDICT_BYTES_MAX: usize = 1 << 20;

/// The longest agent bundle a loader takes into memory. Bundles are about 3 MiB; firmware of large NICs can
/// add tens of MiB.
pub const BUNDLE_BYTES_MAX: u64 = 256 << 20;

/// The longest batch of step events in one POST.
pub const EVENTS_BYTES_MAX: usize = 1 << 20;

/// The most events in one batch.
pub const EVENTS_PER_BATCH_MAX: usize = 512;

/// The longest text (cause, note) in one step event, in bytes; longer ones are cut at a character.
pub const EVENT_TEXT_MAX: usize = 2000;

/// The longest control message of the swarm: the bitmap of the largest image is 2 MiB.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 4 << 20;

/// The longest user-data an order may carry. cloud-init itself has no bound; cloud providers allow 16 to 64 KiB.
pub const USER_DATA_BYTES_MAX: usize = 256 << 10;

const _: () = assert!(WIRE_CHUNK_BYTES_MAX <= CHUNK_BYTES);
const _: () = assert!((CHUNKS_MAX as usize).div_ceil(8) < CONTROL_MESSAGE_BYTES_MAX);
const _: () = assert!(USER_DATA_BYTES_MAX < CONTROL_MESSAGE_BYTES_MAX);

/// `text`, cut at a character boundary to at most `max` bytes.
#[must_use]
pub fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}
