//! Every bound on what comes from outside, in one place, each with its reason. Touches nothing.

use std::time::Duration;

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

/// The most entries of one list (disks, PCI functions) in a hardware report; the reporter cuts longer lists
/// and says so in `truncated`.
pub const REPORT_LIST_MAX: usize = 4096;

/// The most network interfaces in a hardware report. Machines with eight cards of four ports have 32; virtual
/// functions do not exist before an OS makes them. Each address is a row of the records and a key of the table
/// that the DHCP server looks machines up in.
pub const REPORT_NICS_MAX: usize = 64;

/// The most words about what is on one disk: table, and file systems of up to 128 GPT entries are told in far
/// fewer; 500,000 entries were taken once and made `machine list` too long to be read.
pub const REPORT_FOUND_MAX: usize = 64;

/// The most lists that a report can say were cut: it has four.
pub const REPORT_CUTS_MAX: usize = 16;

/// The longest name that a machine may give itself, in bytes: that of a hostname's label (RFC 1035 section 2.3.4)
/// and room for a file's name behind it.
pub const MACHINE_NAME_MAX: usize = 128;

/// The longest string in a hardware report, in bytes. SMBIOS strings are at most 64 by custom, model names
/// and modaliases a little longer.
pub const REPORT_STRING_MAX: usize = 512;

/// Connections of machines at once, where the limit on open files allows it: two for each of 2,000 machines.
pub const CONNECTIONS_MAX: usize = 4096;

/// Connections of one address at the machines' door. A machine has two at most; thirty behind one translated
/// address come to sixty. 400 idle ones from one host once held up every report for more than 150 s.
pub const CONNECTIONS_PER_ADDRESS: usize = 64;

/// Files that the doors leave to the image store, the records, the log's readers and the admins: at 1,024 in all, 1,000
/// idle connections once stopped the reading of chunks.
pub const FILES_RESERVED: usize = 256;

/// Open files below which the server says so: 2,000 machines have two connections of the swarm and one of HTTP each.
pub const FILES_WANTED: u64 = 16_384;

/// Connections of admins at once.
pub const ADMINS_MAX: usize = 64;

/// Of the admins' connections, those that may be busy for long: followers of the log, imports, exports. The rest is
/// kept for orders: 64 `logs --follow` once kept a `deploy cancel` out.
pub const LONG_ERRANDS_MAX: usize = 48;

/// The longest head of a request, in bytes, with its path and headers. Firmware and iPXE send some hundred.
pub const HEAD_BYTES_MAX: usize = 16 << 10;

/// A request's head must have come within this time, and an idle connection is kept as long: the agent's is used
/// every 15 s.
pub const HEAD_TIME: Duration = Duration::from_secs(30);

/// A machine whose kernel acknowledges nothing for so long has lost power.
pub const STALLED: Duration = Duration::from_secs(60);

/// A body has this long before its rate counts: a line that loses every third packet at first.
pub const BODY_GRACE: Duration = Duration::from_secs(10);

/// Bytes a second that a body must come with. Thirty machines behind a line of 1 Mbit/s have this each.
pub const BODY_LEAST_RATE: u32 = 4 << 10;

/// The longest that any body may take: a machine on a line of 1 Mbit/s sends the largest report in it.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(60);

/// Bytes of bodies inside at once, until what they say is decided. Read as JSON they take about three times as much.
pub const BODIES_BYTES_MAX: usize = 128 << 20;

/// Bytes of bodies inside at once from one address: two of the largest reports, or those of thirty machines
/// behind one translated address, of 250 KiB each.
pub const BODIES_BYTES_PER_ADDRESS: usize = 8 << 20;

/// Of [`BODIES_BYTES_MAX`], what only small bodies may take.
pub const BODIES_BYTES_RESERVED: usize = 32 << 20;

/// The longest small body: the report of a machine with 300 devices, a batch of 30 events.
pub const SMALL_BODY_BYTES: usize = 64 << 10;

/// Bodies that are read as JSON and checked at once. Taken when the body is there: taken before, 32 bodies
/// that never came held up every report for as long as they were given.
pub const BODIES_PARSED_MAX: usize = 32;

/// Bytes a second that the reader of an answer must take, over each [`ANSWER_WINDOW`]. Forty machines behind a line
/// of 1 Mbit/s have three times as much.
pub const ANSWER_LEAST_RATE: u64 = 1 << 10;

/// Over how long an answer's rate is looked at.
pub const ANSWER_WINDOW: Duration = Duration::from_secs(30);

/// How often something may happen: so many at once, and then one each so many milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At once, after a pause.
    pub at_once: u32,
    /// Milliseconds that one more takes.
    pub one_in_ms: u32,
}

/// Machines that nobody let in and that reported their hardware: beyond it, the one that was silent longest is
/// forgotten. A site has a few hundred; 40 reports of 4 MiB once took 170 MiB of memory in two seconds.
pub const STRANGERS_MAX: usize = 5_000;

/// Machines that were only seen to ask for a boot: an address costs a liar nothing. Beyond it the one that was silent
/// longest is forgotten.
pub const BARE_SIGHTINGS_MAX: usize = 5_000;

/// What is kept of the report of a machine that nobody let in, in bytes of JSON. A report with 150 devices has 23 KB.
/// The whole is kept of machines that an admin approved or ordered something for, from their next report on.
pub const STRANGER_HARDWARE_BYTES: usize = 64 << 10;

/// Machines that nobody let in, showing themselves from one address under new keys. A LAN's machines have an
/// address each; behind a translated one, 256 may be switched on at once.
pub const NEW_BOOTS_PER_ADDRESS: Rate = Rate { at_once: 256, one_in_ms: 1000 };

/// Machines seen for the first time by a request for a boot. All of a fleet of 2,000 may be switched on at once.
pub const NEW_SIGHTINGS: Rate = Rate { at_once: 5_000, one_in_ms: 100 };

/// Lines in the log for one job. A job that ends well has about forty, one that is tried again for days some hundred.
pub const JOB_EVENTS: Rate = Rate { at_once: 2_000, one_in_ms: 1000 };

/// Lines in the log for one machine that was let in, beside its jobs.
pub const MACHINE_EVENTS: Rate = Rate { at_once: 500, one_in_ms: 5_000 };

/// Lines in the log for one machine that nobody let in, or one address: a boot makes about ten.
pub const STRANGER_EVENTS: Rate = Rate { at_once: 100, one_in_ms: 20_000 };

/// Lines in the log for all of those together: 2,000 machines at once, and then 86,400 a day, which is 20 MB.
pub const STRANGERS_EVENTS: Rate = Rate { at_once: 20_000, one_in_ms: 1000 };

/// Budgets that are remembered of each kind.
pub const BUDGETS_MAX: usize = 10_000;

/// How long before its first report a machine may date an event: the loader's own steps come before it. An age beyond
/// it is the sender's invention, and would hide an event from `logs --since`.
pub const BEFORE_REPORT: Duration = Duration::from_secs(3600);

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

/// Words that one agent may say on its control stream at once, and then one in each `CONTROL_WORD_EVERY`: news of chunks
/// goes out every 50 ms and its speed once a second, and what a stuck line held back comes at once.
pub const CONTROL_WORDS_BURST: u32 = 256;

/// See `CONTROL_WORDS_BURST`.
pub const CONTROL_WORD_EVERY: Duration = Duration::from_millis(25);

/// Control streams that one agent may open at once, and then one in each `HELLO_EVERY`. A line that comes and goes is
/// dialled again after 200 ms at the soonest, and then less often.
pub const HELLOS_BURST: u32 = 16;

/// See `HELLOS_BURST`.
pub const HELLO_EVERY: Duration = Duration::from_secs(1);

/// Connections whose key is not known yet, in all: a bound on what strangers can hold open.
pub const HANDSHAKES_MAX: usize = 1024;

/// ...and from one address: machines behind one NAT, or agents on one host, come together.
pub const HANDSHAKES_PER_ADDRESS_MAX: usize = 64;

/// Connections that one address may open at once, and then one in each `HANDSHAKE_EVERY`: a handshake takes about half a
/// millisecond of a processor here.
pub const HANDSHAKES_BURST: u32 = 256;

/// See `HANDSHAKES_BURST`.
pub const HANDSHAKE_EVERY: Duration = Duration::from_millis(15);

/// How often a chunk is sent under one lease: once, and again where a line was cut or memory is bad.
pub const SENDS_PER_LEASE_MAX: u8 = 3;

/// How long a reader may keep us from writing on, over the whole of one chunk: a slot is not held longer than a line of
/// 1 Mbit/s needs that carries five chunks at once.
pub const CHUNK_PATIENCE: Duration = Duration::from_secs(60);

/// The fastest line that is believed, in bytes per second: what an agent says of its own is a number as good as it is.
pub const SPEED_MAX: u64 = 1 << 40;

/// The longest that a gate may hold machines, in seconds: a day.
pub const GATHER_SECONDS_MAX: u64 = 24 * 3600;

/// The longest user-data an order may carry. cloud-init itself has no bound; cloud providers allow 16 to 64 KiB.
pub const USER_DATA_BYTES_MAX: usize = 256 << 10;

/// Addresses that the DHCP server looks for with ARP at once; what comes beyond is offered unseen.
pub const DHCP_CHECKS_MAX: usize = 2048;

/// How long a transaction of DHCP is remembered at least, in seconds: EDK2 collects offers for up to 32 s.
pub const DHCP_TRANSACTION_SECONDS: u64 = 60;

/// Transactions of DHCP of one age; twice as many are remembered.
pub const DHCP_TRANSACTIONS_MAX: usize = 4096;

/// Networks that requests for a boot were seen from; the one that was not seen for the longest time goes first.
pub const DHCP_NETWORKS_MAX: usize = 64;

/// Other DHCP servers that are remembered; on a wire with more, naming these is enough.
pub const DHCP_RIVALS_MAX: usize = 16;

/// Bytes of another DHCP server's boot file's name that are shown: enough to know it by.
pub const DHCP_RIVAL_FILE_BYTES_MAX: usize = 64;

/// The most addresses of one DHCP range: a /16. Finding a free one looks at each in the worst case.
pub const DHCP_RANGE_MAX: u32 = 1 << 16;

/// The longest lease of an earlier run that is believed: a month.
pub const DHCP_LEASE_SECONDS_MAX: u64 = 31 * 24 * 3600;

/// Addresses that one client may take out of the pool by saying that they are in use, at a time.
pub const DHCP_DECLINES_MAX: usize = 3;

/// The part of the pool, one in so many, that all clients together may: one host cannot empty it under many names.
pub const DHCP_DECLINES_PART: u32 = 4;

/// The longest request of DHCP: packets longer than one Ethernet frame are not from a client of ours.
pub const DHCP_REQUEST_BYTES_MAX: usize = 1500;

/// Packets of TFTP that are sent before the first answer: the first and five repetitions, in a second and a half.
pub const TFTP_UNANSWERED_MAX: u32 = 6;

/// The longest packet of async-tftp, and of a machine's answer.
pub const TFTP_PACKET_BYTES_MAX: usize = 2048;

/// Transfers of TFTP at once: a room full of machines after a power cut.
pub const TFTP_TRANSFERS_MAX: usize = 2048;

/// Transfers of TFTP to one address. A ROM has one; behind a router with address translation there are more machines.
pub const TFTP_TRANSFERS_PER_ADDRESS_MAX: usize = 64;

/// Digits in the longest number that an option of TFTP can hold.
pub const TFTP_OPTION_DIGITS_MAX: usize = 20;

/// Bytes of the name that a TFTP request asks for that are shown in the log: rubbish would fill lines.
pub const TFTP_SHOWN_MAX: usize = 100;

/// The longest block of TFTP. Above it, fragments: boot ROMs cannot put them together. iPXE asks for 1,432 at most; 1,428 also passes
/// common tunnels.
pub const TFTP_BLOCK_BYTES_MAX: u16 = 1428;

/// Blocks of TFTP before an answer. EDK2 asks for 4. Sixteen hide a lost packet's wait without bursts that fill a switch's buffers.
pub const TFTP_WINDOW_MAX: u16 = 16;

/// The longest request of TFTP: async-tftp takes no more either.
pub const TFTP_REQUEST_BYTES_MAX: usize = 4096;

const _: () = assert!(REPORT_BYTES_MAX + EVENTS_BYTES_MAX <= BODIES_BYTES_PER_ADDRESS);
const _: () = assert!(BODIES_BYTES_PER_ADDRESS + BODIES_BYTES_RESERVED < BODIES_BYTES_MAX);
const _: () = assert!(LONG_ERRANDS_MAX < ADMINS_MAX);
const _: () = assert!(WIRE_CHUNK_BYTES_MAX <= CHUNK_BYTES);
const _: () = assert!((CHUNKS_MAX as usize).div_ceil(8) < CONTROL_MESSAGE_BYTES_MAX);
const _: () = assert!(USER_DATA_BYTES_MAX < CONTROL_MESSAGE_BYTES_MAX);

/// `text`, cut at a character boundary to at most `max` bytes.
#[must_use]
pub fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}
