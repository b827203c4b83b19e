//! Core, part of the fleet: takes the call home of an OS with its token. It completes the job that the token is of, or
//! fails a newer one: an OS that took the CIDATA of an older order shows that the machine did not boot what was
//! ordered. Touches `api`, `common` and the other cores of the fleet.

use common::id::JobId;
use common::wire::call_home::{CallHome, SeedMark};
use jiff::Timestamp;

use super::super::job::{Job, JobEvent};
use super::super::proof::{Call, is_alone, judge, root_of};
use super::{Fleet, Settings};
use crate::api::shapes::JobState;

/// How many earlier attempts' tokens are compared: an older CIDATA may still be on another disk of the machine.
const ATTEMPTS_BACK: u32 = 64;

impl Settings {
    /// The volume serial number of the CIDATA of this attempt. Derived like the token, so that it is not recorded.
    #[must_use]
    pub fn seed_mark(&self, job: JobId, attempt: u32) -> SeedMark {
        let key = blake3::derive_key("swarmboot 2026 CIDATA volume serial 1", &self.token_key);
        let hash = blake3::keyed_hash(&key, format!("{job} {attempt}").as_bytes());
        let [a, b, c, d, ..] = *hash.as_bytes();
        SeedMark(u32::from_le_bytes([a, b, c, d]))
    }
}

impl Fleet {
    /// Takes a call home with `token`; `call` says which disks the OS is on, if the caller sent that. Returns the job
    /// that the token is of; `None` if the token is wrong.
    pub fn confirm(&mut self, token: &str, call: Option<&CallHome>, now: Timestamp) -> Option<JobId> {
        let (job, _) = token.split_once('-')?;
        let known = self.state.jobs.get(&job.parse().ok()?)?.clone();
        let attempt = self.attempt_of(&known, token)?;
        let waiting = self.state.newest_job(known.machine)?.clone();
        if waiting.id == known.id && attempt == known.attempt {
            let said = judge(call, self.is_alone(&known));
            self.happen(known.id, JobEvent::CalledHome(said), now);
        } else if matches!(waiting.state, JobState::Running | JobState::Written | JobState::Failed) {
            let said = Call::OlderSeed { job: known.id, root: root_of(call) };
            self.happen(waiting.id, JobEvent::CalledHome(said), now);
        }
        Some(known.id)
    }

    /// The attempt of `job` that `token` is of; `None` if it is of none of the last `ATTEMPTS_BACK`.
    fn attempt_of(&self, job: &Job, token: &str) -> Option<u32> {
        // Compared as hashes, so that the timing reveals nothing about the right token.
        let shown = blake3::hash(token.as_bytes());
        let oldest = job.attempt.saturating_sub(ATTEMPTS_BACK);
        (oldest..=job.attempt)
            .rev()
            .find(|attempt| blake3::hash(self.settings.token(job.id, *attempt).as_bytes()) == shown)
    }

    fn is_alone(&self, job: &Job) -> bool {
        let machine = self.state.machines.get(&job.machine);
        let hardware = machine.and_then(|machine| machine.hardware.as_ref());
        hardware.is_none_or(|hardware| is_alone(hardware.report(), job.bound.disk.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::job::tests::job;
    use super::super::super::machine::Machine;
    use super::super::super::marks::Fingerprint;
    use super::super::super::proof::tests::{call, part};
    use super::super::super::state::Change;
    use super::super::tests::fleet;
    use super::*;
    use common::id::MachineId;

    /// A fleet with a machine and jobs in these states, in order.
    fn with(states: &[JobState]) -> Fleet {
        let mut fleet = fleet();
        let id = MachineId(1);
        fleet.put_machine(Machine::new(id, Fingerprint::default(), "lab".to_owned(), Timestamp::UNIX_EPOCH));
        for (number, state) in (1..).zip(states) {
            let job = Job { id: JobId(number), sealed: true, ..job(*state) };
            fleet.put(Change::Job(Box::new(job)));
        }
        fleet
    }

    fn state(fleet: &Fleet, job: u64) -> (JobState, String) {
        let job = &fleet.state.jobs[&JobId(job)];
        (job.state, job.cause.clone().unwrap_or_default())
    }

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    #[test]
    fn d1_an_os_that_took_an_older_orders_cidata_fails_the_new_order() {
        let mut fleet = with(&[JobState::Deployed, JobState::Written]);
        let said = call(&[part("vda3", "D1")], &[part("vdb4", "D2")]);
        let old = fleet.settings.token(JobId(1), 1);
        assert_eq!(fleet.confirm(&old, Some(&said), NOW), Some(JobId(1)));
        let (now, cause) = state(&fleet, 2);
        assert_eq!(now, JobState::Failed);
        assert!(cause.contains("older CIDATA of j1") && cause.contains("vda3 of vda, serial D1"), "{cause}");
        assert_eq!(state(&fleet, 1).0, JobState::Deployed);
        // Then somebody puts the right disk first: its call completes the job all the same.
        let new = fleet.settings.token(JobId(2), 1);
        fleet.confirm(&new, Some(&call(&[part("vda3", "D1")], &[part("vda4", "D1")])), NOW);
        assert_eq!(state(&fleet, 2), (JobState::Deployed, String::new()));
    }

    #[test]
    fn a_late_call_of_an_ended_job_touches_no_order_that_waits_for_its_machine() {
        for waits in [JobState::Ordered, JobState::Refused, JobState::Deployed, JobState::Cancelled] {
            let mut fleet = with(&[JobState::Failed, waits]);
            let old = fleet.settings.token(JobId(1), 1);
            assert_eq!(fleet.confirm(&old, None, NOW), Some(JobId(1)));
            assert_eq!(state(&fleet, 2).0, waits);
            assert_eq!(state(&fleet, 1).0, JobState::Failed, "a newer order stands for the machine");
        }
    }

    #[test]
    fn e4c_an_old_os_with_the_new_cidata_fails_the_order_by_name() {
        let mut fleet = with(&[JobState::Written]);
        let token = fleet.settings.token(JobId(1), 1);
        let said = call(&[part("vda3", "E4A")], &[part("vdb4", "E4B")]);
        fleet.confirm(&token, Some(&said), NOW);
        let (now, cause) = state(&fleet, 1);
        assert_eq!(now, JobState::Failed);
        assert!(cause.contains("serial E4A") && cause.contains("serial E4B"), "{cause}");
        fleet.take_effects();
        // cloud-init's own call follows, and it repeats.
        fleet.confirm(&token, Some(&said), NOW);
        assert!(fleet.take_effects().changes.iter().all(|change| !matches!(change, Change::Event(_))));
    }

    #[test]
    fn a_mark_is_of_one_attempt_of_one_job_on_one_server() {
        let mut settings = fleet().settings;
        let mark = settings.seed_mark(JobId(1), 2);
        assert_eq!(mark, settings.seed_mark(JobId(1), 2));
        assert_ne!(mark, settings.seed_mark(JobId(1), 3));
        assert_ne!(mark, settings.seed_mark(JobId(12), 2));
        settings.token_key = [9; 32];
        assert_ne!(mark, settings.seed_mark(JobId(1), 2));
    }
}
