//! Step `personalise`: the partition table as it is to be on this disk, and what cloud-init will find. Only
//! in memory: it goes down with the seal, because a partition table is what lets a disk boot.

use common::table::lay_out;
use common::wire::swarm::Personality;

use super::machine::{Machine, out_of_order};
use super::run::StepError;
use crate::disk::nocloud::{file_system, files};
use crate::disk::seal::Seal;

pub(super) fn run(machine: &mut Machine) -> Result<String, StepError> {
    let personality = machine.personality.clone().ok_or_else(|| out_of_order("join"))?;
    let seal = prepare(machine, &personality)?;
    machine.seal = Some(seal);
    Ok(format!("hostname {}", personality.hostname))
}

fn prepare(machine: &mut Machine, personality: &Personality) -> Result<Seal, StepError> {
    let mut guid = [0; 16];
    getrandom::fill(&mut guid).map_err(|error| StepError::Final(error.to_string()))?;
    // RFC 4122, section 4.4: the bits that mark a random UUID, in the byte order of a GPT.
    guid[7] = guid[7] & 0x0f | 0x40;
    guid[8] = guid[8] & 0x3f | 0x80;
    let target = machine.target()?;
    let (size, sector) = (target.device.size(), target.device.sector_bytes());
    let mut seal = Seal::of_image(&target.manifest, &target.held).map_err(|error| StepError::last(&error))?;
    let layout = lay_out(&seal.first, size, sector, guid).map_err(|error| StepError::last(&error))?;
    let bytes = usize::try_from(layout.partition.end - layout.partition.start).unwrap_or(usize::MAX);
    let given = files(personality).map_err(|error| StepError::last(&error))?;
    let made =
        file_system(&given, bytes, sector, personality.seed_mark).map_err(|error| StepError::last(&error))?;
    seal.first = layout.first;
    seal.over.push((layout.partition.start, made));
    seal.over.extend(layout.backup);
    Ok(seal)
}
