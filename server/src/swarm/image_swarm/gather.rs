//! Core: the gates of an image's swarm: machines of a deployment wait for each other before the first chunk. Touches
//! the swarm's state alone.

use std::collections::BTreeSet;
use std::time::Duration;

use common::chunk::ChunkSet;
use common::id::{DeploymentId, JobId};
use common::trust::PublicKey;
use common::wire::swarm::ToAgent;

use super::super::handle::SwarmFact;
use super::gate::Gate;
use super::{ImageSwarm, Member, Out};

impl ImageSwarm {
    /// An agent has arrived with the chunks `held`: starts it, or lets it wait at its deployment's gate.
    pub(super) fn knock(&mut self, key: PublicKey, held: ChunkSet, now: Duration) -> Vec<Out> {
        let Some(member) = self.members.get_mut(&key) else {
            return vec![];
        };
        member.presence.held = held;
        let machine = member.admission.machine().filter(|machine| machine.gather.is_some());
        let Some(deployment) = machine.filter(|_| !member.started).map(|machine| machine.deployment) else {
            return self.start(key, now);
        };
        if *self.gates.entry(deployment).or_insert(Gate::Shut(now)) == Gate::Open {
            return self.start(key, now);
        }
        let mut out = self.open_gate(deployment, now);
        if self.gates.get(&deployment) != Some(&Gate::Open) {
            out.extend(self.tell_waiting(deployment, now));
        }
        out
    }

    fn waiting(&self, deployment: DeploymentId) -> Vec<PublicKey> {
        let waits = |member: &Member| {
            member.admission.machine().is_some_and(|machine| machine.deployment == deployment)
                && member.presence.connected
                && !member.started
                && member.expelled.is_none()
        };
        self.members.iter().filter(|(_, member)| waits(member)).map(|(key, _)| *key).collect()
    }

    /// How many machines a shut gate waits for, and until when; `None` when it is open or nobody waits.
    fn shut_gate(&self, deployment: DeploymentId, waiting: &[PublicKey]) -> Option<(u32, Duration)> {
        let gate = self.gates.get(&deployment)?;
        let mut gathers = waiting.iter().filter_map(|key| self.members.get(key)?.admission.machine()?.gather);
        let gather = gathers.next()?;
        Some((gather.wanted, gate.until(gather)?))
    }

    fn open_gate(&mut self, deployment: DeploymentId, now: Duration) -> Vec<Out> {
        let waiting = self.waiting(deployment);
        let Some((wanted, until)) = self.shut_gate(deployment, &waiting) else {
            return vec![];
        };
        let arrived = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
        if arrived < wanted && now < until {
            return vec![];
        }
        self.gates.insert(deployment, Gate::Open);
        let mut jobs: Vec<JobId> = waiting
            .iter()
            .filter_map(|key| self.members.get(key))
            .filter_map(|member| member.admission.job())
            .collect();
        jobs.sort_unstable();
        let mut out = vec![Out::Fact(SwarmFact::GatherOpened { jobs })];
        // They are told of their neighbours before anything is leased to them.
        out.extend(self.tell_neighbours());
        out.extend(waiting.into_iter().flat_map(|key| self.start(key, now)));
        out
    }

    fn tell_waiting(&self, deployment: DeploymentId, now: Duration) -> Vec<Out> {
        let waiting = self.waiting(deployment);
        let Some((wanted, until)) = self.shut_gate(deployment, &waiting) else {
            return vec![];
        };
        let arrived = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
        let seconds = until.saturating_sub(now).as_secs();
        let gather = ToAgent::Gather { arrived, wanted, seconds };
        waiting.into_iter().map(|key| Out::Tell(key, gather.clone())).collect()
    }

    /// Opens the gates whose time is up.
    pub(super) fn open_gates(&mut self, now: Duration) -> Vec<Out> {
        let shut: Vec<DeploymentId> = self
            .gates
            .iter()
            .filter(|(_, gate)| **gate != Gate::Open)
            .map(|(deployment, _)| *deployment)
            .collect();
        shut.into_iter().flat_map(|deployment| self.open_gate(deployment, now)).collect()
    }

    /// Drops the gates of deployments that have no members any more.
    pub(super) fn forget_gates(&mut self) {
        let here: BTreeSet<DeploymentId> =
            self.members.values().filter_map(|member| Some(member.admission.machine()?.deployment)).collect();
        self.gates.retain(|deployment, _| here.contains(deployment));
    }
}
