//! Core: the server's address and network, and ranges of addresses in it. Touches nothing.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// First and last address of a pool, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The lowest address that may be given out.
    pub start: Ipv4Addr,
    /// The highest one; `bind` refuses one below `start`.
    pub end: Ipv4Addr,
}

impl Range {
    /// Whether `address` is in it.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.start..=self.end).contains(&address)
    }
}

/// The server's address in its network, as far as the pool needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The server's own address, which is never given out.
    pub address: Ipv4Addr,
    /// The network's prefix length.
    pub prefix: u8,
}

impl Place {
    /// Whether `other` is in the same network.
    #[must_use]
    pub fn reaches(&self, other: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        (self.address.to_bits() ^ other.to_bits()) & mask == 0
    }
}
