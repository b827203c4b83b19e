//! Core: what is concluded when a machine falls silent, from what DHCP, TFTP and HTTP saw of it and when. A machine
//! that stops while it boots cannot say why, so the server says what it did last, and the usual cause. Every conclusion
//! ends by itself as soon as the machine goes on. Touches `api`, `fleet::job`, and how the tailor describes a disk.

use common::hardware::{Firmware, HardwareReport};
use jiff::{SignedDuration, Timestamp};

use super::job::{Confirm, Job};
use crate::api::shapes::{JobState, Silence};
use crate::tailor::disk_shown;

/// Timeout from a boot program's transfer to its first request. It asks for an address or a script within seconds; a
/// NIC that trains its link and a switch with spanning tree take up to half a minute.
const PROGRAM: SignedDuration = SignedDuration::from_secs(35);
/// Timeout for fetching kernel and loader. They are 10 and 20 MB: on a line of 10 Mbit/s that thirty machines share
/// this takes minutes.
const FETCH: SignedDuration = SignedDuration::from_mins(10);
/// Timeout from the loader's last byte to its report: drivers, a RAID controller, a switch's port, slow disks.
const REPORT: SignedDuration = SignedDuration::from_mins(4);
/// Timeout from an OS's DHCP request to its call home; cloud-init calls at the end of the first boot.
const CALL: SignedDuration = SignedDuration::from_mins(6);
/// Timeout from the restart to the first DHCP request of the OS: a large server's firmware takes up to ten minutes.
const BOOT: SignedDuration = SignedDuration::from_mins(12);
/// A request to network-boot belongs to the same boot as a DHCP request of an OS up to so long after it.
const ONE_BOOT: SignedDuration = SignedDuration::from_mins(20);
/// DHCP requests of an OS that are no further apart belong to one start of it.
const ONE_START: SignedDuration = SignedDuration::from_mins(3);
/// A written machine that is sent to its disk so many times, with no OS seen, probably cannot boot from it.
const SENT_AGAIN: u32 = 2;

/// What DHCP, TFTP or HTTP saw of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Its firmware asked to network-boot.
    Firmware,
    /// A boot program that the server sent runs: iPXE requested something.
    ProgramRuns,
    /// A boot program was sent.
    Program {
        /// The file, by the name that it was asked for.
        file: String,
        /// Whether the whole file was sent.
        whole: bool,
    },
    /// Its boot script starts the loader.
    ToldToLoad,
    /// Its boot script starts its own disk.
    ToldOwnDisk,
    /// The kernel or the loader was sent.
    LoaderFile {
        /// The file, by the name that it was asked for.
        file: String,
    },
    /// Its loader or agent sent a report or events.
    Reported,
    /// An OS on it sent a DHCP request.
    System,
}

/// What was seen of one machine last, each with its time; `None` if it was not seen since the last progress.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trail {
    /// The last request that shows a network boot.
    asked: Option<Timestamp>,
    /// The first fetch of a boot program since the last progress: time, file, and whether it was ever sent whole.
    program: Option<(Timestamp, String, bool)>,
    /// When its boot script started the loader, or the last file of it was sent; and that file.
    load: Option<(Timestamp, Option<String>)>,
    /// When the loader's own file was sent.
    loader: Option<Timestamp>,
    /// A DHCP request of an OS that was started without a network boot.
    own: Option<Timestamp>,
    /// The last DHCP request of an OS, and whether a network boot came before that start of it.
    system: Option<(Timestamp, bool)>,
    /// When it was first sent to its own disk with no OS seen since, and how many times.
    sent: Option<(Timestamp, u32)>,
}

/// A part of the name of the loader's own file, which is fetched after the kernel.
const LOADER: &str = "loader";

impl Trail {
    /// Records what was seen at `now`.
    pub fn see(&mut self, seen: Seen, now: Timestamp) {
        let went_on = !matches!(seen, Seen::Firmware | Seen::Program { .. });
        if went_on {
            self.program = None;
        }
        match seen {
            Seen::Firmware | Seen::ProgramRuns => self.asked = Some(now),
            Seen::Program { file, whole } => match &mut self.program {
                // Firmware that refuses a program fetches it again, over and over.
                Some((_, before, was_whole)) if *before == file => *was_whole |= whole,
                _ => self.program = Some((now, file, whole)),
            },
            Seen::ToldToLoad => {
                self.asked = Some(now);
                (self.load, self.loader, self.sent) = (Some((now, None)), None, None);
            }
            Seen::ToldOwnDisk => {
                self.asked = Some(now);
                (self.load, self.loader, self.own) = (None, None, None);
                let (since, times) = self.sent.unwrap_or((now, 0));
                self.sent = Some((since, times.saturating_add(1)));
            }
            Seen::LoaderFile { file } => {
                if file.contains(LOADER) {
                    self.loader = Some(now);
                }
                self.load = Some((now, Some(file)));
            }
            Seen::Reported => (self.load, self.loader, self.own, self.sent) = (None, None, None, None),
            Seen::System => {
                // An OS sends several requests at each start; a network boot counts for the first start after it.
                let again = self.system.filter(|(last, _)| now.duration_since(*last) < ONE_START);
                let before = self.system.map_or(Timestamp::MIN, |(last, _)| last);
                let asked = self.asked.is_some_and(|at| at > before && now.duration_since(at) < ONE_BOOT);
                let by_network = again.map_or(asked, |(_, by_network)| by_network || asked);
                (self.load, self.loader, self.sent) = (None, None, None);
                self.system = Some((now, by_network));
                self.own = if by_network { None } else { Some(now) };
            }
        }
    }

    /// The conclusion about the machine at `now`; `None` as long as it may go on by itself. `job` is its newest job,
    /// `report` its last report.
    #[must_use]
    pub fn silence(
        &self,
        job: Option<&Job>,
        report: Option<&HardwareReport>,
        now: Timestamp,
    ) -> Option<Silence> {
        let over = |since: Timestamp, time| now.duration_since(since) >= time;
        if let Some((since, file, whole)) = &self.program
            && over(*since, PROGRAM)
        {
            let (file, uefi) = (file.clone(), file.ends_with(".efi"));
            let secure = report.is_some_and(|report| report.firmware == Firmware::UefiSecure);
            return Some(match whole {
                true => Silence::ProgramNotStarted { file, uefi, secure },
                false => Silence::ProgramNotFetched { file },
            });
        }
        if let Some(since) = self.loader {
            let memory_bytes = report.map(|report| report.memory_bytes);
            return over(since, REPORT).then_some(Silence::LoaderSilent { memory_bytes });
        }
        if let Some((since, file)) = &self.load {
            return over(*since, FETCH).then(|| Silence::LoaderNotFetched { file: file.clone() });
        }
        let job = job?;
        match job.state {
            JobState::Ordered => {
                let own = self.own.filter(|at| *at > job.changed);
                own.map(|_| Silence::OwnDisk)
            }
            JobState::Written => self.written(job, report, now),
            _ => None,
        }
    }

    fn written(&self, job: &Job, report: Option<&HardwareReport>, now: Timestamp) -> Option<Silence> {
        let since = |at: &Timestamp| *at > job.changed;
        let over = |since: Timestamp, time| now.duration_since(since) >= time;
        if let Some((_, times)) = self.sent.filter(|(first, times)| since(first) && *times >= SENT_AGAIN) {
            return Some(Silence::DiskDoesNotBoot { times });
        }
        if let Some((system, _)) = self.system.filter(|(at, _)| since(at)) {
            return over(system, CALL).then(|| Silence::NoCall { other: other_that_boots(job, report) });
        }
        // A machine that was to switch itself off is not missed until it is switched on again.
        let awaited = matches!(job.confirm, Confirm::Within(_)) || self.asked.as_ref().is_some_and(since);
        let last = self.asked.filter(since).unwrap_or(job.changed);
        (awaited && over(last, BOOT)).then_some(Silence::NotSeen)
    }
}

/// The first disk beside the written one that was bootable when the machine reported. Seen with OVMF: it started an old
/// OS on its first disk, which ignored the new CIDATA and so never called home.
fn other_that_boots(job: &Job, report: Option<&HardwareReport>) -> Option<String> {
    let written = job.bound.disk.as_ref()?;
    let others = report?.disks.iter().filter(|disk| !written.matches(disk));
    others.into_iter().find(|disk| disk.contents.may_boot()).map(disk_shown)
}

#[cfg(test)]
mod tests {
    use super::super::job::tests::job;
    use super::*;
    use Seen::{Firmware as Asks, ProgramRuns, Reported, System, ToldOwnDisk, ToldToLoad};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn program(file: &str, whole: bool) -> Seen {
        Seen::Program { file: file.to_owned(), whole }
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
                Some(silence) => {
                    serde_json::to_value(&silence).unwrap()["silence"].as_str().unwrap().to_owned()
                }
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
            (
                "an order for a machine that is switched off",
                Some(JobState::Ordered),
                vec![],
                vec![(90_000, "-")],
            ),
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
}
