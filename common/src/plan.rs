//! The server's verdict on a hardware report, and the plan that an agent carries out. Both are signed and bound to the
//! boot key of one boot, so an old one is refused. Owns these types; touches `disks`, `id`, `step`, `trust`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::disks::{self, Bus, Disk, Kinship};
use crate::id::{DeploymentId, Hash, ImageId, JobId, MachineId};
use crate::step::Step;
use crate::trust::{PublicKey, Signable};

/// The server's answer to a hardware report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The boot key in the report that this answers: a machine refuses an answer to another boot.
    pub key: PublicKey,
    /// The hash of the signed report that this answers: a machine refuses a recorded answer to an earlier one.
    pub report: Hash,
    /// How long it is valid, in seconds from when the machine sent the report: its clock may be wrong, but it runs.
    pub seconds: u32,
    /// The machine's number on this server.
    pub machine: MachineId,
    /// What the machine is to do now; `order` is its name on the wire, from an earlier version.
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
    /// Nothing is ordered, and no disk would boot: report again after some seconds.
    Wait {
        /// Seconds until the next report; the machine waits 1 to 600.
        seconds: u32,
        /// The reason, for the machine's console.
        reason: String,
    },
    /// Nothing is ordered: restart, after which the server's boot script says "boot your disk".
    BootDisk {
        /// The reason, for the machine's console.
        reason: String,
    },
    /// Carry out this plan.
    Deploy(Box<Plan>),
}

/// The stable marks of a disk. A disk is the target only if every mark that is not empty is equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DiskIdentity {
    /// The bus that it is on.
    pub bus: Bus,
    /// Size in bytes.
    pub size: u64,
    /// Logical sector size in bytes.
    pub sector_bytes: u32,
    /// Model; may be empty.
    pub model: String,
    /// Serial number; may be empty.
    pub serial: String,
    /// World wide name; may be empty.
    pub wwn: String,
    /// The place where it is plugged in; empty, and then not compared, where the disk's own marks are enough.
    pub path: String,
}

impl DiskIdentity {
    /// The marks of `disk`. Its place is one of them only if it has neither a real serial number nor a real WWN.
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

    /// The marks of `disk`, which is one of `all`: with its place if another one has the same marks.
    #[must_use]
    pub fn among(disk: &Disk, all: &[Disk]) -> Self {
        let twin = |other: &Disk| {
            !std::ptr::eq(other, disk) && matches!(disk.kinship(other), Kinship::ByPlace | Kinship::Paths)
        };
        let path = if all.iter().any(twin) { disk.path.clone() } else { Self::of(disk).path };
        Self { path, ..Self::of(disk) }
    }

    /// The disk's own marks as texts, like [`Disk::marks`].
    #[must_use]
    pub fn marks(&self) -> Vec<String> {
        disks::marks(&self.model, &self.serial, &self.wwn)
    }

    /// Whether `disk` has these marks: all of its own, and its place where that is one.
    #[must_use]
    pub fn matches(&self, disk: &Disk) -> bool {
        let own = Self::of(disk);
        let path = if self.path.is_empty() { own.path.clone() } else { disk.path.clone() };
        *self == Self { path, ..own }
    }
}

/// What the machine does when its disk is sealed and it need not serve peers any longer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Finish {
    /// Restart into the new OS.
    #[default]
    Reboot,
    /// Switch the machine off.
    PowerOff,
    /// Stay switched on and do nothing, until somebody restarts the machine.
    Stay,
    /// End the process; for the agent as an ordinary process.
    Exit,
}

/// How to reach the server as the first seed of the swarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// The server's public key, from which its libp2p peer id follows.
    pub key: PublicKey,
    /// Its listen addresses, as multiaddrs such as `/ip4/10.0.0.1/tcp/4001`.
    pub addresses: Vec<String>,
}

/// Bounds on memory, transfers and disk writes, chosen for the machine's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// The most bytes of chunks kept in memory for peers.
    pub cache_bytes: u64,
    /// The most chunks requested at once, over all neighbours.
    pub fetch_parallel: u32,
    /// The most verified chunks that wait for the disk before fetching pauses.
    pub write_backlog: u32,
    /// Bytes written between two syncs of the disk.
    pub sync_bytes: u64,
    /// The most chunks sent to peers at once.
    pub upload_parallel: u32,
}

impl Default for Tuning {
    /// The values for a machine with 1 GiB of memory.
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

/// The plan of one job: everything that an agent has to know to carry it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The deployment that the job is part of.
    pub deployment: DeploymentId,
    /// The job: this machine's part of the deployment.
    pub job: JobId,
    /// How often the job was started before this, plus one.
    pub attempt: u32,
    /// The image to write, named by the hash of its manifest.
    pub image: ImageId,
    /// Size of the raw image in bytes.
    pub image_bytes: u64,
    /// The one disk to write, by its marks.
    pub target: DiskIdentity,
    /// The steps to carry out, in order; also those of others than the agent.
    pub steps: Vec<Step>,
    /// The server as the swarm's first seed.
    pub seed: Seed,
    /// Bounds on memory, transfers and disk writes.
    pub tuning: Tuning,
    /// What the machine does at the end.
    pub finish: Finish,
    /// The agent bundle for this machine, and its length in bytes; none for an ordinary process.
    pub bundle: Option<(Hash, u64)>,
    /// Neighbours that may have the bundle and the manifest, to be tried before the server. Both are checked by hash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<SocketAddr>,
    /// The hash of the image's table of deltas; none when it has no deltas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deltas: Option<Hash>,
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
        // A serial number of zeros does not count as one.
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
        // A second path appeared since the plan was made: either of the two may be meant, so neither is taken.
        let alone = DiskIdentity::among(&twins[0], &twins[..1]);
        assert_eq!(twins.iter().filter(|twin| alone.matches(twin)).count(), 2);
    }
}
