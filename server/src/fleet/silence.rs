//! Core: what is concluded when a machine falls silent, from what DHCP, TFTP and HTTP saw of it and when. A machine
//! that stops while it boots cannot say why, so the server says what it did last, and the usual cause. Every conclusion
//! ends by itself as soon as the machine goes on. Touches `api`, `fleet::job`, and how the tailor describes a disk.

use common::hardware::{Firmware, HardwareReport};
use common::limits::ANSWER_LEAST_RATE;
use jiff::{SignedDuration, Timestamp};

use super::job::{Confirm, Job};
use crate::api::shapes::{JobState, Silence};
use crate::tailor::disk_shown;

/// Timeout from a boot program's transfer to its first request. It asks for an address or a script within seconds; a
/// NIC that trains its link and a switch with spanning tree take up to half a minute.
const PROGRAM: SignedDuration = SignedDuration::from_secs(35);
/// Timeout for beginning to fetch kernel or loader, from the script or the file before.
const FETCH: SignedDuration = SignedDuration::from_mins(10);
/// Timeout for a file whose transfer has begun and not ended: 12 MiB at the least rate, below which the server itself
/// ends the transfer. It matters only where the end was not seen.
const ON_ITS_WAY: SignedDuration = SignedDuration::from_hours(4);
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
        /// How many of its last bytes may be on their way yet: all of them over HTTP, where the server's part ends when
        /// the connection has taken them.
        on_their_way: u64,
    },
    /// Its boot script starts the loader.
    ToldToLoad,
    /// Its boot script starts its own disk.
    ToldOwnDisk,
    /// The kernel or the loader is being sent.
    FileBegun,
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
    /// The first fetch of a boot program since the last progress.
    program: Option<Program>,
    /// When its boot script started the loader, or the last file of it was sent; and that file.
    load: Option<(Timestamp, Option<String>)>,
    /// When a transfer of either began that has not ended.
    on_its_way: Option<Timestamp>,
    /// When the loader's own file was sent.
    loader: Option<Timestamp>,
    /// A DHCP request of an OS that was started without a network boot.
    own: Option<Timestamp>,
    /// The last DHCP request of an OS, and whether a network boot came before that start of it.
    system: Option<(Timestamp, bool)>,
    /// When it was first sent to its own disk with no OS seen since, and how many times.
    sent: Option<(Timestamp, u32)>,
}

/// A boot program that was fetched, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Program {
    since: Timestamp,
    file: String,
    /// Whether it was ever sent whole.
    whole: bool,
    /// When its first request is due at the latest.
    patience: SignedDuration,
}

impl Program {
    fn new(since: Timestamp, file: String, whole: bool, on_their_way: u64) -> Self {
        let slowest = i64::try_from(on_their_way / ANSWER_LEAST_RATE).unwrap_or(i64::MAX);
        let patience = PROGRAM.saturating_add(SignedDuration::from_secs(slowest));
        Self { since, file, whole, patience }
    }
}

/// A part of the name of the loader's own file, which is fetched after the kernel.
const LOADER: &str = "loader";

/// The ending of a script, which firmware cannot run: whoever fetches one is a boot program.
const SCRIPT: &str = ".ipxe";

impl Trail {
    /// Records what was seen at `now`.
    pub fn see(&mut self, seen: Seen, now: Timestamp) {
        let seen = match seen {
            Seen::Program { file, .. } if file.ends_with(SCRIPT) => Seen::ProgramRuns,
            seen => seen,
        };
        if !matches!(seen, Seen::Firmware | Seen::Program { .. }) {
            self.program = None;
        }
        self.on_its_way = None;
        match seen {
            Seen::Firmware | Seen::ProgramRuns => self.asked = Some(now),
            Seen::Program { file, whole, on_their_way } => match &mut self.program {
                // Firmware that refuses a program fetches it again, over and over.
                Some(program) if program.file == file => program.whole |= whole,
                _ => self.program = Some(Program::new(now, file, whole, on_their_way)),
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
            // Also the rest of one, after its connection broke.
            Seen::FileBegun => (self.on_its_way, self.loader) = (Some(now), None),
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
        if let Some(Program { since, file, whole, patience }) = &self.program
            && over(*since, *patience)
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
            let late = self.on_its_way.map_or_else(|| over(*since, FETCH), |begun| over(begun, ON_ITS_WAY));
            return late.then(|| Silence::LoaderNotFetched { file: file.clone() });
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
mod tests;
