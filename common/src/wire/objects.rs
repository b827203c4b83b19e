//! Core: small files by hash (kernel, loader, bundle, manifest) that machines of a site take from each other: their
//! names, and how a machine tells the server that a neighbour failed it. Owns the path and the query. Touches `id`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::Hash;

/// Small files, each under its BLAKE3: on the server, and on agents that hold some. GET and HEAD, with ranges.
pub const OBJECT: &str = "/v1/object";

/// The TCP port at which a machine whose first process is our agent gives out what it holds. Nothing else runs there.
pub const OBJECTS_PORT: u16 = 8069;

/// The parameter that names the neighbour that failed, in a request to the server for the same file.
pub const PEER_QUERY: &str = "peer";

/// The parameter with a [`PeerFault`], beside [`PEER_QUERY`].
pub const FAULT_QUERY: &str = "fault";

/// A small file by its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Object {
    /// The BLAKE3 of its bytes.
    pub hash: Hash,
    /// How many bytes it has.
    pub bytes: u64,
}

/// How a neighbour failed the machine that was sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerFault {
    /// It does not answer, answers that it has no such file, or stopped sending.
    Slow,
    /// Its bytes have another hash.
    Wrong,
}

impl PeerFault {
    /// The word of the query.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Wrong => "wrong",
        }
    }

    /// The fault of this word; `None` for any other text.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Slow, Self::Wrong].into_iter().find(|fault| fault.word() == word)
    }
}

/// The path of an object, with what went wrong at a neighbour before, if anything.
#[must_use]
pub fn object_path(hash: Hash, failed: Option<(SocketAddr, PeerFault)>) -> String {
    match failed {
        None => format!("{OBJECT}/{hash}"),
        Some((peer, fault)) => {
            format!("{OBJECT}/{hash}?{PEER_QUERY}={peer}&{FAULT_QUERY}={}", fault.word())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_as_it_is_written() {
        for fault in [PeerFault::Slow, PeerFault::Wrong] {
            assert_eq!(PeerFault::of_word(fault.word()), Some(fault));
        }
        assert_eq!(PeerFault::of_word("late"), None);
        let path = object_path(Hash([7; 32]), Some(("10.0.0.9:8069".parse().unwrap(), PeerFault::Wrong)));
        assert!(path.ends_with("07?peer=10.0.0.9:8069&fault=wrong"), "{path}");
    }
}
