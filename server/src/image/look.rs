//! Inspects an image's file systems: the loader that UEFI firmware starts, and cloud-init. Reads a bounded number of
//! stored chunks. Touches the store.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use common::filesystem::{self, START_BYTES};
use common::id::ImageId;
use common::manifest::Manifest;
use common::table::{self, Partition, Table};
use ext4_view::{Ext4, Ext4Read};

use super::cloud_init;
use super::error::ImageError;
use super::facts::{Facts, not_personalised};
use super::reader::PartReader;
use super::store::Images;
use crate::api::shapes::{BiosBoot, CloudInit, ImageTraits, PartitionMarks, UefiBoot};

/// The version of the inspection: increased when more is inspected, so that images are inspected again.
const LOOKED: u32 = 1;
/// How many partitions are inspected.
const PARTITIONS_MAX: usize = 32;
/// How many chunks are read of one file system: a folder's worth of a FAT, a dozen paths of an ext4 and its journal.
const CHUNKS_MAX: u32 = 256;
/// How many folders of other loaders are named.
const VENDORS_MAX: usize = 4;

impl Images {
    /// What the image can boot on and be given. Inspected once, also if an earlier version added it.
    ///
    /// # Errors
    /// When its manifest or its first chunk cannot be read.
    pub fn traits(&self, id: ImageId) -> Result<ImageTraits, ImageError> {
        let known = self.list().into_iter().find(|image| image.id == id).and_then(|image| image.traits);
        if let Some(traits) = known.filter(|traits| traits.looked == LOOKED) {
            return Ok(traits);
        }
        let traits = self.look(&self.manifest(id)?)?;
        self.keep_traits(id, &traits);
        Ok(traits)
    }

    /// Inspects an image whose chunks are in the store.
    pub(super) fn look(&self, manifest: &Arc<Manifest>) -> Result<ImageTraits, ImageError> {
        let first = self.raw_at(manifest, common::chunk::ChunkIndex(0))?;
        let sector_bytes = manifest.sector_bytes();
        // An image that an earlier version added may have a table that is refused today.
        let table = table::read(&first, sector_bytes).unwrap_or(Table::None);
        let (bios, has_esp) =
            Facts::of(&first).map_or((BiosBoot::NoCode, false), |facts| (facts.bios(), facts.has_esp()));
        let part = |partition: &Partition| {
            let sector = u64::from(sector_bytes);
            let start = partition.start.saturating_mul(sector);
            let len = partition.end.saturating_mul(sector).saturating_sub(start);
            PartReader::new(self.clone(), Arc::clone(manifest), start, len, CHUNKS_MAX)
        };
        let partitions = &table.partitions()[..table.partitions().len().min(PARTITIONS_MAX)];
        let esps = partitions.iter().filter(|partition| partition.kind.is_esp()).map(part);
        let uefi = if has_esp { uefi(esps) } else { UefiBoot::NoPartition };
        let roots = partitions.iter().map(|partition| cloud_init_in(&part(partition)));
        let cloud_init = roots.flatten().next().unwrap_or(CloudInit::Unknown);
        Ok(ImageTraits {
            looked: LOOKED,
            bios,
            uefi,
            not_personalised: not_personalised(&first, manifest.size(), sector_bytes)
                .map(|why| why.to_string()),
            cloud_init,
            partitions: partitions.iter().map(|partition| marks(partition, part(partition))).collect(),
        })
    }
}

/// The marks of a partition, from its table entry and its file system.
fn marks(partition: &Partition, mut part: PartReader) -> PartitionMarks {
    let holds = start_of(&mut part).and_then(|start| filesystem::identify(&start));
    PartitionMarks {
        number: partition.number,
        guid: partition.guid.as_ref().and_then(filesystem::guid),
        holds: holds.as_ref().map(|found| found.kind.to_owned()),
        uuid: holds.as_ref().and_then(|found| found.uuid.clone()),
        label: holds.and_then(|found| found.label),
    }
}

fn start_of(part: &mut PartReader) -> Option<Vec<u8>> {
    let mut start = vec![0; START_BYTES.min(usize::try_from(part.len()).unwrap_or(START_BYTES))];
    part.read_at(0, &mut start).ok().map(|()| start)
}

/// Whether any of the EFI system partitions has the loader that firmware starts without a boot entry (UEFI 2.10,
/// 3.5.1.1).
fn uefi(esps: impl Iterator<Item = PartReader>) -> UefiBoot {
    let (mut vendors, mut unreadable) = (None, None);
    for esp in esps {
        // The library may panic on a hostile FAT; nothing else depends on it here.
        match catch_unwind(AssertUnwindSafe(|| loaders(esp))) {
            Ok(Ok(None)) => return UefiBoot::Yes,
            Ok(Ok(Some(mut found))) => vendors.get_or_insert_with(Vec::new).append(&mut found),
            Ok(Err(error)) => unreadable = Some(error.to_string()),
            Err(_) => unreadable = Some("its FAT makes no sense".to_owned()),
        }
    }
    match (vendors, unreadable) {
        (Some(vendors), _) => UefiBoot::NoLoader { vendors },
        (None, Some(why)) => UefiBoot::Unreadable { why },
        (None, None) => UefiBoot::NoPartition,
    }
}

/// `None` when the default loader is there, else the names of the folders beside it.
fn loaders(esp: PartReader) -> io::Result<Option<Vec<String>>> {
    let options = fatfs::FsOptions::new().update_accessed_date(false);
    let file_system = fatfs::FileSystem::new(esp, options)?;
    let root = file_system.root_dir();
    let absent = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
    match root.open_file("EFI/BOOT/BOOTX64.EFI") {
        Ok(_) => return Ok(None),
        Err(error) => absent(error)?,
    }
    let efi = match root.open_dir("EFI") {
        Ok(efi) => efi,
        Err(error) => return absent(error).map(|()| Some(vec![])),
    };
    let folders = efi.iter().filter_map(Result::ok).filter(fatfs::DirEntry::is_dir);
    let names =
        folders.map(|folder| folder.file_name()).filter(|name| !matches!(name.as_str(), "." | ".." | "BOOT"));
    Ok(Some(names.take(VENDORS_MAX).map(|name| common::limits::cut(&name, 40).to_owned()).collect()))
}

/// Whether cloud-init is in this partition; `None` when it is no root file system that can be read.
fn cloud_init_in(part: &PartReader) -> Option<CloudInit> {
    let mut own = part.again();
    let start = start_of(&mut own)?;
    // An ext4 that claims more blocks than the partition has would make the library allocate memory for them.
    let word = |at: usize| start.get(at..at + 4)?.first_chunk().map(|word| u32::from_le_bytes(*word));
    let (blocks, shift) = (word(1028)?, word(1048)?);
    let is_ext = start.get(0x438..0x43a) == Some(&[0x53, 0xef]);
    let bytes = u64::from(blocks).checked_shl(10 + shift.min(32));
    if !is_ext || shift > 6 || bytes.is_none_or(|bytes| bytes > part.len()) {
        return None;
    }
    let load = || {
        let file_system = Ext4::load(Box::new(Part(part.again()))).ok()?;
        cloud_init::look(&file_system)
    };
    catch_unwind(AssertUnwindSafe(load)).ok().flatten()
}

struct Part(PartReader);

impl Ext4Read for Part {
    fn read(
        &mut self,
        start: u64,
        into: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        Ok(self.0.read_at(start, into)?)
    }
}
