//! Machines that an order does not take: those with data under an open order, the server's own, and those that a
//! warning stops.

use super::*;

#[test]
fn an_open_order_takes_strangers_only_when_every_disk_is_blank() {
    use Contents::{Blank, Bootable, Data, Partitioned, Unreadable};
    let stick = |contents| Disk { removable: true, bus: Bus::Usb, ..disk("U", contents) };
    let table: Vec<(&str, Vec<Disk>, bool)> = vec![
        ("blank", blank("A"), true),
        ("bootable", vec![disk("A", Bootable)], false),
        ("whole-disk LUKS, ZFS, btrfs", vec![disk("A", Data)], false),
        ("a data disk with a GPT and no ESP", vec![disk("A", Partitioned)], false),
        ("unreadable", vec![disk("A", Unreadable)], false),
        ("a stick with data", vec![disk("A", Blank), stick(Data)], false),
        ("a blank stick beside", vec![disk("A", Blank), stick(Blank)], true),
        ("no disk", vec![], false),
    ];
    for (what, disks, taken) in table {
        let mut trial = Trial::new();
        trial.open();
        trial.comes(report(1, 1, disks));
        assert_eq!(!trial.fleet.state.jobs.is_empty(), taken, "{what}");
    }
    // A controller without a driver may hide disks with data.
    let mut trial = Trial::new();
    trial.open();
    let mut raid = report(1, 1, blank("A"));
    raid.devices = vec![Device {
        address: "0000:00:17.0".to_owned(),
        modalias: "pci:v00008086d0000282A".to_owned(),
        class: 0x01_04_00,
        driver: String::new(),
    }];
    assert_eq!(trial.written(raid.clone()), None);
    trial.act("m1", MachineAction::Approve).unwrap();
    raid.key = key(1, 2);
    assert!(trial.written(raid).is_some(), "who is approved is taken");
}

#[test]
fn what_was_blank_must_still_be_blank_when_the_plan_is_made() {
    let mut trial = Trial::new();
    trial.open();
    assert!(trial.comes(report(1, 1, blank("A"))).is_none());
    // It is switched off before the plan is made, and reports again with a disk that holds data.
    assert_eq!(trial.written(report(1, 2, vec![disk("B", Contents::Data)])), None);
    assert_eq!(trial.job(1).state, JobState::Refused);

    // A machine that was known when the order was placed is bound to its disk; meanwhile somebody installs on that by
    // hand.
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("A")));
    trial.open();
    assert_eq!(trial.job(1).state, JobState::Ordered);
    let by_hand = |boot| report(1, boot, vec![disk("A", Contents::Bootable)]);
    assert_eq!(trial.written(by_hand(2)), None);
    assert_eq!(trial.job(1).state, JobState::Refused);
    trial.act("m1", MachineAction::Approve).unwrap();
    trial.retry(Retry { deployment: Some(DeploymentId(1)), ..Retry::default() }).unwrap();
    assert!(trial.written(by_hand(3)).is_some(), "an admin has approved it");
}

#[test]
fn the_servers_own_machine_is_no_target() {
    let own = || {
        let marks = Marks { system_serial: Some("sn1".to_owned()), ..Marks::default() };
        let disks = vec![OwnDisk { size: 1 << 30, serial: "LUN".to_owned(), wwn: String::new() }];
        Own { marks, disks }
    };
    let mut trial = Trial::with(own());
    trial.open();
    assert_eq!(trial.written(report(1, 1, blank("A"))), None);
    assert!(trial.order(&["m1"]).is_err_and(|refused| refused.cause.unwrap().contains("server runs on")));
    // Another machine sees a disk of the server.
    trial.act("m2", MachineAction::Approve).unwrap_err();
    trial.reports(report(2, 1, blank("LUN")));
    assert!(trial.order(&["m2"]).is_err_and(|refused| refused.cause.unwrap().contains("server's own")));
    trial.fleet.state.machines.get_mut(&MachineId(2)).unwrap().hardware = None;
    trial.order(&["m2"]).unwrap();
    assert_eq!(trial.written(report(2, 2, blank("LUN"))), None);
    assert_eq!(trial.job(2).state, JobState::Refused);
    // An agent that runs as an ordinary process on the server's host writes to a file, so it may.
    let mut process = report(1, 3, vec![Disk { bus: Bus::File, ..disk("", Contents::Blank) }]);
    process.firmware = Firmware::None;
    trial.act("m1", MachineAction::Approve).unwrap();
    assert!(trial.written(process).is_some());
}

/// A warning that stops refuses the machine when the order is shown, and again when its plan is made: by then there may
/// be warnings that nobody was shown.
#[test]
fn what_stops_an_order_refuses_it_until_it_is_accepted() {
    let order = |accept: &[&str]| serde_json::json!({"image": "debian", "selection": {"machines": ["m1"]}, "accept": accept});
    let mut trial = Trial::new();
    trial.reports(report(1, 1, blank("FIRST")));
    let lines = trial.lines(&serde_json::from_value(order(&[])).unwrap(), "debian").unwrap();
    let why = lines[0].refused.clone().unwrap();
    assert!(why.contains("sdb") && why.contains("--accept other-disk"), "{why}");
    trial.order_lines(order(&["other-disk"])).unwrap();
    assert_eq!(trial.written(report(1, 2, blank("FIRST"))).as_deref(), Some("FIRST"));

    // A machine of which only the address was known when the order was placed.
    let mut trial = Trial::new();
    trial.asks_for_its_script();
    trial.order_lines(order(&[])).unwrap();
    assert_eq!(trial.written(report(1, 1, blank("FIRST"))), None);
    assert_eq!(trial.job(1).state, JobState::Refused);
    assert!(trial.job(1).cause.as_ref().unwrap().contains("--accept other-disk"));
}

/// User-data that disables the call home refuses an open order before there is any machine for it.
#[test]
fn an_open_order_is_refused_for_what_its_user_data_does() {
    let order = |data: &str, no_confirm: bool| {
        let mut order: DeployOrder = serde_json::from_value(serde_json::json!({
            "image": "debian", "selection": {}, "open": true, "no_confirm": no_confirm,
        }))
        .unwrap();
        order.user_data = Some(UserData(data.as_bytes().to_vec()));
        Trial::new().lines(&order, "debian").map(drop)
    };
    let silent = "#cloud-config\nvendor_data: {enabled: false}\n";
    let refused = order(silent, false).unwrap_err();
    assert!(refused.hint.unwrap().contains("--no-confirm"), "{}", refused.error);
    assert!(order(silent, true).is_ok(), "nobody waits for it");
    assert!(order("#cloud-config\npackages: [vim]\n", false).is_ok());
}
