//! The text that is scraped: labels, bounds, and what an event does to the counters.

use common::id::{JobId, MachineId};
use common::step::{Step, What};
use jiff::Timestamp;

use super::*;

fn event(step: Step, what: What, second: i64) -> LogEvent {
    LogEvent {
        id: 1,
        at: Timestamp::from_second(second).unwrap(),
        machine: Some(MachineId(1)),
        name: "m1".to_owned(),
        deployment: None,
        job: Some(JobId(1)),
        attempt: Some(1),
        step,
        what,
        sources: None,
        by: None,
        by_machine: true,
    }
}

#[test]
fn a_step_is_counted_and_timed() {
    let metrics = Metrics::new();
    metrics.event(&event(Step::Transfer, What::Started, 100));
    metrics.event(&event(Step::Transfer, What::Progress { done: 1, total: 2 }, 110));
    metrics.event(&event(Step::Transfer, What::Done { text: String::new() }, 150));
    metrics.event(&event(Step::Verify, What::Started, 150));
    metrics.event(&event(Step::Verify, What::Failed { cause: "disk".to_owned(), last: false }, 151));
    metrics.event(&event(Step::Verify, What::Failed { cause: "disk".to_owned(), last: true }, 152));
    let text = metrics.text(vec![]);
    for line in [
        "swarmboot_steps_total{step=\"transfer\",outcome=\"done\"} 1",
        "swarmboot_steps_total{step=\"verify\",outcome=\"retried\"} 1",
        "swarmboot_steps_total{step=\"verify\",outcome=\"failed\"} 1",
        "swarmboot_step_duration_seconds_sum{step=\"transfer\"} 50.0",
        "swarmboot_step_duration_seconds_bucket{le=\"30.0\",step=\"transfer\"} 0",
        "swarmboot_step_duration_seconds_bucket{le=\"60.0\",step=\"transfer\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("duration_seconds_sum{step=\"verify\"}"), "a failed step has no duration\n{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn what_machines_name_makes_no_series() {
    let metrics = Metrics::new();
    for n in 0..1000 {
        metrics.event(&event(Step::Other(format!("step {n}")), What::Started, n));
        metrics.hash_failure(&format!("image {n}"));
    }
    let text = metrics.text(vec![]);
    assert_eq!(text.matches("swarmboot_steps_total{").count(), 1);
    assert_eq!(text.matches("swarmboot_hash_failures_total{").count(), IMAGES_MAX + 1);
    assert!(text.contains("image=\"other images\"} 936"), "{text}");
}

#[test]
fn a_label_cannot_break_out_of_its_quotes() {
    let hostile = "a\"} 1\nswarmboot_frozen 1\\";
    let reading = Reading::gauge("swarmboot_machines", "x").with(vec![("site", hostile.to_owned())], 1.0);
    let text = Metrics::new().text(vec![reading]);
    assert!(text.lines().all(|line| line != "swarmboot_frozen 1\\\"} 1.0"), "{text}");
    assert!(text.contains("site=\"a\\\"} 1\\nswarmboot_frozen 1\\\\\"} 1"), "{text}");
}

#[test]
fn a_commit_that_fails_is_seen_until_one_succeeds() {
    let metrics = Metrics::new();
    assert!(metrics.writable());
    metrics.commit(Duration::from_millis(1), false);
    assert!(!metrics.writable());
    metrics.commit(Duration::from_millis(1), true);
    assert!(metrics.writable());
    let text = metrics.text(vec![]);
    assert!(text.contains("swarmboot_commit_failures_total 1"), "{text}");
    assert!(text.contains("swarmboot_commit_duration_seconds_count 1"), "{text}");
}
