//! Core: what is known of relays beside the records: who is there, what it last said, and what it is to wake. Learnt again
//! after a restart of the server. Touches `common`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use common::id::ImageId;
use common::limits::cut;
use common::text::{bytes, harmless};
use common::trust::PublicKey;
use common::wire::relay::{RelayImage, Trouble, Wake};
use jiff::{SignedDuration, Timestamp};

/// A relay that was not heard of for so long is away: it asks again at once after each answer, and an answer is held
/// for [`common::limits::RELAY_HOLD`] at the longest.
const AWAY: SignedDuration = SignedDuration::from_secs(90);

/// How long relays are told of a wake: one that just restarted still hears of it, and one that comes back after an hour
/// does not switch on what nobody waits for any more.
const FRESH: SignedDuration = SignedDuration::from_mins(2);

/// The relays that were heard of since the start, and what they are to do at once.
#[derive(Debug, Default)]
pub(super) struct Relays {
    /// By their keys.
    pub(super) here: BTreeMap<PublicKey, Presence>,
    /// Machines that relays are to wake.
    pub(super) wakes: Vec<WakeOrder>,
    /// The highest number of a wake.
    pub(super) last_wake: u64,
}

/// What a relay last said, and what it was let into.
#[derive(Debug, Clone)]
pub(super) struct Presence {
    /// When it was last heard of.
    pub(super) last: Timestamp,
    /// When the nonce of its last request was given: the next one must be of a later time.
    pub(super) nonce: Timestamp,
    /// Counts its requests: a later one ends the one before.
    pub(super) turn: u64,
    /// The address that its last request came from.
    pub(super) from: IpAddr,
    pub(super) http: SocketAddr,
    pub(super) free: Option<u64>,
    pub(super) images: Vec<RelayImage>,
    /// The keys under which it is in swarms.
    pub(super) admitted: BTreeMap<ImageId, PublicKey>,
    /// Whether it is away, by the log.
    pub(super) is_away: bool,
    /// Whether its clock is wrong, by the log.
    pub(super) is_clock_wrong: bool,
    /// The version of its messages, where that is not this server's.
    pub(super) other_wire: Option<u32>,
}

/// A machine that the relays of a site are to wake.
#[derive(Debug, Clone)]
pub(super) struct WakeOrder {
    pub(super) site: String,
    pub(super) wake: Wake,
    pub(super) at: Timestamp,
}

impl WakeOrder {
    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        now.duration_since(self.at) < FRESH
    }
}

/// Whether a relay has not been heard of for too long.
pub(super) fn is_away(presence: &Presence, now: Timestamp) -> bool {
    now.duration_since(presence.last) > AWAY
}

/// A trouble for people.
pub(super) fn words(trouble: &Trouble) -> String {
    match trouble {
        Trouble::DiskFull { needed } => {
            format!("no room for it: {} more are needed; it serves what it has", bytes(*needed))
        }
        Trouble::Other { text } => harmless(cut(text, 300)),
    }
}
