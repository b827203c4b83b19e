//! Core: the keys of the image store's blobs. Touches `common`.

use common::id::{Hash, ImageId};

/// The key that exists while an add or a removal is running.
pub(super) const UNCLEAN: &str = "unclean";

/// The key of a chunk, by its wire hash. Spread over 256 folders, so that a person can still list one.
pub(super) fn chunk_key(wire: &Hash) -> String {
    let name = wire.to_string();
    format!("chunks/{}/{name}", &name[..2])
}

/// The key of an image's manifest.
pub(super) fn manifest_key(id: ImageId) -> String {
    format!("manifests/{id}")
}

/// The key of an image's table of deltas.
pub(super) fn table_key(id: ImageId) -> String {
    format!("deltas/{id}")
}

/// The key of the record of an image's name.
pub(super) fn name_key(name: &str) -> String {
    format!("names/{name}.json")
}
