//! Core: the state of the fleet, and its changes. The same change is applied here and written to the records, so that
//! the two cannot differ. Touches `api`, `common` and the other cores of the fleet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use common::hardware::CheckedHardware;
use common::id::{DeploymentId, ImageId, JobId, Mac, MachineId};
use common::trust::PublicKey;

use super::answer::KeptAnswer;
use super::boot_policy::{Asker, BootPolicies, KnownBy, Shown};
use super::deployment::Deployment;
use super::job::Job;
use super::machine::Machine;
use super::marks::Fingerprint;
use super::profile::Profile;
use super::relay::{Relay, StageOrder};
use super::token::Token;
use crate::api::shapes::{Frozen, JobState, LogEvent, Silence};

/// One change of the fleet's state.
#[derive(Debug, Clone)]
pub enum Change {
    /// A machine is new or changed; its hardware is not part of this.
    Machine(Box<Machine>),
    /// A machine's last report is this.
    Hardware(MachineId, Arc<CheckedHardware>),
    /// A machine and its jobs are removed.
    Forget(MachineId),
    /// A deployment is new or changed.
    Deployment(Box<Deployment>),
    /// A job is new or changed.
    Job(Box<Job>),
    /// The fleet is frozen, or with `None` no longer.
    Frozen(Option<Frozen>),
    /// A relay is new or changed.
    Relay(Box<Relay>),
    /// An image is staged at a site, or when and how fast has changed.
    Stage(Box<StageOrder>),
    /// The order of this number to stage an image is over.
    Unstage(u64),
    /// A token is new or revoked.
    Token(Box<Token>),
    /// The revoked token of this number is forgotten.
    TokenGone(u64),
    /// A profile is new.
    Profile(Box<Profile>),
    /// The profile of this number is removed.
    ProfileGone(u64),
    /// The answer to an order, for a caller who asks again.
    Answer(Box<KeptAnswer>),
    /// An answer is not kept any more.
    AnswerGone {
        /// Who was given it.
        who: String,
        /// The caller's key for the order.
        key: String,
    },
    /// A subscriber has got every event up to this one, as far as it wants them.
    Cursor {
        /// Its name.
        of: String,
        /// The number of the event.
        after: u64,
    },
    /// An event for the log; events are only ever added.
    Event(Box<LogEvent>),
}

/// What a row of the records holds, as far as that matters when it cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKind {
    /// A freeze, which stays in force all the same.
    Freeze,
    /// Anything else: what it holds is missing from the state.
    Other,
}

/// A row of the records that cannot be read; it is left unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// What it holds.
    pub kind: RowKind,
    /// Which row it is and why it cannot be read, for the log and the warnings.
    pub words: String,
}

impl SetAside {
    /// A row that holds no freeze.
    #[must_use]
    pub fn other(words: String) -> Self {
        Self { kind: RowKind::Other, words }
    }
}

/// The state of the fleet without its events, which are only in the records.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Machines that were seen, until an admin forgets them, or newer ones that nobody let in displace them.
    pub machines: BTreeMap<MachineId, Machine>,
    /// Every deployment, ended or not.
    pub deployments: BTreeMap<DeploymentId, Deployment>,
    /// Every job, ended or not, until its machine is forgotten.
    pub jobs: BTreeMap<JobId, Job>,
    /// Set while the fleet is frozen.
    pub frozen: Option<Frozen>,
    /// Every relay, by its number, revoked or not.
    pub relays: BTreeMap<u64, Relay>,
    /// The images that are staged, by the numbers of the orders.
    pub stages: BTreeMap<u64, StageOrder>,
    /// The tokens of the API, by their numbers.
    pub tokens: BTreeMap<u64, Token>,
    /// The profiles, by their numbers.
    pub profiles: BTreeMap<u64, Profile>,
    /// Answers to orders of the last day, by who ordered and that caller's key.
    pub answers: BTreeMap<(String, String), KeptAnswer>,
    /// The event up to which each subscriber has got what it wants, by its name; also of subscribers that are not
    /// configured any more, in case they come back.
    pub cursors: BTreeMap<String, u64>,
    /// The highest number of a profile, so that none is given again.
    pub last_profile: u64,
    /// The highest number of a token, so that none is given again.
    pub last_token: u64,
    /// The highest number of an order to stage, so that none is given again.
    pub last_stage: u64,
    /// The number of the last event.
    pub last_event: u64,
    /// The highest number of a machine ever given, so that none is given again after a machine was forgotten.
    pub last_machine: u64,
    /// The highest number of a job, for the same reason.
    pub last_job: u64,
    /// The highest number of a deployment, for the same reason.
    pub last_deployment: u64,
    /// Rows of the records that could not be read.
    pub set_aside: Vec<SetAside>,
    /// Conclusions about silent machines; not recorded, but drawn again after a restart.
    pub notes: BTreeMap<MachineId, Silence>,
    newest_job: HashMap<MachineId, JobId>,
    by_deployment: HashMap<DeploymentId, BTreeSet<JobId>>,
    by_key: HashMap<PublicKey, MachineId>,
    by_mark: HashMap<Mark, BTreeSet<MachineId>>,
}

/// A key of the index from marks to machines.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Mark {
    Mac(Mac),
    Uuid(String),
    Serial(&'static str, String),
}

fn marks_of(print: &Fingerprint) -> impl Iterator<Item = Mark> {
    let macs = print.macs.iter().copied().map(Mark::Mac);
    let uuids = print.uuids.iter().cloned().map(Mark::Uuid);
    let serials = print.serials().into_iter();
    let serials = serials.filter_map(|(name, serial)| Some(Mark::Serial(name, serial?.clone())));
    macs.chain(uuids).chain(serials)
}

impl State {
    /// Applies one change to the state and its indexes.
    pub fn adopt(&mut self, change: &Change) {
        match change {
            Change::Machine(machine) => self.adopt_machine(machine),
            Change::Hardware(id, hardware) => {
                if let Some(machine) = self.machines.get_mut(id) {
                    machine.hardware = Some(Arc::clone(hardware));
                }
            }
            Change::Forget(id) => self.forget(*id),
            Change::Deployment(deployment) => {
                self.last_deployment = self.last_deployment.max(deployment.id.0);
                self.deployments.insert(deployment.id, (**deployment).clone());
            }
            Change::Job(job) => {
                self.last_job = self.last_job.max(job.id.0);
                let newest = self.newest_job.entry(job.machine).or_insert(job.id);
                *newest = (*newest).max(job.id);
                self.by_deployment.entry(job.deployment).or_default().insert(job.id);
                self.jobs.insert(job.id, (**job).clone());
            }
            Change::Frozen(frozen) => {
                self.frozen.clone_from(frozen);
                // The commit of this change overwrites the row that could not be read.
                self.set_aside.retain(|row| row.kind != RowKind::Freeze);
            }
            Change::Relay(relay) => drop(self.relays.insert(relay.number, (**relay).clone())),
            Change::Stage(order) => {
                self.last_stage = self.last_stage.max(order.number);
                self.stages.insert(order.number, (**order).clone());
            }
            Change::Unstage(number) => drop(self.stages.remove(number)),
            Change::Token(token) => {
                self.last_token = self.last_token.max(token.number);
                self.tokens.insert(token.number, (**token).clone());
            }
            Change::TokenGone(number) => drop(self.tokens.remove(number)),
            Change::Profile(profile) => {
                self.last_profile = self.last_profile.max(profile.number);
                self.profiles.insert(profile.number, (**profile).clone());
            }
            Change::ProfileGone(number) => drop(self.profiles.remove(number)),
            Change::Answer(kept) => {
                let key = (kept.of.who.clone(), kept.of.key.clone());
                self.answers.insert(key, (**kept).clone());
            }
            Change::AnswerGone { who, key } => drop(self.answers.remove(&(who.clone(), key.clone()))),
            Change::Cursor { of, after } => drop(self.cursors.insert(of.clone(), *after)),
            Change::Event(event) => self.last_event = self.last_event.max(event.id),
        }
    }

    fn adopt_machine(&mut self, machine: &Machine) {
        self.last_machine = self.last_machine.max(machine.id.0);
        let before = self.machines.get(&machine.id).map(|before| (before.fingerprint.clone(), before.boot));
        if let Some((print, boot)) = before {
            if print != machine.fingerprint {
                self.unlist(machine.id, &print);
            }
            if let Some(boot) = boot.filter(|boot| self.by_key.get(&boot.key) == Some(&machine.id)) {
                self.by_key.remove(&boot.key);
            }
        }
        for mark in marks_of(&machine.fingerprint) {
            self.by_mark.entry(mark).or_default().insert(machine.id);
        }
        if let Some(boot) = machine.boot {
            self.by_key.insert(boot.key, machine.id);
        }
        let hardware = self.machines.remove(&machine.id).and_then(|before| before.hardware);
        let mut machine = machine.clone();
        machine.hardware = hardware;
        self.machines.insert(machine.id, machine);
    }

    fn forget(&mut self, id: MachineId) {
        if let Some(machine) = self.machines.remove(&id) {
            self.unlist(id, &machine.fingerprint);
            if let Some(boot) = machine.boot.filter(|boot| self.by_key.get(&boot.key) == Some(&id)) {
                self.by_key.remove(&boot.key);
            }
        }
        self.notes.remove(&id);
        let by_deployment = &mut self.by_deployment;
        self.jobs.retain(|number, job| {
            let stays = job.machine != id;
            if let Some(jobs) = by_deployment.get_mut(&job.deployment).filter(|_| !stays) {
                jobs.remove(number);
            }
            stays
        });
        self.newest_job.remove(&id);
    }

    fn unlist(&mut self, id: MachineId, print: &Fingerprint) {
        for mark in marks_of(print) {
            if let Some(machines) = self.by_mark.get_mut(&mark) {
                machines.remove(&id);
                if machines.is_empty() {
                    self.by_mark.remove(&mark);
                }
            }
        }
    }

    /// The machines that share a mark with `print`.
    #[must_use]
    pub fn sharing(&self, print: &Fingerprint) -> BTreeSet<MachineId> {
        marks_of(print).filter_map(|mark| self.by_mark.get(&mark)).flatten().copied().collect()
    }

    /// The newest job of a machine, ended or not; `None` if it never had one.
    #[must_use]
    pub fn newest_job(&self, machine: MachineId) -> Option<&Job> {
        self.newest_job.get(&machine).and_then(|job| self.jobs.get(job))
    }

    /// The machine whose present boot has this key.
    #[must_use]
    pub fn by_key(&self, key: &PublicKey) -> Option<&Machine> {
        self.by_key.get(key).and_then(|id| self.machines.get(id))
    }

    /// The machines with this Ethernet address; a weak one may belong to several.
    pub fn with_mac(&self, mac: Mac) -> impl Iterator<Item = &Machine> {
        let ids = self.by_mark.get(&Mark::Mac(mac)).into_iter().flatten();
        ids.filter_map(|id| self.machines.get(id))
    }

    /// The machine that a request to network-boot comes from, if its marks identify one.
    #[must_use]
    pub fn asking(&self, asker: &Asker) -> Option<&Machine> {
        let shown = Shown::of(asker);
        let all = self.sharing(&shown.print()).into_iter().filter_map(|id| self.machines.get(&id));
        let known: Vec<KnownBy> = all.map(Machine::known_by).collect();
        shown.settle(known.iter()).and_then(|known_by| self.machines.get(&known_by.machine))
    }

    /// The relay of this name that is not revoked.
    #[must_use]
    pub fn relay_named(&self, name: &str) -> Option<&Relay> {
        self.relays.values().find(|relay| relay.name == name && relay.revoked.is_none())
    }

    /// The relay with this key: the one that is not revoked, else the one that was invited last.
    #[must_use]
    pub fn relay_by_key(&self, key: &PublicKey) -> Option<&Relay> {
        let with_it = self.relays.values().filter(|relay| relay.enrolled.is_some_and(|(own, _)| own == *key));
        with_it.max_by_key(|relay| (relay.revoked.is_none(), relay.number))
    }

    /// The token of this name that is not revoked.
    #[must_use]
    pub fn token_named(&self, name: &str) -> Option<&Token> {
        self.tokens.values().find(|token| token.name == name && token.revoked.is_none())
    }

    /// The profile of this name.
    #[must_use]
    pub fn profile_named(&self, name: &str) -> Option<&Profile> {
        self.profiles.values().find(|profile| profile.name == name)
    }

    /// The order to stage this image at this site.
    #[must_use]
    pub fn staged(&self, image: ImageId, site: &str) -> Option<&StageOrder> {
        self.stages.values().find(|order| order.image == image && order.site == site)
    }

    /// The jobs of a deployment, ended or not.
    pub fn jobs_of(&self, deployment: DeploymentId) -> impl Iterator<Item = &Job> {
        self.by_deployment.get(&deployment).into_iter().flatten().filter_map(|id| self.jobs.get(id))
    }

    /// The hardware of all machines whose hardware is not changed by any of `changes`.
    #[must_use]
    pub fn hardware_beside(&self, changes: &[Change]) -> HashMap<MachineId, Arc<CheckedHardware>> {
        let touched = changes.iter().filter_map(|change| match change {
            Change::Hardware(id, _) | Change::Forget(id) => Some(*id),
            _ => None,
        });
        let touched: BTreeSet<MachineId> = touched.collect();
        let untouched = self.machines.values().filter(|machine| !touched.contains(&machine.id));
        untouched.filter_map(|machine| Some((machine.id, machine.hardware.clone()?))).collect()
    }

    /// The table of boot policies for DHCP, TFTP and the boot script.
    #[must_use]
    pub fn policies(&self, discover: bool) -> BootPolicies {
        let mut table = BootPolicies::default();
        for machine in self.machines.values() {
            let job = self.newest_job(machine.id);
            let paused = job.and_then(|job| self.deployments.get(&job.deployment)?.paused).is_some();
            let policy = machine.policy(job, discover, self.frozen.is_some() || paused);
            table.insert(machine.known_by(), policy);
            if let Some(job) = job.filter(|job| job.wants_plan()) {
                table.due.order(machine.id, &machine.site, job.state == JobState::Running);
            }
            if machine.hardware.is_none() && machine.takes_jobs() {
                table.due.unseen(machine.id);
            }
            if !machine.doubts.is_empty() {
                table.doubted.push(machine.id);
            }
        }
        for order in self.deployments.values().filter(|_| self.frozen.is_none()) {
            if order.takes_strangers(self.jobs_of(order.id).count()) {
                table.due.open(order.request.selectors().site());
            }
        }
        table
    }

    /// The machines that `text` names: by id, Ethernet address, name or serial number, the first of these that fits.
    #[must_use]
    pub fn named(&self, text: &str) -> Vec<MachineId> {
        if let Some(machine) = text.parse().ok().and_then(|id| self.machines.get(&id)) {
            return vec![machine.id];
        }
        if let Ok(mac) = text.parse() {
            let all: Vec<&Machine> = self.with_mac(mac).collect();
            let owners: Vec<_> = all.iter().filter(|machine| machine.fingerprint.owns(mac)).collect();
            if !owners.is_empty() {
                return owners.iter().map(|machine| machine.id).collect();
            }
            if !all.is_empty() {
                return all.iter().map(|machine| machine.id).collect();
            }
        }
        let by = |fits: &dyn Fn(&Machine) -> bool| -> Vec<MachineId> {
            self.machines.values().filter(|machine| fits(machine)).map(|machine| machine.id).collect()
        };
        let names = by(&|machine| machine.name.as_deref() == Some(text));
        if !names.is_empty() {
            return names;
        }
        let serial = text.trim().to_lowercase();
        by(&|machine| machine.fingerprint.serials().into_iter().any(|(_, mark)| mark == Some(&serial)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    const UUIDS: [&str; 2] = ["a3b8c1d2-7f4e-4a90-9c36-5e1d0b72f8aa", "564d1bc4-9d3e-0f6a-77c1-2be9d0a48351"];

    fn machine(id: u64, macs: &[u8], uuid: &str) -> Machine {
        let fingerprint = Fingerprint {
            uuids: crate::fleet::marks::uuid(uuid).into_iter().collect(),
            macs: macs.iter().map(|last| Mac([2, 0, 0, 0, 0, *last])).collect(),
            ..Fingerprint::default()
        };
        Machine::new(MachineId(id), fingerprint, "lab".to_owned(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn no_machine_takes_an_address_from_another() {
        let mut state = State::default();
        state.adopt(&Change::Machine(Box::new(machine(1, &[1, 2], UUIDS[0]))));
        state.adopt(&Change::Machine(Box::new(machine(2, &[2], UUIDS[1]))));
        let mac = Mac([2, 0, 0, 0, 0, 2]);
        let with = |state: &State| state.with_mac(mac).map(|machine| machine.id.0).collect::<Vec<_>>();
        assert_eq!(with(&state), [1, 2]);
        assert!(state.machines[&MachineId(1)].fingerprint.owns(mac));
        state.adopt(&Change::Machine(Box::new(machine(1, &[1], UUIDS[0]))));
        assert_eq!(with(&state), [2]);
        state.adopt(&Change::Forget(MachineId(2)));
        assert!(with(&state).is_empty());
    }

    #[test]
    fn a_machine_is_named_in_many_ways() {
        let mut state = State::default();
        let mut named = machine(3, &[7], UUIDS[0]);
        named.name = Some("web1".to_owned());
        named.fingerprint.system_serial = Some("czc1".to_owned());
        state.adopt(&Change::Machine(Box::new(named)));
        for text in ["m3", "02:00:00:00:00:07", "web1", "CZC1"] {
            assert_eq!(state.named(text), [MachineId(3)], "{text}");
        }
        assert!(state.named("m4").is_empty());
    }
}
