//! Core: relays and staged images as they are on record. Touches `api`, `common` and the swarm's rates.

use common::id::ImageId;
use common::trust::PublicKey;
use jiff::Timestamp;

use crate::traffic::Rate;

/// A relay, from its invitation on. Kept when it is revoked, so that it can be told so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// The number that the server gave it; never given again.
    pub number: u64,
    /// Its name: no two that are not revoked have the same.
    pub name: String,
    /// The site whose machines it serves.
    pub site: String,
    /// The public half of its invitation's key: nothing that is kept here lets anybody in.
    pub invitation: PublicKey,
    /// When it was invited.
    pub invited: Timestamp,
    /// Until when it may be enrolled.
    pub expires: Timestamp,
    /// Its own key, and when it was enrolled; `None` before.
    pub enrolled: Option<(PublicKey, Timestamp)>,
    /// When it was revoked; `None` if it was not.
    pub revoked: Option<Timestamp>,
    /// The version that it last said.
    pub version: Option<String>,
    /// When it last came or was last missed: not each request is recorded.
    pub last_seen: Option<Timestamp>,
}

impl Relay {
    /// Its own key, while it is enrolled and not revoked.
    #[must_use]
    pub fn key(&self) -> Option<PublicKey> {
        self.enrolled.map(|(key, _)| key).filter(|_| self.revoked.is_none())
    }
}

/// An order to stage an image at a site. A site has at most one of each image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageOrder {
    /// The number that the server gave it; never given again.
    pub number: u64,
    /// The image.
    pub image: ImageId,
    /// The image's name when it was ordered.
    pub image_name: String,
    /// Bytes of its chunks as they are sent.
    pub wire_bytes: u64,
    /// The site, whose relays fetch it.
    pub site: String,
    /// When they begin; `None` for at once.
    pub not_before: Option<Timestamp>,
    /// How much of the line they take; `None` for all that its limit leaves.
    pub limit: Option<Rate>,
    /// When it was ordered or last changed.
    pub ordered: Timestamp,
}

impl StageOrder {
    /// Whether the relays begin by now.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.not_before.is_none_or(|at| now >= at)
    }
}
