//! The steps one after the other on a plain file; the test itself feeds the chunks that a swarm would deliver. At the
//! end the file holds the image, with what personalising adds.

use std::path::Path;
use std::sync::Arc;

use common::chunk::{ChunkIndex, ChunkSet};
use common::hardware::Disk;
use common::id::{DeploymentId, Hash, ImageId, JobId};
use common::limits::CHUNK_BYTES;
use common::manifest::Manifest;
use common::plan::{DiskIdentity, Finish, Plan, Seed, Tuning};
use common::step::Step;
use common::trust::KeyPair;
use common::wire::swarm::{Member, Personality};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::machine::{Context, Machine, Target};
use super::membership::{Heard, Membership};
use super::run::tests::Lines;
use super::run::{EventSink, walk};
use crate::disk::clear::cleared;
use crate::disk::device::Device;
use crate::disk::find::{as_disk, open};
use crate::disk::recording::{manifest_of, verified};
use crate::disk::resume::held_already;
use crate::fetch::Server;
use crate::swarm::{SwarmClient, SwarmConfig};

const MIB: usize = 1 << 20;

/// An image with a GPT, one partition, zeros, two equal chunks and a short last chunk.
pub(super) fn os_image() -> Vec<u8> {
    let mut raw = vec![0; 6 * MIB + 8192];
    for (at, seed) in [(1, 5), (3, 5), (4, 9)] {
        raw[at * MIB..(at + 1) * MIB].fill(seed);
    }
    let mut disk = std::io::Cursor::new(&mut raw);
    let mut gpt = gptman::GPT::new_from(&mut disk, 512, [7; 16]).unwrap();
    gpt[1] = gptman::GPTPartitionEntry {
        partition_type_guid: [3; 16],
        unique_partition_guid: [4; 16],
        starting_lba: 2048,
        ending_lba: 5 * 2048 - 1,
        attribute_bits: 0,
        partition_name: "root".into(),
    };
    gpt.write_into(&mut disk).unwrap();
    gptman::GPT::write_protective_mbr_into(&mut disk, 512).unwrap();
    raw
}

pub(super) fn plan_for(disk: &Disk, manifest: &Manifest, steps: &[Step]) -> Plan {
    Plan {
        deployment: DeploymentId(1),
        job: JobId(1),
        attempt: 1,
        image: manifest.id(),
        image_bytes: manifest.size(),
        target: DiskIdentity::of(disk),
        steps: steps.to_vec(),
        seed: Seed {
            key: KeyPair::from_secret([2; 32]).public(),
            addresses: vec!["/ip4/127.0.0.1/tcp/1".to_owned()],
        },
        tuning: Tuning { sync_bytes: u64::from(CHUNK_BYTES), write_backlog: 2, ..Tuning::default() },
        finish: Finish::Exit,
        bundle: None,
        peers: vec![],
        deltas: None,
    }
}

/// The state of a job that has joined, with a file at `path` as its disk.
async fn joined(
    path: &Path,
    manifest: &Arc<Manifest>,
    steps: &[Step],
    lines: &Arc<Lines>,
    heard: Heard,
) -> (Machine, mpsc::Sender<crate::swarm::VerifiedChunk>) {
    let disk = as_disk(path, Some(20 << 20)).unwrap();
    let device = Arc::new(open(&disk).unwrap());
    joined_on(&disk, device, manifest, steps, lines, heard).await
}

/// The state of a job that has joined, with what `device` holds of the image already: verified chunks come from the
/// sender, and `heard` is what the swarm has reported.
pub(super) async fn joined_on(
    disk: &Disk,
    device: Arc<dyn Device>,
    manifest: &Arc<Manifest>,
    steps: &[Step],
    lines: &Arc<Lines>,
    heard: Heard,
) -> (Machine, mpsc::Sender<crate::swarm::VerifiedChunk>) {
    let plan = plan_for(disk, manifest, steps);
    let sink: Arc<dyn EventSink> = lines.clone();
    let context = Context {
        server: Server::new("http://127.0.0.1:1", plan.seed.key).unwrap(),
        key: KeyPair::from_secret([3; 32]),
        sink,
        disks: vec![disk.clone()],
        listen: "/ip4/127.0.0.1/tcp/0".to_owned(),
        cancel: CancellationToken::new(),
        run_script: crate::hooks::script::run,
        boot_files: None,
    };
    let skip = cleared(manifest, disk.size);
    let already = held_already(&*device, manifest, &skip, 1, &context.cancel, &|_| {}).same;
    let target = Target::new(device, Arc::clone(manifest), already, None);
    let config = SwarmConfig {
        keypair: context.key.clone(),
        member: Member::Job(plan.job),
        image: ImageId(Hash([0; 32])),
        manifest: Arc::clone(manifest),
        seed: plan.seed.clone(),
        listen: context.listen.clone(),
        tuning: plan.tuning.clone(),
        held: ChunkSet::new(manifest.len()),
        disk: Arc::new(target.held.clone()),
        keep_wire: false,
        admitted: vec![],
        boot_files: None,
        deltas: None,
    };
    // Nothing listens at the seed's address: only this end of the client is used.
    let (client, _) = SwarmClient::start(config).await.unwrap();
    let (sender, chunks) = mpsc::channel(2);
    let (_, heard) = watch::channel(heard);
    let mut machine = Machine::new(plan, context);
    machine.personality = Some(Personality {
        hostname: "rack1-01".to_owned(),
        ssh_keys: vec![],
        user_data: None,
        instance_id: "j1-1".to_owned(),
        confirm_url: None,
        seed_mark: common::wire::call_home::SeedMark::default(),
        boot_mac: None,
        hooks: None,
    });
    machine.target = Some(target);
    machine.membership = Some(Membership {
        client,
        heard,
        chunks: Some(chunks),
        told: ChunkSet::new(manifest.len()),
        listening: tokio::spawn(async {}),
    });
    (machine, sender)
}

pub(super) async fn feed(
    raw: &[u8],
    manifest: &Manifest,
    sender: &mpsc::Sender<crate::swarm::VerifiedChunk>,
) {
    let mut keys: Vec<ChunkIndex> = manifest.places().into_keys().collect();
    keys.sort_unstable_by(|a, b| b.cmp(a));
    for key in keys {
        // Fails after a power cut, when the receiver is gone.
        let _ = sender.send(verified(manifest, raw, key.0)).await;
    }
}

#[tokio::test]
async fn from_the_first_chunk_to_the_last_word() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, vec![0xa5; 20 * MIB]).unwrap();
    let raw = os_image();
    let manifest = Arc::new(manifest_of(&raw, 512));
    let lines = Arc::new(Lines::default());
    let steps = [Step::Transfer, Step::Verify, Step::Personalise, Step::Seal, Step::Linger, Step::Reboot];
    let heard = Heard { started: true, released: true, ..Heard::default() };
    let (mut machine, sender) = joined(&path, &manifest, &steps, &lines, heard).await;
    let sink: Arc<dyn EventSink> = lines.clone();
    let cancel = CancellationToken::new();
    // The sender is kept, as the swarm keeps its own until the machine leaves it.
    let (walked, ()) =
        tokio::join!(walk(&steps, &mut machine, sink, &cancel), feed(&raw, &manifest, &sender),);
    assert!(walked.is_ok(), "{:#?}", lines.all());
    assert!(machine.is_sealed());
    drop(machine);

    let ended: Vec<String> = lines.all().into_iter().filter(|line| line.contains(" done ")).collect();
    assert_eq!(
        ended,
        [
            "transfer done 0 MiB from the server, 0 from peers, 0 on the disk already, 2 never sent (0 from peers)",
            "verify done 6 MiB read back",
            "personalise done hostname rack1-01",
            "seal done ",
            "linger done 0 MiB sent to peers (0 from peers)",
            "reboot done done (0 from peers)",
        ]
    );
    let disk = std::fs::read(&path).unwrap();
    assert!(disk[MIB..raw.len()] == raw[MIB..], "the image but its table");
    let table = gptman::GPT::find_from(&mut std::io::Cursor::new(&disk)).unwrap();
    assert_eq!(table.header.backup_lba, 20 * 2048 - 1);
    let given = &table[2];
    assert_eq!(given.partition_name.as_str(), "cidata");
    let at = usize::try_from(given.starting_lba * 512).unwrap();
    let len = usize::try_from(given.size().unwrap() * 512).unwrap();
    let part = std::io::Cursor::new(disk[at..at + len].to_vec());
    let files = fatfs::FileSystem::new(part, fatfs::FsOptions::new()).unwrap();
    assert_eq!(files.volume_label(), "CIDATA");
}

/// M7: by the time of the first write, another disk has the name of the chosen one.
#[tokio::test]
async fn another_disk_at_the_first_write_is_not_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("disk"), folder.path().join("moved"));
    let old = vec![0xa5; 20 * MIB];
    std::fs::write(&path, &old).unwrap();
    let raw = os_image();
    let manifest = Arc::new(manifest_of(&raw, 512));
    let lines = Arc::new(Lines::default());
    let steps = [Step::Transfer, Step::Seal];
    let (mut machine, sender) =
        joined(&path, &manifest, &steps, &lines, Heard { started: true, ..Heard::default() }).await;
    std::fs::rename(&path, &moved).unwrap();
    std::fs::write(&path, &old).unwrap();
    let cancel = CancellationToken::new();
    let sink: Arc<dyn EventSink> = lines.clone();
    // No chunk is sent, so a step that accepts the disk all the same waits until the timeout.
    let walk = walk(&steps, &mut machine, sink, &cancel);
    let walked = tokio::time::timeout(std::time::Duration::from_secs(30), walk).await;
    drop(sender);
    let told = lines.all();
    let ended = walked.expect("it is refused at once").unwrap_err();
    assert_eq!(ended.step, Step::Transfer, "{told:?}");
    assert!(
        told.last().is_some_and(|line| line.contains("another file") && line.contains("for good")),
        "{told:?}"
    );
    for disk in [path, moved] {
        assert!(std::fs::read(&disk).unwrap() == old, "{} was written", disk.display());
    }
}

#[tokio::test]
async fn a_cancelled_transfer_leaves_a_disk_that_does_not_boot() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let raw = os_image();
    let manifest = Arc::new(manifest_of(&raw, 512));
    let lines = Arc::new(Lines::default());
    let steps = [Step::Transfer, Step::Seal];
    let (mut machine, sender) =
        joined(&path, &manifest, &steps, &lines, Heard { started: true, ..Heard::default() }).await;
    sender.send(verified(&manifest, &raw, 0)).await.unwrap();
    let cancel = machine.context.cancel.clone();
    let sink: Arc<dyn EventSink> = lines.clone();
    let (walked, ()) = tokio::join!(walk(&steps, &mut machine, sink, &cancel), async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        cancel.cancel();
        // The swarm closes its channel when the machine leaves it.
        drop(sender);
    });
    assert_eq!(walked.unwrap_err().step, Step::Transfer);
    assert!(lines.all().last().unwrap().contains("for good"), "{:?}", lines.all());
    assert!(!machine.is_sealed());
    let disk = std::fs::read(&path).unwrap();
    assert!(disk[..MIB].iter().all(|&byte| byte == 0), "nothing that boots");
}
