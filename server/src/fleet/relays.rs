//! Core, part of the fleet: relays: who was invited, enrolled and revoked, and what is known of those that are there.
//! What they say is taken in `hear`, what they are told is made in `tell`, what is staged at their sites in `stage`, and
//! which machines they wake in `wake`. Touches `api`, `common` and the other cores of the fleet.

// What a relay says of itself.
mod hear;

// The NICs that a site's machines boot from.
mod nics;

// What a relay is told of its site.
mod tell;

// Images that relays fetch ahead.
mod stage;

// Machines that are woken with magic packets.
mod wake;

use common::id::ImageId;
use common::step::{Step, What};
use common::trust::PublicKey;
use common::wire::http::Refused;
use common::wire::relay::{Enrol, RELAY_WIRE, RelayImage};
use ipnet::Ipv4Net;
use jiff::{SignedDuration, Timestamp};

use super::decide::{Fleet, Whose};
use super::order::refused;
use super::presence::{Presence, is_away, words};
use super::relay::Relay;
use super::state::Change;
use crate::api::shapes::{RelayHolds, RelayInvite, RelayShown, RelayState};

pub use hear::Heard;
pub use tell::{RelayTable, RelayView};
pub use wake::LanWake;

/// For how long an invitation can be used when the admin does not say.
const INVITED: SignedDuration = SignedDuration::from_hours(24);

/// The longest that an invitation can be used: its word lies in a chat or a mail for so long.
const INVITED_MAX: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The most relays on record, revoked ones too: each is a branch, and an admin invites each by hand.
const RELAYS_MAX: usize = 1000;

/// The longest name of a relay, in bytes.
const NAME_MAX: usize = 64;

/// Why a relay is not enrolled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotEnrolled {
    /// Its messages are of another version.
    #[error(
        "the relay is version {version} and speaks relay protocol {wire}, this server speaks {RELAY_WIRE}"
    )]
    Wire {
        /// The relay's version.
        version: String,
        /// Its version of the messages.
        wire: u32,
    },
    /// No such invitation was given out, or it is of another server.
    #[error("this server gave out no such invitation")]
    Unknown,
    /// The word was used by another relay.
    #[error("this invitation was used before: a word lets in one relay, once")]
    Used,
    /// Nobody used the word in time.
    #[error("this invitation expired at {0:.0}")]
    Expired(Timestamp),
    /// An admin took it back.
    #[error("this relay was revoked, or its invitation withdrawn")]
    Revoked,
    /// The relay is enrolled under another name.
    #[error("this relay is enrolled already, as {0}")]
    Twice(String),
}

impl Fleet {
    /// Records an invitation; `invitation` is the public half of its key.
    ///
    /// # Errors
    /// When there is no such site, or the name or the time is not allowed.
    pub fn invite_relay(
        &mut self,
        order: &RelayInvite,
        invitation: PublicKey,
        now: Timestamp,
    ) -> Result<Relay, Refused> {
        self.check_site(&order.site)?;
        if self.state.relays.len() >= RELAYS_MAX {
            return Err(refused(format!("there are {RELAYS_MAX} relays on record"), "that is the most"));
        }
        let name = match &order.name {
            Some(name) => self.checked_name(name)?,
            None => self.free_name(&order.site),
        };
        let seconds = order.expires_seconds.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
        let lasts = seconds.map_or(INVITED, SignedDuration::from_secs);
        if lasts < SignedDuration::from_mins(1) || lasts > INVITED_MAX {
            return Err(refused(
                "an invitation that can be used for less than a minute or more than 30 days",
                "leave --expires out for a day",
            ));
        }
        let expires = now.checked_add(lasts).unwrap_or(now);
        let relay = Relay {
            number: self.state.relays.last_key_value().map_or(0, |(number, _)| *number) + 1,
            name,
            site: order.site.clone(),
            invitation,
            invited: now,
            expires,
            enrolled: None,
            revoked: None,
            version: None,
            last_seen: None,
        };
        let text = format!("{}: invited to {} until {expires:.0}", self.caller_name(), relay.site);
        self.log(now, Whose::Relay(&relay.name), Step::Decide, What::Note { text });
        self.put(Change::Relay(Box::new(relay.clone())));
        Ok(relay)
    }

    /// A relay is at a site whose machines are known by their addresses: a named one, or a network of 256 addresses.
    fn check_site(&self, site: &str) -> Result<(), Refused> {
        let is_named = self.settings.sites.rules().iter().any(|rule| rule.site == site);
        let is_network = site
            .parse::<Ipv4Net>()
            .is_ok_and(|net| net.prefix_len() == 24 && self.settings.sites.of(net.addr().into()) == site);
        if is_named || is_network {
            return Ok(());
        }
        let named: std::collections::BTreeSet<&str> =
            self.settings.sites.rules().iter().map(|rule| rule.site.as_str()).collect();
        let named: Vec<&str> = named.into_iter().take(20).collect();
        let cause = match named.as_slice() {
            [] => "the configuration names no site".to_owned(),
            names => format!("the configuration names {}", names.join(", ")),
        };
        let mut refusal = refused(
            format!("there is no site `{}` with subnets of its own", common::limits::cut(site, 80)),
            "a `[[site]]` in the configuration file has a name and subnets; a network such as 10.1.2.0/24 is a site too",
        );
        refusal.cause = Some(cause);
        Err(refusal)
    }

    fn checked_name(&self, name: &str) -> Result<String, Refused> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(fits) {
            let error = format!("`{}` cannot be a relay's name", common::limits::cut(name, 80));
            return Err(refused(error, "letters, digits, dots and dashes"));
        }
        if self.state.relay_named(name).is_some() {
            return Err(refused(format!("another relay is called `{name}`"), "names are unique"));
        }
        Ok(name.to_owned())
    }

    fn free_name(&self, site: &str) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_') { c } else { '-' };
        let stem: String = site.chars().map(plain).take(NAME_MAX - 8).collect();
        let mut numbers = 1_u32..;
        let mut name = || numbers.next().map(|number| format!("{stem}-{number}"));
        std::iter::from_fn(&mut name).find(|name| self.state.relay_named(name).is_none()).unwrap_or(stem)
    }

    /// Enrols a relay; the signature by its own key has been checked. Returns its name and site. The same relay may ask
    /// again: the answer may have been lost.
    ///
    /// # Errors
    /// When its word lets it in no more, or never did.
    pub fn enrol_relay(
        &mut self,
        enrol: &Enrol,
        server: &PublicKey,
        now: Timestamp,
    ) -> Result<(String, String), NotEnrolled> {
        if enrol.wire != RELAY_WIRE {
            let version = common::text::harmless(common::limits::cut(&enrol.version, 40));
            return Err(NotEnrolled::Wire { version, wire: enrol.wire });
        }
        let introduced = enrol.introduction.open(&enrol.invitation).map_err(|_| NotEnrolled::Unknown)?;
        if introduced.server != *server || introduced.relay != enrol.relay {
            return Err(NotEnrolled::Unknown);
        }
        let invited = self.state.relays.values().find(|relay| relay.invitation == enrol.invitation);
        let mut relay = invited.cloned().ok_or(NotEnrolled::Unknown)?;
        let refused = match relay.enrolled {
            _ if relay.revoked.is_some() => Some(NotEnrolled::Revoked),
            Some((key, _)) if key == enrol.relay => return Ok((relay.name, relay.site)),
            Some(_) => Some(NotEnrolled::Used),
            None if now > relay.expires => Some(NotEnrolled::Expired(relay.expires)),
            None => None,
        };
        let twice = self.state.relay_by_key(&enrol.relay).filter(|other| other.revoked.is_none());
        let refused = refused.or_else(|| twice.map(|other| NotEnrolled::Twice(other.name.clone())));
        if let Some(refused) = refused {
            let text = format!("a relay with the key {} was not enrolled: {refused}", enrol.relay.short());
            self.log_once(now, Whose::Relay(&relay.name), Step::Decide, What::Note { text });
            return Err(refused);
        }
        relay.enrolled = Some((enrol.relay, now));
        relay.version = Some(common::text::harmless(common::limits::cut(&enrol.version, 40)));
        let text = format!("enrolled, with the key {}", enrol.relay.short());
        self.log(now, Whose::Relay(&relay.name), Step::Decide, What::Note { text });
        let named = (relay.name.clone(), relay.site.clone());
        self.put(Change::Relay(Box::new(relay)));
        Ok(named)
    }

    /// Revokes the relay of this name, or withdraws its invitation; returns what then is on record.
    ///
    /// # Errors
    /// When there is no such relay.
    pub fn revoke_relay(&mut self, name: &str, now: Timestamp) -> Result<RelayShown, Refused> {
        let Some(mut relay) = self.state.relay_named(name).cloned() else {
            let error = format!("there is no relay `{}`", common::limits::cut(name, 80));
            return Err(refused(error, "`swarmboot relay list` shows them"));
        };
        relay.revoked = Some(now);
        let text = if relay.enrolled.is_some() { "revoked" } else { "its invitation was withdrawn" };
        let what = What::Note { text: format!("{}: {text}", self.caller_name()) };
        self.log(now, Whose::Relay(&relay.name), Step::Decide, what);
        let gone = relay.enrolled.and_then(|(key, _)| self.relays.here.remove(&key));
        let reason = "the relay was revoked".to_owned();
        let keys = gone.into_iter().flat_map(|presence| presence.admitted.into_values());
        self.after.dismissed.extend(keys.map(|key| (key, Some(reason.clone()))));
        self.put(Change::Relay(Box::new(relay.clone())));
        Ok(self.show_relay(&relay, now))
    }

    /// All relays on record, by name, the revoked ones last.
    #[must_use]
    pub fn relays_shown(&self, now: Timestamp) -> Vec<RelayShown> {
        let mut relays: Vec<&Relay> = self.state.relays.values().collect();
        relays.sort_by_key(|relay| (relay.revoked.is_some(), relay.name.clone(), relay.number));
        relays.into_iter().map(|relay| self.show_relay(relay, now)).collect()
    }

    fn show_relay(&self, relay: &Relay, now: Timestamp) -> RelayShown {
        let presence = relay.key().and_then(|key| self.relays.here.get(&key));
        let here = presence.filter(|presence| !is_away(presence, now));
        let state = match relay.enrolled {
            _ if relay.revoked.is_some() => RelayState::Revoked,
            Some(_) if here.is_some() => RelayState::Here,
            Some(_) => RelayState::Away,
            None if now > relay.expires => RelayState::Expired,
            None => RelayState::Invited,
        };
        let images = here.map(|here| here.images.iter().map(|image| self.held(image)).collect());
        let beside = here.map(|_| self.beside(relay, now)).unwrap_or_default();
        RelayShown {
            name: relay.name.clone(),
            site: relay.site.clone(),
            state,
            invited: relay.invited,
            enrolled: relay.enrolled.map(|(_, at)| at),
            last_seen: presence.map(|presence| presence.last).or(relay.last_seen),
            version: relay.version.clone(),
            http: here.map(|here| here.http),
            free_bytes: here.and_then(|here| here.free),
            images: images.unwrap_or_default(),
            warnings: here.map(warnings).into_iter().flatten().chain(beside).collect(),
        }
    }

    /// The other relays of the same site that are there: no fault, but an admin who has moved a relay to another host may
    /// have forgotten the first. Both answer the site's DHCP, and each takes its own copy of everything over the line.
    fn beside(&self, relay: &Relay, now: Timestamp) -> Option<String> {
        let here = |other: &Relay| {
            let presence = other.key().and_then(|key| self.relays.here.get(&key));
            presence.is_some_and(|presence| !is_away(presence, now))
        };
        let others = self.state.relays.values().filter(|other| other.number != relay.number);
        let others = others.filter(|other| other.site == relay.site && here(other));
        let names: Vec<&str> = others.map(|other| other.name.as_str()).collect();
        (!names.is_empty()).then(|| {
            format!(
                "{} is at {} too: each answers the machines there and takes boot files over the line for itself",
                names.join(" and "),
                relay.site
            )
        })
    }

    fn held(&self, image: &RelayImage) -> RelayHolds {
        RelayHolds {
            image: image.image,
            name: self.image_name(image.image).unwrap_or_else(|| image.image.0.short()),
            held: image.held,
            total: image.total,
            trouble: image.trouble.as_ref().map(words),
        }
    }

    /// The name of an image, as an order for it has it.
    fn image_name(&self, image: ImageId) -> Option<String> {
        let staged = self.state.stages.values().find(|order| order.image == image);
        let ordered = || self.state.deployments.values().rfind(|order| order.image == image);
        staged
            .map(|order| order.image_name.clone())
            .or_else(|| ordered().map(|order| order.image_name.clone()))
    }

    /// Logs once that a relay is not heard of any more.
    pub(super) fn miss_relays(&mut self, now: Timestamp) {
        let away: Vec<PublicKey> = self
            .relays
            .here
            .iter()
            .filter(|(_, presence)| !presence.is_away && is_away(presence, now))
            .map(|(key, _)| *key)
            .collect();
        for key in away {
            let Some(presence) = self.relays.here.get_mut(&key) else { continue };
            presence.is_away = true;
            let last = presence.last;
            let Some(mut relay) = self.state.relay_by_key(&key).cloned() else { continue };
            let text = format!(
                "not heard of since {last:.0}: the machines of {} are served by the server itself, as far as they \
                 reach it",
                relay.site
            );
            self.log(now, Whose::Relay(&relay.name), Step::Decide, What::Note { text });
            relay.last_seen = Some(last);
            self.put(Change::Relay(Box::new(relay)));
        }
    }
}

fn warnings(presence: &Presence) -> Vec<String> {
    let wire = presence.other_wire.map(|wire| {
        format!("it speaks relay protocol {wire} and this server {RELAY_WIRE}: give it the server's version")
    });
    let clock = presence.is_clock_wrong.then(|| "its clock is wrong".to_owned());
    wire.into_iter().chain(clock).collect()
}

#[cfg(test)]
mod tests;
