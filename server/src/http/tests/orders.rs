//! Orders with reports of machines between them, over records: the disks and images that a dry run showed are those
//! that are written, and what an admin decided holds after a restart.

use std::time::Duration;

use common::hardware::Contents;
use common::plan::{DiskIdentity, Instruction};

use super::bench::{Bench, image, key, report};
use crate::api::shapes::{Freeze, JobState, Retry, RetryShown, Selection, Warning};
use crate::fleet::FleetError;
use crate::fleet::boot_policy::BootPolicy;

fn one(machine: &str) -> serde_json::Value {
    serde_json::json!({"image": "debian", "selection": {"machines": [machine]}})
}

#[tokio::test]
async fn a_refused_machine_waits_for_a_person_over_a_restart() {
    // H4 (b), with its polls.
    let bench = Bench::open();
    bench.report(report(1, 1, &[Contents::Blank]), &key(1, 1)).await;
    let id = bench.order(one("m1")).await.unwrap().deployment.unwrap();
    let two = report(1, 2, &[Contents::Data, Contents::Blank]);
    assert!(matches!(bench.report(two, &key(1, 2)).await, Instruction::Wait { .. }));
    let mut alone = report(1, 3, &[Contents::Data]);
    alone.disks[0].serial = "ANOTHER".to_owned();
    assert!(
        matches!(bench.report(alone.clone(), &key(1, 3)).await, Instruction::Wait { .. }),
        "not even alone"
    );
    let bench = bench.restart().await;
    assert!(matches!(bench.report(alone, &key(1, 3)).await, Instruction::Wait { .. }));

    let retry = Retry { deployment: Some(id), dry_run: true, ..Retry::default() };
    let would = bench.fleet.retry(retry.clone()).await.unwrap();
    let disk = would[0].line.disk.clone().unwrap();
    assert_eq!(disk.serial, "ANOTHER");
    let shown = |disk: Option<DiskIdentity>| Retry {
        shown: Some(vec![RetryShown { job: would[0].job, disk }]),
        dry_run: false,
        ..retry.clone()
    };
    let other = DiskIdentity { serial: "OTHER".to_owned(), ..disk.clone() };
    assert!(matches!(bench.fleet.retry(shown(Some(other))).await, Err(FleetError::Refused(_))));
    bench.fleet.retry(shown(Some(disk))).await.unwrap();
    let mut again = report(1, 4, &[Contents::Data]);
    again.disks[0].serial = "ANOTHER".to_owned();
    let Instruction::Deploy(plan) = bench.report(again, &key(1, 4)).await else { panic!("no plan") };
    assert_eq!(plan.target.serial, "ANOTHER");
}

#[tokio::test]
async fn what_was_shown_holds_over_a_restart() {
    // H4 (a).
    let bench = Bench::open();
    bench.report(report(1, 1, &[Contents::Blank]), &key(1, 1)).await;
    let mut order = one("m1");
    order["dry_run"] = true.into();
    let would = bench.order(order.clone()).await.unwrap();
    order["dry_run"] = false.into();
    order["shown"] = serde_json::json!({
        "image": would.image.id, "machines": [{"machine": "m1", "disk": would.machines[0].disk}],
    });
    let id = bench.order(order.clone()).await.unwrap().deployment.unwrap();
    let bench = bench.restart().await;
    let mut swapped = report(1, 2, &[Contents::Data]);
    swapped.disks[0].serial = "SWAPPED".to_owned();
    let Instruction::Wait { reason, .. } = bench.report(swapped, &key(1, 2)).await else { panic!("a plan") };
    assert!(reason.contains("SWAPPED") && reason.contains("deploy retry"), "{reason}");
    let shown = bench.fleet.deployment(id).await.unwrap().unwrap();
    assert_eq!(shown.jobs[0].state, JobState::Refused);

    // The image has another id by now.
    order["shown"]["image"] = serde_json::json!(common::id::Hash::of(b"other"));
    assert!(matches!(bench.order(order).await, Err(FleetError::Refused(_))));
}

#[tokio::test]
async fn a_freeze_holds_over_a_restart_and_the_doors_know_it() {
    let bench = Bench::open();
    bench.report(report(1, 1, &[Contents::Bootable]), &key(1, 1)).await;
    bench.order(one("m1")).await.unwrap();
    assert_eq!(bench.policy(1).await, BootPolicy::Load);
    bench.fleet.freeze(Freeze { freeze: true, reason: Some("audit".to_owned()) }).await.unwrap();
    assert_eq!(bench.policy(1).await, BootPolicy::BootDisk);
    let bench = bench.restart().await;
    assert_eq!(bench.fleet.frozen().await.unwrap().unwrap().reason.as_deref(), Some("audit"));
    assert_eq!(bench.policy(1).await, BootPolicy::BootDisk);
    let order = bench.report(report(1, 2, &[Contents::Bootable]), &key(1, 2)).await;
    assert!(matches!(order, Instruction::BootDisk { reason } if reason.contains("audit")));
    bench.report(report(2, 1, &[Contents::Blank]), &key(2, 1)).await;
    assert!(matches!(bench.order(one("m2")).await, Err(FleetError::Refused(_))));
    let mut dry = one("m2");
    dry["dry_run"] = true.into();
    assert!(bench.order(dry).await.unwrap().frozen.is_some(), "what it would do can be seen");
    bench.fleet.freeze(Freeze { freeze: false, reason: None }).await.unwrap();
    assert_eq!(bench.policy(1).await, BootPolicy::Load);
    assert!(bench.order(one("m2")).await.is_ok());
}

#[tokio::test]
async fn an_image_that_somebody_needs_or_orders_is_kept() {
    // L14.
    let bench = Bench::open();
    assert_eq!(bench.fleet.needs_image(image().id).await.unwrap(), None);
    let open = serde_json::json!({"image": "debian", "selection": {}, "open": true});
    let id = bench.order(open).await.unwrap().deployment.unwrap();
    assert!(bench.fleet.needs_image(image().id).await.unwrap().is_some_and(|what| what.contains("d1")));
    bench.fleet.cancel(id, crate::api::shapes::Cancel::default()).await.unwrap();
    assert_eq!(bench.fleet.needs_image(image().id).await.unwrap(), None);
    bench.report(report(1, 1, &[Contents::Blank]), &key(1, 1)).await;
    let removing = bench.fleet.keep_orders_out().await.unwrap();
    let wait = Duration::from_millis(100);
    assert!(tokio::time::timeout(wait, bench.order(one("m1"))).await.is_err(), "it waits for the removal");
    drop(removing);
    assert!(bench.order(one("m1")).await.is_ok());
    assert!(bench.fleet.needs_image(image().id).await.unwrap().is_some());
}

#[tokio::test]
async fn who_is_not_known_is_said_to_be_so() {
    let bench = Bench::open();
    let asker = crate::fleet::boot_policy::Asker {
        mac: Some(common::id::Mac([2, 0, 0, 0, 0, 1])),
        uuid: None,
        serial: None,
    };
    let address = std::net::Ipv4Addr::new(10, 0, 0, 9).into();
    bench.fleet.sighting(crate::fleet::boot_policy::Sighting::Script {
        asker,
        address,
        says: crate::fleet::boot_policy::ScriptSays::Load,
    });
    assert_eq!(bench.fleet.machines(Selection::default()).await.unwrap().len(), 1);
    let mut dry = one("m1");
    dry["dry_run"] = true.into();
    let line = bench.order(dry).await.unwrap().machines.remove(0);
    assert_eq!((line.disk, line.refused), (None, None));
    assert_eq!(line.warnings, [Warning::HardwareUnknown]);
}
