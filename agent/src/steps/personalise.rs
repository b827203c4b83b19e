//! Step `personalise`: makes the partition table for this disk, and the file system that cloud-init reads. Only in
//! memory: the seal writes both, because a partition table is what lets a disk boot.

use common::table::lay_out;
use common::wire::swarm::Personality;

use super::error::StepError;
use super::machine::Machine;
use crate::disk::nocloud::{file_system, files};
use crate::disk::seal::Seal;

pub(super) fn run(machine: &mut Machine) -> Result<String, StepError> {
    let personality = machine.personality.clone().ok_or(StepError::NotJoined)?;
    let seal = prepare(machine, &personality)?;
    machine.seal = Some(seal);
    Ok(format!("hostname {}", personality.hostname))
}

fn prepare(machine: &mut Machine, personality: &Personality) -> Result<Seal, StepError> {
    let mut guid = [0; 16];
    getrandom::fill(&mut guid)?;
    // RFC 4122, section 4.4: the bits that mark a random UUID, in the byte order of a GPT.
    guid[7] = guid[7] & 0x0f | 0x40;
    guid[8] = guid[8] & 0x3f | 0x80;
    let target = machine.target()?;
    let (size, sector) = (target.device.size(), target.device.sector_bytes());
    let mut seal = Seal::of_image(&target.manifest, &target.held).map_err(StepError::Unsealable)?;
    let layout = lay_out(&seal.first, size, sector, guid)?;
    let bytes = usize::try_from(layout.partition.end - layout.partition.start).unwrap_or(usize::MAX);
    let made = file_system(&files(personality)?, bytes, sector, personality.seed_mark)?;
    seal.first = layout.first;
    seal.over.push((layout.partition.start, made));
    seal.over.extend(layout.backup);
    Ok(seal)
}
