//! An image's table of deltas as the store keeps it in memory. Touches nothing.

use bytes::Bytes;
use common::deltas::DeltaTable;
use common::id::Hash;

/// The table of one image, as it is served.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) table: DeltaTable,
    pub(super) bytes: Bytes,
    pub(super) hash: Hash,
}
