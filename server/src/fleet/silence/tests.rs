//! What is concluded from which sightings, and when.

use super::super::job::tests::job;
use super::*;
use Seen::{FileBegun, Firmware as Asks, ProgramRuns, Reported, System, ToldOwnDisk, ToldToLoad};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn program(file: &str, whole: bool) -> Seen {
    Seen::Program { file: file.to_owned(), whole, on_their_way: 0 }
}

/// A boot program of so many bytes that UEFI fetched by HTTP.
fn over_http(file: &str, bytes: u64) -> Seen {
    Seen::Program { file: file.to_owned(), whole: true, on_their_way: bytes }
}

fn file(name: &str) -> Seen {
    Seen::LoaderFile { file: name.to_owned() }
}

/// What is tried, the state of the newest job, what is seen at which second, and the conclusion at which second.
type Row<'a> = (&'a str, Option<JobState>, Vec<(i64, Seen)>, Vec<(i64, &'a str)>);

/// The conclusions at each of `times`, by their serde names, for a machine whose newest job has been in `state`
/// since second 0; `-` for none.
fn said(state: Option<JobState>, seen: &[(i64, Seen)], times: &[i64]) -> Vec<String> {
    let job = state.map(|state| {
        let mut job = job(state);
        job.changed = at(0);
        job
    });
    let word = |time: &i64| {
        let mut trail = Trail::default();
        for (when, seen) in seen.iter().filter(|(when, _)| when <= time) {
            trail.see(seen.clone(), at(*when));
        }
        match trail.silence(job.as_ref(), None, at(*time)) {
            None => "-".to_owned(),
            Some(silence) => serde_json::to_value(&silence).unwrap()["silence"].as_str().unwrap().to_owned(),
        }
    };
    times.iter().map(word).collect()
}

#[test]
fn what_is_said_and_when() {
    const NOT_STARTED: &str = "program-not-started";
    let table: Vec<Row<'_>> = vec![
        (
            "Secure Boot: PXE, then HTTP, round and round",
            None,
            vec![
                (1, Asks),
                (2, program("snponly.efi", true)),
                (20, Asks),
                (21, program("snponly.efi", true)),
                (60, Asks),
            ],
            vec![(30, "-"), (37, NOT_STARTED), (62, NOT_STARTED), (9000, NOT_STARTED)],
        ),
        (
            "a program that starts",
            None,
            vec![(1, Asks), (2, program("snponly.efi", true)), (9, ProgramRuns), (10, ToldOwnDisk)],
            vec![(8, "-"), (60, "-"), (90_000, "-")],
        ),
        (
            "a slow switch port: late, and said no more",
            None,
            vec![(2, program("undionly.kpxe", true)), (50, ProgramRuns)],
            vec![(40, NOT_STARTED), (51, "-"), (900, "-")],
        ),
        (
            "given up in the middle, then whole",
            None,
            vec![(2, program("ipxe.efi", false)), (100, program("ipxe.efi", true)), (105, ProgramRuns)],
            vec![(50, "program-not-fetched"), (101, NOT_STARTED), (106, "-")],
        ),
        (
            "shim, then GRUB",
            None,
            vec![(2, program("shimx64.efi", true)), (30, program("grubx64.efi", true))],
            vec![(40, "-"), (66, NOT_STARTED)],
        ),
        (
            "a script's answer takes a minute, because a small loader is made for it",
            None,
            vec![(2, program("snponly.efi", true)), (9, ProgramRuns), (69, ToldToLoad)],
            vec![(40, "-"), (68, "-"), (100, "-")],
        ),
        (
            "iPXE 2.0 asks for its script before it asks DHCP",
            None,
            vec![(2, program("snponly.efi", true)), (9, program("autoexec.ipxe", true))],
            vec![(40, "-"), (60, "-"), (9000, "-")],
        ),
        (
            "HTTP boot over a line that takes a minute for the program",
            None,
            vec![(2, over_http("ipxe.efi", 1 << 20)), (62, ProgramRuns)],
            vec![(40, "-"), (61, "-"), (900, "-")],
        ),
        (
            "HTTP boot with Secure Boot",
            None,
            vec![(2, over_http("snponly.efi", 170 << 10)), (60, over_http("snponly.efi", 170 << 10))],
            vec![(206, "-"), (207, NOT_STARTED)],
        ),
        (
            "kernel and loader on a thin line that thirty machines share",
            Some(JobState::Ordered),
            vec![
                (1, ToldToLoad),
                (2, FileBegun),
                (1200, file("vmlinuz")),
                (1201, FileBegun),
                (2400, file("loader.img")),
                (2460, Reported),
            ],
            vec![(700, "-"), (1199, "-"), (1900, "-"), (2399, "-"), (2459, "-"), (9000, "-")],
        ),
        (
            "the loader's connection breaks, and its rest takes its time",
            Some(JobState::Ordered),
            vec![(1, ToldToLoad), (12, file("loader.img")), (14, FileBegun), (600, file("loader.img"))],
            vec![(300, "-"), (599, "-"), (839, "-"), (840, "loader-silent")],
        ),
        (
            "a transfer whose end was not seen",
            Some(JobState::Ordered),
            vec![(1, ToldToLoad), (2, FileBegun)],
            vec![(14_401, "-"), (14_402, "loader-not-fetched")],
        ),
        (
            "a kernel that stalls",
            Some(JobState::Ordered),
            vec![(1, ToldToLoad)],
            vec![(300, "-"), (700, "loader-not-fetched")],
        ),
        (
            "the loader that stalls after the kernel",
            Some(JobState::Ordered),
            vec![(1, ToldToLoad), (9, file("vmlinuz"))],
            vec![(300, "-"), (700, "loader-not-fetched")],
        ),
        (
            "RNG, M144, no driver, a tagged VLAN",
            Some(JobState::Ordered),
            vec![(1, ToldToLoad), (9, file("vmlinuz")), (12, file("loader.img"))],
            vec![(200, "-"), (260, "loader-silent")],
        ),
        (
            "a loader that reports, late and on time",
            Some(JobState::Running),
            vec![(1, ToldToLoad), (12, file("loader.img")), (300, Reported)],
            vec![(299, "loader-silent"), (301, "-"), (9000, "-")],
        ),
        (
            "E1: it starts its own disk",
            Some(JobState::Ordered),
            vec![(100, System)],
            vec![(99, "-"), (101, "own-disk"), (9000, "own-disk")],
        ),
        (
            "E1, soon after an order that went well",
            Some(JobState::Ordered),
            vec![
                (-300, ToldOwnDisk),
                (-250, System),
                (-240, System),
                (-70, System),
                (200, System),
                (210, System),
            ],
            vec![(100, "-"), (201, "own-disk"), (211, "own-disk")],
        ),
        (
            "E1, put right",
            Some(JobState::Ordered),
            vec![(100, System), (500, Asks), (520, ToldToLoad), (530, Reported)],
            vec![(101, "own-disk"), (560, "-")],
        ),
        (
            "an OS that was on before the order",
            Some(JobState::Ordered),
            vec![(-100, System)],
            vec![(9000, "-")],
        ),
        ("an order for a machine that is switched off", Some(JobState::Ordered), vec![], vec![(90_000, "-")]),
        (
            "an OS after the network said: your own disk",
            Some(JobState::Ordered),
            vec![(100, ToldOwnDisk), (160, System)],
            vec![(900, "-")],
        ),
        (
            "D4: an image that does not boot",
            Some(JobState::Written),
            vec![(60, ToldOwnDisk), (120, ToldOwnDisk)],
            vec![(61, "-"), (121, "disk-does-not-boot")],
        ),
        (
            "a written machine that comes up and is restarted",
            Some(JobState::Written),
            vec![(60, ToldOwnDisk), (90, System), (400, ToldOwnDisk), (430, System)],
            vec![(401, "-"), (431, "-"), (800, "no-call")],
        ),
        (
            "D7: an OS without cloud-init",
            Some(JobState::Written),
            vec![(60, ToldOwnDisk), (90, System)],
            vec![(300, "-"), (460, "no-call")],
        ),
        ("nothing at all", Some(JobState::Written), vec![], vec![(600, "-"), (721, "not-seen")]),
        (
            "sent to its disk, and nothing since",
            Some(JobState::Written),
            vec![(300, ToldOwnDisk)],
            vec![(721, "-"), (1021, "not-seen")],
        ),
        (
            "deployed, failed or cancelled",
            Some(JobState::Deployed),
            vec![(60, ToldOwnDisk), (90, ToldOwnDisk), (95, System)],
            vec![(9000, "-")],
        ),
    ];
    for (what, state, seen, wanted) in table {
        let times: Vec<i64> = wanted.iter().map(|(time, _)| *time).collect();
        let words: Vec<&str> = wanted.iter().map(|(_, word)| *word).collect();
        assert_eq!(said(state, &seen, &times), words, "{what}");
    }
}

#[test]
fn a_machine_that_was_to_switch_itself_off_is_not_missed() {
    let mut off = job(JobState::Written);
    (off.confirm, off.changed) = (Confirm::Whenever, at(0));
    let mut trail = Trail::default();
    assert_eq!(trail.silence(Some(&off), None, at(90_000)), None);
    trail.see(ToldOwnDisk, at(90_000));
    assert_eq!(trail.silence(Some(&off), None, at(91_000)), Some(Silence::NotSeen), "it was switched on");
}

#[test]
fn a_disk_that_may_have_started_instead_is_named() {
    let disk = |name: &str, contents: &str| {
        serde_json::json!({
            "name": name, "bus": "sata", "size": 1 << 30, "sector_bytes": 512, "serial": name, "contents": contents,
        })
    };
    let report = |first: &str| -> HardwareReport {
        serde_json::from_value(serde_json::json!({
            "version": 1, "reporter": "t", "firmware": "uefi", "memory_bytes": 1,
            "key": common::trust::KeyPair::from_secret([1; 32]).public(),
            "disks": [disk("sda", first), disk("sdb", "bootable")],
        }))
        .unwrap()
    };
    let mut written = job(JobState::Written);
    written.changed = at(0);
    written.bound.disk = Some(common::plan::DiskIdentity::of(&report("blank").disks[1]));
    let mut trail = Trail::default();
    trail.see(System, at(10));
    let said = |report: &HardwareReport| trail.silence(Some(&written), Some(report), at(900));
    assert_eq!(said(&report("bootable")), Some(Silence::NoCall { other: Some("sda sda".into()) }));
    assert_eq!(said(&report("blank")), Some(Silence::NoCall { other: None }));
}

#[test]
fn secure_boot_is_named_where_a_report_said_so() {
    let said = Silence::ProgramNotStarted { file: "snponly.efi".into(), uefi: true, secure: true };
    assert!(said.to_string().contains("Secure Boot is on, which"), "{said}");
    let small = Silence::LoaderSilent { memory_bytes: Some(144 << 20) };
    assert!(small.to_string().contains("144 MiB of memory, and needs 512"), "{small}");
}
