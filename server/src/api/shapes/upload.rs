//! Images that are sent in pieces, in the admin's API. Touches `common`.

use common::id::Hash;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Announces an image that is sent in pieces.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UploadOrder {
    /// The name to add the image under.
    pub name: String,
    /// How many bytes are sent in all; `None` where the sender does not know yet.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// The sector size of the image in bytes, where its partition table does not show it.
    #[serde(default)]
    pub sector_bytes: Option<u32>,
    /// Whether it is added although it has no partition table.
    #[serde(default)]
    pub no_table: bool,
}

impl UploadShown {
    /// Whether it is what `order` announces, so that it can be gone on with: the sender says how long it is, and asks for
    /// the same. What came is compared by its hash at the end.
    #[must_use]
    pub fn fits(&self, order: &UploadOrder) -> bool {
        let Self { name, bytes, sector_bytes, no_table, .. } = self;
        bytes.is_some()
            && (name, bytes, sector_bytes, no_table)
                == (&order.name, &order.bytes, &order.sector_bytes, &order.no_table)
    }
}

/// An image that is being sent in pieces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UploadShown {
    /// Its id, part of its path.
    pub id: String,
    /// The name that the image is to have.
    pub name: String,
    /// How many bytes have come: where the next piece begins.
    pub offset: u64,
    /// How many come in all, where that was said.
    pub bytes: Option<u64>,
    /// The sector size that was announced.
    pub sector_bytes: Option<u32>,
    /// Whether it is added although it has no partition table.
    pub no_table: bool,
    /// When it was announced.
    pub opened: Timestamp,
    /// When it is removed unless another piece comes.
    pub expires: Timestamp,
}

/// Ends an upload: what was sent, so that nothing else is added.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UploadEnd {
    /// How many bytes were sent in all.
    pub bytes: u64,
    /// The BLAKE3 hash of all of them.
    pub blake3: Hash,
}
