//! What the admin's door shows of images, and what it needs of boot kits. Touches `api` and the image store.

use common::causes;
use common::wire::http::Refused;
use jiff::Timestamp;

use crate::api::shapes::{ImageShown, KitImport, KitShown};
use crate::image::{ImageError, ImageInfo, PartitionTable};

/// Told of an import: units done, units in all, and what is being done.
pub type OnProgress<'a> = &'a mut dyn FnMut(u64, Option<u64>, String);

/// The boot kits, as the admin's door needs them. All calls block.
pub trait KitAdmin: Send + Sync + 'static {
    /// All kits.
    ///
    /// # Errors
    /// When they cannot be read.
    fn list(&self) -> Result<Vec<KitShown>, Refused>;

    /// One kit.
    ///
    /// # Errors
    /// When there is none of that name.
    fn show(&self, name: &str) -> Result<KitShown, Refused>;

    /// Makes a kit; it is what machines are booted with from then on, if it is the first.
    ///
    /// # Errors
    /// When its sources cannot be read or lack something vital.
    fn import(&self, import: &KitImport, progress: OnProgress<'_>) -> Result<KitShown, Refused>;

    /// Removes a kit.
    ///
    /// # Errors
    /// When there is none of that name, or it cannot be removed.
    fn remove(&self, name: &str) -> Result<(), Refused>;
}

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
