//! An admin's command is in force at once: while the tailor works, between preview and order, while a job runs, and
//! during a freeze.

use super::*;

#[test]
fn an_admins_word_counts_while_the_tailor_works() {
    // H3: each command is acknowledged between the report and the plan.
    type Word = fn(&mut Trial, DeploymentId);
    let words: [(&str, Word, JobState); 4] = [
        ("reject", |t, _| drop(t.act("m1", MachineAction::Reject).unwrap()), JobState::Cancelled),
        ("hold", |t, _| drop(t.act("m1", MachineAction::Hold).unwrap()), JobState::Ordered),
        ("cancel", |t, id| t.cancel(id), JobState::Cancelled),
        ("freeze", |t, _| drop(t.fleet.freeze(true, None, t.now)), JobState::Ordered),
    ];
    for (word, say, state) in words {
        let mut trial = Trial::new();
        trial.reports(report(1, 1, blank("A")));
        let id = trial.order(&["m1"]).unwrap();
        assert!(trial.comes(report(1, 2, blank("A"))).is_none(), "{word}");
        say(&mut trial, id);
        assert!(!matches!(trial.tailored(), Instruction::Deploy(_)), "{word}");
        assert_eq!(trial.job(1).state, state, "{word}");
        assert_ne!(trial.machine(1).state, MachineState::Deploying, "{word}");
    }
}

#[test]
fn an_admins_word_counts_between_what_was_shown_and_the_order() {
    for action in [MachineAction::Reject, MachineAction::Hold, MachineAction::Forget] {
        let mut trial = Trial::new();
        trial.reports(report(1, 1, blank("A")));
        let order: DeployOrder =
            serde_json::from_value(serde_json::json!({"image": "debian", "selection": {"machines": ["m1"]}}))
                .unwrap();
        let mut lines = trial.lines(&order, "debian").unwrap();
        trial.act("m1", action.clone()).unwrap();
        assert!(trial.place(order, &mut lines).is_err(), "{action:?}");
        assert!(trial.fleet.state.jobs.is_empty(), "{action:?}");
    }
}

#[test]
fn a_running_job_ends_with_a_rejection_and_goes_on_while_held() {
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("A")));
    trial.order(&["m1"]).unwrap();
    assert_eq!(trial.written(report(1, 2, blank("A"))).as_deref(), Some("A"));
    let said = trial.act("m1", MachineAction::Hold).unwrap();
    assert!(said[0].text.contains("goes on"), "{said:?}");
    assert_eq!(trial.job(1).state, JobState::Running);
    assert_eq!(trial.written(report(1, 3, blank("A"))), None, "no further attempt while it is held");
    let said = trial.act("m1", MachineAction::Reject).unwrap();
    assert!(said[0].text.contains("is cancelled"), "{said:?}");
    assert_eq!(trial.job(1).state, JobState::Cancelled);
    assert_eq!(trial.machine(1).state, MachineState::Rejected);
    let dismissed = trial.fleet.take_effects().dismissed;
    assert!(dismissed.iter().any(|(key, why)| *key == self::key(1, 2) && why.is_some()), "{dismissed:?}");
}

#[test]
fn while_frozen_nothing_begins_and_what_runs_goes_on() {
    let mut trial = Trial::new();
    for machine in 1..=3 {
        trial.reports(report(machine, 1, blank("A")));
    }
    trial.order(&["m1", "m2"]).unwrap();
    assert!(trial.written(report(1, 2, blank("A"))).is_some());
    trial.act("m3", MachineAction::Approve).unwrap();
    trial.fleet.freeze(true, Some("fire\u{1b}".to_owned()), trial.now);
    assert!(trial.logged().iter().any(|text| text.contains("frozen") && text.contains("fire ")));
    assert!(trial.order(&["m3"]).is_err_and(|refused| refused.error.contains("fire")));
    assert_eq!(trial.written(report(2, 2, vec![disk("A", Contents::Bootable)])), None);
    assert_eq!(trial.job(2).state, JobState::Ordered);
    assert!(trial.written(report(1, 2, blank("A"))).is_some(), "the answer was lost: the same attempt");
    assert_eq!(trial.written(report(1, 3, blank("A"))), None, "a further attempt is something new");
    trial.told(1, 3, 1, Step::Inspect, What::Started);
    let policy = |trial: &Trial, machine: u8| {
        let asker = crate::fleet::boot_policy::Asker {
            mac: Some(Mac([2, 0, 0, 0, 0, machine])),
            uuid: None,
            serial: None,
        };
        trial.fleet.state.policies(false).of(&asker).1
    };
    use crate::fleet::boot_policy::BootPolicy;
    assert_eq!(policy(&trial, 2), BootPolicy::BootDisk, "what is ordered is not begun");
    trial.fleet.freeze(false, None, trial.now);
    assert_eq!(policy(&trial, 2), BootPolicy::Load);
    assert!(trial.written(report(2, 3, blank("A"))).is_some());

    let mut trial = Trial::new();
    trial.open();
    trial.fleet.freeze(true, None, trial.now);
    assert_eq!(trial.written(report(1, 1, blank("A"))), None);
    assert!(trial.fleet.state.jobs.is_empty(), "no open order takes it");
}
