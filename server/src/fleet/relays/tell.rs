//! Core, part of the fleet: what relays are told: their sites' machines, images and wakes. Published like the boot
//! policies whenever it changes, so that held requests are answered and passed-on ones are checked without asking the
//! fleet. Touches `common` and the other cores of the fleet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use common::id::ImageId;
use common::trust::PublicKey;
use common::wire::relay::{SiteImage, SiteMachine, SiteMachines, SitePolicy, SiteWork, Stage, Wake};
use jiff::Timestamp;

use super::super::boot_policy::BootPolicy;
use super::super::decide::Fleet;
use super::super::job::Job;
use super::super::machine::Machine;
use super::super::presence::{Presence, is_away};
use crate::api::shapes::JobState;
use crate::tailor::PciId;
use crate::traffic::Sites;

/// All relays with what each is told. Compared with the one before, so that what is the same wakes nobody.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RelayTable {
    relays: BTreeMap<PublicKey, RelayView>,
    sites: Sites,
}

/// One relay, as HTTP sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct RelayView {
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: String,
    /// Whether it was revoked.
    pub is_revoked: bool,
    /// The number of its last request: an earlier one is answered at once.
    pub turn: u64,
    /// The address that its last request came from; `None` while it is away.
    pub from: Option<IpAddr>,
    /// How the site's machines are answered.
    pub machines: Arc<SiteMachines>,
    /// What it is to do.
    pub work: Arc<SiteWork>,
    /// The NICs that the site's machines boot from, whose small loaders it is told of.
    pub nics: Arc<Vec<PciId>>,
}

/// What all relays of one site are told.
type Told = (Arc<SiteMachines>, Arc<SiteWork>, Arc<Vec<PciId>>);

impl RelayTable {
    /// The relay with this key, revoked or not.
    #[must_use]
    pub fn of(&self, key: &PublicKey) -> Option<&RelayView> {
        self.relays.get(key)
    }

    /// Whether a machine at `address` is at the site of `relay`.
    #[must_use]
    pub fn is_at(&self, relay: &RelayView, address: IpAddr) -> bool {
        address.to_canonical().is_ipv4() && self.sites.of(address) == relay.site
    }

    /// Whether a relay that is not revoked was last heard of from `address`.
    #[must_use]
    pub fn is_relays(&self, address: IpAddr) -> bool {
        self.relays.values().any(|relay| relay.from == Some(address))
    }
}

impl Fleet {
    /// The table of all relays, as it is at `now`.
    #[must_use]
    pub fn relay_table(&self, now: Timestamp) -> RelayTable {
        let mut relays = BTreeMap::new();
        let mut made: BTreeMap<&str, Told> = BTreeMap::new();
        for relay in self.state.relays.values() {
            let Some((key, _)) = relay.enrolled else { continue };
            let is_revoked = relay.revoked.is_some();
            // A key that was revoked and invited again is on record twice.
            if is_revoked && self.state.relay_by_key(&key).is_some_and(|newest| newest.revoked.is_none()) {
                continue;
            }
            let (machines, work, nics) = if is_revoked {
                Told::default()
            } else {
                let site = relay.site.as_str();
                let told = || {
                    let (machines, work) = (self.machines_of(site), self.work_of(site, now));
                    (Arc::new(machines), Arc::new(work), Arc::new(self.nics_of(site)))
                };
                made.entry(site).or_insert_with(told).clone()
            };
            let presence = self.relays.here.get(&key).filter(|presence| !is_away(presence, now));
            let view = RelayView {
                name: relay.name.clone(),
                site: relay.site.clone(),
                is_revoked,
                turn: presence.map_or(0, |presence| presence.turn),
                from: presence.map(|presence| presence.from),
                machines,
                work,
                nics,
            };
            relays.insert(key, view);
        }
        // Nobody is passed on by a relay where there is none.
        let sites = if relays.is_empty() { Sites::default() } else { self.settings.sites.clone() };
        RelayTable { relays, sites }
    }

    fn machines_of(&self, site: &str) -> SiteMachines {
        let is_frozen = self.state.frozen.is_some();
        let at_site = self.state.machines.values().filter(|machine| machine.site == site);
        let told = at_site.filter_map(|machine| {
            let job = self.state.newest_job(machine.id);
            let policy = machine.policy(job, self.settings.discover, is_frozen);
            Some(site_machine(machine, site_policy(policy, job)?))
        });
        SiteMachines { machines: told.collect() }
    }

    fn work_of(&self, site: &str, now: Timestamp) -> SiteWork {
        let mut images: BTreeMap<ImageId, SiteImage> = BTreeMap::new();
        for order in self.state.stages.values().filter(|order| order.site == site) {
            let limit = order.limit.map(|rate| (u64::from(rate) / 8).max(1));
            let stage = Some(Stage { number: order.number, due: order.is_due(now), limit });
            let (image, name) = (order.image, order.image_name.clone());
            images.insert(image, SiteImage { image, name, bytes: order.wire_bytes, stage, keys: vec![] });
        }
        for job in self.running_at(site) {
            let Some(order) = self.state.deployments.get(&job.deployment) else { continue };
            let told = images.entry(order.image).or_insert_with(|| SiteImage {
                image: order.image,
                name: order.image_name.clone(),
                bytes: order.wire_bytes,
                stage: None,
                keys: vec![],
            });
            told.keys.extend(job.key);
            // Its machines take it now: to wait, or to leave them a part of the line, would only delay them.
            if let Some(stage) = &mut told.stage {
                (stage.due, stage.limit) = (true, None);
            }
        }
        for (image, key) in self.keys_of_relays(site, now) {
            if let Some(told) = images.get_mut(&image) {
                told.keys.push(key);
            }
        }
        for told in images.values_mut() {
            told.keys.sort_unstable();
            told.keys.dedup();
        }
        SiteWork {
            images: images.into_values().collect(),
            seeds: self.settings.seeds.clone(),
            wake: self.wakes_of(site, now),
        }
    }

    fn running_at<'a>(&'a self, site: &'a str) -> impl Iterator<Item = &'a Job> {
        let running = self.state.jobs.values().filter(|job| job.state == JobState::Running);
        running.filter(move |job| {
            self.state.machines.get(&job.machine).is_some_and(|machine| machine.site == site)
        })
    }

    /// The images that relays of `site` are in the swarms of: those that they fetch or serve by now.
    pub(super) fn swarms_of(&self, site: &str, now: Timestamp) -> BTreeSet<ImageId> {
        let staged = self.state.stages.values().filter(|order| order.site == site && order.is_due(now));
        let running = self.running_at(site).filter_map(|job| self.state.deployments.get(&job.deployment));
        staged.map(|order| order.image).chain(running.map(|order| order.image)).collect()
    }

    /// The keys of the site's relays in swarms: relays of one site fetch from each other.
    fn keys_of_relays(&self, site: &str, now: Timestamp) -> Vec<(ImageId, PublicKey)> {
        let here = |key: &PublicKey| self.relays.here.get(key).filter(|presence| !is_away(presence, now));
        let relays = self.state.relays.values().filter(|relay| relay.site == site);
        let present = relays.filter_map(|relay| here(&relay.key()?));
        present
            .flat_map(|presence: &Presence| presence.admitted.iter().map(|(image, key)| (*image, *key)))
            .collect()
    }

    fn wakes_of(&self, site: &str, now: Timestamp) -> Vec<Wake> {
        let orders = self.relays.wakes.iter().filter(|order| order.site == site && order.is_fresh(now));
        orders.map(|order| order.wake).collect()
    }
}

/// `None` for a machine that is treated as one that is not on record.
fn site_policy(policy: BootPolicy, job: Option<&Job>) -> Option<SitePolicy> {
    Some(match policy {
        BootPolicy::Unknown => return None,
        BootPolicy::Ignore => SitePolicy::Ignore,
        BootPolicy::BootDisk => SitePolicy::BootDisk,
        BootPolicy::Load if job.is_some_and(Job::is_open) => SitePolicy::Job,
        BootPolicy::Load => SitePolicy::Load,
    })
}

fn site_machine(machine: &Machine, policy: SitePolicy) -> SiteMachine {
    let known = machine.known_by();
    SiteMachine {
        machine: known.machine,
        uuids: known.uuids,
        serial: known.serial,
        own: known.own,
        weak: known.weak,
        policy,
    }
}
