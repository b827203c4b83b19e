//! Sites, tokens for the call home, the silence of agents, and late events.

use super::super::identity::Fingerprint;
use super::*;
use crate::fleet::job::tests::job;
use crate::traffic::SiteRule;

pub(super) fn fleet() -> Fleet {
    let rule = |subnet: &str, site: &str| SiteRule { subnet: subnet.parse().unwrap(), site: site.to_owned() };
    let settings = Settings {
        sites: vec![rule("10.1.0.0/16", "campus"), rule("10.1.2.0/24", "lab")].into(),
        order_expires: Some(SignedDuration::from_hours(168)),
        ..crate::fleet::testing::settings()
    };
    Fleet::new(State::default(), settings)
}

#[test]
fn a_site_is_known_by_its_name_or_by_its_machines() {
    let mut fleet = fleet();
    let known = |fleet: &Fleet| fleet.sites().into_iter().collect::<Vec<_>>();
    assert_eq!(known(&fleet), ["campus", "lab"]);
    let elsewhere = "10.2.3.0/24".to_owned();
    fleet.put_machine(Machine::new(MachineId(1), Fingerprint::default(), elsewhere, Timestamp::UNIX_EPOCH));
    assert_eq!(known(&fleet), ["10.2.3.0/24", "campus", "lab"]);
}

#[test]
fn a_token_is_of_one_attempt_of_one_job_on_one_server() {
    let mut settings = fleet().settings;
    let token = settings.token(JobId(1), 2);
    assert_eq!(token, settings.token(JobId(1), 2));
    assert_ne!(token, settings.token(JobId(1), 3));
    assert_ne!(settings.token(JobId(12), 3), settings.token(JobId(1), 23));
    settings.token_key = [4; 32];
    assert_ne!(token, settings.token(JobId(1), 2));
    for nonsense in ["", "-", "j1", "j1-", "j99-00", &"x".repeat(10_000)] {
        assert_eq!(fleet().confirm(nonsense, None, Timestamp::UNIX_EPOCH), None);
    }
}

#[test]
fn silence_is_said_once_and_again_after_a_word() {
    let mut fleet = fleet();
    let at = |seconds| Timestamp::from_second(seconds).unwrap();
    let notes = |fleet: &mut Fleet| {
        let changes = fleet.take_effects().changes;
        changes.iter().filter(|change| matches!(change, Change::Event(_))).count()
    };
    let mut machine = Machine::new(MachineId(1), Fingerprint::default(), String::new(), at(0));
    fleet.put_machine(machine.clone());
    fleet.put(Change::Job(Box::new(job(JobState::Running))));
    fleet.tick(at(119));
    assert_eq!(notes(&mut fleet), 0);
    fleet.tick(at(120));
    fleet.tick(at(500));
    assert_eq!(notes(&mut fleet), 1);
    machine.last_seen = at(500);
    fleet.put_machine(machine);
    fleet.tick(at(501));
    assert_eq!(notes(&mut fleet), 0);
    fleet.tick(at(700));
    assert_eq!(notes(&mut fleet), 1);
    fleet.put(Change::Job(Box::new(job(JobState::Failed))));
    fleet.tick(at(9000));
    assert_eq!(notes(&mut fleet), 0, "what is over may be silent");
}

/// N1: an agent that was expelled in attempt 1 delivers its last events after the server has begun attempt 3 with it.
#[test]
fn the_last_words_of_an_older_attempt_end_nothing() {
    let mut fleet = fleet();
    let at = |seconds| Timestamp::from_second(seconds).unwrap();
    let mut job = job(JobState::Running);
    job.attempt = 3;
    let key = job.key.unwrap();
    let mut machine = Machine::new(MachineId(1), Fingerprint::default(), String::new(), at(0));
    machine.boot = Some(crate::fleet::machine::Boot { key, through: 0, since: Timestamp::UNIX_EPOCH });
    fleet.put_machine(machine);
    fleet.put(Change::Job(Box::new(job)));
    let mut tell = |attempt, number| {
        let what = What::Failed { cause: "cancelled: its job is over".to_owned(), last: true };
        let events = vec![StepEvent { number, at_ms: 0, step: Step::Transfer, what, sources: None }];
        let batch = EventBatch { key, job: Some(JobId(1)), attempt: Some(attempt), sent_at_ms: 0, events };
        let taken = fleet.events(batch, at(5)).unwrap();
        (taken.through, fleet.state.jobs[&JobId(1)].state)
    };
    assert_eq!(tell(1, 1), (1, JobState::Running), "dropped, and not to be sent again");
    assert_eq!(tell(3, 2), (2, JobState::Failed), "its own word counts");
}
