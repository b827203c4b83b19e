//! Power cuts during the agent's own steps: clear → transfer → verify → personalise → seal on a disk in memory that
//! tears, reorders and forgets writes that were not synced. The power is cut at a random write or sync; what is left
//! never boots half an image, and the next attempt completes. With hooks as well: whatever they had written before the
//! cut, on the disk that boots they ran just once, on the image as it was ordered. `disk::power` tries the same at every
//! operation, with the disk's functions alone.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use common::hardware::{Bus, Contents, Disk};
use common::hooks::{Hook, Hooks, OnFailure, RootRule};
use common::id::{DeploymentId, MachineId};
use common::manifest::Manifest;
use common::step::Step;
use common::testing;
use common::user_data::UserData;

use super::membership::Heard;
use super::run::tests::Lines;
use super::run::{EventSink, walk};
use super::whole::{feed, joined_on, os_image};
use crate::disk::power::{MIB, old_disk, whole_old};
use crate::disk::recording::{Random, Recording, manifest_of};
use crate::hooks::error::HookError;
use crate::hooks::script::Script;

const STEPS: [Step; 4] = [Step::Transfer, Step::Verify, Step::Personalise, Step::Seal];
const WITH_HOOKS: [Step; 5] = [Step::Transfer, Step::Verify, Step::Personalise, Step::Hooks, Step::Seal];
const SIZE: usize = 12 * MIB;
const SECTOR: u32 = 512;

/// How many operations at the end of a run count as its end, the seal's among them.
const SEALING: usize = 12;

/// How many before those are the hooks'.
const HOOKING: usize = 12;

fn disk() -> Disk {
    Disk {
        bus: Bus::Virtio,
        size: SIZE as u64,
        sector_bytes: SECTOR,
        serial: "S1".to_owned(),
        contents: Contents::Unreadable,
        ..testing::disk("recording")
    }
}

/// An image whose only partition holds an ext file system, for all that hooks look at.
fn hooked_image() -> Vec<u8> {
    let mut raw = os_image();
    // Both of two equal chunks, which stay equal.
    for chunk in [1, 3] {
        raw[chunk * MIB + 0x438..][..2].copy_from_slice(&[0x53, 0xef]);
    }
    raw
}

fn hooks() -> Hooks {
    let script = UserData::from("count\n");
    let hook = |name: &str| Hook {
        name: name.to_owned(),
        script: script.clone(),
        timeout_seconds: 300,
        on_failure: OnFailure::Fail,
    };
    Hooks {
        list: vec![hook("one"), hook("two")],
        root: RootRule::Auto,
        machine: MachineId(1),
        deployment: DeploymentId(1),
        site: String::new(),
    }
}

/// Where in the root a script counts, in bytes: in both equal chunks, and in zeros.
const COUNTED: [u64; 3] = [MIB as u64 / 2, 3 * MIB as u64 / 2, 2 * MIB as u64 + 4096];

/// A script that counts how often it ran, at several places of the root.
fn count(script: &Script<'_>) -> Result<(), HookError> {
    for at in COUNTED {
        let at = script.region.bytes.start + at;
        let mut sector = [0; SECTOR as usize];
        script.device.read_at(at, &mut sector).map_err(HookError::Disk)?;
        sector[0] += 1;
        script.device.write_at(at, &sector).map_err(HookError::Disk)?;
        if script.hook.name == "one" {
            script.device.sync().map_err(HookError::Disk)?;
        }
    }
    Ok(())
}

/// `raw` after its hooks.
fn counted(raw: &[u8]) -> Vec<u8> {
    let mut raw = raw.to_vec();
    for at in COUNTED {
        raw[MIB + usize::try_from(at).unwrap()] += 2;
    }
    raw
}

/// One attempt on `device`, from the first write to the last; the lines of its log if it failed.
fn attempt(
    device: &Arc<Recording>,
    manifest: &Arc<Manifest>,
    raw: &[u8],
    steps: &[Step],
) -> Result<(), Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (lines, off) = (Arc::new(Lines::default()), Arc::clone(device));
    let ended = runtime.block_on(async {
        let heard = Heard { started: true, ..Heard::default() };
        let (mut machine, sender) = joined_on(&disk(), device.clone(), manifest, steps, &lines, heard).await;
        machine.context.run_script = count;
        if let Some(personality) = &mut machine.personality {
            personality.hooks = Some(hooks());
        }
        let sink: Arc<dyn EventSink> = lines.clone();
        let cancel = machine.context.cancel.clone();
        let work = async {
            let (walked, ()) =
                tokio::join!(walk(steps, &mut machine, sink, &cancel), feed(raw, manifest, &sender));
            walked.is_ok() && machine.is_sealed()
        };
        let ended = tokio::select! {
            done = work => done,
            () = power_goes(&off) => false,
        };
        machine.leave().await;
        ended
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    if ended { Ok(()) } else { Err(lines.all()) }
}

/// Returns when the power is cut: the machine then does nothing more, whatever its program would do about the error.
async fn power_goes(device: &Recording) {
    while !device.is_off() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Whether firmware would boot `disk`: by the signature in its first sector, by a GPT behind it, or by a backup GPT
/// with right checksums. A torn backup does not count.
fn boots(disk: &[u8]) -> bool {
    begins(disk) || gptman::GPT::find_from(&mut std::io::Cursor::new(disk)).is_ok()
}

/// Whether either of the two sectors that are written last is there.
fn begins(disk: &[u8]) -> bool {
    disk[510..512] == [0x55, 0xaa] || disk[SECTOR as usize..].starts_with(b"EFI PART")
}

/// Whether `disk` is the new system: every byte of the image but both ends of its table, a table that other software
/// reads, and cloud-init's files. If one of the first two sectors is there, the rest of the first MiB has to be, too.
fn whole_new(disk: &[u8], raw: &[u8]) -> bool {
    let entries_end = 34 * SECTOR as usize;
    let code = disk[510..512] != [0x55, 0xaa] || disk[..446] == raw[..446];
    let beginning = !begins(disk)
        || (disk[entries_end..MIB] == raw[entries_end..MIB]
            && disk[SIZE - SECTOR as usize..].starts_with(b"EFI PART"));
    code && beginning
        && disk[MIB..raw.len()] == raw[MIB..]
        && given(disk).is_some_and(|text| text.contains("j1-1"))
}

/// The `meta-data` that cloud-init would read, from the partition that the table names.
fn given(disk: &[u8]) -> Option<String> {
    let table = gptman::GPT::find_from(&mut std::io::Cursor::new(disk)).ok()?;
    let (root, partition) = (&table[1], &table[2]);
    if root.partition_name.as_str() != "root" || partition.partition_name.as_str() != "cidata" {
        return None;
    }
    let start = usize::try_from(partition.starting_lba * u64::from(SECTOR)).ok()?;
    let end = usize::try_from((partition.ending_lba + 1) * u64::from(SECTOR)).ok()?;
    let part = std::io::Cursor::new(disk[start..end].to_vec());
    let files = fatfs::FileSystem::new(part, fatfs::FsOptions::new()).ok()?;
    let mut text = String::new();
    files.root_dir().open_file("meta-data").ok()?.read_to_string(&mut text).ok()?;
    Some(text)
}

/// Tries `cuts` power cuts, each at a random operation of its own run; every other one among the last operations, where
/// the disk begins to boot, or in the hooks.
fn try_cuts(cuts: usize, seed: u64, steps: &[Step]) {
    let hooked = steps.contains(&Step::Hooks);
    let raw = if hooked { hooked_image() } else { os_image() };
    let wanted = if hooked { counted(&raw) } else { raw.clone() };
    let manifest = Arc::new(manifest_of(&raw, SECTOR));
    let old = old_disk(SIZE, SECTOR as usize);
    let whole = Arc::new(Recording::holding(old.clone(), SECTOR));
    attempt(&whole, &manifest, &raw, steps).unwrap();
    assert!(begins(&whole.bytes()) && whole_new(&whole.bytes(), &wanted));
    let operations = whole.operations();
    let last = if hooked { SEALING + HOOKING } else { SEALING };
    let mut random = Random::new(seed);
    let (mut booting, mut half) = (0, 0);
    for cut in 0..cuts {
        let from = if cut % 2 == 0 { 0 } else { operations.saturating_sub(last) };
        let after = from + random.below(operations - from);
        let device = Arc::new(Recording::cut_after(old.clone(), SECTOR, after));
        attempt(&device, &manifest, &raw, steps).unwrap_err();
        let left = device.after_cut(&mut random);
        if boots(&left) {
            booting += 1;
            if !whole_old(&left, &old) && !whole_new(&left, &wanted) {
                half += 1;
                println!("cut {cut} after {after} of {operations} operations boots half an image");
            }
        }
        let again = Arc::new(Recording::holding(left, SECTOR));
        let ended = attempt(&again, &manifest, &raw, steps);
        assert!(ended.is_ok(), "cut {cut} after {after}: the next attempt: {ended:#?}");
        let again = again.bytes();
        assert!(
            begins(&again) && whole_new(&again, &wanted),
            "cut {cut} after {after}: the next attempt is not whole"
        );
    }
    println!(
        "{cuts} power cuts over {operations} operations: {booting} disks boot, {half} of them half an image"
    );
    assert_eq!(half, 0, "of {cuts} cuts");
}

#[test]
fn power_cuts_boot_no_half_image() {
    try_cuts(16, 1, &STEPS);
}

#[test]
fn power_cuts_in_hooks_run_them_anew_on_the_image_as_ordered() {
    try_cuts(16, 1, &WITH_HOOKS);
}

/// As many cuts as the full tests make, a quarter of them with hooks.
#[test]
#[ignore = "takes minutes: ./tests/full cuts"]
fn a_thousand_power_cuts_boot_no_half_image() {
    try_cuts(750, 2026, &STEPS);
    try_cuts(250, 2026, &WITH_HOOKS);
}
