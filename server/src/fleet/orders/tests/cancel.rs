//! Cancelled orders: the state that the machine gets back, and what is said about its disk.

use super::*;

#[test]
fn a_cancelled_order_approves_nobody() {
    // H1, first part: a machine with an OS is ordered by mistake, while an open order takes blank machines.
    let mut trial = Trial::new();
    trial.reports(report(1, 1, vec![disk("OS", Contents::Bootable)]));
    trial.open();
    let id = trial.order(&["m1"]).unwrap();
    assert_eq!(trial.machine(1).state, MachineState::Approved);
    trial.cancel(id);
    assert_eq!(trial.machine(1).state, MachineState::Discovered);
    assert_eq!(trial.written(report(1, 2, vec![disk("OS", Contents::Bootable)])), None);
}

#[test]
fn a_cancel_gives_back_what_an_admin_said_meanwhile() {
    for (action, wanted) in [
        (MachineAction::Approve, MachineState::Approved),
        (MachineAction::Name("db1".to_owned()), MachineState::Inspected),
        (MachineAction::Hold, MachineState::Inspected),
    ] {
        let mut trial = Trial::new();
        trial.reports(report(1, 1, blank("A")));
        let id = trial.order(&["m1"]).unwrap();
        trial.act("m1", action.clone()).unwrap();
        trial.cancel(id);
        assert_eq!(trial.machine(1).state, wanted, "{action:?}");
    }
}

#[test]
fn a_cancel_does_not_undo_a_rejection() {
    // H1, second part, and L16: the job of a rejected machine is over, even if the machine is released later.
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("A")));
    let id = trial.order(&["m1"]).unwrap();
    trial.act("m1", MachineAction::Reject).unwrap();
    assert_eq!(trial.job(1).state, JobState::Cancelled);
    trial.cancel(id);
    assert_eq!(trial.machine(1).state, MachineState::Rejected);
    trial.act("m1", MachineAction::Release).unwrap();
    assert_eq!(trial.machine(1).state, MachineState::Inspected);
    assert_eq!(trial.written(report(1, 2, blank("A"))), None, "released months later");
}

#[test]
fn what_is_on_the_disk_after_a_cancel_is_said() {
    // L3: the cancel arrives while the disk is being sealed, and after that.
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("A")));
    let id = trial.order(&["m1"]).unwrap();
    trial.written(report(1, 2, blank("A")));
    trial.told(1, 2, 1, Step::Seal, What::Started);
    trial.cancel(id);
    assert!(trial.job(1).cause.as_ref().unwrap().contains("may boot what was ordered"));
    assert_eq!(trial.machine(1).deployed_image, None);
    trial.told(1, 2, 2, Step::Seal, done());
    assert!(trial.job(1).sealed && trial.job(1).cause.as_ref().unwrap().contains("too late"));
    assert_eq!(trial.machine(1).deployed_image.as_deref(), Some("debian"));
    trial.calls_home(1);
    assert_eq!(trial.job(1).state, JobState::Cancelled);
    assert!(trial.job(1).cause.as_ref().unwrap().contains("called home"));
    assert_eq!(trial.machine(1).state, MachineState::Discovered, "it is not what was wanted");

    // In the middle of the transfer nothing of the earlier OS is left.
    let id = trial.order(&["m1"]).unwrap();
    trial.written(report(1, 3, blank("A")));
    trial.told(1, 3, 1, Step::Transfer, What::Started);
    trial.cancel(id);
    assert!(trial.job(1).cause.as_ref().unwrap().contains("in part"));
    assert_eq!(trial.machine(1).deployed_image, None);
}

/// A machine with an old OS, an order for it, and its first attempt, which has begun `step`.
fn reinstalls(step: Step) -> (Trial, DeploymentId) {
    let mut trial = Trial::new();
    trial.reports(report(1, 1, vec![disk("A", Contents::Bootable)]));
    let mut deployed = trial.machine(1).clone();
    (deployed.state, deployed.deployed_image) = (MachineState::Deployed, Some("old".to_owned()));
    trial.fleet.put_machine(deployed);
    let id = trial.order(&["m1"]).unwrap();
    trial.written(report(1, 2, vec![disk("A", Contents::Bootable)]));
    trial.told(1, 2, 1, step, What::Started);
    (trial, id)
}

#[test]
fn a_cancel_before_anything_was_written_takes_nothing_away() {
    let (mut trial, id) = reinstalls(Step::Gather);
    trial.cancel(id);
    let machine = trial.machine(1);
    assert_eq!((machine.state, machine.deployed_image.as_deref()), (MachineState::Deployed, Some("old")));
}

#[test]
fn a_refusal_after_the_disk_was_cleared_leaves_no_old_os_to_give_back() {
    let (mut trial, id) = reinstalls(Step::Transfer);
    // After a power loss, the next attempt finds another disk.
    trial.comes(report(1, 3, blank("B")));
    trial.tailored();
    assert_eq!(trial.job(1).state, JobState::Refused);
    trial.cancel(id);
    let machine = trial.machine(1);
    assert_eq!((machine.state, machine.deployed_image.as_deref()), (MachineState::Inspected, None));
}

#[test]
fn what_an_agent_began_before_it_heard_of_the_cancel_counts() {
    let (mut trial, id) = reinstalls(Step::Gather);
    trial.cancel(id);
    assert_eq!(trial.machine(1).state, MachineState::Deployed);
    trial.told(1, 2, 2, Step::Transfer, What::Started);
    let machine = trial.machine(1);
    assert_eq!((machine.state, machine.deployed_image.as_deref()), (MachineState::Inspected, None));
    assert!(trial.logged().iter().any(|line| line.contains("may boot nothing")));
}
