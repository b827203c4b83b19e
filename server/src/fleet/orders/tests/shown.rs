//! Only the disk that was shown is written: an order and a retry are bound to the machine and the disk that an admin
//! saw.

use super::*;

#[test]
fn what_was_shown_is_what_is_written() {
    // H4 (a): B was shown; at power-on there is another disk instead, or one more.
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("B")));
    trial.order(&["m1"]).unwrap();
    let both = vec![disk("A", Contents::Data), disk("B", Contents::Blank)];
    assert_eq!(trial.written(report(1, 2, both)).as_deref(), Some("B"));
    assert_eq!(trial.written(report(1, 3, vec![disk("A", Contents::Data)])), None);
    let cause = trial.job(1).cause.clone().unwrap();
    assert!(cause.contains("serial A") && cause.contains("serial B"), "{cause}");
    assert_eq!(trial.job(1).state, JobState::Refused);
    assert_eq!(
        trial.written(report(1, 4, blank("B"))),
        None,
        "not even when it is back: a person looks first"
    );
}

#[test]
fn who_was_known_by_an_address_only_is_bound_by_its_first_plan() {
    let mut trial = Trial::new();
    trial.asks_for_its_script();
    trial.order(&["m1"]).unwrap();
    assert_eq!(trial.written(report(1, 1, blank("A"))).as_deref(), Some("A"));
    assert_eq!(trial.job(1).bound.disk.as_ref().map(|disk| disk.serial.as_str()), Some("A"));
    assert_eq!(trial.written(report(1, 2, blank("C"))), None, "the next attempt is for the same disk");
}

#[test]
fn a_refused_job_is_over_until_a_person_has_looked() {
    // H4 (b): two disks are refused; one is removed, and the other one holds data.
    let mut trial = Trial::new();
    let both = || vec![disk("A", Contents::Data), disk("B", Contents::Blank)];
    trial.reports(report(1, 1, vec![]));
    trial.fleet.state.machines.get_mut(&MachineId(1)).unwrap().hardware = None;
    trial.order(&["m1"]).unwrap();
    assert_eq!(trial.written(report(1, 2, both())), None);
    assert_eq!(trial.job(1).state, JobState::Refused);
    for boot in 3..6 {
        assert_eq!(trial.written(report(1, boot, vec![disk("A", Contents::Data)])), None);
    }
    assert_eq!(trial.job(1).state, JobState::Refused);

    // The admin is shown what would be written now, and exactly that is written.
    trial.reports(report(1, 6, blank("B")));
    let lines = trial.retry(Retry { deployment: Some(DeploymentId(1)), ..Retry::default() }).unwrap();
    assert_eq!(lines[0].line.disk.as_ref().unwrap().serial, "B");
    assert_eq!(trial.written(report(1, 7, blank("B"))).as_deref(), Some("B"));
    assert!(trial.retry(Retry { deployment: Some(DeploymentId(1)), ..Retry::default() }).is_err(), "it runs");
}

#[test]
fn what_changed_since_it_was_shown_is_refused_by_name() {
    // H4 (d): names and labels are not looked up a second time, and another disk or image is refused.
    let mut trial = Trial::new();
    for machine in 1..=4 {
        trial.reports(report(machine, 1, blank(&format!("D{machine}"))));
        let role = [("role".to_owned(), "web".to_owned())].into();
        let label = MachineAction::Label { set: role, remove: vec![] };
        trial.act(&format!("m{machine}"), label).unwrap();
    }
    let text = serde_json::json!({"image": "debian", "selection": {"labels": ["role=web"]}});
    let mut order: DeployOrder = serde_json::from_value(text).unwrap();
    let lines = trial.lines(&order, "debian").unwrap();
    let shown =
        |line: &DeployLine| ShownLine { machine: line.machine, disk: line.disk.clone(), profile: None };
    order.shown = Some(Shown {
        image: image("debian").id,
        machines: lines.iter().take(3).map(shown).collect(),
        profiles: vec![],
    });

    // m1 stays, m2 has another disk, m3 is forgotten, m4 was not shown.
    trial.reports(report(2, 2, blank("OTHER")));
    trial.act("m3", MachineAction::Forget).unwrap();
    let (_, lines) = trial.order_lines(serde_json::to_value(&order).unwrap()).unwrap();
    let refused: Vec<_> = lines.iter().map(|line| (line.machine.0, line.refused.clone())).collect();
    assert_eq!(refused.len(), 3, "{refused:?}");
    assert_eq!(refused[0], (1, None));
    assert!(
        refused[1].1.as_ref().is_some_and(|why| why.contains("OTHER") && why.contains("D2")),
        "{refused:?}"
    );
    assert!(refused[2].1.as_ref().is_some_and(|why| why.contains("forgotten")), "{refused:?}");
    assert_eq!(trial.fleet.state.jobs.len(), 1);

    let other = trial.lines(&order, "another");
    assert!(other.is_err_and(|refused| refused.error.contains("another one")));
}

#[test]
fn a_machine_that_reported_since_it_was_shown_is_shown_again() {
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("A")));
    let order = serde_json::json!({
        "image": "debian", "selection": {"machines": ["m1"]},
        "shown": {"image": image("debian").id, "machines": [{"machine": "m1", "disk": null}]},
    });
    let refused = trial.order_lines(order).unwrap_err();
    assert!(refused.cause.as_ref().is_some_and(|why| why.contains("has reported")), "{refused:?}");
}

#[test]
fn a_retry_is_held_to_what_was_shown() {
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("A")));
    trial.order(&["m1"]).unwrap();
    trial.written(report(1, 2, blank("B")));
    let job = trial.job(1).id;
    let shown = |serial: &str| {
        let disk = Some(DiskIdentity::of(&disk(serial, Contents::Blank)));
        Retry { shown: Some(vec![RetryShown { job, disk }]), ..Retry::default() }
    };
    let refused = trial.retry(shown("A")).unwrap_err();
    assert!(refused.cause.is_some_and(|why| why.contains("serial A")));
    assert_eq!(trial.retry(shown("B")).unwrap().len(), 1);
    assert_eq!(trial.job(1).state, JobState::Ordered);
    trial.cancel(DeploymentId(1));
    assert_eq!(trial.machine(1).state, MachineState::Discovered, "it never began");
}

#[test]
fn a_later_order_is_not_displaced_by_a_retry() {
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("A")));
    let first = trial.order(&["m1"]).unwrap();
    trial.written(report(1, 2, blank("A")));
    trial.told(1, 2, 1, Step::Transfer, What::Failed { cause: "c".to_owned(), last: true });
    assert_eq!(trial.job(1).state, JobState::Failed);
    let retry = Retry { deployment: Some(first), ..Retry::default() };
    trial.order(&["m1"]).unwrap();
    assert!(trial.retry(retry).is_err());
    assert!(trial.retry(Retry::default()).is_err(), "nothing is named");
    let selection = Selection { machines: vec!["m1".to_owned()], labels: vec![] };
    assert!(trial.retry(Retry { selection, ..Retry::default() }).is_err(), "its newest job waits");
}
