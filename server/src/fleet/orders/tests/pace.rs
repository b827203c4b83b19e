//! Pauses, turns, the ceiling of one order, and that a hold wins over each.

use super::*;
use crate::api::shapes::{Pause, WaitsFor};

fn names(count: u8) -> Vec<String> {
    (1..=count).map(|n| format!("m{n}")).collect()
}

impl Trial {
    /// Machines 1 to `count`, each with a blank disk, have reported.
    fn with_machines(count: u8) -> Self {
        let mut trial = Self::new();
        for n in 1..=count {
            trial.reports(report(n, 1, blank(&format!("D{n}"))));
        }
        trial
    }

    fn in_turns(&mut self, count: u8, at_once: u32) -> DeploymentId {
        let order = serde_json::json!({
            "image": "debian", "selection": {"machines": names(count)}, "max_parallel": at_once,
        });
        self.order_lines(order).unwrap().0
    }

    fn pause(&mut self, id: DeploymentId, pause: bool) -> Result<(), Refused> {
        self.fleet.pause(id, &Pause { pause, reason: None, together: false }, self.now)
    }

    fn waits(&self, machine: u8) -> Option<WaitsFor> {
        self.fleet.state.show_job(self.job(machine)).waits
    }

    /// Machine `n` of boot `boot` reports again, and gets a plan or not.
    fn comes_again(&mut self, n: u8, boot: u8) -> bool {
        self.written(report(n, boot, blank(&format!("D{n}")))).is_some()
    }
}

#[test]
fn machines_take_turns_and_a_sealed_disk_makes_room() {
    let mut trial = Trial::with_machines(3);
    let id = trial.in_turns(3, 1);
    assert!(trial.comes_again(2, 1), "whoever comes first begins");
    let told = trial.reports(report(1, 1, blank("D1")));
    let Instruction::Wait { reason, .. } = told else { panic!("{told:?}") };
    assert!(reason.contains("d1 writes 1 machines at once"), "{reason}");
    assert_eq!((trial.waits(1), trial.waits(2)), (Some(WaitsFor::Turn { most: 1 }), None));
    // A machine that holds an OS stays too: its turn comes by itself.
    let os = report(3, 1, vec![disk("D3", Contents::Bootable)]);
    assert!(matches!(trial.reports(os), Instruction::Wait { .. }));
    // Its agent may ask for its plan again, and so may its next boot.
    assert!(trial.comes_again(2, 1) && trial.comes_again(2, 2));
    trial.told(2, 2, 1, Step::Seal, done());
    assert_eq!(trial.waits(1), Some(WaitsFor::Machine));
    assert!(trial.comes_again(1, 1), "the first disk is sealed");
    assert!(!trial.comes_again(3, 1));
    trial.told(1, 1, 1, Step::Transfer, What::Failed { cause: "broken".to_owned(), last: true });
    assert!(trial.comes_again(3, 1), "who fails makes room too");
    assert_eq!(trial.fleet.state.deployments[&id].request.as_ordered().max_parallel, Some(1));
}

/// Two plans are asked of the tailor at the same time: the second is not given.
#[test]
fn a_turn_is_taken_when_the_plan_is_ready() {
    let mut trial = Trial::with_machines(2);
    trial.in_turns(2, 1);
    assert!(trial.comes(report(1, 1, blank("D1"))).is_none());
    let first = (trial.request.take(), trial.hardware.take());
    assert!(trial.comes(report(2, 1, blank("D2"))).is_none(), "there is a place still");
    assert!(matches!(trial.tailored(), Instruction::Deploy(_)));
    (trial.request, trial.hardware) = first;
    assert!(matches!(trial.tailored(), Instruction::Wait { .. }));
    assert_eq!(trial.job(1).state, JobState::Ordered);
}

#[test]
fn of_a_paused_deployment_nothing_begins_and_what_runs_goes_on() {
    let mut trial = Trial::with_machines(2);
    let id = trial.order(&["m1", "m2"]).unwrap();
    assert!(trial.comes_again(1, 1));
    trial.pause(id, true).unwrap();
    trial.pause(id, true).unwrap();
    assert!(trial.comes_again(1, 2), "a machine that lost power goes on");
    assert!(!trial.comes_again(2, 1));
    assert_eq!(trial.waits(2), Some(WaitsFor::Resume));
    // A pause is not held against the order, and an order of another deployment is not paused.
    trial.pass(2 * WEEK);
    assert_eq!(trial.job(2).state, JobState::Ordered);
    trial.pause(id, false).unwrap();
    trial.pass(1);
    assert_eq!(trial.job(2).state, JobState::Ordered, "the time of the pause does not count");
    assert!(trial.comes_again(2, 2));
    let noted: Vec<_> = trial.logged().into_iter().filter(|text| text.contains("an admin: ")).collect();
    assert_eq!(noted.len(), 2, "{noted:?}");
    trial.cancel(id);
    let over = trial.pause(id, true).unwrap_err();
    assert!(over.error.contains("d1 is over"), "{over:?}");
    assert!(trial.pause(DeploymentId(7), true).is_err());
}

#[test]
fn a_paused_open_order_takes_nobody() {
    let mut trial = Trial::new();
    let id = trial.open();
    trial.pause(id, true).unwrap();
    assert!(!trial.comes_again(1, 1) && trial.fleet.state.jobs.is_empty());
    assert!(!trial.fleet.state.policies(true).due.takes_strangers("lab"));
    trial.pause(id, false).unwrap();
    assert!(trial.comes_again(1, 2));
}

#[test]
fn who_waits_for_a_turn_does_not_expire_while_the_others_go_on() {
    let mut trial = Trial::with_machines(2);
    trial.in_turns(2, 1);
    assert!(trial.comes_again(1, 1));
    trial.pass(WEEK - 60);
    trial.told(1, 1, 1, Step::Seal, done());
    trial.pass(WEEK - 60);
    assert_eq!(trial.job(2).state, JobState::Ordered);
    trial.pass(WEEK);
    assert_eq!(trial.job(2).state, JobState::Cancelled);
}

#[test]
fn one_order_writes_no_more_than_its_ceiling() {
    let mut trial = Trial::with_machines(4);
    trial.fleet.settings.max_machines = 3;
    let order = |max: Option<u32>| {
        serde_json::json!({
            "image": "debian", "selection": {"machines": names(4)}, "max_machines": max,
        })
    };
    let refused = trial.order_lines(order(None)).unwrap_err();
    assert!(refused.error.contains("4 machines") && refused.hint.unwrap().contains("--max-machines 4"));
    assert!(trial.fleet.state.deployments.is_empty(), "nothing was ordered");
    assert!(trial.order_lines(order(Some(3))).is_err());
    let (id, _) = trial.order_lines(order(Some(4))).unwrap();
    for n in 1..=4 {
        trial.comes_again(n, 1);
        trial.told(n, 1, 1, Step::Transfer, What::Failed { cause: "broken".to_owned(), last: true });
    }
    let retry = Retry { deployment: Some(id), ..Retry::default() };
    assert!(trial.retry(retry.clone()).unwrap_err().error.contains("4 machines"));
    assert_eq!(trial.retry(Retry { max_machines: Some(4), ..retry }).unwrap().len(), 4);
}

#[test]
fn an_open_order_stops_at_its_ceiling_and_says_so() {
    let mut trial = Trial::with_machines(2);
    trial.fleet.settings.max_machines = 3;
    let above = serde_json::json!({"image": "open", "selection": {}, "open": true, "limit": 4});
    assert!(trial.order_lines(above).is_err(), "its limit is above the ceiling");
    let id = trial.open();
    assert_eq!(trial.fleet.state.jobs.len(), 2);
    // A later ceiling does not apply to it.
    trial.fleet.settings.max_machines = 9;
    assert!(trial.comes_again(3, 1));
    assert!(trial.logged().iter().any(|text| text.contains("taken 3 machines")));
    assert!(!trial.comes_again(4, 1));
    assert!(trial.fleet.state.find_deployment(id).unwrap().is_full);
}

/// A machine that is held gets nothing of any order, in whichever way it would be given.
#[test]
fn a_hold_wins() {
    let mut trial = Trial::with_machines(2);
    let order = trial.in_turns(2, 1);
    trial.act("m1", MachineAction::Hold).unwrap();
    assert!(!trial.comes_again(1, 1), "ordered before");
    assert_eq!(trial.waits(1), Some(WaitsFor::Release));
    trial.pause(order, true).unwrap();
    trial.pause(order, false).unwrap();
    assert!(!trial.comes_again(1, 2), "ordered before, and resumed");
    assert!(trial.comes_again(2, 1), "it keeps no place that another could take");
    trial.cancel(order);
    let refused = trial.order(&["m1"]).unwrap_err();
    assert!(refused.cause.unwrap().contains("held"));
    trial.open();
    assert!(!trial.comes_again(1, 3), "an open order");
    trial.act("m1", MachineAction::Approve).unwrap();
    assert!(!trial.comes_again(1, 4), "an open order, and approved");
    // Running: it goes on until it loses power, and does not begin again.
    trial.act("m1", MachineAction::Release).unwrap();
    assert!(trial.comes_again(1, 5));
    trial.act("m1", MachineAction::Hold).unwrap();
    assert!(!trial.comes_again(1, 6));
    // Held while the tailor works.
    trial.act("m1", MachineAction::Release).unwrap();
    assert!(trial.comes(report(1, 7, blank("D1"))).is_none());
    trial.act("m1", MachineAction::Hold).unwrap();
    assert!(matches!(trial.tailored(), Instruction::Wait { .. }));
    // Failed, and retried.
    let mut trial = Trial::with_machines(1);
    trial.order(&["m1"]).unwrap();
    trial.comes_again(1, 1);
    trial.told(1, 1, 1, Step::Transfer, What::Failed { cause: "broken".to_owned(), last: true });
    trial.act("m1", MachineAction::Hold).unwrap();
    let retry = Retry {
        selection: Selection { machines: vec!["m1".to_owned()], labels: vec![] },
        ..Retry::default()
    };
    assert!(trial.retry(retry).is_err());
}

#[test]
fn only_what_failed_is_retried_where_that_is_asked() {
    let mut trial = Trial::with_machines(2);
    let id = trial.order(&["m1", "m2"]).unwrap();
    trial.comes_again(1, 1);
    trial.told(1, 1, 1, Step::Transfer, What::Failed { cause: "broken".to_owned(), last: true });
    assert_eq!(trial.written(report(2, 1, blank("OTHER"))), None);
    assert_eq!(trial.job(2).state, JobState::Refused);
    let failed = |failed| Retry { deployment: Some(id), failed, ..Retry::default() };
    let lines = trial.fleet.retryable(&failed(false)).unwrap();
    assert_eq!(lines.len(), 2);
    let lines = trial.fleet.retryable(&failed(true)).unwrap();
    assert_eq!(lines.iter().map(|again| again.job.0).collect::<Vec<_>>(), [1]);
}

/// What is on the disk of a machine that was ordered for before it reported: blank ones are written, others only when an
/// admin has seen them or has said that data does not matter.
#[test]
fn nobody_loses_data_that_was_not_shown() {
    let order = |accept: &[&str]| serde_json::json!({"image": "debian", "selection": {"machines": ["m1"]}, "accept": accept});
    for (accept, contents, written) in [
        (&[][..], Contents::Blank, true),
        (&[], Contents::Data, false),
        (&[], Contents::Unreadable, false),
        (&["data"], Contents::Data, true),
    ] {
        let mut trial = Trial::new();
        trial.asks_for_its_script();
        trial.order_lines(order(accept)).unwrap();
        let plan = trial.written(report(1, 1, vec![disk("A", contents)]));
        assert_eq!(plan.is_some(), written, "{accept:?} {contents:?}");
        if !written {
            assert!(trial.job(1).cause.as_ref().unwrap().contains("nobody was shown"));
            let lines = trial.retry(Retry { deployment: Some(DeploymentId(1)), ..Retry::default() }).unwrap();
            assert_eq!(lines[0].line.target.as_deref(), Some("A"), "now it is shown");
            assert!(trial.written(report(1, 2, vec![disk("A", contents)])).is_some());
        }
    }
}
