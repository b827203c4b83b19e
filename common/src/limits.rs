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

/// The most chunks of an old image that one delta builds on. Two builds of a Debian image: deltas over one base are
/// 0.39 of the image, over two 0.221, over four 0.220; each costs its reader a read of 1 MiB and memory for it.
pub const DELTA_BASES_MAX: usize = 2;

/// The most old images that an image has deltas over: each takes about a quarter of the image on the server's disk and
/// ten seconds of a processor for each 400 MiB at its import.
pub const DELTA_SETS_MAX: usize = 2;

/// The most chunks of an image that has deltas: an agent's hello names those that it can take as a bitmap, beside that
/// of the chunks it holds, and both have to fit into one message.
pub const DELTA_IMAGE_CHUNKS_MAX: u32 = 1 << 22;

/// The longest table of deltas that an agent takes into memory, in bytes: 130 bytes for each chunk, so of an image of
/// 120 GiB without zeros. A longer one is not made.
pub const DELTA_TABLE_BYTES_MAX: u64 = 16 << 20;

/// The longest hardware report the server reads. A machine with 1,000 disks and 1,000 PCI functions needs
/// about 600 KiB; deployers without a bound, or with one they did not announce, have failed on such machines.
pub const REPORT_BYTES_MAX: usize = 4 << 20;

/// The most entries of one list (disks, PCI functions) in a hardware report; the reporter cuts longer lists
/// and says so in `truncated`.
pub const REPORT_LIST_MAX: usize = 4096;

/// The most network interfaces in a hardware report. Machines with eight cards of four ports have 32; virtual
/// functions do not exist before an OS makes them. Each address is a row of the records and a key of the table
/// in which the DHCP server looks machines up.
pub const REPORT_NICS_MAX: usize = 64;

/// The most texts about what is on one disk: a table and the file systems of up to 128 GPT entries need far fewer;
/// 500,000 entries were accepted once and made `machine list` too long to be read.
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

/// Connections from one address to the machines' HTTP listener. A machine has two at most; thirty behind one translated
/// address come to sixty. 400 idle ones from one host once held up every report for more than 150 s.
pub const CONNECTIONS_PER_ADDRESS: usize = 64;

/// Open files that machines' connections (HTTP, TFTP, swarm) leave to the image store, the records, the log's readers
/// and the admins: at 1,024 in all, 1,000 idle connections once stopped the reading of chunks.
pub const FILES_RESERVED: usize = 256;

/// Open files below which the server warns: 2,000 machines have two connections of the swarm and one of HTTP each.
pub const FILES_WANTED: u64 = 16_384;

/// How long the request of a waiting machine is left unanswered. NATs of home routers and mobile lines forget a silent
/// TCP connection after one to five minutes (RFC 5382 asks for two hours), and HTTP proxies give up an answer after 60 s
/// (nginx, cloud balancers) or 50 s (HAProxy's example). One exchange takes about 1,200 bytes with all headers.
pub const WAIT_TIME: Duration = Duration::from_secs(48);

/// The longest request of a waiting machine, in bytes: it has a key, a hash and a signature.
pub const WAIT_BYTES_MAX: usize = 1 << 10;

/// Requests of waiting machines that are left unanswered at once: 2,000 machines, and a quarter of the connections for
/// everything else. A machine beyond that asks every half minute instead.
pub const WAITERS_MAX: usize = CONNECTIONS_MAX / 4 * 3;

/// ...and of those, from one address: half of its connections. Thirty machines behind a translated address fit.
pub const WAITERS_PER_ADDRESS: usize = CONNECTIONS_PER_ADDRESS / 2;

/// Machines that are woken at once, and then as many in each [`WAKES_EVERY`]: each reports at once, with up to 60 KiB, so
/// that this is 15 MiB of the 96 that the bodies of reports may take, and takes as long as 256 reports do.
pub const WAKES_AT_ONCE: usize = 256;

/// See [`WAKES_AT_ONCE`].
pub const WAKES_EVERY: Duration = Duration::from_millis(500);

/// Connections of admins at once.
pub const ADMINS_MAX: usize = 64;

/// Of the admins' connections, those that may be busy for long: followers of the log, imports, exports. The rest is
/// kept for short requests: 64 `logs --follow` once kept a `deploy cancel` out.
pub const LONG_ERRANDS_MAX: usize = 48;

/// Connections to the API's TLS port at once, from all addresses: people, their pages, and a Prometheus.
pub const API_CONNECTIONS_MAX: usize = 1536;

/// Of those, from one address: an office behind one is many people.
pub const API_CONNECTIONS_PER_ADDRESS: usize = 64;

/// Event streams at once, below the connections that there may be: a page has two. One that does not read costs what its
/// connection has taken over, some 150 KiB.
pub const EVENT_STREAMS_MAX: usize = 1024;

/// ...and those over the admin's socket: with the long errands fewer than [`ADMINS_MAX`], so that orders have a connection.
pub const SOCKET_STREAMS_MAX: usize = 8;

/// How long the answer to a wrong token is held back: guessing is hopeless already, and should not fill a log.
pub const WRONG_TOKEN_PAUSE: Duration = Duration::from_millis(300);

/// The longest head of a request, in bytes, with its path and headers. Firmware and iPXE send a few hundred.
pub const HEAD_BYTES_MAX: usize = 16 << 10;

/// The timeout of a request's head, and of an idle connection: the agent uses its own every 15 s.
pub const HEAD_TIME: Duration = Duration::from_secs(30);

/// The timeout of sent data that is not acknowledged: such a machine has lost its power.
pub const STALLED: Duration = Duration::from_secs(60);

/// The time before a body's rate counts: for a link that loses every third packet at first.
pub const BODY_GRACE: Duration = Duration::from_secs(10);

/// The least rate of a body, in bytes a second. Thirty machines behind a link of 1 Mbit/s have this each.
pub const BODY_LEAST_RATE: u32 = 4 << 10;

/// The timeout of a whole body: a machine on a link of 1 Mbit/s sends the largest report in it.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(60);

/// Connections from the address of an enrolled relay: each machine of its site has one through it, and one more while it
/// waits for an order.
pub const CONNECTIONS_PER_RELAY: usize = 1024;

/// Bytes of bodies in memory at once, until their requests are answered. Parsed JSON takes about three times as much.
pub const BODIES_BYTES_MAX: usize = 128 << 20;

/// Bytes of bodies in memory at once from one address: two of the largest reports, or those of thirty machines
/// behind one translated address, of 250 KiB each.
pub const BODIES_BYTES_PER_ADDRESS: usize = 8 << 20;

/// Of [`BODIES_BYTES_MAX`], what only small bodies may take.
pub const BODIES_BYTES_RESERVED: usize = 32 << 20;

/// The longest small body: the report of a machine with 300 devices, a batch of 30 events.
pub const SMALL_BODY_BYTES: usize = 64 << 10;

/// The most bodies that are read as JSON and checked at once. Counted once a body is complete: when it was counted
/// before, 32 bodies that never came held up every report until their timeout.
pub const BODIES_PARSED_MAX: usize = 32;

/// The least rate of reading an answer, in bytes a second, over each [`ANSWER_WINDOW`]. Forty machines behind a link
/// of 1 Mbit/s have three times as much.
pub const ANSWER_LEAST_RATE: u64 = 1 << 10;

/// The period over which the rate of reading an answer is measured.
pub const ANSWER_WINDOW: Duration = Duration::from_secs(30);

/// A rate limit: so many at once, and then one in each so many milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many at once, after a pause.
    pub at_once: u32,
    /// Milliseconds for each one more.
    pub one_in_ms: u32,
}

/// The most unknown machines, which have reported their hardware and on which no admin has acted yet (no approval,
/// label or order): beyond it, the one silent longest is forgotten. A site has a few hundred; 40 reports of 4 MiB once
/// took 170 MiB of memory in two seconds.
pub const STRANGERS_MAX: usize = 5_000;

/// The most machines that were only seen to ask for a boot: a made-up address costs its sender nothing. Beyond it, the
/// one that was silent longest is forgotten.
pub const BARE_SIGHTINGS_MAX: usize = 5_000;

/// The most that is kept of the report of an unknown machine, in bytes of JSON. A report with 150 devices has 23 KB.
/// Once an admin has acted on the machine, its next report is kept whole.
pub const STRANGER_HARDWARE_BYTES: usize = 64 << 10;

/// New boot keys from one address, of unknown machines. A LAN's machines have an address each; behind a translated one,
/// 256 may be switched on at once.
pub const NEW_BOOTS_PER_ADDRESS: Rate = Rate { at_once: 256, one_in_ms: 1000 };

/// New machines that are only seen to ask for a boot. All of a fleet of 2,000 may be switched on at once.
pub const NEW_SIGHTINGS: Rate = Rate { at_once: 5_000, one_in_ms: 100 };

/// Lines in the log for one job. A job that ends well has about forty, one that is tried again for days some hundred.
pub const JOB_EVENTS: Rate = Rate { at_once: 2_000, one_in_ms: 1000 };

/// Lines in the log for one machine on which an admin has acted, beside its jobs.
pub const MACHINE_EVENTS: Rate = Rate { at_once: 500, one_in_ms: 5_000 };

/// Lines in the log for one unknown machine, or for one address: a boot makes about ten.
pub const STRANGER_EVENTS: Rate = Rate { at_once: 100, one_in_ms: 20_000 };

/// Lines in the log for all of those together: 2,000 machines at once, and then 86,400 a day, which is 20 MB.
pub const STRANGERS_EVENTS: Rate = Rate { at_once: 20_000, one_in_ms: 1000 };

/// The most sites whose traffic is counted by name. A site is named after the network of any address that the server
/// sends to; beyond it, the one that was silent the longest is counted among the others.
pub const SITES_COUNTED_MAX: usize = 1_000;

/// The most rate limits that are remembered of each kind.
pub const BUDGETS_MAX: usize = 10_000;

/// How long before its first report a machine may date an event: the loader's own steps come before it. An older date
/// cannot be true, and would hide an event from `logs --since`.
pub const BEFORE_REPORT: Duration = Duration::from_secs(3600);

/// The longest signed answer that a machine reads from the server, in bytes: a verdict with its plan.
pub const VERDICT_BYTES_MAX: usize = 1 << 20;

/// The longest kernel module or firmware file that a loader takes into memory, in bytes: the longest of Debian's
/// network drivers has 4 MiB, firmware of one up to 10 MiB.
pub const DRIVER_BYTES_MAX: u64 = 64 << 20;

/// The longest agent bundle that a loader takes into memory, in bytes. Bundles are about 3 MiB; firmware of large NICs
/// can add tens of MiB.
pub const BUNDLE_BYTES_MAX: u64 = 256 << 20;

/// The longest batch of step events in one POST, in bytes.
pub const EVENTS_BYTES_MAX: usize = 1 << 20;

/// The most events in one batch.
pub const EVENTS_PER_BATCH_MAX: usize = 512;

/// The longest text (cause, note) in one step event, in bytes; longer ones are cut at a character.
pub const EVENT_TEXT_MAX: usize = 2000;

/// The longest control message of the swarm, in bytes: the bitmap of the largest image is 2 MiB.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Messages that one agent may send on its control stream at once, and then one in each `CONTROL_WORD_EVERY`: it sends
/// new chunks every 50 ms and its speed once a second, and what a stalled connection held back comes at once.
pub const CONTROL_WORDS_BURST: u32 = 256;

/// See `CONTROL_WORDS_BURST`.
pub const CONTROL_WORD_EVERY: Duration = Duration::from_millis(25);

/// Control streams that one agent may open at once, and then one in each `HELLO_EVERY`. An agent whose connection
/// breaks again and again dials after 200 ms at the soonest, and then less often.
pub const HELLOS_BURST: u32 = 16;

/// See `HELLOS_BURST`.
pub const HELLO_EVERY: Duration = Duration::from_secs(1);

/// The most connections whose key is not known yet, in all: a bound on what unknown hosts can hold open.
pub const HANDSHAKES_MAX: usize = 1024;

/// ...and from one address: machines behind one NAT, or agents on one host, come together.
pub const HANDSHAKES_PER_ADDRESS_MAX: usize = 64;

/// Connections that one address may open at once, and then one in each `HANDSHAKE_EVERY`: a handshake takes about half
/// a millisecond of a processor here.
pub const HANDSHAKES_BURST: u32 = 256;

/// See `HANDSHAKES_BURST`.
pub const HANDSHAKE_EVERY: Duration = Duration::from_millis(15);

/// How often a chunk is sent under one lease: once, and again where a connection broke or memory is bad.
pub const SENDS_PER_LEASE_MAX: u8 = 3;

/// How long a reader may make us wait in writing one whole chunk: a slot is not held longer than a link of 1 Mbit/s
/// needs that carries five chunks at once.
pub const CHUNK_PATIENCE: Duration = Duration::from_secs(60);

/// The highest speed that an agent may report and be believed, in bytes per second: nothing else bounds its number.
pub const SPEED_MAX: u64 = 1 << 40;

/// The longest that a gate may hold machines, in seconds: a day.
pub const GATHER_SECONDS_MAX: u64 = 24 * 3600;

/// The longest user-data of an order, in bytes. cloud-init itself has no bound; cloud providers allow 16 to 64 KiB.
pub const USER_DATA_BYTES_MAX: usize = 256 << 10;

/// The most hooks of one order.
pub const HOOKS_MAX: usize = 16;

/// The longest name of a hook, in bytes.
pub const HOOK_NAME_MAX: usize = 64;

/// The longest script of a hook, in bytes: what is larger belongs into the image, or is fetched by the script.
pub const HOOK_BYTES_MAX: usize = 64 << 10;

/// The most bytes of all scripts of an order. They and user-data go in one message.
pub const HOOKS_BYTES_MAX: usize = 256 << 10;

/// Seconds after which a hook is killed when nothing else is said.
pub const HOOK_SECONDS: u32 = 300;

/// The longest time limit of a hook, in seconds.
pub const HOOK_SECONDS_MAX: u32 = 3600;

/// The most addresses that the DHCP server checks with ARP at once; further ones are offered without a check.
pub const DHCP_CHECKS_MAX: usize = 2048;

/// How long a DHCP transaction is remembered at least, in seconds: EDK2 collects offers for up to 32 s.
pub const DHCP_TRANSACTION_SECONDS: u64 = 60;

/// The most DHCP transactions in each of the two generations that are remembered.
pub const DHCP_TRANSACTIONS_MAX: usize = 4096;

/// The most networks from which requests for a boot are remembered; the one not seen for the longest time goes first.
pub const DHCP_NETWORKS_MAX: usize = 64;

/// The most other DHCP servers that are remembered; on a wire with more, naming these is enough.
pub const DHCP_RIVALS_MAX: usize = 16;

/// How many bytes of the file name that another DHCP server offers are shown: enough to recognise it.
pub const DHCP_RIVAL_FILE_BYTES_MAX: usize = 64;

/// The most addresses of one DHCP range: a /16. Finding a free one looks at each in the worst case.
pub const DHCP_RANGE_MAX: u32 = 1 << 16;

/// The longest lease of an earlier run that is believed, in seconds: a month.
pub const DHCP_LEASE_SECONDS_MAX: u64 = 31 * 24 * 3600;

/// The most addresses that one client may have out of the pool at a time by declining them as in use.
pub const DHCP_DECLINES_MAX: usize = 3;

/// The part of the pool, one in so many, that all clients together may decline: one host may use many names.
pub const DHCP_DECLINES_PART: u32 = 4;

/// The longest DHCP request, in bytes: packets longer than one Ethernet frame are not from a client of ours.
pub const DHCP_REQUEST_BYTES_MAX: usize = 1500;

/// The most TFTP packets sent without an answer: the first and its repetitions, in a second and a half.
pub const TFTP_UNANSWERED_MAX: u32 = 6;

/// The longest packet of async-tftp, and of a machine's answer, in bytes.
pub const TFTP_PACKET_BYTES_MAX: usize = 2048;

/// The most TFTP transfers at once: all machines of a site after a power cut.
pub const TFTP_TRANSFERS_MAX: usize = 2048;

/// The most TFTP transfers to one address. A boot ROM has one; behind address translation there are more machines.
pub const TFTP_TRANSFERS_PER_ADDRESS_MAX: usize = 64;

/// The most digits of a number in a TFTP option.
pub const TFTP_OPTION_DIGITS_MAX: usize = 20;

/// How many bytes of a TFTP request's file name are shown in the log: a meaningless one would fill lines.
pub const TFTP_SHOWN_MAX: usize = 100;

/// The longest TFTP block, in bytes. Longer ones are sent in IP fragments, which boot ROMs cannot put together. iPXE
/// asks for 1,432 at most; 1,428 also passes common tunnels.
pub const TFTP_BLOCK_BYTES_MAX: u16 = 1428;

/// The most TFTP blocks before an acknowledgement. EDK2 asks for 4. Sixteen hide a lost packet's wait without bursts
/// that fill a switch's buffers.
pub const TFTP_WINDOW_MAX: u16 = 16;

/// The longest TFTP request, in bytes: async-tftp takes no more either.
pub const TFTP_REQUEST_BYTES_MAX: usize = 4096;

/// The longest that the server holds a relay's request for news. NAT keeps an idle TCP connection for hours (RFC 5382
/// section 5), cheap routers and proxies for a minute.
pub const RELAY_HOLD: Duration = Duration::from_secs(50);

/// The longest request of a relay, in bytes: 250 bytes for each of its images, and some for itself.
pub const RELAY_REQUEST_BYTES_MAX: usize = SMALL_BODY_BYTES;

/// The longest answer to a relay, in bytes: 250 bytes for each machine of its site, and the keys of its swarms.
pub const RELAY_ANSWER_BYTES_MAX: usize = 4 << 20;

/// The most images that a relay may name in a request.
pub const RELAY_IMAGES_MAX: usize = 128;

/// The most images that are being sent in pieces at once: each may take as much of the disk as it has bytes.
pub const UPLOADS_MAX: usize = 8;

/// How long what came of such an image is kept after its last piece: a night, and the next morning.
pub const UPLOAD_AGE: Duration = Duration::from_secs(24 * 3600);

/// The most bytes of such an image: as many as an image may have.
pub const UPLOAD_BYTES_MAX: u64 = CHUNKS_MAX as u64 * CHUNK_BYTES as u64;

/// Bytes of the disk that such images leave free, for the log and for what else the server writes.
pub const UPLOAD_SPACE_LEFT: u64 = 256 << 20;

/// How long a piece may bring nothing before its line is taken for dead.
pub const UPLOAD_SILENCE: Duration = Duration::from_secs(120);

const _: () = assert!(REPORT_BYTES_MAX + EVENTS_BYTES_MAX <= BODIES_BYTES_PER_ADDRESS);
const _: () = assert!(BODIES_BYTES_PER_ADDRESS + BODIES_BYTES_RESERVED < BODIES_BYTES_MAX);
const _: () = assert!(LONG_ERRANDS_MAX + SOCKET_STREAMS_MAX < ADMINS_MAX);
const _: () = assert!(EVENT_STREAMS_MAX < API_CONNECTIONS_MAX);
const _: () = assert!(WIRE_CHUNK_BYTES_MAX <= CHUNK_BYTES);
const _: () = assert!((CHUNKS_MAX as usize).div_ceil(8) < CONTROL_MESSAGE_BYTES_MAX);
// In base64, four characters for each 24 chunks.
const _: () =
    assert!((CHUNKS_MAX as usize + DELTA_IMAGE_CHUNKS_MAX as usize) / 6 < CONTROL_MESSAGE_BYTES_MAX);
const _: () = assert!(2 * (USER_DATA_BYTES_MAX + HOOKS_BYTES_MAX) < CONTROL_MESSAGE_BYTES_MAX);

/// `text`, cut at a character boundary to at most `max` bytes.
#[must_use]
pub fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}
