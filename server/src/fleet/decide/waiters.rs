//! Core: the machines that wait for an order with an open request ("waiters"): what each was told on its last report, and
//! how many requests are open. Nothing of it is recorded: after a restart every machine that waits reports once. Who is
//! woken is decided in `wake`. Touches `common`.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use common::id::{DeploymentId, Hash, JobId, MachineId};
use common::trust::PublicKey;

/// The answer to a waiting machine's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// No machine's present boot was told anything lasting on that report.
    Unknown,
    /// The request was made before: it is a replay.
    Repeated,
    /// A report would be answered otherwise now.
    News,
    /// Nothing has changed, and as many requests as may be are open.
    Full,
    /// Nothing has changed: the request stays open, for at most this long.
    Waits(Duration),
}

/// A machine whose open request is to be answered: it is to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wake {
    /// The key of its boot.
    pub key: PublicKey,
    /// How long it pauses before that; not zero where many are woken at once.
    pub pause: Duration,
}

/// What a report of a machine would come to, as far as a machine that waits should report because of it. The reason for
/// waiting is no part of it: a freeze would wake the whole fleet, only to show another text on its consoles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
    /// The plan of this job, which has begun so many attempts.
    Plan(JobId, u32),
    /// A new job of this open deployment.
    Open(DeploymentId),
    /// Nothing is to be done, and its disk was sealed by a job.
    Disk,
    /// Nothing is to be done.
    Wait {
        /// Whether its report was kept shortened because nobody has let it in: once somebody has, it is to report again,
        /// or an order would be previewed without the disks that were left out.
        short: bool,
    },
}

/// What the present boot of a machine was told on its last report.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) key: PublicKey,
    pub(super) report: Hash,
    pub(super) outlook: Outlook,
    pub(super) reason: String,
    /// The number of its last request.
    pub(super) number: u64,
    /// The address from which its request is open; `None` while none is.
    pub(super) waits: Option<IpAddr>,
}

/// What waiting machines were told, and whose requests are open.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    pub(super) told: BTreeMap<MachineId, Told>,
    open: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Waiters {
    /// The request of machine `id` is open, from `address`.
    pub(super) fn enter(&mut self, id: MachineId, address: IpAddr) {
        self.leave(id);
        if let Some(told) = self.told.get_mut(&id) {
            told.waits = Some(address);
            self.open += 1;
            *self.by_address.entry(address).or_default() += 1;
        }
    }

    /// The request of machine `id`, if one is open, is so no more.
    pub(super) fn leave(&mut self, id: MachineId) {
        let Some(address) = self.told.get_mut(&id).and_then(|told| told.waits.take()) else { return };
        self.open -= 1;
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }

    /// Forgets what machine `id` was told.
    pub(super) fn remove(&mut self, id: MachineId) {
        self.leave(id);
        self.told.remove(&id);
    }

    /// How many requests are open.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Takes the request of a waiting machine from `address`; its signature by the key in it has been checked.
    pub fn wait(&mut self, request: &WaitRequest, address: IpAddr, now: Timestamp) -> Heard {
        let Some(machine) = self.state.by_key(&request.key).cloned() else { return Heard::Unknown };
        let id = machine.id;
        let (outlook, reason) = self.outlook(&machine, &request.key);
        let told = self.waiters.told.get_mut(&id);
        let Some(told) = told.filter(|told| told.key == request.key && told.report == request.report) else {
            return Heard::Unknown;
        };
        if request.number <= told.number {
            self.dropped += 1;
            return Heard::Repeated;
        }
        told.number = request.number;
        // A machine in doubt is looked at anew whenever it asks: what settles it may be another machine's doing.
        let is_sure = machine.doubts.is_empty() || request.number == 1;
        let same = told.outlook == outlook && told.reason == reason && is_sure;
        self.waiters.leave(id);
        self.put_machine(Machine { last_seen: now, ..machine });
        self.boots.hear(request.key, now);
        self.remember(address, id);
        self.trace(id, Seen::Reported, now);
        if !same {
            return Heard::News;
        }
        if !self.has_place(id, address) {
            return Heard::Full;
        }
        self.waiters.enter(id, address);
        Heard::Waits(self.settings.waiters.time)
    }

    /// Whether one more request may stay open. The last sixth is kept for machines that an admin let in: keys of
    /// strangers cost their maker nothing.
    fn has_place(&self, id: MachineId, address: IpAddr) -> bool {
        let bounds = self.settings.waiters;
        let all = if self.is_let_in(id) { bounds.all } else { bounds.all - bounds.all / 6 };
        let own = self.waiters.by_address.get(&address).copied().unwrap_or(0);
        self.waiters.open < all && own < bounds.per_address
    }

    /// The request of the boot with `key` is not open any more: it was answered, or its connection has ended.
    pub fn waits_no_more(&mut self, key: &PublicKey) {
        if let Some(id) = self.state.by_key(key).map(|machine| machine.id) {
            self.waiters.leave(id);
        }
    }

    /// How many requests of waiting machines are open.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiters.open
    }

    /// Adds to the effects who is to be woken because of the changes in them.
    pub(super) fn wake_waiters(&mut self) {
        if self.waiters.told.is_empty() {
            return;
        }
        let (mut touched, mut everyone) = (BTreeSet::new(), false);
        for change in &self.after.changes {
            match change {
                Change::Machine(machine) => drop(touched.insert(machine.id)),
                Change::Job(job) => drop(touched.insert(job.machine)),
                Change::Forget(id) => drop(touched.insert(*id)),
                // An open order may take any machine, and a freeze holds all of them.
                Change::Deployment(_) | Change::Frozen(_) => everyone = true,
                Change::Hardware(..)
                | Change::Event(_)
                | Change::Relay(_)
                | Change::Stage(_)
                | Change::Unstage(_) => {}
            }
        }
        if everyone {
            touched = self.waiters.told.keys().copied().collect();
        }
        for id in touched {
            let Some(told) = self.waiters.told.get(&id) else { continue };
            let (key, waits) = (told.key, told.waits.is_some());
            let present =
                self.state.machines.get(&id).filter(|known| known.boot.is_some_and(|boot| boot.key == key));
            match present.map(|machine| self.outlook(machine, &key).0) {
                Some(outlook) if outlook == told.outlook => continue,
                Some(_) => self.waiters.leave(id),
                // It was forgotten, or another boot of it has reported.
                None => self.waiters.remove(id),
            }
            if waits {
                let before = u32::try_from(self.after.woken.len() / WAKES_AT_ONCE).unwrap_or(u32::MAX);
                self.after.woken.push(Wake { key, pause: WAKES_EVERY.saturating_mul(before) });
            }
        }
    }

    /// What a report of the boot with `key` of `machine` would come to now, and the reason that it would be given.
    fn outlook(&self, machine: &Machine, key: &PublicKey) -> (Outlook, String) {
        let bar = self.bar_plan(machine, key);
        let job = self.state.newest_job(machine.id);
        if bar.is_none() {
            let wanted = job.filter(|job| job.wants_plan());
            if let Some(job) = wanted.filter(|job| self.state.deployments.contains_key(&job.deployment)) {
                return (Outlook::Plan(job.id, job.attempt), String::new());
            }
            if let Some(order) = self.open_for(machine) {
                return (Outlook::Open(order), String::new());
            }
        }
        let reason = self.reason(machine.id, bar);
        let report = machine.hardware.as_ref().map(|hardware| hardware.report());
        let is_process = report.is_some_and(|report| report.firmware == Firmware::None);
        if job.is_some_and(|job| job.sealed) && !is_process {
            return (Outlook::Disk, reason);
        }
        let is_cut = report.is_some_and(|report| !report.truncated.is_empty());
        (Outlook::Wait { short: is_cut && !self.is_let_in(machine.id) }, reason)
    }
}
