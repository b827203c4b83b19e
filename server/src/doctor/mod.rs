//! What is wrong on this host and its network before machines meet it, and what to do about it. Works without a running
//! server and beside one, and changes nothing. Touches what `gather` reads.

// Core: what was found out.
mod facts;

// Core: what the facts mean.
mod judge;

// Core: what those who answer machines would do to them.
mod answers;

// Core: whether a firewall lets a packet in.
mod firewall;

// Core: the kernel's lists of sockets.
mod sockets;

// Finds the facts out.
mod gather;

pub use facts::{Facts, Finding, Severity};
pub use gather::{Wanted, gather};
pub use judge::{from_afar, judge};
