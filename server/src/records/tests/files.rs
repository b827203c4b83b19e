//! The files of the records: readable for their owner only, without secrets that nobody needs, and bounded in size.

use super::*;
use crate::fleet::testing::suite::event;

#[test]
fn the_files_are_their_owners_alone_from_the_first_byte() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = dir.path().join("records.sqlite");
    let modes = || {
        let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap());
        files
            .map(|file| (file.file_name(), file.metadata().unwrap().permissions().mode() & 0o777))
            .collect::<Vec<_>>()
    };
    let records = Records::open(&path).unwrap();
    let made = modes();
    assert!(made.len() >= 3 && made.iter().all(|(_, mode)| *mode == 0o600), "{made:?}");
    // The mode that an earlier version gave them.
    for (name, _) in made {
        std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let again = Records::open(&path).unwrap();
    assert!(modes().iter().all(|(_, mode)| *mode == 0o600), "{:?}", modes());
    drop((records, again));
}

#[test]
fn secrets_go_when_nobody_needs_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.sqlite");
    let mut records = Records::open(&path).unwrap();
    let mut fleet = Fleet::new(records.load().unwrap(), settings());
    let now = Timestamp::from_second(1_000_000).unwrap();
    perform(&mut fleet, Deed::Report(1, 0), 1, now);
    let secret = "password: SECRET-OF-M1-12345";
    let text = serde_json::json!({
        "image": "debian", "selection": {"machines": ["m1"]}, "user_data": secret, "ssh_keys": ["ssh-ed25519 AAAA me"],
    });
    place(&mut fleet, order(text), now);
    let later = |minutes| now + SignedDuration::from_mins(minutes);
    fleet.tick(later(5));
    assert!(
        fleet.state.deployments[&DeploymentId(1)].request.holds_secrets(),
        "the machine has not come yet"
    );
    records.commit(&fleet.take_effects().changes).unwrap();
    let holds = || {
        std::fs::read_dir(dir.path()).unwrap().any(|entry| {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
        })
    };
    assert!(holds());
    perform(&mut fleet, Deed::Cancel(1), 1, later(6));
    fleet.tick(later(7));
    records.commit(&fleet.take_effects().changes).unwrap();
    let kept = records.load().unwrap().deployments[&DeploymentId(1)].request.as_ordered().clone();
    assert!(kept.user_data.is_none() && kept.ssh_keys.is_empty() && kept.secrets_removed);
    assert!(!holds(), "its bytes are still in a file");
}

#[test]
fn a_profile_that_is_gone_leaves_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let mut records = Records::open(&dir.path().join("records.sqlite")).unwrap();
    let mut fleet = Fleet::new(records.load().unwrap(), settings());
    let secret = "password: SECRET-OF-A-PROFILE-12345";
    let wish = || order(serde_json::json!({"image": "debian", "user_data": secret}));
    let other = || order(serde_json::json!({"image": "debian", "user_data": "#!"}));
    let holds = || {
        std::fs::read_dir(dir.path()).unwrap().any(|entry| {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
        })
    };
    fleet.add_profile("web", wish(), false, Timestamp::UNIX_EPOCH).unwrap();
    fleet.add_profile("db", wish(), false, Timestamp::UNIX_EPOCH).unwrap();
    records.commit(&fleet.take_effects().changes).unwrap();
    assert!(holds());
    fleet.remove_profile("web", Timestamp::UNIX_EPOCH).unwrap();
    fleet.add_profile("db", other(), true, Timestamp::UNIX_EPOCH).unwrap();
    records.commit(&fleet.take_effects().changes).unwrap();
    assert!(!holds(), "its bytes are still in a file");
    let kept = records.load().unwrap();
    assert_eq!((kept.profiles.len(), kept.last_profile), (1, 3));
}

#[test]
fn the_oldest_events_go_when_there_are_too_many_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut records = Records::open(&dir.path().join("records.sqlite")).unwrap();
    let note = || What::Note { text: "x".repeat(1000) };
    let events: Vec<Change> = (1..30_000).map(|id| event(id, None, Step::Loader, note())).collect();
    records.commit(&events).unwrap();
    let used = records.used_bytes().unwrap();
    assert_eq!(records.shrink_events(used).unwrap(), 0);
    assert_eq!(records.shrink_events(8 << 20).unwrap(), 20_000, "so many at once");
    assert!(records.used_bytes().unwrap() < used / 2);
    while records.shrink_events(8 << 20).unwrap() > 0 {}
    assert!(records.used_bytes().unwrap() <= 8 << 20 || records.load().unwrap().last_event == 29_999);
    assert_eq!(records.load().unwrap().last_event, 29_999, "the numbering goes on");
}
