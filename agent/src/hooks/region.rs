//! Core: which bytes of the disk are the root, and what of them is not on the disk yet. The bytes that let a disk boot
//! are in memory until the seal writes them; where the root has some of those, they are put on the disk for the hooks,
//! and read back into the seal after them. Touches `disk`, whose device it reads, and `common`.

use std::io;
use std::ops::Range;

use common::filesystem::{START_BYTES, identify};
use common::hooks::{Candidate, RootRule, root};
use common::table::{Partition, read};

use super::error::HookError;
use crate::disk::device::Device;
use crate::disk::seal::Seal;

/// The root, as a range of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// The partition's number, from 1.
    pub number: u32,
    /// Its bytes on the disk.
    pub bytes: Range<u64>,
    /// The kernel's name of its file system.
    pub file_system: &'static str,
}

impl Region {
    /// Finds the root by `rule` in the table that `seal` will write.
    ///
    /// # Errors
    /// When the table cannot be read, no partition is meant, or the disk cannot be read.
    pub fn find(device: &dyn Device, seal: &Seal, rule: &RootRule) -> Result<Self, HookError> {
        let sector = u64::from(device.sector_bytes());
        let table = read(&seal.first, device.sector_bytes())?;
        let range = |one: &Partition| one.start.saturating_mul(sector)..one.end.saturating_mul(sector);
        let partitions = table.partitions().iter().filter(|one| one.start < one.end);
        let mut candidates = vec![];
        for one in partitions.clone() {
            let bytes = range(one);
            let start = read_through(device, seal, bytes.start, START_BYTES as u64)?;
            let found = identify(&start);
            candidates.push(Candidate {
                number: one.number,
                kind: Some(one.kind),
                name: one.name.clone(),
                bytes: bytes.end - bytes.start,
                holds: found.as_ref().map(|found| found.kind.to_owned()),
                label: found.and_then(|found| found.label),
            });
        }
        let chosen = root(&candidates, rule)?;
        let file_system = chosen.file_system().unwrap_or_default();
        let bytes = partitions.clone().find(|one| one.number == chosen.number).map(range).unwrap_or_default();
        if bytes.end > device.size() {
            return Err(HookError::Beyond(chosen.number));
        }
        Ok(Self { number: chosen.number, bytes, file_system })
    }

    /// Writes what of the root is still in memory to the disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn lend(&self, device: &dyn Device, seal: &Seal) -> io::Result<()> {
        for (offset, bytes) in parts(seal) {
            if let Some((at, part)) = self.shared(offset, bytes.len()) {
                device.write_at(at, &bytes[part])?;
            }
        }
        Ok(())
    }

    /// The seal with the root as it is on the disk now.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn take_back(&self, device: &dyn Device, mut seal: Seal) -> io::Result<Seal> {
        if let Some((at, part)) = self.shared(0, seal.first.len()) {
            device.read_at(at, &mut seal.first[part])?;
        }
        for (offset, bytes) in &mut seal.over {
            if let Some((at, part)) = self.shared(*offset, bytes.len()) {
                device.read_at(at, &mut bytes[part])?;
            }
        }
        Ok(seal)
    }

    /// Where `len` bytes at `offset` are the root's: the place on the disk, and the range of those bytes.
    fn shared(&self, offset: u64, len: usize) -> Option<(u64, Range<usize>)> {
        let (start, end) = (self.bytes.start.max(offset), self.bytes.end.min(offset + len as u64));
        let index = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
        (start < end).then(|| (start, index(start)..index(end)))
    }
}

/// All that the seal writes, in its order.
fn parts(seal: &Seal) -> impl Iterator<Item = (u64, &Vec<u8>)> {
    seal.over.iter().map(|(offset, bytes)| (*offset, bytes)).chain([(0, &seal.first)])
}

/// The bytes at `offset` as they will be when the disk is sealed; fewer at the disk's end.
fn read_through(device: &dyn Device, seal: &Seal, offset: u64, len: u64) -> Result<Vec<u8>, HookError> {
    let end = offset.saturating_add(len).min(device.size());
    let mut read = vec![0; usize::try_from(end.saturating_sub(offset)).unwrap_or(0)];
    device.read_at(offset, &mut read).map_err(HookError::Disk)?;
    let whole = Region { number: 0, bytes: offset..end, file_system: "" };
    for (from, bytes) in parts(seal) {
        if let Some((at, part)) = whole.shared(from, bytes.len()) {
            let at = usize::try_from(at - offset).unwrap_or(usize::MAX);
            read[at..at + part.len()].copy_from_slice(&bytes[part]);
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::recording::Recording;

    const MIB: usize = 1 << 20;

    /// A disk of 8 MiB with an MBR of one Linux partition from sector `start` to its end, with an ext file system.
    fn disk(start: u32) -> (Recording, Seal) {
        let mut bytes = vec![0; 8 * MIB];
        let sectors = u32::try_from(bytes.len() / 512).unwrap() - start;
        bytes[446 + 4] = 0x83;
        bytes[446 + 8..446 + 12].copy_from_slice(&start.to_le_bytes());
        bytes[446 + 12..446 + 16].copy_from_slice(&sectors.to_le_bytes());
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        bytes[start as usize * 512 + 0x438..][..2].copy_from_slice(&[0x53, 0xef]);
        let (first, last) = (bytes[..MIB].to_vec(), bytes[7 * MIB..].to_vec());
        // As a transfer leaves it: the first and the last chunk are only in memory.
        bytes[..MIB].fill(0);
        bytes[7 * MIB..].fill(0xdd);
        (Recording::holding(bytes, 512), Seal { first, over: vec![(7 * MIB as u64, last)] })
    }

    #[test]
    fn the_root_is_found_in_what_is_still_in_memory() {
        for start in [63, 2048] {
            let (device, seal) = disk(start);
            let region = Region::find(&device, &seal, &RootRule::Auto).unwrap();
            let wanted = u64::from(start) * 512..8 << 20;
            assert_eq!(region, Region { number: 1, bytes: wanted, file_system: "ext4" });
        }
        let (device, mut seal) = disk(2048);
        assert!(matches!(Region::find(&device, &seal, &RootRule::Number(2)), Err(HookError::NoRoot(_))));
        // The partition is longer than the disk.
        seal.first[446 + 12..446 + 16].copy_from_slice(&(1u32 << 20).to_le_bytes());
        assert!(matches!(Region::find(&device, &seal, &RootRule::Auto), Err(HookError::Beyond(1))));
    }

    #[test]
    fn what_hooks_write_is_what_the_seal_writes() {
        let (device, seal) = disk(63);
        let region = Region::find(&device, &seal, &RootRule::Auto).unwrap();
        region.lend(&device, &seal).unwrap();
        let lent = device.bytes();
        assert!(lent[..63 * 512].iter().all(|&byte| byte == 0), "the table is not lent");
        assert!(lent[63 * 512..MIB] == seal.first[63 * 512..]);
        assert!(lent[7 * MIB..] == seal.over[0].1[..]);

        device.write_at(64 * 512, &[1; 512]).unwrap();
        device.write_at(7 << 20, &[2; 512]).unwrap();
        let after = region.take_back(&device, seal.clone()).unwrap();
        assert!(after.first[..63 * 512] == seal.first[..63 * 512], "the table stays the seal's own");
        assert!(after.first[64 * 512..65 * 512] == [1; 512]);
        assert!(after.over[0].1[..512] == [2; 512]);
    }
}
