//! Core: the plan for one machine, or why there is none. Owns the choice of the disk to write: exactly one disk must be
//! meant, or nothing is written. Touches `common`.

use bytes::Bytes;
use common::hardware::{Bus, CheckedHardware, Contents, Disk, Kinship, List, Unusable};
use common::hooks::{NoRoot, RootRule};
use common::id::{DeploymentId, Hash, ImageId, JobId};
use common::plan::{DiskIdentity, Finish, Plan, Seed};
use common::step::Step;
use common::table::{self, LayoutError, Partition, lay_out};
use common::text::some_of;

use super::disk_rule::TargetRule;
use super::suggest::rule_for;
use super::tuning::tuning;
use super::words::{describe, known_as};

/// What must be known of an image to check whether it fits a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// The hash that names it.
    pub id: ImageId,
    /// Bytes of the raw image, as it will be on the disk.
    pub size: u64,
    /// The sector size that its partition table counts in: 512 or 4096.
    pub sector_bytes: u32,
    /// Bytes of all its chunks as they are sent, compressed; bounds the agent's cache.
    pub wire_bytes: u64,
    /// The hash of its table of deltas; `None` when it has no deltas.
    pub deltas: Option<Hash>,
    /// Its first MiB, with the partition table: what the agent will do to the table is tried on it, before any disk is
    /// cleared.
    pub first: Bytes,
}

/// What one job wants for one machine, and which deployment it is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The deployment that the job is part of.
    pub deployment: DeploymentId,
    /// The job that the plan is for.
    pub job: JobId,
    /// The number of this attempt, counted from one.
    pub attempt: u32,
    /// The image to write.
    pub image: ImageFacts,
    /// Which disk to write it to, if `bound` is `None`.
    pub target: TargetRule,
    /// The disk that an admin was shown when the job was ordered: the rule chose it then, and is not applied again.
    pub bound: Option<DiskIdentity>,
    /// Whether the plan has the step `gather`: machines wait for each other before the transfer.
    pub gather: bool,
    /// Whether the written disk is given hostname, keys and user-data.
    pub personalise: bool,
    /// Which partition the order's hooks run in; `None` when it has none.
    pub hooks: Option<RootRule>,
    /// What the machine does at the end.
    pub finish: Finish,
    /// The server's node in the swarm, which the agent connects to first.
    pub seed: Seed,
}

/// Why a machine gets no plan. Nothing is written to it; it stays inspectable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The report's list of disks is incomplete; in the words of the report's check.
    #[error(
        "the machine has more disks than a report holds ({0}), so the one that is meant may not be among them"
    )]
    Truncated(String),
    /// No disk was reported.
    #[error("the machine reports no disk")]
    NoDisk {
        /// Storage controllers that no driver is bound to, by address and modalias.
        unclaimed: Vec<String>,
    },
    /// The rule covers no disk.
    #[error("no disk is what `{rule}` says; the machine has {}", list(seen))]
    NoMatch {
        /// The rule of the order.
        rule: TargetRule,
        /// The machine's disks, as `describe` writes them.
        seen: Vec<String>,
    },
    /// The rule covers several disks.
    #[error("{} disks are what `{rule}` says, and just one must be: {}", matching.len(), list(matching))]
    Ambiguous {
        /// The rule of the order.
        rule: TargetRule,
        /// The disks that it covers, as `describe` writes them.
        matching: Vec<String>,
        /// A rule that covers only the one that is most likely meant; `None` if no rule tells them apart.
        suggestion: Option<String>,
    },
    /// The disk is of a kind to which no image can be written.
    #[error("the target {disk} cannot be used: {reason}")]
    Unusable {
        /// The disk, as `describe` writes it.
        disk: String,
        /// Why not; also the source of the hint.
        reason: Unusable,
    },
    /// The order has no rule, and the machine has several disks. Those that could not take the image count as well.
    #[error("no rule says which disk, and the machine has {}: {}", seen.len(), list(seen))]
    Several {
        /// The machine's disks, as `describe` writes them.
        seen: Vec<String>,
        /// As in [`Refusal::Ambiguous`].
        suggestion: Option<String>,
    },
    /// The order has no rule, and the only disk is removable or on USB.
    #[error("the only disk is {disk}, which is not built in, and no rule names it")]
    Outside {
        /// The disk, as `describe` writes it.
        disk: String,
        /// A rule that covers it; `None` if there is none.
        suggestion: Option<String>,
    },
    /// The machine no longer has the disk that the admin was shown.
    #[error("the disk that was shown is not there: {wanted}; the machine has {}", list(seen))]
    NotThere {
        /// That disk, as `known_as` writes it.
        wanted: String,
        /// The machine's disks, as `describe` writes them.
        seen: Vec<String>,
    },
    /// The disk is write-protected.
    #[error("the target {disk} is read-only")]
    ReadOnly {
        /// The disk, as `describe` writes it.
        disk: String,
    },
    /// The image is larger than the disk.
    #[error("the image has {image_bytes} bytes and the target {disk} only {disk_bytes}")]
    TooSmall {
        /// The disk, as `describe` writes it.
        disk: String,
        /// Bytes of the disk.
        disk_bytes: u64,
        /// Bytes of the image.
        image_bytes: u64,
    },
    /// The image's partition table counts in sectors of another size than the disk has.
    #[error(
        "the image is made for sectors of {image_sector} bytes and the target {disk} has sectors of {disk_sector}"
    )]
    SectorSize {
        /// The disk, as `describe` writes it.
        disk: String,
        /// Bytes of one of its logical sectors.
        disk_sector: u32,
        /// Bytes of the sectors that the image's table counts in.
        image_sector: u32,
    },
    /// The partition for hostname, keys and user-data cannot be added on the disk.
    #[error("the image cannot be personalised on the target {disk}: {cause}")]
    Layout {
        /// The disk, as `describe` writes it.
        disk: String,
        /// Why it cannot.
        cause: LayoutError,
    },
    /// A partition of the image reaches beyond the disk's end, and the table is to be left as it is.
    #[error("partition {number} of the image ends at byte {end} and the target {disk} has only {disk_bytes}")]
    PartitionTooLong {
        /// The disk, as `describe` writes it.
        disk: String,
        /// Bytes of the disk.
        disk_bytes: u64,
        /// Its number in the table.
        number: u32,
        /// The first byte after it.
        end: u64,
    },
    /// The image has no root that its hooks could run in.
    #[error("{0}")]
    NoRoot(NoRoot),
    /// The boot kit lacks a module that mounting the root takes.
    #[error("hooks mount the root, and the boot kit has no module {0}")]
    NoModule(String),
    /// Another disk has the same marks, and the path does not tell them apart either.
    #[error("the target {disk} bears the same marks as another disk, so the agent could not tell them apart")]
    NotUnique {
        /// The disk, as `describe` writes it.
        disk: String,
    },
    /// The disk is listed more than once, as over several paths (multipath).
    #[error("the target {disk} is seen over several paths: serial number and WWN are those of another entry")]
    Multipath {
        /// The disk, as `describe` writes it.
        disk: String,
    },
}

impl Refusal {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Truncated(_) => "detach what is not needed, or deploy to this machine by hand".to_owned(),
            Self::NoDisk { unclaimed } if unclaimed.is_empty() => {
                "check that the disk is attached and its controller switched on in the firmware's setup"
                    .to_owned()
            }
            Self::NoDisk { unclaimed } => format!(
                "no driver is bound to {}: import a boot kit with a newer kernel, or switch the controller from RAID \
                 to AHCI in the firmware's setup",
                list(unclaimed)
            ),
            Self::NoMatch { .. } => "give a target rule that fits one of them".to_owned(),
            Self::Unusable { reason, .. } => reason.hint().to_owned(),
            Self::Ambiguous { suggestion: Some(rule), .. }
            | Self::Several { suggestion: Some(rule), .. }
            | Self::Outside { suggestion: Some(rule), .. } => {
                format!("say which one with --disk, for example: {rule}")
            }
            Self::Ambiguous { .. } | Self::Several { .. } | Self::Outside { .. } => {
                "no rule can tell them apart: leave only the one attached that is meant".to_owned()
            }
            Self::NotThere { .. } => {
                "attach it again, or look at what there is now with `deploy retry`".to_owned()
            }
            Self::ReadOnly { .. } => "switch its write protection off".to_owned(),
            Self::TooSmall { .. } | Self::PartitionTooLong { .. } => "use a smaller image, or a target rule for a larger disk".to_owned(),
            Self::Layout { cause: LayoutError::Unusable(_), .. } => {
                "its table would not be read on the disk either: get the image again, or repair its table (gdisk) and \
                 add it anew"
                    .to_owned()
            }
            Self::Layout { .. } => {
                "order it with --no-personalise, which leaves the image as it is and waits for no call home".to_owned()
            }
            Self::NoRoot(_) => {
                "name its root with --hook-root, by number or label=NAME, or order without hooks".to_owned()
            }
            Self::NoModule(_) => {
                "import the kit again: kits of earlier versions have no file systems".to_owned()
            }
            Self::SectorSize { .. } => {
                "use an image made for this sector size, or reformat the drive to the other one (nvme format)"
                    .to_owned()
            }
            Self::NotUnique { .. } => {
                "its controller hides serial numbers and places: attach one of them only for the installation"
                    .to_owned()
            }
            Self::Multipath { .. } => {
                "leave one path to it (multipath) attached for the installation".to_owned()
            }
        }
    }
}

/// The plan for the machine that reported `hardware`. Its bundle is `None`: that is built once there is a plan.
///
/// # Errors
/// When not exactly one disk is meant, or the image does not fit it.
pub fn plan(hardware: &CheckedHardware, request: &Request) -> Result<Plan, Refusal> {
    let report = hardware.report();
    let disk = choose_disk(hardware, request)?;
    check_disk(disk, &report.disks, request)?;
    Ok(Plan {
        deployment: request.deployment,
        job: request.job,
        attempt: request.attempt,
        image: request.image.id,
        image_bytes: request.image.size,
        target: DiskIdentity::among(disk, &report.disks),
        steps: steps(request),
        seed: request.seed.clone(),
        tuning: tuning(report, disk, request.image.wire_bytes),
        finish: request.finish,
        bundle: None,
        peers: vec![],
        deltas: request.image.deltas,
    })
}

fn choose_disk<'a>(hardware: &'a CheckedHardware, request: &Request) -> Result<&'a Disk, Refusal> {
    let report = hardware.report();
    if let Some(cut) = report.cut_of(List::Disks) {
        return Err(Refusal::Truncated(cut.to_owned()));
    }
    if report.disks.is_empty() {
        return Err(Refusal::NoDisk { unclaimed: unclaimed_controllers(hardware) });
    }
    if let Some(bound) = &request.bound {
        return shown_disk(bound, &report.disks);
    }
    let rule = &request.target;
    let disks: Vec<&Disk> = report.disks.iter().filter(|disk| is_disk(disk)).collect();
    let in_words = |disks: &[&Disk]| disks.iter().map(|disk| describe(disk)).collect::<Vec<_>>();
    if rule.is_default() {
        // Every disk counts, even one that could not take the image: a disk that is read-only, too small or plugged in
        // today may be the one that was meant, and the other may hold data that must not be lost.
        return match disks.as_slice() {
            [] => Err(Refusal::NoDisk { unclaimed: unclaimed_controllers(hardware) }),
            [disk] if is_outside(disk) => {
                Err(Refusal::Outside { disk: describe(disk), suggestion: rule_for(disk, &report.disks) })
            }
            [disk] => Ok(disk),
            several => {
                let suggestion = likely(several, request).and_then(|disk| rule_for(disk, &report.disks));
                Err(Refusal::Several { seen: in_words(several), suggestion })
            }
        };
    }
    // Disks that cannot take the image are not left out: the rule names them, so that is a reason to refuse.
    let meant: Vec<&Disk> = disks.iter().copied().filter(|disk| rule.covers(disk)).collect();
    match meant.as_slice() {
        [] => Err(Refusal::NoMatch { rule: rule.clone(), seen: in_words(&disks) }),
        [disk] => Ok(disk),
        several => Err(Refusal::Ambiguous {
            rule: rule.clone(),
            matching: in_words(several),
            suggestion: likely(several, request).and_then(|disk| rule_for(disk, &report.disks)),
        }),
    }
}

/// The disk that the admin was shown, whatever other disks there are by now.
fn shown_disk<'a>(bound: &DiskIdentity, disks: &'a [Disk]) -> Result<&'a Disk, Refusal> {
    let mut shown = disks.iter().filter(|disk| bound.matches(disk));
    match (shown.next(), shown.next()) {
        (Some(disk), None) => Ok(disk),
        (Some(disk), Some(_)) => Err(Refusal::NotUnique { disk: describe(disk) }),
        (None, _) => {
            Err(Refusal::NotThere { wanted: known_as(bound), seen: disks.iter().map(describe).collect() })
        }
    }
}

/// Whether an OS could be on it: card readers and a BMC's virtual drives are listed without a medium, and an eMMC shows
/// its boot areas as disks of their own.
fn is_disk(disk: &Disk) -> bool {
    let boot_area = disk.bus == Bus::Mmc && (disk.name.contains("boot") || disk.name.contains("rpmb"));
    // A built-in drive of zero bytes counts all the same: Linux shows that for sectors of 520 or 528 bytes.
    let no_medium = disk.size == 0 && (is_outside(disk) || disk.bus == Bus::Mmc);
    !(no_medium || boot_area)
}

/// Whether it is removable or on USB. USB hard disks report that they are not removable.
fn is_outside(disk: &Disk) -> bool {
    disk.removable || disk.bus == Bus::Usb
}

/// The one of `disks` that is most likely meant, for a suggestion: among those that can take the image, built-in ones
/// come first, then blank ones.
fn likely<'a>(disks: &[&'a Disk], request: &Request) -> Option<&'a Disk> {
    let able = |disk: &&&Disk| {
        !disk.read_only && disk.size >= request.image.size && disk.sector_bytes == request.image.sector_bytes
    };
    let rank = |disk: &&&Disk| (is_outside(disk), disk.contents != Contents::Blank);
    disks.iter().filter(able).min_by_key(rank).copied()
}

fn check_disk(disk: &Disk, all: &[Disk], request: &Request) -> Result<(), Refusal> {
    let image = &request.image;
    let text = describe(disk);
    if let Some(reason) = disk.unusable() {
        return Err(Refusal::Unusable { disk: text, reason });
    }
    if disk.read_only {
        return Err(Refusal::ReadOnly { disk: text });
    }
    if disk.size < image.size {
        return Err(Refusal::TooSmall { disk: text, disk_bytes: disk.size, image_bytes: image.size });
    }
    if disk.sector_bytes != image.sector_bytes {
        return Err(Refusal::SectorSize {
            disk: text,
            disk_sector: disk.sector_bytes,
            image_sector: image.sector_bytes,
        });
    }
    check_table(&text, disk, image, request.personalise)?;
    let others = || all.iter().filter(|other| !std::ptr::eq(*other, disk)).map(|other| disk.kinship(other));
    if others().any(|kinship| kinship == Kinship::Paths) {
        return Err(Refusal::Multipath { disk: text });
    }
    if others().any(|kinship| kinship == Kinship::Alike) {
        return Err(Refusal::NotUnique { disk: text });
    }
    Ok(())
}

/// Tries on the image's partition table what the agent will do to it. The agent would find a fault only after it has
/// cleared the disk.
fn check_table(text: &str, disk: &Disk, image: &ImageFacts, personalise: bool) -> Result<(), Refusal> {
    if personalise {
        return lay_out(&image.first, disk.size, disk.sector_bytes, [1; 16])
            .map(drop)
            .map_err(|cause| Refusal::Layout { disk: text.to_owned(), cause });
    }
    // The table stays as it is, so one that cannot be read is no reason to refuse.
    let Ok(table) = table::read(&image.first, disk.sector_bytes) else { return Ok(()) };
    let end = |partition: &Partition| partition.end.saturating_mul(u64::from(disk.sector_bytes));
    match table.partitions().iter().find(|partition| end(partition) > disk.size) {
        Some(long) => Err(Refusal::PartitionTooLong {
            disk: text.to_owned(),
            disk_bytes: disk.size,
            number: long.number,
            end: end(long),
        }),
        None => Ok(()),
    }
}

/// The steps that the agent is to take, in order.
fn steps(request: &Request) -> Vec<Step> {
    let mut steps = vec![Step::Join];
    if request.gather {
        steps.push(Step::Gather);
    }
    steps.extend([Step::Transfer, Step::Verify]);
    if request.personalise {
        steps.push(Step::Personalise);
    }
    if request.hooks.is_some() {
        steps.push(Step::Hooks);
    }
    steps.extend([Step::Seal, Step::Linger]);
    if request.finish != Finish::Exit {
        steps.push(Step::Reboot);
    }
    steps
}

/// Mass storage controllers (PCI class 01) that no driver is bound to.
fn unclaimed_controllers(hardware: &CheckedHardware) -> Vec<String> {
    let devices = hardware.report().devices.iter();
    devices
        .filter(|device| device.class >> 16 == 1 && device.driver.is_empty())
        .map(|device| format!("{} ({})", device.address, device.modalias))
        .collect()
}

/// How many disks or controllers a refusal lists by name.
const SHOWN: usize = 8;

fn list(texts: &[String]) -> String {
    if texts.is_empty() { "none".to_owned() } else { some_of(texts.iter(), SHOWN, ", ") }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(crate) mod tests;
