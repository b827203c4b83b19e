//! Step 1, `power-on`: who asks to network-boot, and what they deserve. Either the network's DHCP server on a
//! configured range, or a proxyDHCP server beside one that is not ours.

// Core: bytes to a request; all suspicion of packets lives here.
pub mod request;

// Core: the options of a packet.
mod options;

// Core: seconds that only go on.
mod clock;

// Core: what began as a network boot stays one.
mod transaction;

// Core: where the server stands in its network.
pub mod place;

// Core: the address pool, in full-DHCP mode only.
pub mod lease;

// Where leases are kept across a restart.
mod lease_store;

// Core: request and the machine's standing to a decision.
pub mod decide;

// Core: a decision to bytes, and where and how to send them.
pub mod reply;

// Core: the networks whose machines are served.
mod networks;

// Interfaces and their addresses, and the raw frames for clients that have no address yet.
pub mod wire;

// Who has an address already.
mod arp;

// Packets that wait until the wire has said who has an address.
mod checks;

// Other servers on the wire.
mod rivals;

// One packet at a time.
mod server;

// What to serve; everything that can fail before it is served.
mod bind;

// Ports 67 and 4011: receive, decide, send.
pub mod socket;

// Packets as firmware sends them.
#[cfg(test)]
mod testing;

// The server on a wire of its own, in a network namespace.
#[cfg(test)]
mod wire_tests;

// The whole way of each kind of firmware, from its first packet to the script.
#[cfg(test)]
mod tests;

// What real firmware sent.
#[cfg(test)]
mod captured_tests;

pub use bind::{Bound, Config, DhcpError, bind};
pub use decide::{Mode, Network, ServerProfile};
pub use lease::{Lease, LeaseState};
pub use lease_store::LeaseStore;
pub use place::{Place, Range};
pub use rivals::Rival;
pub use wire::{Drift, Interface, drift, interface_address};
