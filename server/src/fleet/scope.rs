//! Core, part of the fleet: what whoever asks may see: machines in the scope of their token. What is outside does not
//! exist for them: it is not listed, not named in errors, and no order takes it. Touches `api` and the other cores of
//! the fleet.

use std::collections::BTreeMap;

use common::id::{DeploymentId, MachineId};
use common::wire::http::Refused;

use super::decide::Fleet;
use super::machine::Machine;
use super::order::refused;
use super::rules::Rules;
use super::selectors::Selectors;
use crate::api::shapes::{DeploymentShown, Scope};

/// A scope, ready to be compared with machines.
pub(super) struct Reach<'a> {
    scope: Option<&'a Scope>,
    /// `None` where they cannot be read: then nothing is in it.
    labels: Option<Selectors>,
    rules: &'a Rules,
    machines: &'a BTreeMap<MachineId, Machine>,
}

impl Reach<'_> {
    /// Whether it is everything.
    pub(super) fn is_everything(&self) -> bool {
        self.scope.is_none()
    }

    /// Whether `machine` is in it.
    pub(super) fn has(&self, machine: &Machine) -> bool {
        self.scope.is_none_or(|scope| {
            (scope.sites.is_empty() || scope.sites.contains(&machine.site))
                && self.labels.as_ref().is_some_and(|labels| self.rules.fit(labels, machine))
        })
    }

    /// Whether the machine of this number is in it.
    pub(super) fn has_id(&self, id: MachineId) -> bool {
        self.is_everything() || self.machines.get(&id).is_some_and(|machine| self.has(machine))
    }
}

impl Fleet {
    /// What whoever asks may see; everything where the server asks for itself.
    pub(super) fn reach(&self) -> Reach<'_> {
        self.reach_of(self.caller.as_ref().map(|caller| &caller.scope))
    }

    /// What somebody of this scope may see; everything where there is none.
    pub(super) fn reach_of<'a>(&'a self, scope: Option<&'a Scope>) -> Reach<'a> {
        let scope = scope.filter(|scope| !scope.is_everything());
        let labels = scope.and_then(|scope| Selectors::parse(&scope.labels).ok());
        Reach { scope, labels, rules: &self.settings.rules, machines: &self.state.machines }
    }

    /// Whether whoever asks may see the machine of this number.
    pub(super) fn may_see(&self, id: MachineId) -> bool {
        self.reach().has_id(id)
    }

    /// Whether whoever asks may see any of a deployment.
    pub(super) fn may_see_any_of(&self, id: DeploymentId) -> bool {
        let reach = self.reach();
        reach.is_everything() || self.state.jobs_of(id).any(|job| reach.has_id(job.machine))
    }

    /// The machines that whoever asks may see; `None` for all of them.
    pub(super) fn all_in_scope(&self) -> Option<Vec<MachineId>> {
        let reach = self.reach();
        let seen = self.state.machines.values().filter(|machine| reach.has(machine));
        (!reach.is_everything()).then(|| seen.map(|machine| machine.id).collect())
    }

    /// The part of a deployment that whoever asks may see; `None` when that is none of its jobs.
    #[must_use]
    pub fn part_of(&self, mut deployment: DeploymentShown) -> Option<DeploymentShown> {
        let reach = self.reach();
        if reach.is_everything() {
            return Some(deployment);
        }
        deployment.jobs.retain(|job| reach.has_id(job.machine));
        deployment.with.retain(|id| self.state.jobs_of(*id).any(|job| reach.has_id(job.machine)));
        (!deployment.jobs.is_empty()).then_some(deployment)
    }

    /// Refuses what is for machines that are not known yet, for somebody who may not see every machine.
    ///
    /// # Errors
    /// When the scope of whoever asks is not everything.
    pub(super) fn check_unscoped(&self, what: &str) -> Result<(), Refused> {
        if self.reach().is_everything() {
            return Ok(());
        }
        let error =
            format!("{what} is for machines that nobody knows yet, and your token is for some machines only");
        Err(refused(error, "ask somebody whose token has no sites and labels"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::shapes::{Caller, MachineAction, MachineCommand, Role, Selection, Silence};
    use crate::fleet::identity::Fingerprint;
    use crate::fleet::state::State;
    use jiff::Timestamp;

    /// Machines 1 and 2 at `lab`, 3 and 4 at `branch`; the even ones are labelled `role=web`.
    fn fleet(scope: Scope) -> Fleet {
        let mut fleet = Fleet::new(State::default(), crate::fleet::testing::settings());
        for n in 1..=4 {
            let site = if n < 3 { "lab" } else { "branch" };
            let mut machine =
                Machine::new(MachineId(n), Fingerprint::default(), site.to_owned(), Timestamp::UNIX_EPOCH);
            machine.name = Some(format!("box{n}"));
            if n % 2 == 0 {
                machine.labels.insert("role".to_owned(), "web".to_owned());
            }
            fleet.put_machine(machine);
        }
        let caller = Caller { who: "anna".to_owned(), role: Role::Operator, scope, expires: None };
        fleet.caller = Some(Arc::new(caller));
        fleet
    }

    fn scope(sites: &[&str], labels: &[&str]) -> Scope {
        let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect();
        Scope { sites: texts(sites), labels: texts(labels) }
    }

    #[test]
    fn what_is_outside_of_the_scope_does_not_exist() {
        for (scope, wanted) in [
            (scope(&[], &[]), vec![1, 2, 3, 4]),
            (scope(&["lab"], &[]), vec![1, 2]),
            (scope(&["lab", "branch"], &[]), vec![1, 2, 3, 4]),
            (scope(&[], &["role=web"]), vec![2, 4]),
            (scope(&["branch"], &["role=web"]), vec![4]),
            (scope(&["moon"], &[]), vec![]),
            // As a record of another version might have it.
            (scope(&["lab"], &["no selector"]), vec![]),
        ] {
            let fleet = fleet(scope.clone());
            for n in 1..=4 {
                let named = Selection { machines: vec![format!("box{n}")], labels: vec![] };
                let found = fleet.select(&named);
                assert_eq!(found.is_ok(), wanted.contains(&n), "{scope}: box{n}");
                if let Err(refusal) = found {
                    assert!(refusal.error.contains("no machine is known"), "{refusal:?}");
                }
            }
            let by_label = Selection { machines: vec![], labels: vec!["role=web".to_owned()] };
            let wanted: Vec<_> = wanted.into_iter().filter(|n| n % 2 == 0).map(MachineId).collect();
            assert_eq!(fleet.select(&by_label).unwrap(), wanted, "{scope}");
        }
    }

    #[test]
    fn the_server_speaks_of_nothing_outside() {
        let told = |scope: Scope| {
            let mut fleet = fleet(scope);
            for n in [1, 3] {
                fleet.state.notes.insert(MachineId(n), Silence::NotSeen);
            }
            fleet.left_out = 5;
            (fleet.notes(Timestamp::UNIX_EPOCH), fleet.warnings())
        };
        let (notes, warnings) = told(scope(&[], &[]));
        assert!(notes.len() == 2 && warnings.len() == 1, "{notes:?} {warnings:?}");
        let (notes, warnings) = told(scope(&["lab"], &[]));
        assert!(notes.len() == 1 && notes[0].starts_with("box1: ") && warnings.is_empty(), "{notes:?}");
    }

    #[test]
    fn nothing_outside_can_be_changed() {
        let mut fleet = fleet(scope(&["lab"], &[]));
        let mut order = |machine: &str, action| {
            let selection = Selection { machines: vec![machine.to_owned()], labels: vec![] };
            fleet.command(&MachineCommand { selection, action, dry_run: false }, Timestamp::UNIX_EPOCH)
        };
        assert!(order("m3", MachineAction::Forget).is_err(), "an id is no way around it");
        assert!(order("m1", MachineAction::Merge { into: "m3".to_owned() }).is_err());
        assert!(order("m1", MachineAction::Approve).is_ok());
        assert!(fleet.check_unscoped("an open order").is_err());
    }
}
