//! Images and boot kits in an admin's words, both ways. Touches `api`, and the types of the image and kit rooms.

use common::causes;
use common::wire::http::Refused;
use jiff::Timestamp;

use crate::api::shapes::{ImageShown, KitImport, KitShown, KitSource};
use crate::boot::Wanted;
use crate::image::{ImageError, ImageInfo, PartitionTable};
use crate::kit::{KitError, KitInfo, Progress, Source};

/// An image as it is shown.
#[must_use]
pub fn image_shown(info: &ImageInfo) -> ImageShown {
    let added = i64::try_from(info.added_at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let table = match info.partition_table {
        PartitionTable::Gpt => "gpt",
        PartitionTable::Mbr => "mbr",
        PartitionTable::None => "none",
    };
    ImageShown {
        name: info.name.clone(),
        id: info.id,
        added: added.unwrap_or(Timestamp::UNIX_EPOCH),
        bytes: info.size_bytes,
        wire_bytes: info.wire_bytes,
        chunks: info.chunks,
        zero_chunks: info.zero_chunks,
        sector_bytes: info.sector_bytes,
        partition_table: table.to_owned(),
        source: format!("{} ({})", info.source, info.format),
        traits: info.traits.clone(),
    }
}

/// What the image store refuses, for a person.
#[must_use]
pub fn image_refused(error: &ImageError) -> Refused {
    Refused { error: error.to_string(), cause: causes::behind(error), hint: error.hint() }
}

/// What a kit is asked to be made from.
pub(super) fn wanted(import: KitImport) -> Wanted {
    let source = |source| match source {
        KitSource::Host => Source::Host,
        KitSource::Folder(path) | KitSource::Deb(path) => Source::Path(path),
    };
    Wanted {
        name: import.name,
        sources: import.sources.into_iter().map(source).collect(),
        kernel: import.kernel,
    }
}

/// How far an import is: units done, units in all, and what is being done.
pub(super) fn import_words(progress: Progress) -> (u64, Option<u64>, String) {
    match progress {
        Progress::Unpacking { package, bytes } => (bytes, None, format!("unpacking {package}")),
        Progress::Modules { done } => (done as u64, None, "modules read".to_owned()),
        Progress::Compressing { done, total } => (done, Some(total), "compressing the loader".to_owned()),
        Progress::Syncing => (0, None, "waiting for the disk".to_owned()),
    }
}

/// What the boot kits refuse, for a person.
pub(super) fn kit_refused(error: &KitError) -> Refused {
    Refused { error: error.to_string(), cause: causes::behind(error), hint: error.hint() }
}

/// A boot kit as it is shown.
pub(super) fn kit_shown(info: KitInfo) -> KitShown {
    let imported = i64::try_from(info.imported_at).ok().and_then(|at| Timestamp::from_second(at).ok());
    KitShown {
        name: info.name,
        kernel: info.kernel,
        architecture: info.architecture,
        in_use: info.default,
        imported: imported.unwrap_or_default(),
        modules: info.modules as u64,
        firmware_files: info.firmware as u64,
        boot_programs: info.boot_programs,
        kernel_bytes: info.kernel_bytes,
        loader_bytes: info.loader_bytes,
        missing: info.warnings,
    }
}
