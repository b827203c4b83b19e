//! Step 1, `power-on`: DHCP, with which machines ask for a network boot. Either the network's own DHCP server, on a
//! configured range, or a proxyDHCP server beside another one that gives the addresses. Touches UDP, packet and raw
//! sockets.

// Core: parses a packet into a checked request; no other file trusts or checks packets.
pub mod request;

// Core: the options of a packet.
mod options;

// Core: a clock for leases that never jumps.
mod clock;

// Core: recognises a REQUEST whose DISCOVER asked for a network boot.
mod transaction;

// Core: the server's address in its network, and address ranges.
pub mod place;

// Core: the address pool, in full-DHCP mode only.
pub mod lease;

// Where leases are kept across a restart.
mod lease_store;

// Core: decides what a request is answered, from it and the machine's boot policy.
pub mod decide;

// Core: encodes an answer, and where and how it is sent.
pub mod reply;

// Core: the networks whose machines are served.
mod networks;

// Network interfaces, UDP sockets, and raw frames for clients that have no address yet.
pub mod wire;

// ARP probes, for addresses that are in use already.
mod arp;

// Packets that wait for an ARP probe.
mod checks;

// Core: what another server offers.
mod offer;

// Other DHCP servers on the network.
mod rivals;

// Asks who answers, for `doctor`.
mod probe;

// Handles one packet at a time.
mod server;

// Configuration, and everything that can fail before serving begins.
mod bind;

// Ports 67 and 4011: receive, decide, send.
pub mod socket;

// Packets as firmware sends them.
#[cfg(test)]
mod testing;

// The server in a network namespace, over a virtual cable.
#[cfg(test)]
mod wire_tests;

// Every kind of firmware from its first packet to the script.
#[cfg(test)]
mod tests;

// Packets that were captured from real firmware.
#[cfg(test)]
mod captured_tests;

pub use bind::{Bound, Config, DhcpError, bind};
pub use decide::{Mode, Network, ServerProfile};
pub use lease::{Lease, LeaseState};
pub use lease_store::LeaseStore;
pub use place::{Place, Range};
pub use probe::{Answer, Asked, probe};
pub use rivals::Rival;
pub use wire::{Drift, Interface, drift, interface_address};
