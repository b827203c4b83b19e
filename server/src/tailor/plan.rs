//! Core: the plan for one machine, or why there is none. Owns the choice of the one disk to write: exactly one, or
//! nothing is written. Touches `common`.

use bytes::Bytes;
use common::hardware::{Bus, CheckedHardware, Contents, Disk, Kinship, List, Unusable};
use common::id::{DeploymentId, ImageId, JobId};
use common::plan::{DiskIdentity, Finish, Plan, Seed};
use common::step::Step;
use common::table::{self, LayoutError, Partition, lay_out};
use common::text::some_of;

use super::disk_rule::TargetRule;
use super::suggest::rule_for;
use super::tuning::tuning;

/// What must be known of an image to place it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its name.
    pub id: ImageId,
    /// Bytes, raw.
    pub size: u64,
    /// The sector size that its partition table counts in: 512 or 4096.
    pub sector_bytes: u32,
    /// Bytes on the wire.
    pub wire_bytes: u64,
    /// Its first MiB, with the partition table: what the agent will do to it is tried here, before any disk is cleared.
    pub first: Bytes,
}

/// One job's wishes for one machine: the profile, and which order it is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The order.
    pub deployment: DeploymentId,
    /// The job.
    pub job: JobId,
    /// How often the job was started before this, plus one.
    pub attempt: u32,
    /// What to write.
    pub image: ImageFacts,
    /// Where to write it.
    pub target: TargetRule,
    /// The disk that was shown when it was ordered; the rule has chosen then.
    pub bound: Option<DiskIdentity>,
    /// Whether machines wait for each other before the transfer.
    pub gather: bool,
    /// Whether the written disk is given hostname, keys and user-data.
    pub personalise: bool,
    /// What the machine does at the end.
    pub finish: Finish,
    /// The first seed.
    pub seed: Seed,
}

/// Why a machine gets no plan. Nothing is written to it; it stays inspectable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The report's list of disks was cut.
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
    /// No disk is what the rule says.
    #[error("no disk is what `{rule}` says; the machine has {}", list(seen))]
    NoMatch {
        /// The rule.
        rule: TargetRule,
        /// What was seen.
        seen: Vec<String>,
    },
    /// Several disks are what the rule says.
    #[error("{} disks are what `{rule}` says, and just one must be: {}", matching.len(), list(matching))]
    Ambiguous {
        /// The rule.
        rule: TargetRule,
        /// The disks that match.
        matching: Vec<String>,
        /// A rule that would match one of them only, if there is one.
        suggestion: Option<String>,
    },
    /// No image can be written to the disk.
    #[error("the target {disk} cannot be used: {reason}")]
    Unusable {
        /// The disk.
        disk: String,
        /// What keeps an image from being written to it.
        reason: Unusable,
    },
    /// Without a rule there may be one disk only, whatever can be done with the others.
    #[error("no rule says which disk, and the machine has {}: {}", seen.len(), list(seen))]
    Several {
        /// What was seen.
        seen: Vec<String>,
        /// As of [`Refusal::Ambiguous`].
        suggestion: Option<String>,
    },
    /// The only disk is one that is plugged in from outside.
    #[error("the only disk is {disk}, which is not built in, and no rule names it")]
    Outside {
        /// The disk.
        disk: String,
        /// A rule that means it.
        suggestion: Option<String>,
    },
    /// The disk that was shown is not there.
    #[error("the disk that was shown is not there: {wanted}; the machine has {}", list(seen))]
    NotThere {
        /// The disk that was shown.
        wanted: String,
        /// What was seen.
        seen: Vec<String>,
    },
    /// The disk refuses writes.
    #[error("the target {disk} is read-only")]
    ReadOnly {
        /// The disk.
        disk: String,
    },
    /// The image does not fit.
    #[error("the image has {image_bytes} bytes and the target {disk} only {disk_bytes}")]
    TooSmall {
        /// The disk.
        disk: String,
        /// Bytes of the disk.
        disk_bytes: u64,
        /// Bytes of the image.
        image_bytes: u64,
    },
    /// The image's partition table counts in other sectors than the disk.
    #[error(
        "the image is made for sectors of {image_sector} bytes and the target {disk} has sectors of {disk_sector}"
    )]
    SectorSize {
        /// The disk.
        disk: String,
        /// Bytes of its sectors.
        disk_sector: u32,
        /// Bytes of the image's.
        image_sector: u32,
    },
    /// Hostname, keys and user-data would find no place.
    #[error("the image cannot be personalised on the target {disk}: {cause}")]
    Layout {
        /// The disk.
        disk: String,
        /// What of the image's table does not fit the disk.
        cause: LayoutError,
    },
    /// A partition of the image reaches behind the disk's end.
    #[error("partition {number} of the image ends at byte {end} and the target {disk} has only {disk_bytes}")]
    PartitionTooLong {
        /// The disk.
        disk: String,
        /// Bytes of the disk.
        disk_bytes: u64,
        /// The partition.
        number: u32,
        /// The byte behind its last.
        end: u64,
    },
    /// Nothing tells the disk from another one, not even its place.
    #[error("the target {disk} bears the same marks as another disk, so the agent could not tell them apart")]
    NotUnique {
        /// The disk.
        disk: String,
    },
    /// One disk, seen more than once.
    #[error("the target {disk} is seen over several paths: serial number and WWN are those of another entry")]
    Multipath {
        /// The disk.
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

/// The plan for the machine that reported `hardware`, without a bundle: that is built once there is a plan.
///
/// # Errors
/// When not exactly one disk is meant, or the image cannot stand on it.
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
        // Every disk counts, whatever could be done with it: one that is read-only, too small or plugged in today
        // may be the one that was meant, and the other what must not be lost.
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
    // A disk that cannot take the image is a reason to stop: a person pointed at it.
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

/// The disk that was shown, whatever else is there by now.
fn shown_disk<'a>(bound: &DiskIdentity, disks: &'a [Disk]) -> Result<&'a Disk, Refusal> {
    let mut shown = disks.iter().filter(|disk| bound.matches(disk));
    match (shown.next(), shown.next()) {
        (Some(disk), None) => Ok(disk),
        (Some(disk), Some(_)) => Err(Refusal::NotUnique { disk: describe(disk) }),
        (None, _) => Err(Refusal::NotThere {
            wanted: crate::fleet::bound::words(bound),
            seen: disks.iter().map(describe).collect(),
        }),
    }
}

/// Whether it is something that an OS could be on: card readers and a BMC's virtual drives are there without a
/// medium, and an eMMC shows its boot areas as disks of their own.
fn is_disk(disk: &Disk) -> bool {
    let boot_area = disk.bus == Bus::Mmc && (disk.name.contains("boot") || disk.name.contains("rpmb"));
    // A built-in drive that shows no bytes is there all the same: Linux reads no sectors of 520 or 528 bytes.
    let no_medium = disk.size == 0 && (is_outside(disk) || disk.bus == Bus::Mmc);
    !(no_medium || boot_area)
}

/// Whether it is plugged in from outside. USB disks say of themselves that they cannot be taken out.
fn is_outside(disk: &Disk) -> bool {
    disk.removable || disk.bus == Bus::Usb
}

/// The one of `disks` that is meant most likely: built in, and able to take the image; empty if there is one.
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

/// Does to the image's table what the agent will do: that one would only see it with the old disk cleared.
fn check_table(text: &str, disk: &Disk, image: &ImageFacts, personalise: bool) -> Result<(), Refusal> {
    if personalise {
        return lay_out(&image.first, disk.size, disk.sector_bytes, [1; 16])
            .map(drop)
            .map_err(|cause| Refusal::Layout { disk: text.to_owned(), cause });
    }
    // Left as it is, even a table that makes no sense to us is the image's own affair.
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

/// The steps of the agent, in order.
fn steps(request: &Request) -> Vec<Step> {
    let mut steps = vec![Step::Join];
    if request.gather {
        steps.push(Step::Gather);
    }
    steps.extend([Step::Transfer, Step::Verify]);
    if request.personalise {
        steps.push(Step::Personalise);
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

/// A disk in words.
fn describe(disk: &Disk) -> String {
    let mut text = format!("{} ({}, {} bytes", disk.name, disk.bus, disk.size);
    for mark in disk.marks() {
        text.push_str(&format!(", {mark}"));
    }
    if disk.serial.trim().is_empty() && disk.wwn.is_empty() && !disk.path.is_empty() {
        text.push_str(&format!(", path {}", disk.path));
    }
    for (is, word) in [(disk.removable, "removable"), (disk.read_only, "read-only")] {
        if is {
            text.push_str(&format!(", {word}"));
        }
    }
    text.push(')');
    text
}

/// How many disks or controllers a refusal names.
const SHOWN: usize = 8;

fn list(texts: &[String]) -> String {
    if texts.is_empty() { "none".to_owned() } else { some_of(texts.iter(), SHOWN, ", ") }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(crate) mod tests;
