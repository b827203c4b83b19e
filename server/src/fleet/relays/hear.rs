//! Core, part of the fleet: what a relay says of itself: it comes, its version and clock, what it has of images. Each
//! change is logged once. Touches `api`, `common` and the other cores of the fleet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use common::id::ImageId;
use common::limits::{RELAY_IMAGES_MAX, cut};
use common::step::{Step, What};
use common::text::{bytes, harmless};
use common::trust::PublicKey;
use common::wire::relay::{RELAY_WIRE, RelayImage, StateRequest, Trouble};
use jiff::{SignedDuration, Timestamp};

use super::super::decide::{Fleet, Whose};
use super::super::presence::{Presence, is_away, words};
use super::super::relay::Relay;
use super::super::state::Change;
use crate::swarm::{Admission, Part};

/// A clock that is wrong by more than this is told to the admin; nothing else depends on it.
const CLOCK: SignedDuration = SignedDuration::from_mins(5);

/// What comes of a relay's request.
#[derive(Debug)]
pub enum Heard {
    /// No relay on record has this key.
    Unknown,
    /// The relay was revoked.
    Revoked,
    /// The relay is of another version.
    Version,
    /// The nonce is not newer than that of a request before: it was sent again by somebody.
    Replayed,
    /// It is taken.
    Taken {
        /// Its number: the answer is held until a later one comes.
        turn: u64,
        /// What it is to be admitted to.
        admissions: Vec<Admission>,
    },
}

impl Fleet {
    /// Takes a relay's request from `from`, whose signature has been checked and whose nonce was given at `given`.
    pub fn hear_relay(
        &mut self,
        request: &StateRequest,
        given: Timestamp,
        from: IpAddr,
        now: Timestamp,
    ) -> Heard {
        let Some(relay) = self.state.relay_by_key(&request.relay).cloned() else { return Heard::Unknown };
        if relay.revoked.is_some() {
            return Heard::Revoked;
        }
        let before = self.relays.here.get(&request.relay).cloned();
        if before.as_ref().is_some_and(|before| given <= before.nonce) {
            let text = "a request of it was sent again by somebody: refused".to_owned();
            self.log_once(now, Whose::Relay(&relay.name), Step::Decide, What::Note { text });
            return Heard::Replayed;
        }
        let mut images = request.images.clone();
        images.truncate(RELAY_IMAGES_MAX);
        let off = now.duration_since(Timestamp::from_second(request.clock).unwrap_or(Timestamp::MIN));
        let presence = Presence {
            last: now,
            nonce: given,
            turn: before.as_ref().map_or(0, |before| before.turn) + 1,
            from,
            http: request.http,
            free: request.free,
            images,
            admitted: before.as_ref().map(|before| before.admitted.clone()).unwrap_or_default(),
            is_away: false,
            is_clock_wrong: off.abs() > CLOCK,
            other_wire: Some(request.wire).filter(|wire| *wire != RELAY_WIRE),
        };
        self.tell_of_relay(&relay, request, before.as_ref(), &presence, now);
        let turn = presence.turn;
        let is_other = presence.other_wire.is_some();
        self.relays.here.insert(request.relay, presence);
        let admissions = self.admit_relay(&request.relay, &relay, now);
        if is_other { Heard::Version } else { Heard::Taken { turn, admissions } }
    }

    /// Logs what has changed since the relay's request before.
    fn tell_of_relay(
        &mut self,
        relay: &Relay,
        request: &StateRequest,
        before: Option<&Presence>,
        presence: &Presence,
        now: Timestamp,
    ) {
        let mut notes = Vec::new();
        let version = harmless(cut(&request.version, 40));
        let comes = before.is_none_or(|before| before.is_away || is_away(before, now));
        let is_news = comes || relay.version.as_deref() != Some(&version);
        if comes {
            let free = presence.free.map(|free| format!(", {} free", bytes(free))).unwrap_or_default();
            notes.push(format!("here, at {}: version {version}{free}", presence.http));
            notes.extend(self.beside(relay, now));
        } else if is_news {
            let had = relay.version.as_deref().unwrap_or("unknown");
            notes.push(format!("version {version} now, {had} before"));
        }
        let was_other = before.and_then(|before| before.other_wire);
        if let Some(wire) = presence.other_wire.filter(|wire| was_other != Some(*wire)) {
            notes.push(format!(
                "speaks relay protocol {wire} and this server {RELAY_WIRE}: it is told nothing of its site until it has \
                 the server's version; the site's machines are served by the server itself"
            ));
        }
        if presence.is_clock_wrong && before.is_none_or(|before| !before.is_clock_wrong) {
            notes.push("its clock is wrong by more than five minutes: times in its own log are".to_owned());
        }
        let earlier: BTreeMap<ImageId, &RelayImage> =
            before.iter().flat_map(|before| &before.images).map(|image| (image.image, image)).collect();
        for image in &presence.images {
            let known = earlier.get(&image.image).copied();
            notes.extend(self.progress(image, known, before.is_none()));
        }
        for text in notes {
            self.log(now, Whose::Relay(&relay.name), Step::Decide, What::Note { text });
        }
        if is_news {
            let relay = Relay { version: Some(version), last_seen: Some(now), ..relay.clone() };
            self.put(Change::Relay(Box::new(relay)));
        }
    }

    /// What is new of an image at a relay; `first` if nothing was heard of the relay before, since the server's start.
    fn progress(&self, image: &RelayImage, known: Option<&RelayImage>, first: bool) -> Vec<String> {
        let name = self.image_name(image.image).unwrap_or_else(|| image.image.0.short());
        let mut notes = Vec::new();
        let is_whole = |image: &RelayImage| image.total > 0 && image.held >= image.total;
        if known.is_none() && !first && !is_whole(image) {
            notes.push(format!("begins to fetch {name}"));
        }
        if is_whole(image) && !known.is_some_and(is_whole) && !first {
            notes.push(format!("has all of {name}"));
        }
        let trouble = known.and_then(|known| known.trouble.as_ref());
        match &image.trouble {
            Some(now) if kind(Some(now)) != kind(trouble) => notes.push(format!("{name}: {}", words(now))),
            None if trouble.is_some() => notes.push(format!("goes on with {name}")),
            _ => {}
        }
        notes
    }

    /// Brings a relay's admissions up to date: those that it is to be given are returned, the others end.
    fn admit_relay(&mut self, key: &PublicKey, relay: &Relay, now: Timestamp) -> Vec<Admission> {
        let wanted = self.swarms_of(&relay.site, now);
        let Some(presence) = self.relays.here.get(key) else { return vec![] };
        let images = presence.images.iter().filter(|_| presence.other_wire.is_none());
        let images =
            images.filter(|image| wanted.contains(&image.image) && !self.is_anothers_key(key, &image.key));
        let may: BTreeMap<ImageId, PublicKey> = images.map(|image| (image.image, image.key)).collect();
        let Some(presence) = self.relays.here.get_mut(key) else { return vec![] };
        let before = std::mem::replace(&mut presence.admitted, may.clone());
        let over = before.iter().filter(|(image, key)| may.get(image) != Some(key));
        let reason = Some("the image is not needed at the relay's site any more".to_owned());
        self.after.dismissed.extend(over.map(|(_, key)| (*key, reason.clone())));
        // All of them each time, for what was decided before may not have been committed; a second one changes nothing.
        let (name, site) = (&relay.name, &relay.site);
        let admission = |(image, key)| Admission {
            key,
            image,
            name: name.clone(),
            site: site.clone(),
            part: Part::Relay,
        };
        may.into_iter().map(admission).collect()
    }
}

impl Fleet {
    /// Logs that a request from `peer` which claims to be passed on by a relay was refused.
    pub(in crate::fleet) fn passed_on_refused(&mut self, peer: IpAddr, why: String, now: Timestamp) {
        let name = peer.to_string();
        self.log_once(now, Whose::Stranger(&name), Step::Decide, What::Note { text: why });
    }

    /// Whether a key that a relay names is a machine's or another relay's: it would take that one's place in a swarm.
    fn is_anothers_key(&self, relay: &PublicKey, named: &PublicKey) -> bool {
        let others = self.relays.here.iter().filter(|(key, _)| *key != relay);
        let mut theirs = others.flat_map(|(_, presence)| presence.admitted.values());
        self.state.by_key(named).is_some() || theirs.any(|key| key == named)
    }
}

/// The kind of a trouble: how many bytes are missing changes all the time.
fn kind(trouble: Option<&Trouble>) -> Option<&str> {
    trouble.map(|trouble| match trouble {
        Trouble::DiskFull { .. } => "",
        Trouble::Other { text } => text,
    })
}
