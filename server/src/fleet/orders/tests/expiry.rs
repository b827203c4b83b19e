//! Expiry: orders whose machines do not report, and jobs whose agent is silent, end after the lifetime of the order.

use super::*;

#[test]
fn orders_that_nobody_comes_for_end() {
    // H4 (c).
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("A")));
    let named = trial.order(&["m1"]).unwrap();
    let open = trial.open();
    trial.pass(WEEK - 10);
    assert_eq!(trial.job(1).state, JobState::Ordered);
    trial.logged();
    trial.pass(20);
    assert_eq!(trial.job(1).state, JobState::Cancelled);
    assert!(!trial.fleet.state.deployments[&open].open);
    let logged = trial.logged();
    assert_eq!(logged.iter().filter(|text| text.contains("expired")).count(), 2, "{logged:?}");
    assert_eq!(trial.machine(1).state, MachineState::Discovered, "as before");
    assert_eq!(trial.written(report(1, 2, blank("A"))), None);
    assert!(trial.job(1).cause.as_ref().is_some_and(|why| why.contains("expired")), "{named}");
}

#[test]
fn an_order_says_how_long_it_lives() {
    for (seconds, after, state) in [
        (Some(60), 61, JobState::Cancelled),
        (Some(60), 59, JobState::Ordered),
        (Some(0), 50 * WEEK, JobState::Ordered),
        (Some(u64::MAX), 50 * WEEK, JobState::Ordered),
        (None, WEEK, JobState::Cancelled),
    ] {
        let mut trial = Trial::new();
        trial.reports(report(1, 1, blank("A")));
        trial
            .order_lines(serde_json::json!({
                "image": "debian", "selection": {"machines": ["m1"]}, "expires_seconds": seconds,
            }))
            .unwrap();
        // A later change of the settings applies only to later orders.
        trial.fleet.settings.order_expires =
            Some(SignedDuration::from_secs(if seconds.is_none() { 1 } else { 9 }));
        trial.pass(after);
        assert_eq!(trial.job(1).state, state, "{seconds:?} {after}");
    }
}

#[test]
fn an_agent_that_is_gone_for_as_long_ends_its_job() {
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("A")));
    trial.order(&["m1"]).unwrap();
    trial.written(report(1, 2, blank("A")));
    trial.told(1, 2, 1, Step::Transfer, What::Started);
    trial.pass(WEEK - 5);
    // An agent without events sends empty batches, which count as a sign of life.
    let (key, job) = (key(1, 2), Some(trial.job(1).id));
    trial
        .fleet
        .events(EventBatch { key, job, attempt: None, sent_at_ms: 0, events: vec![] }, trial.now)
        .unwrap();
    trial.pass(WEEK - 5);
    assert_eq!(trial.job(1).state, JobState::Running);
    trial.pass(10);
    assert_eq!(trial.job(1).state, JobState::Failed);
    assert_eq!(trial.machine(1).state, MachineState::Failed);
    assert_eq!(
        trial.written(report(1, 3, blank("A"))),
        None,
        "its disk is whatever it is, and nobody thinks of it"
    );
    assert!(trial.fleet.take_effects().dismissed.iter().any(|(left, _)| *left == self::key(1, 2)));
}

#[test]
fn an_open_order_expects_strangers_of_its_site_until_it_is_cancelled_or_full() {
    let mut trial = Trial::new();
    let expects = |trial: &Trial, site: &str| trial.fleet.state.policies(true).due.takes_strangers(site);
    let order = |more: serde_json::Value| {
        let mut order = serde_json::json!({"image": "open", "selection": {}, "open": true});
        more.as_object().unwrap().iter().for_each(|(key, value)| order[key] = value.clone());
        order
    };
    assert!(!expects(&trial, "branch"));
    let at_branch = serde_json::json!({"selection": {"labels": ["site=branch", "role=web"]}});
    let (id, _) = trial.order_lines(order(at_branch)).unwrap();
    assert!(expects(&trial, "branch") && !expects(&trial, "elsewhere"));
    trial.cancel(id);
    assert!(!expects(&trial, "branch"), "nobody is taken any more");
    trial.order_lines(order(serde_json::json!({"limit": 1}))).unwrap();
    assert!(expects(&trial, "branch"), "it takes machines of any site");
    assert_eq!(trial.written(report(1, 1, blank("A"))).as_deref(), Some("A"));
    assert!(!expects(&trial, "branch"), "it is full");
}
