//! What one machine is told to do: the server's verdict on its report, and the plan its agent obeys.
//! Both are signed and bound to the key that the machine made at this boot, so an old one opens nothing.
//! Touches `disks`, `id`, `step`, `trust`.

use serde::{Deserialize, Serialize};

use crate::disks::{self, Bus, Disk, Kinship};
use crate::id::{DeploymentId, Hash, ImageId, JobId, MachineId};
use crate::step::Step;
use crate::trust::{PublicKey, Signable};

/// The server's answer to a hardware report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The key in the report that this answers: an answer to another boot is not ours.
    pub key: PublicKey,
    /// The hash of the signed report that this answers: a recorded answer to an earlier one is not ours.
    pub report: Hash,
    /// How long it holds, counted by the machine from when it sent the report: its clock may be wrong, but it runs.
    pub seconds: u32,
    /// What the server calls the machine.
    pub machine: MachineId,
    /// What to do now; the wire calls it by its old name.
    #[serde(rename = "order")]
    pub instruction: Instruction,
}

impl Signable for Verdict {
    const DOMAIN: &'static str = "swarmboot verdict 2";
}

/// What a machine that reported is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Instruction {
    /// Nothing is ordered and nothing on the disks would boot: report again after some seconds.
    Wait {
        /// Seconds until the next report.
        seconds: u32,
        /// Why, for the machine's console.
        reason: String,
    },
    /// Nothing is ordered: restart, and the server will say "boot your disk".
    BootDisk {
        /// Why, for the machine's console.
        reason: String,
    },
    /// Carry out this plan.
    Deploy(Box<Plan>),
}

/// The stable marks of a disk. A disk is the target only if every mark that is not empty is equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskIdentity {
    /// How it is attached.
    pub bus: Bus,
    /// Bytes.
    pub size: u64,
    /// Logical sector size in bytes.
    pub sector_bytes: u32,
    /// The model's name.
    pub model: String,
    /// Serial number.
    pub serial: String,
    /// World wide name.
    pub wwn: String,
    /// Where it is plugged in; empty, and then no mark, where the disk's own marks suffice.
    pub path: String,
}

impl DiskIdentity {
    /// The marks of `disk`. Its place is one of them when it has no serial number and no WWN worth the name.
    #[must_use]
    pub fn of(disk: &Disk) -> Self {
        let anonymous = disk.real_serial().is_none() && disk.real_wwn().is_none();
        Self {
            bus: disk.bus,
            size: disk.size,
            sector_bytes: disk.sector_bytes,
            model: disk.model.clone(),
            serial: disk.serial.clone(),
            wwn: disk.wwn.clone(),
            path: if anonymous { disk.path.clone() } else { String::new() },
        }
    }

    /// The marks of `disk`, one of `all`: with its place where another one says the same of itself.
    #[must_use]
    pub fn among(disk: &Disk, all: &[Disk]) -> Self {
        let twin = |other: &Disk| {
            !std::ptr::eq(other, disk) && matches!(disk.kinship(other), Kinship::ByPlace | Kinship::Paths)
        };
        let path = if all.iter().any(twin) { disk.path.clone() } else { Self::of(disk).path };
        Self { path, ..Self::of(disk) }
    }

    /// The disk's own marks in words, as [`Disk::marks`] has them.
    #[must_use]
    pub fn marks(&self) -> Vec<String> {
        disks::marks(&self.model, &self.serial, &self.wwn)
    }

    /// Whether `disk` bears these marks: all that it says of itself, and its place where that is a mark.
    #[must_use]
    pub fn matches(&self, disk: &Disk) -> bool {
        let own = Self::of(disk);
        let path = if self.path.is_empty() { own.path.clone() } else { disk.path.clone() };
        *self == Self { path, ..own }
    }
}

/// What the machine does when its disk is sealed and nobody needs it as a seed any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finish {
    /// Restart into the new OS.
    #[default]
    Reboot,
    /// Switch off.
    PowerOff,
    /// End the process: the agent as an ordinary process.
    Exit,
}

/// Where the swarm's first seed is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// The server's key; also its name in the swarm.
    pub key: PublicKey,
    /// Where it listens, as multiaddrs such as `/ip4/10.0.0.1/tcp/4001`.
    pub addresses: Vec<String>,
}

/// Memory and disk settings fit to the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// Bytes of wire frames to keep in memory for peers.
    pub cache_bytes: u64,
    /// Chunks being fetched at once, over all neighbours.
    pub fetch_parallel: u32,
    /// Verified chunks that may wait for the disk before fetching pauses.
    pub write_backlog: u32,
    /// Bytes between two syncs of the disk.
    pub sync_bytes: u64,
    /// Chunks uploaded at once.
    pub upload_parallel: u32,
}

impl Default for Tuning {
    /// What a machine with 1 GiB of memory gets.
    fn default() -> Self {
        Self {
            cache_bytes: 256 << 20,
            fetch_parallel: 32,
            write_backlog: 16,
            sync_bytes: 256 << 20,
            upload_parallel: 4,
        }
    }
}

/// A profile resolved for one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The order it is part of.
    pub deployment: DeploymentId,
    /// This machine's part of the deployment.
    pub job: JobId,
    /// How often the job was started before this, plus one.
    pub attempt: u32,
    /// What to write, by the hash of its manifest.
    pub image: ImageId,
    /// Bytes of the image, raw.
    pub image_bytes: u64,
    /// The one disk to write.
    pub target: DiskIdentity,
    /// What to do, in order.
    pub steps: Vec<Step>,
    /// The server as the swarm's first seed.
    pub seed: Seed,
    /// Memory and disk settings.
    pub tuning: Tuning,
    /// What to do at the end.
    pub finish: Finish,
    /// The agent bundle for this machine, and its length in bytes; none for an ordinary process.
    pub bundle: Option<(Hash, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(serial: &str, path: &str) -> Disk {
        Disk {
            model: "M".to_owned(),
            serial: serial.to_owned(),
            path: path.to_owned(),
            ..crate::testing::disk("sda")
        }
    }

    #[test]
    fn a_disk_is_known_by_its_marks_and_not_by_its_name() {
        let mut moved = disk("S1", "port 1");
        let identity = DiskIdentity::of(&moved);
        moved.name = "sdb".to_owned();
        moved.path = "port 2".to_owned();
        assert!(identity.matches(&moved));
        assert!(!identity.matches(&disk("S2", "port 1")));
    }

    #[test]
    fn a_disk_without_serial_is_known_by_its_place() {
        // A serial number of zeros is none.
        for serial in ["", "0000"] {
            let identity = DiskIdentity::of(&disk(serial, "port 1"));
            assert!(identity.matches(&disk(serial, "port 1")));
            assert!(!identity.matches(&disk(serial, "port 2")));
            assert!(!identity.matches(&disk("S1", "port 1")));
        }
    }

    #[test]
    fn twins_are_known_by_their_places() {
        let twins = [disk("0123456789", "port 1"), disk("0123456789", "port 2"), disk("S1", "port 3")];
        let identity = DiskIdentity::among(&twins[0], &twins);
        assert_eq!(identity.path, "port 1");
        assert_eq!(twins.iter().filter(|twin| identity.matches(twin)).count(), 1);
        assert_eq!(DiskIdentity::among(&twins[2], &twins).path, "");
        // Both of a pair that was one disk when the plan was made: neither is taken.
        let alone = DiskIdentity::among(&twins[0], &twins[..1]);
        assert_eq!(twins.iter().filter(|twin| alone.matches(twin)).count(), 2);
    }
}
